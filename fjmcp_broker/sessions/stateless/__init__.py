"""The implicit sessions of the stateless revisions, and the calls on them."""
