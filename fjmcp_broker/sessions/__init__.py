"""Sessions and the child processes that serve them."""
