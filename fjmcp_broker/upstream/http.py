"""
How the broker speaks HTTP to Forgejo: connections, trust, limits.

Responses are bounded, redirects are not followed, and cookies are not kept: one
agent serves every user, so a cookie that Forgejo sets in one user's answer must not
travel with another's request.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, cast

from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import load_pem_x509_certificates
from twisted.internet.defer import Deferred, TimeoutError, succeed
from twisted.internet.interfaces import IConsumer, IPushProducer, IReactorTime
from twisted.internet.protocol import Protocol, connectionDone
from twisted.internet.ssl import Certificate, trustRootFromCertificates
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.http import PotentialDataLoss
from twisted.web.http_headers import Headers
from twisted.web.iweb import IAgent, IBodyProducer, IResponse
from zope.interface import implementer

from fjmcp_broker import attrs
from fjmcp_broker.late import Late

from .errors import UpstreamMisconfigured, UpstreamUnavailable
from .tasks import Tasks

if TYPE_CHECKING:
    from .connections import Connections

CONNECT_TIMEOUT_SECONDS: Final = 10.0
MAXIMUM_BODY_BYTES: Final = 1024 * 1024

_CLOSE_SECONDS: Final = 1.0

_RESPONSE_DONE: Final = "twisted.web._newclient.ResponseDone"
"""By name: whoever has a response has loaded it, and nobody else needs it."""


@attrs.frozen
class UpstreamHttp:
    """
    The HTTP agent towards Forgejo, and what has to be closed with it.

    @ivar agent: for L{fjmcp_broker.upstream.forgejo.Forgejo}.
    """

    _log = Logger()

    agent: IAgent
    _connections: Late[Connections]
    _clock: IReactorTime

    async def close(self) -> None:
        """
        Close the idle connections; none may be in use any more. A peer that does
        not say goodbye, as TLS asks, is not waited for long.
        """
        closing = Tasks(self._clock).start(self._close(), "closing connections")
        try:
            await closing.ended().addTimeout(_CLOSE_SECONDS, self._clock)
        except TimeoutError:
            self._log.warn("a connection to Forgejo does not close")

    async def _close(self) -> None:
        if self._connections.made is not None:
            await self._connections.made.pool.closeCachedConnections()


@implementer(IAgent)
class LateAgent:
    """
    Sends requests over connections that are loaded with the first one.
    """

    def __init__(self, connections: Late[Connections]) -> None:
        """
        @param connections: not loaded.
        """
        self._connections = connections

    def request(
        self,
        method: bytes,
        uri: bytes,
        headers: Headers | None = None,
        bodyProducer: IBodyProducer | None = None,  # noqa: N803 - Twisted's name
    ) -> Deferred[IResponse]:
        """
        As C{IAgent.request}.

        @param method: of HTTP.
        @param uri: absolute.
        @param headers: of the request.
        @param bodyProducer: its body.
        @return: fires with the response.
        """
        return Deferred.fromCoroutine(self._request(method, uri, headers, bodyProducer))

    async def _request(
        self,
        method: bytes,
        uri: bytes,
        headers: Headers | None,
        body: IBodyProducer | None,
    ) -> IResponse:
        connections = await self._connections.get()
        return await connections.agent.request(method, uri, headers, body)


# The reactor is Any: Agent wants more interfaces of it than one type can say.
def build_http(
    reactor: Any,
    *,
    ca_file: str | None = None,
    proxy: str | None = None,
    connect_timeout_seconds: float = CONNECT_TIMEOUT_SECONDS,
) -> UpstreamHttp:
    """
    Make the HTTP agent. It opens nothing until it is used.

    @param reactor: provider of C{IReactorTCP}, C{IReactorTime} and name resolution.
    @param ca_file: PEM file; the only authorities to trust. System-wide ones when
        C{None}.
    @param proxy: C{http://[user:password@]host[:port]} for every call, through
        C{CONNECT} for https.
    @param connect_timeout_seconds: for each attempt to connect.
    @return: the agent.
    @raise UpstreamMisconfigured: the file or the proxy is of no use; for the
        operator.
    """
    trust = None if ca_file is None else trust_roots(ca_file)

    def make(module: Any) -> Connections:
        made: Connections = module.build_connections(
            reactor, trust, proxy, connect_timeout_seconds
        )
        return made

    connections = Late(reactor, f"{__package__}.connections", make)
    if proxy is not None:
        connections.now()  # whether it is of use
    return UpstreamHttp(LateAgent(connections), connections, reactor)


def _too_long() -> Exception:
    return UpstreamUnavailable("Forgejo's answer is longer than any it gives")


async def read_body(
    response: IResponse,
    maximum_bytes: int,
    too_long: Callable[[], Exception] = _too_long,
) -> bytes:
    """
    Read a body of bounded size. Cancelling closes the connection.

    @param response: not read yet.
    @param maximum_bytes: of the decoded body.
    @param too_long: makes what is raised when it is longer; L{UpstreamUnavailable}
        unless said otherwise.
    @return: all of it.
    """
    collector = _BoundedBody(maximum_bytes, too_long)
    response.deliverBody(collector)
    return await collector.done


class _BoundedBody(Protocol):
    """
    Collects a body, and hangs up when there is too much of it or nobody waits.
    """

    def __init__(self, maximum_bytes: int, too_long: Callable[[], Exception]) -> None:
        self._too_long = too_long
        self.done: Deferred[bytes] = Deferred(lambda _: self._hang_up())
        self._maximum_bytes = maximum_bytes
        self._pieces: list[bytes] = []
        self._size = 0

    def dataReceived(self, data: bytes) -> None:
        self._size += len(data)
        if self._size <= self._maximum_bytes:
            self._pieces.append(data)
        elif not self.done.called:
            self._pieces.clear()
            self._hang_up()
            self.done.errback(self._too_long())

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if self.done.called:
            return
        # Without a length, the end of the connection is the end of the body.
        if reason.check(_RESPONSE_DONE, PotentialDataLoss):
            self.done.callback(b"".join(self._pieces))
        else:
            self.done.errback(reason)

    def _hang_up(self) -> None:
        # Not loseConnection: with TLS that waits for the peer's own goodbye.
        if self.transport is not None:
            cast(IPushProducer, self.transport).stopProducing()


@implementer(IBodyProducer)
class WholeBody:
    """
    The body of a request, written in one piece.

    @ivar length: bytes.
    """

    def __init__(self, body: bytes) -> None:
        """
        @param body: short.
        """
        self._body = body
        self.length = len(body)

    def startProducing(  # noqa: N802 - Twisted's name
        self, consumer: IConsumer
    ) -> Deferred[None]:
        """
        As C{IBodyProducer.startProducing}.

        @param consumer: the connection.
        @return: has fired.
        """
        consumer.write(self._body)
        return succeed(None)

    def pauseProducing(self) -> None:
        """There is nothing more."""

    def resumeProducing(self) -> None:
        """There is nothing more."""

    def stopProducing(self) -> None:
        """There is nothing more."""


def trust_roots(ca_file: str) -> object:
    """
    @param ca_file: PEM file, from the operator.
    @return: its certificates, for Twisted's HTTPS policies.
    @raise UpstreamMisconfigured: there are none.
    """
    try:
        pem = Path(ca_file).read_bytes()
    except OSError as error:
        raise UpstreamMisconfigured(
            f"cannot read the certificates in {ca_file}: {error.strerror}"
        ) from None
    try:
        certificates = load_pem_x509_certificates(pem)
    except ValueError:
        raise UpstreamMisconfigured(
            f"{ca_file} holds no certificates in PEM form"
        ) from None
    return trustRootFromCertificates(
        [Certificate.loadPEM(each.public_bytes(Encoding.PEM)) for each in certificates]
    )
