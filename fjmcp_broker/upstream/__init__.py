"""Forgejo as upstream: its OAuth endpoints and each user's one token set."""
