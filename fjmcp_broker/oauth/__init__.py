"""The rules of OAuth 2.1 as decisions: no I/O, no clock, no randomness of its own."""
