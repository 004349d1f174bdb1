"""
Heads of requests that come again. A client says the same about itself, its token and
its session with every call; all that differs is how long the body is.

Nothing is parsed here: what Twisted has made of a head is used again for one that is
the same, byte by byte, but for the digits of its C{Content-Length}.
"""

import re
from typing import Any, Final

import msgspec
from twisted.web.http import Request

from fjmcp_broker.secret import Confidential

REMEMBERED_BYTES: Final = 8192
"""Of the heads of earlier requests, on each connection, with what they take beside
their text: anybody can send short ones."""

_HEAD_BYTES: Final = 256
_FIELD_BYTES: Final = 64
_END: Final = b"\r\n\r\n"
_LENGTH_DIGITS: Final = 9
_LENGTH: Final = re.compile(
    rb"\r\n[Cc]ontent-[Ll]ength: ([0-9]{1,%d})\r\n" % _LENGTH_DIGITS
)
_DIFFERENT: Final = frozenset((b"Cookie", b"Expect", b"Transfer-Encoding"))
"""With one of these Twisted does more than to remember it."""


class Head(Confidential, msgspec.Struct, eq=False):
    """
    A head, whatever its length says.

    @ivar line: method, target and version of HTTP.
    @ivar fields: the values by names, as C{Headers} keeps them; not to be changed.
        The length is that of the first such request.
    @ivar judgment: what the admission has found out of these alone, for the next time.
    @ivar reading: what the endpoint has read in them, likewise.
    """

    line: tuple[bytes, bytes, bytes]
    fields: dict[bytes, list[bytes]]
    judgment: Any = None
    reading: Any = None


class Heads:
    """
    Those of one connection.
    """

    def __init__(self) -> None:
        """Nothing came yet."""
        # By what stands before the digits of the length, and from there to the end.
        self._known: dict[tuple[bytes, bytes], Head] = {}
        self._bytes = 0

    def clear(self) -> None:
        """Forget all of them."""
        self._known.clear()
        self._bytes = 0

    def find(self, data: bytes, longest: int) -> tuple[Head, bytes, bytes] | None:
        """
        @param data: begins where a request begins.
        @param longest: how many bytes a head may have.
        @return: the head, the digits of its length, and the body, if this is a whole
            request and nothing behind it, and its head is known.
        """
        for (before, behind), head in self._known.items():
            # They are few, and nearly always it is the first.
            if not data.startswith(before):
                continue
            start = len(before)
            stop = data.find(b"\r\n", start, start + _LENGTH_DIGITS + 2)
            if not data.startswith(behind, stop):
                continue
            digits, end = data[start:stop], stop + len(behind)
            body = data[end:]
            if digits.isdigit() and len(body) == int(digits) and end <= longest:
                return head, digits, body
        return None

    def learn(
        self,
        data: bytes,
        end: int,
        request: Request,
        line: tuple[bytes, bytes, bytes],
    ) -> Head | None:
        """
        @param data: begins with a head that Twisted has read and found good.
        @param end: where that ends.
        @param request: has the headers.
        @param line: method, target and version.
        @return: the head, if it is one of those that can be known again.
        """
        length = _LENGTH.search(data, 0, end + 2)
        fields = request.requestHeaders._rawHeaders
        if (
            length is None
            or line[2] != b"HTTP/1.1"
            or not _DIFFERENT.isdisjoint(fields)
            or not _goes_on(fields.get(b"Connection"))
        ):
            return None
        start, stop = length.span(1)
        before, behind = data[:start], data[stop : end + len(_END)]
        size = len(before) + len(behind) + _HEAD_BYTES + _FIELD_BYTES * len(fields)
        if size > REMEMBERED_BYTES:
            return None
        self._bytes += size
        if self._bytes > REMEMBERED_BYTES:
            self._known.clear()
            self._bytes = size
        head = self._known[before, behind] = Head(line, fields.copy())
        return head


def _goes_on(connection: list[bytes] | None) -> bool:
    return connection is None or [v.lower() for v in connection] == [b"keep-alive"]
