"""
Which scopes an API request of the stand-in Forgejo needs, and which a token has.
"""

from collections.abc import Iterable
from typing import Final

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
RECOGNISED: Final = frozenset(
    {"all", "public-only"}
    | {f"{level}:{name}" for level in ("read", "write") for name in CATEGORIES}
)
_ISSUE_ROUTES: Final = frozenset({"issues", "labels", "milestones"})
_FIRST_SEGMENT: Final = {
    "admin": "admin",
    "activitypub": "activitypub",
    "markdown": "misc",
    "markup": "misc",
    "nodeinfo": "misc",
    "notifications": "notification",
    "orgs": "organization",
    "packages": "package",
    "repos": "repository",
    "repositories": "repository",
    "teams": "organization",
    "user": "user",
    "users": "user",
}


def required_scopes(method: str, path: str) -> tuple[str, ...]:
    """
    The scopes that a request needs, all of them, in the order they are checked.

    @param method: the HTTP method; GET and HEAD read, everything else writes.
    @param path: below C{/api/v1}, with a leading slash.
    """
    level = "read" if method in ("GET", "HEAD") else "write"
    return tuple(f"{level}:{name}" for name in _categories(path.strip("/").split("/")))


def _categories(segments: list[str]) -> tuple[str, ...]:
    if segments[:2] == ["user", "repos"]:
        return ("user", "repository")
    if segments[:2] == ["user", "orgs"]:
        return ("user", "organization")
    if segments[0] == "repos":
        if segments[1:3] == ["issues", "search"]:
            return ("issue",)
        if len(segments) > 3 and segments[3] in _ISSUE_ROUTES:
            return ("issue",)
        if len(segments) > 3 and segments[3] == "notifications":
            return ("notification",)
    category = _FIRST_SEGMENT.get(segments[0])
    return () if category is None else (category,)


def permitted(granted: Iterable[str], required: str) -> bool:
    """
    Whether the words of a scope permit what a request needs. Unknown words are
    dropped, and when nothing known is left the token may do everything.

    @param granted: the words of the grant's scope.
    @param required: C{read:X} or C{write:X}.
    """
    known = {each for each in granted if each in RECOGNISED}
    if not known or "all" in known:
        return True
    return bool(known & {required, required.replace("read:", "write:", 1)})
