"""
How the broker speaks HTTP to Forgejo: connections, trust, limits.

Responses are bounded, redirects are not followed, and cookies are not kept: one
HTTP client serves every user, so a cookie that Forgejo sets in one user's answer
must not travel with another's request.
"""

from collections.abc import Callable
from http.cookiejar import DefaultCookiePolicy
from pathlib import Path
from typing import Any, Final, cast

import msgspec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import load_pem_x509_certificates
from treq.client import HTTPClient
from treq.cookies import IndexableCookieJar
from twisted.internet.defer import Deferred, TimeoutError
from twisted.internet.interfaces import IPushProducer, IReactorTime
from twisted.internet.protocol import Protocol, connectionDone
from twisted.internet.ssl import Certificate, trustRootFromCertificates
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.client import (
    Agent,
    BrowserLikePolicyForHTTPS,
    HostnameCachingHTTPSPolicy,
    HTTPConnectionPool,
    ResponseDone,
)
from twisted.web.http import PotentialDataLoss
from twisted.web.iweb import IAgent, IResponse

from .errors import UpstreamMisconfigured, UpstreamUnavailable
from .proxy import ProxyingAgent
from .tasks import Tasks

CONNECT_TIMEOUT_SECONDS: Final = 10.0
MAXIMUM_BODY_BYTES: Final = 1024 * 1024

_IDLE_CONNECTION_SECONDS: Final = 10
"""
Long enough for the calls of one sign-in to share a connection. Not longer: Twisted
does not retry a POST that meets a connection which the other side has just closed.
"""

_CLOSE_SECONDS: Final = 1.0

_CONNECTIONS_PER_HOST: Final = 8


class UpstreamHttp(msgspec.Struct, frozen=True):
    """
    The HTTP client towards Forgejo, and what has to be closed with it.

    @ivar client: for L{fjmcp_broker.upstream.forgejo.Forgejo}.
    """

    _log = Logger()

    client: HTTPClient
    _pool: HTTPConnectionPool
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
        await self._pool.closeCachedConnections()


# The reactor is Any: Agent wants more interfaces of it than one type can say.
def build_http(
    reactor: Any,
    *,
    ca_file: str | None = None,
    proxy: str | None = None,
    connect_timeout_seconds: float = CONNECT_TIMEOUT_SECONDS,
) -> UpstreamHttp:
    """
    Make the HTTP client. It opens nothing until it is used.

    @param reactor: provider of C{IReactorTCP}, C{IReactorTime} and name resolution.
    @param ca_file: PEM file; the only authorities to trust. System-wide ones when
        C{None}.
    @param proxy: C{http://[user:password@]host[:port]} for every call, through
        C{CONNECT} for https.
    @param connect_timeout_seconds: for each attempt to connect.
    @return: the client.
    @raise UpstreamMisconfigured: the file or the proxy is of no use; for the
        operator.
    """
    pool = HTTPConnectionPool(reactor)
    pool.maxPersistentPerHost = _CONNECTIONS_PER_HOST
    pool.cachedConnectionTimeout = _IDLE_CONNECTION_SECONDS
    trust = None if ca_file is None else trust_roots(ca_file)
    policy = HostnameCachingHTTPSPolicy(BrowserLikePolicyForHTTPS(trust))
    agent: IAgent
    if proxy is None:
        agent = Agent(
            reactor, policy, connectTimeout=connect_timeout_seconds, pool=pool
        )
    else:
        agent = ProxyingAgent.build(
            reactor,
            proxy,
            policy=policy,
            pool=pool,
            connect_timeout_seconds=connect_timeout_seconds,
        )
    return UpstreamHttp(HTTPClient(agent, cookiejar=_no_cookies()), pool, reactor)


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
        if reason.check(ResponseDone, PotentialDataLoss):
            self.done.callback(b"".join(self._pieces))
        else:
            self.done.errback(reason)

    def _hang_up(self) -> None:
        # Not loseConnection: with TLS that waits for the peer's own goodbye.
        if self.transport is not None:
            cast(IPushProducer, self.transport).stopProducing()


def _no_cookies() -> IndexableCookieJar:
    return IndexableCookieJar(DefaultCookiePolicy(allowed_domains=[]))


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
