"""
Twisted's C{HTTPChannel} at less cost: what it does for every request that need be done
only now and then. It reads and writes the same bytes.
"""

from collections.abc import Iterable
from typing import Any, Final

from twisted.internet.interfaces import IDelayedCall
from twisted.python.failure import Failure
from twisted.web.http import HTTPChannel
from twisted.web.http_headers import Headers

from fjmcp_broker.eager import write_now
from fjmcp_broker.web.heads import Head, Heads

REMEMBERED_BYTES: Final = 8192
"""Of the headers of earlier requests, on each connection, with what they take beside
their text: anybody can send short ones."""

_LINE_BYTES: Final = 128

_JOINED_BYTES: Final = 64 * 1024
"""Up to here what is written is put together; beyond it the copy costs more."""

_FRAMING: Final = frozenset((b"Content-Length", b"Transfer-Encoding"))
_BLANKS: Final = (b" ", b"\t")
_END: Final = b"\r\n\r\n"


class _Reading:
    """
    What is read from a transport. Twisted has it go on after each request; to find
    that it does so already, the event loop takes as long as for reading a head.
    """

    def __init__(self, producer: Any) -> None:
        self._producer = producer
        self._paused = False

    def pauseProducing(self) -> None:
        self._paused = True
        self._producer.pauseProducing()

    def resumeProducing(self) -> None:
        if self._paused:
            self._paused = False
            self._producer.resumeProducing()

    def unregisterProducer(self) -> None:  # noqa: N802 - ITransport's
        self._producer.unregisterProducer()


