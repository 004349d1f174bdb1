"""The Model Context Protocol as values: framing, messages, policy; no I/O."""
