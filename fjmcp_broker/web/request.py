"""
HTTP requests that are judged before their body is read.

twisted.web buffers a whole body before it renders anything. Here the endpoint's
L{IAdmission} is asked as soon as the headers are complete, and the body is counted as
it comes, so that 401 and 413 leave without reading it.
"""

from collections.abc import Callable, Mapping
from io import BytesIO
from typing import Any, Final

import attrs
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.http import HTTPChannel
from twisted.web.server import Request
from zope.interface import Attribute, Interface

from fjmcp_broker.oauth.bearer import Principal

LINGER_SECONDS: Final = 2.0
"""How long a refused body is still read and thrown away: a connection that is closed
over unread data is reset, and the reset may overtake the answer."""

RECEIVE_SECONDS: Final = 30.0
"""How long a request may take to arrive, beside L{SLOWEST_BYTES_PER_SECOND}."""

SLOWEST_BYTES_PER_SECOND: Final = 32 * 1024

_LENGTH_DIGITS: Final = 18
"""Beyond these a length is only too long; Python refuses to read thousands of digits,
and Twisted leaves that refusal to the log."""


@attrs.frozen
class Refusal:
    """
    A complete answer that needs nothing of the body.

    @ivar status: HTTP status.
    @ivar headers: response headers, C{Content-Type} among them.
    @ivar body: the whole body.
    """

    status: int
    headers: Mapping[bytes, bytes]
    body: bytes


class IAdmission(Interface):
    """
    What an endpoint asks of a request before its body.
    """

    maximum_body_bytes = Attribute("longest body that is accepted")

    def admit(  # type: ignore[no-untyped-def]  # a Deferred at times
        request,  # noqa: N805 - zope
        method,
        length,
    ):
        """
        @param request: its headers are complete.
        @param method: as sent.
        @param length: of the body, C{None} when not known yet, 0 without one.
        @return: C{None}, a L{Refusal}, or a Deferred of either, which does not fail.
        """

    def too_large(request: "BrokerRequest") -> Refusal:  # noqa: N805 - zope
        """
        @param request: its body is longer than allowed.
        @return: the answer.
        """


