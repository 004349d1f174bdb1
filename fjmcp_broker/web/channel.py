"""
Connections: how long a request may take to arrive, how long its lines may be.
"""

from collections.abc import Callable
from typing import Any, Final

from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger
from twisted.python.failure import Failure

from fjmcp_broker.web.quick_channel import QuickChannel

LINGER_SECONDS: Final = 2.0
"""How long what was refused is still read and thrown away: a connection that is closed
over unread data is reset, and the reset may overtake the answer."""

RECEIVE_SECONDS: Final = 30.0
"""How long a request may take to arrive, beside L{SLOWEST_BYTES_PER_SECOND}."""

SLOWEST_BYTES_PER_SECOND: Final = 32 * 1024

_LENGTH_DIGITS: Final = 18
"""Beyond these a length is only too long; Python refuses to read thousands of digits,
and Twisted leaves that refusal to the log."""


_PHRASES: Final = {
    408: b"Request Timeout",
    414: b"URI Too Long",
    431: b"Request Header Fields Too Large",
}


class BrokerChannel(QuickChannel):
    """
    One connection, with a limit on how long a request may take to arrive: the idle
    timeout alone starts anew with every byte. What cannot become a request is
    answered all the same.

    @ivar is_refused: whether that has happened: no other answer may follow.
    """

    _log = Logger()

    maxHeaders = 100  # noqa: N815 - Twisted's
    MAX_LENGTH = 16 * 1024  # of a line
    totalHeadersSize = 16 * 1024  # noqa: N815 - Twisted's; the request line included

    __slots__ = ("_deadline", "_handling", "_receiving", "is_refused")

    def __init__(self) -> None:
        """Nothing came yet."""
        super().__init__()
        self.is_refused = False
        self._receiving = False
        self._handling = False
        self._deadline: IDelayedCall | None = None

    def connectionMade(self) -> None:
        """A client has connected."""
        super().connectionMade()
        self.site.channel_opened(self)

    def close_when_idle(self) -> None:
        """
        Close the connection now, or behind the answer that it owes.
        """
        if self._handling:
            self.persistent = 0
            for request in list(self.requests):
                if request.on_drain is not None:
                    request.on_drain()
        else:
            self.loseConnection()

    def end_streams(
        self, concerned: Callable[[Any], bool], *, calls: bool = False
    ) -> None:
        """
        End the answers that would last as long as their clients like.

        @param concerned: judges the L{Principal} of a request.
        @param calls: whether other answers on their way to such a one end, too: with
            the connection, where nothing else is known to answer.
        """
        for request in list(self.requests):
            if request.principal is None or not concerned(request.principal):
                continue
            if request.on_drain is not None:
                request.on_drain()
            elif calls and request.on_ended is not None:
                request.on_ended()
            elif calls:
                self.loseConnection()

    def close_unused(self) -> None:
        """
        Close the connection if it is between two requests.
        """
        if not (self._handling or self._receiving):
            self.loseConnection()

    @property
    def is_handling(self) -> bool:
        """
        @return: whether it owes an answer.
        """
        return self._handling

    def abort(self) -> None:
        """
        Close the connection at once, whatever is not sent yet.
        """
        transport: Any = self.transport
        transport.abortConnection()

    def headerReceived(self, line: bytes) -> bool:  # noqa: N802 - Twisted's
        """
        @param line: one header.
        @return: whether to go on.
        """
        if self._receivedHeaderCount >= self.maxHeaders:
            self._refuse(431)
            return False
        if line[:1] in b"cC":
            name, _, value = line.partition(b":")
            digits = value.strip(b" \t")
            if name.lower() == b"content-length" and len(digits) > _LENGTH_DIGITS:
                if digits.isdigit():
                    line = b"Content-Length: " + b"9" * _LENGTH_DIGITS
        accepted: bool = super().headerReceived(line)
        return accepted

    def dataReceived(self, data: bytes) -> None:
        """
        @param data: the next bytes from the client.
        """
        if self.is_refused:
            # Read and thrown away: see LINGER_SECONDS.
            return
        waits = self._handling or self.paused
        self._receiving = self._receiving or not waits
        super().dataReceived(data)
        # Most requests come as a whole and never see a timer.
        if self._receiving and self._deadline is None and self.transport is not None:
            self._deadline = self.callLater(self._seconds(), self._too_slow)

    def lineReceived(self, line: bytes) -> bool | None:
        """
        @param line: of the request line and the headers.
        @return: whether that was the last one that is of interest.
        """
        if self._receivedHeaderSize + len(line) > self.totalHeadersSize:
            return self.lineLengthExceeded(line)
        super().lineReceived(line)
        return self.is_refused

    def lineLengthExceeded(self, line: bytes) -> bool:  # noqa: N802 - Twisted's
        """
        RFC 9110 section 15.5.15, RFC 6585 section 5.

        @param line: the request line or a header, longer than any may be.
        @return: that there is no more of interest.
        """
        # There is a request from the end of its first line to that of its answer.
        self._refuse(431 if self.requests else 414)
        return True

    def timeoutConnection(self) -> None:  # noqa: N802 - Twisted's
        """The client has taken too long; Twisted would write its address down."""
        is_unanswered = not any(each.startedWriting for each in self.requests)
        if self._receiving and is_unanswered:
            self._refuse(408)
        else:
            self._close()

    def allContentReceived(self) -> None:
        """A request is complete."""
        self._receiving = False
        self._handling = True
        self._cancel_deadline()
        if self.site.is_settling:
            self.persistent = 0
        super().allContentReceived()

    def requestDone(self, request: Any) -> None:  # noqa: N802 - Twisted's
        """
        @param request: it is answered.
        """
        self._handling = False
        # What has come behind it stays where it is until its answer has left: whoever
        # asks and asks and reads nothing would have all the answers kept here.
        self.paused = self._waitingForTransport
        super().requestDone(request)
        self._pause_if_paused()

    def resumeProducing(self) -> None:
        """What was written has left."""
        super().resumeProducing()
        if self._waitingForTransport:
            self._pause_if_paused()  # the rest of an answer has filled it again
        elif self.paused:
            self.paused = False
            data = self.clearLineBuffer()
            if data:
                self.dataReceived(data)

    def connectionLost(self, reason: Failure) -> None:  # type: ignore[override]
        """
        @param reason: why.
        """
        self._receiving = False
        self._handling = True
        self._cancel_deadline()
        super().connectionLost(reason)
        self.site.channel_closed(self)

    def _pause_if_paused(self) -> None:
        if self.paused and self.persistent:
            self._networkProducer.pauseProducing()

    def _seconds(self) -> float:
        return RECEIVE_SECONDS + (self.length or 0) / SLOWEST_BYTES_PER_SECOND

    def _too_slow(self) -> None:
        self._deadline = None
        self.timeoutConnection()

    def _cancel_deadline(self) -> None:
        if self._deadline is not None:
            if self._deadline.active():
                self._deadline.cancel()
            self._deadline = None

    def _close(self) -> None:
        # Over TLS the end waits for the other side, which may not want it.
        self._abortingCall = self.callLater(LINGER_SECONDS, self._abort_overdue)
        self.loseConnection()

    def _abort_overdue(self) -> None:
        self._abortingCall = None
        self.abort()

    def _refuse(self, status: int) -> None:
        """
        Answer what has not become a request, and read nothing of it any more.
        """
        self.is_refused = True
        self._receiving = False
        self._cancel_deadline()
        self.setTimeout(None)
        self.clearLineBuffer()
        transport: Any = self.transport
        self._log.info("request refused: {status}", status=status)
        transport.write(
            b"HTTP/1.1 %d %s\r\n"
            b"Content-Length: 0\r\n"
            b"Cache-Control: no-store\r\n"
            b"Connection: close\r\n\r\n" % (status, _PHRASES[status])
        )
        self._deadline = self.callLater(LINGER_SECONDS, self._end_refused)

    def _end_refused(self) -> None:
        self._deadline = None
        self._close()
