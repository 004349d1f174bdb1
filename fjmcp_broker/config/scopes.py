"""The kind of the scopes asked of Forgejo."""

from typing import Final

from .kinds import plain_text, scalar

# Whether the scopes are safe to ask for depends on another key: load.py checks it.
SCOPES: Final = scalar("scopes", lambda text: plain_text(" ".join(text.split())))
