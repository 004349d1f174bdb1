"""
The scopes that Forgejo knows, and what is safe to ask it for.

Pure values, so this lives in C{oauth} although it is about the upstream side: the
configuration checks the operator's scopes at start and must not import the layer
that talks to Forgejo.

Why so strict: Forgejo silently drops scopes that it does not recognise, and a
token without any recognised granular scope may do everything that its user may.
"""

from collections.abc import Iterable
from typing import Final

from fjmcp_broker.errors import BrokerError

CATEGORIES: Final = (
    "activitypub",
    "admin",
    "issue",
    "misc",
    "notification",
    "organization",
    "package",
    "repository",
    "user",
)
"""The groups of API routes that a granular scope opens."""

OPENID: Final = "openid"
IDENTITY: Final = (OPENID, "profile", "email", "groups")
"""What the id_token and the userinfo tell; these open no API route."""

ALL: Final = "all"
PUBLIC_ONLY: Final = "public-only"

GRANULAR: Final = frozenset(
    {ALL, PUBLIC_ONLY}.union(
        *({f"read:{name}", f"write:{name}"} for name in CATEGORIES),
    )
)
"""Everything that Forgejo recognises as a restriction of the token."""

WIDE: Final = frozenset((ALL, "read:admin", "write:admin"))
"""More than any tool needs; asked for only when the operator insists."""

KNOWN: Final = GRANULAR | frozenset(IDENTITY)

DEFAULT_SCOPES: Final = (
    "openid profile read:user write:repository write:issue read:organization "
    "write:notification"
)
"""Enough for the tools of forgejo-mcp. Without C{write:user}, which adds SSH keys,
e-mail addresses and OAuth applications."""

READ_ONLY_SCOPES: Final = (
    "openid profile read:user read:repository read:issue read:organization "
    "read:notification"
)
"""For sites that want no writing at all."""


class InvalidScopes(BrokerError, ValueError):  # noqa: N818 - a state, not a failure
    """
    The configured scopes must not be sent to Forgejo.
    """

    def __init__(self, problems: Iterable[str]) -> None:
        """
        @param problems: one sentence each, for the operator.
        """
        self.problems = tuple(problems)
        super().__init__("; ".join(self.problems))


def validate_scopes(text: str, *, allow_wide: bool = False) -> tuple[str, ...]:
    """
    Check a configured scope list.

    @param text: the scopes, separated by white space; from the operator.
    @param allow_wide: accept C{all} and the C{admin} scopes.
    @return: the scopes in their order, each once, C{openid} in front when it was
        missing: its id_token says at once whose tokens came with it.
    @raise InvalidScopes: with every problem there is.
    """
    problems: list[str] = []
    if "," in text:
        problems.append(
            "scopes are separated by spaces; Forgejo takes a comma-separated list for "
            "one unknown scope and grants everything"
        )
    # Commas are a problem already; names are still looked at one by one, so that a
    # mistyped one is reported in the same run.
    scopes = tuple(dict.fromkeys(text.replace(",", " ").split()))
    for scope in scopes:
        if scope not in KNOWN:
            problems.append(_unknown(scope))
        elif scope in WIDE and not allow_wide:
            problems.append(
                f"scope {scope!r} is wider than any tool needs and has to be "
                "allowed explicitly"
            )
    if not any(scope in GRANULAR for scope in scopes):
        problems.append(
            "there is no granular scope such as read:repository, and Forgejo grants "
            "everything then"
        )
    elif all(scope in IDENTITY or scope == PUBLIC_ONLY for scope in scopes):
        problems.append("public-only alone permits nothing; add a read: scope")
    if problems:
        raise InvalidScopes(problems)
    return scopes if OPENID in scopes else (OPENID, *scopes)


def granted_equivalent(requested: str, granted: str) -> bool:
    """
    Whether a grant lets do exactly what was asked for. Only power over the API
    counts: order, repetition, identity scopes and a C{read} beside its C{write}
    make no difference.

    @param requested: the configured scopes, space separated.
    @param granted: as introspection shows them, space separated, from Forgejo.
    @return: false when the grant is narrower or wider.
    """
    return _power(requested) == _power(granted)


def _power(text: str) -> frozenset[str]:
    """
    @return: the granular scopes spelt out; without a recognised one, as in
        Forgejo, everything.
    """
    power = {scope for scope in text.split(" ") if scope in GRANULAR}
    if not power or ALL in power:
        power |= {f"write:{category}" for category in CATEGORIES}
    power.discard(ALL)
    for scope in tuple(power):
        if scope.startswith("write:"):
            power.add("read:" + scope.removeprefix("write:"))
    return frozenset(power)


def _unknown(scope: str) -> str:
    # Only here: a daemon that runs has no use for it.
    from difflib import get_close_matches

    near = get_close_matches(scope.lower(), sorted(KNOWN), n=1, cutoff=0.6)
    hint = f", did you mean {near[0]!r}?" if near else ""
    return f"Forgejo knows no scope {scope[:60]!r}{hint}"