class QuickChannel(HTTPChannel):
    """
    One connection.

    @ivar site: the site, set by its C{buildProtocol}.
    @ivar ends: the addresses of the other end and of this one.
    """

    # With Twisted's own it has more than thirty attributes: from there on an object has
    # a dictionary of its own, which is large, and far from the others.
    __slots__ = (
        "_heads",
        "_heard_at",
        "_is_fresh",
        "_known",
        "_known_bytes",
        "_quiet_timer",
        "_unsent",
        "_whole",
        "ends",
    )

    site: Any
    _command: bytes
    _path: bytes
    _version: bytes

    def __init__(self) -> None:
        """Nothing is known of the client yet."""
        super().__init__()
        self.ends: tuple[Any, Any] = (None, None)
        self._known: dict[bytes, tuple[bytes, bytes]] = {}
        self._known_bytes = 0
        self._heads = Heads()
        self._heard_at = 0.0
        self._is_fresh = True  # Twisted's parser has seen nothing of the next request
        self._quiet_timer: IDelayedCall | None = None
        self._unsent = b""
        self._whole: tuple[bytes, bytes, bytes] | None = None

    def connectionMade(self) -> None:
        """A client has connected."""
        super().connectionMade()
        transport: Any = self.transport
        # Each request asks for them; the second is a system call.
        self.ends = transport.getPeer(), transport.getHost()
        self._networkProducer: Any = _Reading(self._networkProducer)

    def getPeer(self) -> Any:
        """
        @return: the address of the other end.
        """
        return self.ends[0]

    def getHost(self) -> Any:
        """
        @return: the address of this end.
        """
        return self.ends[1]

    def connectionLost(self, reason: Failure) -> None:  # type: ignore[override]
        """
        @param reason: why.
        """
        super().connectionLost(reason)
        if self._quiet_timer is not None:
            self._quiet_timer.cancel()
            self._quiet_timer = None
        self._known.clear()
        self._heads.clear()

    # Reading

    def request_line(self) -> tuple[bytes, bytes, bytes]:
        """
        @return: method, target and HTTP version of the request being received.
        """
        # Twisted keeps them to itself until the body is there.
        return self._command, self._path, self._version

    def dataReceived(self, data: bytes) -> None:
        """
        @param data: the next bytes from the client.
        """
        if self._begins_request():
            found = self._heads.find(data, self.totalHeadersSize)
            if found is not None and self.persistent and not self._is_closing():
                self._take_repeated(*found)
                return
            data = self._take_head(data)
        super().dataReceived(data)

    def _take_repeated(self, head: Head, digits: bytes, body: bytes) -> None:
        """
        A whole request whose head is that of one before.
        """
        request: Any = self.requestFactory(self, 0)
        self.requests.append(request)
        if self._is_fresh:
            self._whole = head.line
        else:
            self._command, self._path, self._version = head.line
        request.got_whole(head, digits, body)
        self.allContentReceived()

    def _take_head(self, data: bytes) -> bytes:
        """
        Read the head of a request that begins with these bytes, if it is whole. Most of
        its lines are those of a request before: what Twisted has made of them is
        remembered. With C{LineReceiver} each line copies all that follow.

        @return: what is left to read.
        """
        end = data.find(_END, 0, self.totalHeadersSize)
        if end < 0:
            return data
        first, *lines = data[:end].split(b"\r\n")
        if not first or len(lines) >= self.maxHeaders:
            return data
        for line in lines:
            if line.startswith(_BLANKS):
                return data  # it belongs to the line before
        self._busyReceiving = True
        try:
            if self.lineReceived(first) or not self.requests or self._is_closing():
                return b""
            if not self._take_headers(lines):
                return b""
            request: Any = self.requests[-1]
            request.head = self._heads.learn(data, end, request, self.request_line())
            if self.lineReceived(b"") or self._is_closing():
                return b""
        finally:
            self._busyReceiving = False
        return data[end + len(_END) :]

    def _take_headers(self, lines: list[bytes]) -> bool:
        """
        @return: whether all of them are good.
        """
        known = self._known
        raw = self.requests[-1].requestHeaders._rawHeaders
        for line in lines:
            field = known.get(line)
            if field is not None:
                name, value = field
                raw.setdefault(name, []).append(value)
                continue
            before = len(raw)
            if not self.headerReceived(line):
                return False
            if len(raw) > before:
                name = next(reversed(raw))
                if name not in _FRAMING:  # they say where the request ends
                    self._remember(line, name, raw[name][0])
        return True

    def _remember(self, line: bytes, name: bytes, value: bytes) -> None:
        size = len(line) + _LINE_BYTES
        if size > REMEMBERED_BYTES:
            return
        self._known_bytes += size
        if self._known_bytes > REMEMBERED_BYTES:
            self._known.clear()
            self._known_bytes = size
        self._known[line] = name, value

    def lineReceived(self, line: bytes) -> bool | None:
        """
        @param line: of a head that is not known, or in front of it.
        @return: nothing, as Twisted's own.
        """
        self._is_fresh = False
        super().lineReceived(line)
        return None

    def allContentReceived(self) -> None:
        """
        A request is complete. Of one that came as a whole Twisted's parser has seen
        nothing, and has nothing to make ready for the next one.
        """
        line, self._whole = self._whole, None
        if line is None:
            self._is_fresh = True
            super().allContentReceived()
            return
        if self.timeOut:
            self._savedTimeOut = self.setTimeout(None)
        self._handlingRequest = True
        self.setRawMode()  # what comes from here on waits
        request: Any = self.requests[-1]
        request.requestReceived(*line)

    def requestDone(self, request: Any) -> None:  # noqa: N802 - Twisted's
        """
        @param request: it is answered.
        """
        if self._dataBuffer or self._waitingForTransport or not self.persistent:
            super().requestDone(request)
            return
        # Nothing came meanwhile, and nothing waits: only the next one is to be read.
        self.requests.remove(request)
        self._networkProducer.resumeProducing()
        self._handlingRequest = False
        if self._savedTimeOut:
            self.setTimeout(self._savedTimeOut)
        self.setLineMode()

    def _begins_request(self) -> bool:
        # With half of a head there is a request already, and nothing in the buffer if
        # what came last ended with a line.
        waits = self.line_mode and not self._buffer and not self._busyReceiving
        return bool(waits) and not self.requests and not self.paused

    def _is_closing(self) -> bool:
        transport: Any = self.transport
        return transport is None or bool(transport.disconnecting)

    # Waiting

    def setTimeout(self, period: float | None) -> float | None:  # noqa: N802 - Twisted's
        """
        Twisted's own makes a timer for each request and throws it away again. Here
        one runs on, and looks at the clock when it is over.

        @param period: seconds, C{None}: no limit.
        @return: what it was before.
        """
        before: float | None = self.timeOut
        anything: Any = self
        anything.timeOut = period  # typed as whole seconds
        if period is not None:
            self.resetTimeout()
            if self._quiet_timer is None:
                self._quiet_timer = self.callLater(period, self._is_quiet)
        return before

    def resetTimeout(self) -> None:  # noqa: N802 - Twisted's
        """Something has come."""
        self._heard_at = self.site.reactor.seconds()

    def _is_quiet(self) -> None:
        self._quiet_timer = None
        if self.timeOut is None:
            return  # it owes an answer, and makes another one behind it
        left = self._heard_at + self.timeOut - self.site.reactor.seconds()
        if left > 0:
            self._quiet_timer = self.callLater(left, self._is_quiet)
        else:
            self.timeoutConnection()

    # Writing

    def writeHeaders(  # noqa: N802 - Twisted's
        self, version: bytes, code: bytes, reason: bytes, headers: Headers
    ) -> None:
        """
        Twisted's own hands dozens of pieces to the transport, which looks at each.

        @param version: of HTTP.
        @param code: the status.
        @param reason: its phrase.
        @param headers: of the answer. They wait for what follows, or for L{flush}.
        """
        lines = [b"%b %b %b\r\n" % (version, code, reason)]
        for name, values in headers.getAllRawHeaders():
            for value in values:
                lines.append(b"%b: %b\r\n" % (name, value))
        lines.append(b"\r\n")
        self._unsent = b"".join(lines)

    def write(self, data: bytes) -> None:
        """
        @param data: what follows of the answer; its headers go along with the first of
            it, in one system call.
        """
        unsent, self._unsent = self._unsent, b""
        if len(data) > _JOINED_BYTES:
            if unsent:
                self._send(unsent)
            self._send(data)
        else:
            self._send(unsent + data)

    def writeSequence(self, iovec: Iterable[bytes]) -> None:  # noqa: N802 - Twisted's
        """
        @param iovec: what follows of the answer, in pieces.
        """
        self.write(b"".join(iovec))

    def flush(self) -> None:
        """Send the headers, if nothing came behind them."""
        if self._unsent:
            self.write(b"")

    def _send(self, data: bytes) -> None:
        transport: Any = self.transport
        if len(data) <= _JOINED_BYTES:
            data = write_now(transport, data)
        if data:
            transport.write(data)
