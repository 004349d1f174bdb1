"""
Twisted's C{Request} at less cost: what it makes anew for each request, and nobody asks
for, or asks in a longer way. It is the same in every other respect.
"""

from typing import Any, AnyStr, Final

from twisted.web.http_headers import Headers
from twisted.web.server import Request

from fjmcp_broker.web.heads import Head
from fjmcp_broker.web.whole import whole_answer

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

    @ivar head: its head, when others of its connection have the same.
    """

    head: Head | None = None

    # Typed too narrowly or not at all by Twisted.
    transport: Any
    site: Any  # a BrokerSite

    def __init__(self, channel: Any, queued: bool = False) -> None:
        """
        What Twisted's three constructors set, in one: a test compares them.

        @param channel: the connection.
        @param queued: whether another one is answered first, which none is.
        """
        self.notifications = []
        self.channel = channel
        self.client = channel.getPeer()
        self.host = channel.getHost()
        self.requestHeaders = Headers()
        self.received_cookies = {}
        self.responseHeaders = Headers()
        self.cookies = []
        self.transport = channel.transport
        self.queued = queued
        self._parsePOSTFormSubmission = False
        self._adapterCache: dict[str, Any] = {}

    def take_head(self, head: Head, length: bytes) -> None:
        """
        @param head: that of a request before.
        @param length: what C{Content-Length} says in this one.
        """
        self.head = head
        fields = head.fields.copy()
        fields[b"Content-Length"] = [length]
        self.requestHeaders._rawHeaders = fields

    def getHeader(self, key: AnyStr) -> AnyStr | None:  # noqa: N802 - Twisted's
        """
        @param key: the name of a header.
        @return: its value, the last one of several.
        """
        name = _NAMES.get(key)
        if name is None:
            return super().getHeader(key)
        values: Any = self.requestHeaders._rawHeaders.get(name)
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
        channel.write(whole_answer(self, self.site.date(), document))
        self.release_body()
        self.site.log(self)
        self.finished = 1
        self._cleanup()

    def release_body(self) -> None:
        """For those who hold some memory for it: the body is of no use any more."""
