"""
How long a fetched client metadata document counts.

Freshness follows HTTP (RFC 9111) within bounds of ours, as
draft-ietf-oauth-client-id-metadata-document-02 section 5.2 permits. That section does
not let an error be cached; what is kept of a failure is that there was one, for a
moment, so that nobody can make us knock at a stranger's door without pause.
"""

import re
from collections import OrderedDict
from collections.abc import Sequence
from email.utils import parsedate_to_datetime
from typing import Final, Generic, TypeVar

import msgspec

T = TypeVar("T")

#: Seconds. A page that says nothing is believed for an hour.
FLOOR_SECONDS: Final = 60
CEILING_SECONDS: Final = 24 * 3600
DEFAULT_SECONDS: Final = 3600
FAILURE_SECONDS: Final = 30

MAXIMUM_ENTRIES: Final = 500

_DIRECTIVE: Final = re.compile(
    r"([!#$%&'*+.^_`|~0-9A-Za-z-]+)"
    r"(?:=(?:\"((?:[^\"\\]|\\.)*)\"|([!#$%&'*+.^_`|~0-9A-Za-z-]*)))?"
)
_SECONDS: Final = re.compile(r"[0-9]{1,10}")


class CacheHeaders(msgspec.Struct, frozen=True):
    """
    The headers of a response on which its freshness depends, as received.

    @ivar cache_control: every field line.
    @ivar age: of the first field line, or nothing.
    @ivar date: likewise.
    @ivar expires: likewise.
    """

    cache_control: Sequence[str] = ()
    age: str = ""
    date: str = ""
    expires: str = ""


def lifetime_seconds(headers: CacheHeaders, now: int) -> int:
    """
    How long a document may be used (RFC 9111 section 4.2). We keep it for all users,
    so we are a shared cache: C{s-maxage} goes first.

    @param headers: controlled by the client's server.
    @param now: when the response came, seconds since the epoch.
    @return: seconds, from L{FLOOR_SECONDS} to L{CEILING_SECONDS}.
    """
    directives = _directives(headers.cache_control)
    if directives.keys() & {"no-store", "no-cache", "private"}:
        return FLOOR_SECONDS
    fresh = None
    for name in ("s-maxage", "max-age"):
        if fresh is None and name in directives:
            # Section 4.2.1 encourages to take an unreadable one for stale.
            fresh = _seconds(directives[name]) or 0
    if fresh is None and headers.expires:
        expires = _time(headers.expires)
        date = _time(headers.date) or now
        fresh = 0 if expires is None else expires - date
    if fresh is None:
        return DEFAULT_SECONDS
    fresh -= _seconds(headers.age) or 0
    return max(FLOOR_SECONDS, min(fresh, CEILING_SECONDS))


def _directives(lines: Sequence[str]) -> dict[str, str]:
    """
    @return: by name in lower case; of a repeated one the first counts (RFC 9111
        section 4.2.1).
    """
    found: dict[str, str] = {}
    for match in _DIRECTIVE.finditer(", ".join(lines)):
        value = match[2] if match[2] is not None else match[3]
        found.setdefault(match[1].lower(), value or "")
    return found


def _seconds(text: str) -> int | None:
    text = text.strip()
    return int(text) if _SECONDS.fullmatch(text) else None


def _time(text: str) -> int | None:
    try:
        return int(parsedate_to_datetime(text).timestamp())
    except (ValueError, TypeError, IndexError, OverflowError):
        return None


class _Entry(msgspec.Struct, Generic[T], frozen=True):
    value: T
    expires_at: int


class RecentOutcomes(Generic[T]):
    """
    What came of the latest fetches, by URL. Bounded: the one that was asked for
    least recently goes.
    """

    def __init__(self, maximum_entries: int = MAXIMUM_ENTRIES) -> None:
        """
        @param maximum_entries: 1 or more.
        """
        self._maximum_entries = maximum_entries
        self._entries: OrderedDict[str, _Entry[T]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._entries)

    def find(self, url: str, now: int) -> T | None:
        """
        @param url: of the document.
        @param now: seconds since the epoch.
        @return: what was kept, while it counts.
        """
        entry = self._entries.get(url)
        if entry is None:
            return None
        if now >= entry.expires_at:
            del self._entries[url]
            return None
        self._entries.move_to_end(url)
        return entry.value

    def keep(self, url: str, value: T, expires_at: int) -> None:
        """
        @param url: of the document.
        @param value: what came of fetching it.
        @param expires_at: until when it counts, seconds since the epoch.
        """
        self._entries[url] = _Entry(value, expires_at)
        self._entries.move_to_end(url)
        while len(self._entries) > self._maximum_entries:
            self._entries.popitem(last=False)
