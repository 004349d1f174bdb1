"""
Keys about who may sign in.

These records are part of the table of keys: every default and help text stands here
and nowhere else.
"""

import re
from typing import Final

from attrs import field, frozen

from .keys import about
from .kinds import listing, plain_text

_LOGIN: Final = re.compile(r"[A-Za-z0-9_.-]{1,255}")


def _login(text: str) -> str:
    text = plain_text(text)
    if _LOGIN.fullmatch(text) is None:
        raise ValueError("must hold names as Forgejo allows them: letters, digits, -_.")
    return text


def _organization(text: str) -> str:
    organization, colon, team = text.partition(":")
    name = _login(organization)
    return f"{name}:{_login(team)}" if colon else name


@frozen(kw_only=True)
class AccessConfig:
    """C{[access]}: who may sign in; everybody, unless there is a list."""

    allowed_users: tuple[str, ...] = field(
        default=(),
        metadata=about(
            listing("list of names", _login),
            "Logins at Forgejo, in any case. With this list or the next one only users "
            "of one of them may sign in. That is looked at again after a start and "
            "whenever Forgejo's tokens of a user are refreshed, about once an hour. "
            "What somebody allowed who is in neither any more is suspended, and lives "
            "on when they are allowed again and sign in.",
        ),
    )
    allowed_organizations: tuple[str, ...] = field(
        default=(),
        metadata=about(
            listing("list of names", _organization),
            "Organizations at Forgejo whose members may sign in; organization:team "
            "stands for the members of one team. Where Forgejo is configured with "
            "ENABLE_ADDITIONAL_GRANT_SCOPES, oauth_scopes must have read:organization, "
            "or only public memberships are seen.",
        ),
    )
