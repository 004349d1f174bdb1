"""
Twisted's C{Request} at less cost: what it makes anew for each request, and nobody asks
for, or asks in a longer way. It is the same in every other respect.
"""

from collections.abc import Callable
from functools import cached_property
from typing import Any, AnyStr, Final, TypeVar, cast

from twisted.web.http import OK
from twisted.web.http_headers import Headers
from twisted.web.server import Request

from fjmcp_broker.web.heads import Head
from fjmcp_broker.web.whole import whole_answer

T = TypeVar("T")


def _later(make: Callable[[Any], T]) -> T:
    return cast("T", cached_property(make))


_NAMES: Final[dict[object, bytes]] = {
    name.lower(): name
    for name in (
        b"Accept",
        b"Content-Type",
        b"Mcp-Method",
        b"Mcp-Protocol-Version",
        b"Mcp-Session-Id",
        b"Origin",
    )
}
"""Headers that are asked for in every call, as C{Headers} calls them."""


class QuickRequest(Request):
    """
    One request.

    What Twisted's three constructors make and few requests need is made when somebody
    asks for it, and what each call needs has slots: an object with more than thirty
    attributes has a dictionary of its own, which costs more than they do.

    @ivar head: its head, when others of its connection have the same.
    @ivar own_headers: C{responseHeaders}, if somebody has asked for them.
    """

    __slots__ = ("_ends", "_length", "_made_headers", "head", "own_headers")

    # Typed too narrowly or not at all by Twisted.
    transport: Any
    site: Any  # a BrokerSite

    queued = False
    client = _later(lambda request: request._ends[0])
    host = _later(lambda request: request._ends[1])
    received_cookies = _later(lambda request: dict[bytes, bytes]())
    cookies = _later(lambda request: list[bytes]())
    _parsePOSTFormSubmission = False  # noqa: N815 - Twisted's
    _adapterCache = _later(lambda request: dict[str, Any]())  # noqa: N815 - Twisted's

    def __init__(self, channel: Any, queued: bool = False) -> None:
        """
        @param channel: the connection.
        @param queued: whether another one is answered first, which none is.
        """
        self.notifications = []
        self.channel = channel
        self.transport = channel.transport
        # As their classes say: those of an object are found sooner.
        self.finished = 0
        self.code = OK
        self.head: Head | None = None
        self.own_headers: Headers | None = None
        self._made_headers: Headers | None = None
        self._ends = channel.ends
        self._length = b""

    @property
    def requestHeaders(self) -> Headers:  # noqa: N802 - Twisted's
        """
        @return: those that came.
        """
        headers = self._made_headers
        if headers is None:
            self._made_headers = headers = Headers()
            if self.head is not None:
                fields = self.head.fields.copy()
                fields[b"Content-Length"] = [self._length]
                headers._rawHeaders = fields
        return headers

    @requestHeaders.setter
    def requestHeaders(self, headers: Headers) -> None:  # noqa: N802 - Twisted's
        self._made_headers = headers

    @property
    def responseHeaders(self) -> Headers:  # noqa: N802 - Twisted's
        """
        @return: those of the answer.
        """
        if self.own_headers is None:
            self.own_headers = Headers()
        return self.own_headers

    @responseHeaders.setter
    def responseHeaders(self, headers: Headers) -> None:  # noqa: N802 - Twisted's
        self.own_headers = headers

    def take_head(self, head: Head, length: bytes) -> None:
        """
        @param head: that of a request before.
        @param length: what C{Content-Length} says in this one.
        """
        self.head = head
        self._length = length

    def getHeader(self, key: AnyStr) -> AnyStr | None:  # noqa: N802 - Twisted's
        """
        @param key: the name of a header.
        @return: its value, the last one of several.
        """
        name = _NAMES.get(key)
        if name is None:
            return super().getHeader(key)
        head = self.head
        if head is None or self._made_headers is not None:
            values: Any = self.requestHeaders._rawHeaders.get(name)
        else:
            values = head.fields.get(name)
        return None if values is None else values[-1]

    def answer_whole(self, status: int, document: bytes) -> None:
        """
        Give the whole answer at once, in one piece: what C{write} and C{finish} would
        do, in a fourth of the time. Its client is there, and nothing was written yet.

        @param status: of HTTP, of an answer that has a body.
        @param document: JSON.
        """
        if status != self.code:
            self.setResponseCode(status)
        self.startedWriting = 1
        self.sentLength = len(document)
        channel: Any = self.channel
        channel.write(whole_answer(self, self.own_headers, self.site.date(), document))
        self.release_body()
        self.site.log(self)
        self.finished = 1
        self._cleanup()

    def release_body(self) -> None:
        """For those who hold some memory for it: the body is of no use any more."""