class BrokerRequest(Request):
    """
    A request whose body is in memory and no longer than its endpoint allows.

    @ivar principal: who sent it, set by the endpoint's admission.
    @ivar started_at: when its headers were complete.
    @ivar on_drain: ends an answer that would last as long as its client likes, when
        the daemon stops.
    @ivar number: of this process's requests; L{request_id} shows it.
    """

    _log = Logger()

    principal: Principal | None = None
    started_at = 0.0
    on_drain: Callable[[], None] | None = None
    number = 0

    # Typed too narrowly or not at all by Twisted.
    content: Any = None
    transport: Any
    _admission: Any = None  # IAdmission
    _connected = True
    _received_bytes = 0
    _checking = False
    _held: tuple[bytes, bytes, bytes] | None = None
    _refusal: Refusal | None = None
    _answered_early = False
    _too_long = False
    _linger: IDelayedCall | None = None

    def take_body(self) -> bytes:
        """
        @return: the whole body, not copied; the request does not keep it while its
            answer takes its time.
        """
        whole: bytes = self.content.getvalue()
        self.content.close()
        self.content = BytesIO()
        return whole

    @property
    def is_open(self) -> bool:
        """
        @return: whether it can still be answered: its client is there, and nobody
            has finished it.
        """
        return not self.finished and self._connected

    @property
    def request_id(self) -> str:
        """
        @return: what the log calls this request.
        """
        site: Any = self.site
        return f"{site.instance}-{self.number:x}"

    def gotLength(self, length: int | None) -> None:
        """
        The headers are complete.

        @param length: of the body; C{None}: chunked.
        """
        channel: Any = self.channel
        self.site = site = channel.site
        self.number = site.next_number()
        self.started_at = site.reactor.seconds()
        # These are set only when the whole request is there; an early answer and
        # the log need them now.
        self.method, self.uri, self.clientproto = channel.request_line()
        self.path = self.uri.partition(b"?")[0]
        self.content = BytesIO()
        self._admission = site.admission_for(self.path)
        outcome = self._admission.admit(self, self.method, length)
        if isinstance(outcome, Deferred):
            self._check(outcome, length)
        else:
            self._judge(outcome, length)

    def handleContentChunk(self, data: bytes) -> None:
        """
        @param data: the next bytes of the body.
        """
        if self._answered_early or self._too_long:
            return
        self._received_bytes += len(data)
        if self._received_bytes <= self._admission.maximum_body_bytes:
            self.content.write(data)
            return
        self._too_long = True
        self.content.truncate(0)
        if not self._checking:
            self._answer_early(self._admission.too_large(self))

    def requestReceived(self, command: bytes, path: bytes, version: bytes) -> None:
        """
        The body is complete.

        @param command: the method.
        @param path: the target.
        @param version: of HTTP.
        """
        if self._answered_early:
            self._close_connection()
        elif self._checking:
            self._held = (command, path, version)
        elif self._refusal is not None:
            self._answer(self._refusal)
        else:
            super().requestReceived(command, path, version)

    def connectionLost(self, reason: Failure) -> None:
        """
        @param reason: why the client is gone.
        """
        if self._linger is not None and self._linger.active():
            self._linger.cancel()
        self._connected = False
        super().connectionLost(reason)

    # Inside

    def _check(self, outcome: "Deferred[Refusal | None]", length: int | None) -> None:
        """
        The bearer is looked up in the store: no more than one read of the body comes
        meanwhile.
        """
        self._checking = True
        self.transport.pauseProducing()

        def checked(refusal: Refusal | None) -> None:
            self._checking = False
            if self.channel is None:
                return
            self.transport.resumeProducing()
            self._judge(refusal, length)

        def failed(failure: Failure) -> None:
            self._log.failure("an admission failed", failure)
            if self.channel is not None:
                self.channel.loseConnection()

        outcome.addCallback(checked).addErrback(failed)

    def _judge(self, refusal: Refusal | None, length: int | None) -> None:
        limit = self._admission.maximum_body_bytes
        if refusal is None and (self._too_long or (length or 0) > limit):
            refusal = self._admission.too_large(self)
        held, self._held = self._held, None
        if refusal is None:
            if held is not None:
                super().requestReceived(*held)
        elif held is not None:
            self._answer(refusal)
        elif length == 0:
            # Nothing to save; and the channel counts on a request to give this to.
            self._refusal = refusal
        else:
            self._answer_early(refusal)

    def _answer(self, refusal: Refusal) -> None:
        self._write_answer(refusal)
        self.finish()

    def _answer_early(self, refusal: Refusal) -> None:
        """
        Answer in the middle of a body. The request is not finished: then its channel
        would take the rest of the body for the next one.
        """
        self._answered_early = True
        channel: Any = self.channel
        self.requestHeaders.removeHeader(b"expect")  # no 100 Continue behind this
        self.responseHeaders.setRawHeaders(b"Connection", [b"close"])
        self._write_answer(refusal)
        site: Any = self.site
        site.log(self)
        self._linger = channel.callLater(LINGER_SECONDS, self._close_connection)

    def _write_answer(self, refusal: Refusal) -> None:
        self.setResponseCode(refusal.status)
        for name, value in refusal.headers.items():
            self.responseHeaders.setRawHeaders(name, [value])
        self.responseHeaders.setRawHeaders(
            b"Content-Length", [b"%d" % len(refusal.body)]
        )
        self.write(refusal.body)

    def _close_connection(self) -> None:
        if self.channel is not None:
            self.channel.loseConnection()


class BrokerChannel(HTTPChannel):
    """
    One connection, with a limit on how long a request may take to arrive: the idle
    timeout alone starts anew with every byte.
    """

    maxHeaders = 100  # noqa: N815 - Twisted's
    # The site, set by its buildProtocol.
    site: Any
    _receiving = False
    _handling = False
    _deadline: IDelayedCall | None = None

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

    def request_line(self) -> tuple[bytes, bytes, bytes]:
        """
        @return: method, target and HTTP version of the request being received.
        """
        # Twisted keeps them to itself until the body is there.
        return self._command, self._path, self._version

    def headerReceived(self, line: bytes) -> bool:  # noqa: N802 - Twisted's
        """
        @param line: one header.
        @return: whether to go on.
        """
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            digits = value.strip(b" \t")
            if len(digits) > _LENGTH_DIGITS and digits.isdigit():
                line = b"Content-Length: " + b"9" * _LENGTH_DIGITS
        accepted: bool = super().headerReceived(line)
        return accepted

    def dataReceived(self, data: bytes) -> None:
        """
        @param data: the next bytes from the client.
        """
        self._receiving = self._receiving or not self._handling
        super().dataReceived(data)
        # Most requests come as a whole and never see a timer.
        if self._receiving and self._deadline is None and self.transport is not None:
            self._deadline = self.callLater(self._seconds(), self._too_slow)

    def allContentReceived(self) -> None:
        """A request is complete."""
        self._receiving = False
        self._handling = True
        self._cancel_deadline()
        super().allContentReceived()

    def requestDone(self, request: Any) -> None:  # noqa: N802 - Twisted's
        """
        @param request: it is answered.
        """
        self._handling = False
        super().requestDone(request)

    def connectionLost(self, reason: Failure) -> None:  # type: ignore[override]
        """
        @param reason: why.
        """
        self._receiving = False
        self._handling = True
        self._cancel_deadline()
        super().connectionLost(reason)
        self.site.channel_closed(self)

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
