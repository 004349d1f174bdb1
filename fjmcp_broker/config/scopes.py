"""The kind of the scopes asked of Forgejo."""

from typing import Final

from .kinds import plain_text, scalar

DEFAULT_SCOPES: Final = (
    "openid profile read:user write:repository write:issue read:organization "
    "write:notification"
)
"""What forgejo-mcp's tools need, without C{write:user}: with it any tool could add
SSH keys and applications to the account."""

SCOPES: Final = scalar("scopes", lambda text: " ".join(plain_text(text).split(" ")))
