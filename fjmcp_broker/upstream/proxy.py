"""
Reaching Forgejo through an outgoing HTTP proxy.

Twisted's C{ProxyAgent} sends plain http requests to a proxy; for https a tunnel is
needed (RFC 9110 section 9.3.6, C{CONNECT}), which Twisted does not have.
"""

from base64 import b64encode
from typing import Any, Final
from urllib.parse import unquote, urlsplit

from twisted.internet.defer import Deferred
from twisted.internet.endpoints import HostnameEndpoint, connectProtocol, wrapClientTLS
from twisted.internet.error import ConnectError
from twisted.internet.interfaces import (
    IProtocol,
    IProtocolFactory,
    IReactorTime,
    IStreamClientEndpoint,
)
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from twisted.web.client import URI, Agent, HTTPConnectionPool, ProxyAgent
from twisted.web.http_headers import Headers
from twisted.web.iweb import (
    IAgent,
    IAgentEndpointFactory,
    IBodyProducer,
    IPolicyForHTTPS,
    IResponse,
)
from zope.interface import implementer

from .errors import UpstreamMisconfigured

_MAXIMUM_HEAD_BYTES: Final = 16 * 1024


class TunnelRefused(ConnectError):  # noqa: N818 - as its siblings in Twisted
    """
    The proxy did not open a tunnel. The text is its status code.
    """


class _Tunnel(Protocol):
    """
    Asks the proxy for a tunnel, then passes everything on to another protocol.
    """

    def __init__(self, target: bytes, authorization: bytes | None) -> None:
        self.opened: Deferred[None] = Deferred(lambda _: self._abandon())
        self._target = target
        self._authorization = authorization
        self._head = b""
        self._inner: IProtocol | None = None

    def connectionMade(self) -> None:
        lines = [b"CONNECT " + self._target + b" HTTP/1.1", b"Host: " + self._target]
        if self._authorization is not None:
            lines.append(b"Proxy-Authorization: " + self._authorization)
        self._write(b"\r\n".join([*lines, b"", b""]))

    def dataReceived(self, data: bytes) -> None:
        if self._inner is not None:
            self._inner.dataReceived(data)
            return
        if self.opened.called:
            return
        self._head += data
        head, end, rest = self._head.partition(b"\r\n\r\n")
        if not end:
            if len(self._head) > _MAXIMUM_HEAD_BYTES:
                self._refuse("the answer is not HTTP")
            return
        status = head.partition(b"\r\n")[0].split(b" ", 2)
        if len(status) < 2 or not status[0].startswith(b"HTTP/1."):
            self._refuse("the answer is not HTTP")
        elif len(status[1]) != 3 or not status[1].startswith(b"2"):
            self._refuse(f"status {status[1][:3].decode('ascii', 'replace')}")
        elif rest:
            # In TLS the client speaks first; bytes that come now are not Forgejo's.
            self._refuse("bytes before the tunnel was used")
        else:
            self.opened.callback(None)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if self._inner is not None:
            self._inner.connectionLost(reason)
        elif not self.opened.called:
            self.opened.errback(TunnelRefused(string="the proxy hung up"))

    def hand_over(self, factory: IProtocolFactory) -> IProtocol:
        """
        @param factory: builds the protocol that speaks through the tunnel.
        @return: that protocol, connected.
        """
        transport = self.transport
        if transport is None:
            raise TunnelRefused(string="the proxy hung up")
        inner = factory.buildProtocol(transport.getPeer())
        if inner is None:
            self._abandon()
            raise TunnelRefused(string="nobody wants the tunnel")
        self._inner = inner
        inner.makeConnection(transport)
        return inner

    def _write(self, data: bytes) -> None:
        if self.transport is not None:
            self.transport.write(data)

    def _abandon(self) -> None:
        if self.transport is not None:
            self.transport.loseConnection()

    def _refuse(self, why: str) -> None:
        self._abandon()
        self.opened.errback(TunnelRefused(string=f"the proxy opened no tunnel: {why}"))


@implementer(IStreamClientEndpoint)
class TunnelEndpoint:
    """
    A connection to one host and port through a proxy.
    """

    def __init__(
        self,
        proxy: IStreamClientEndpoint,
        target: bytes,
        *,
        authorization: bytes | None,
        clock: IReactorTime,
        timeout_seconds: float,
    ) -> None:
        """
        @param proxy: how to reach the proxy.
        @param target: C{host:port}, an IPv6 address in brackets.
        @param authorization: value of C{Proxy-Authorization}.
        @param clock: for the timeout.
        @param timeout_seconds: for the proxy's answer.
        """
        self._proxy = proxy
        self._target = target
        self._authorization = authorization
        self._clock = clock
        self._timeout_seconds = timeout_seconds

    def connect(self, factory: IProtocolFactory) -> Deferred[IProtocol]:
        """
        @param factory: builds the protocol that speaks through the tunnel.
        @return: fires with that protocol.
        """
        return Deferred.fromCoroutine(self._connect(factory))

    async def _connect(self, factory: IProtocolFactory) -> IProtocol:
        tunnel = _Tunnel(self._target, self._authorization)
        await connectProtocol(self._proxy, tunnel)
        tunnel.opened.addTimeout(self._timeout_seconds, self._clock)
        await tunnel.opened
        return tunnel.hand_over(factory)


@implementer(IAgentEndpointFactory)
class _TunnelEndpoints:
    """
    TLS through tunnels, for C{Agent}.
    """

    def __init__(
        self,
        proxy: IStreamClientEndpoint,
        policy: IPolicyForHTTPS,
        *,
        authorization: bytes | None,
        clock: IReactorTime,
        timeout_seconds: float,
    ) -> None:
        self._proxy = proxy
        self._policy = policy
        self._authorization = authorization
        self._clock = clock
        self._timeout_seconds = timeout_seconds

    def endpointForURI(self, uri: URI) -> IStreamClientEndpoint:  # noqa: N802 - IAgentEndpointFactory
        host = b"[%b]" % uri.host if b":" in uri.host else uri.host
        tunnel = TunnelEndpoint(
            self._proxy,
            b"%b:%d" % (host, uri.port),
            authorization=self._authorization,
            clock=self._clock,
            timeout_seconds=self._timeout_seconds,
        )
        return wrapClientTLS(self._policy.creatorForNetloc(uri.host, uri.port), tunnel)


@implementer(IAgent)
class ProxyingAgent:
    """
    Sends http requests to the proxy and https ones through a tunnel of its.
    """

    def __init__(
        self, tunnelled: IAgent, forwarded: IAgent, authorization: bytes | None
    ) -> None:
        """
        @param tunnelled: for https.
        @param forwarded: for http.
        @param authorization: value of C{Proxy-Authorization} for http; the tunnels
            have it already.
        """
        self._tunnelled = tunnelled
        self._forwarded = forwarded
        self._authorization = authorization

    # The reactor is Any: Agent wants more interfaces of it than one type can say.
    @classmethod
    def build(
        cls,
        reactor: Any,
        url: str,
        *,
        policy: IPolicyForHTTPS,
        pool: HTTPConnectionPool,
        connect_timeout_seconds: float,
    ) -> "ProxyingAgent":
        """
        @param reactor: provider of C{IReactorTCP}, C{IReactorTime} and name
            resolution.
        @param url: C{http://[user:password@]host[:port]}, from the operator.
        @param policy: which servers to trust behind the tunnels.
        @param pool: keeps connections.
        @param connect_timeout_seconds: for reaching the proxy, and for its answer.
        @return: the agent.
        @raise UpstreamMisconfigured: the URL is not of that form.
        """
        host, port, authorization = _parse(url)
        proxy = HostnameEndpoint(
            reactor, host.encode("ascii"), port, timeout=connect_timeout_seconds
        )
        endpoints = _TunnelEndpoints(
            proxy,
            policy,
            authorization=authorization,
            clock=reactor,
            timeout_seconds=connect_timeout_seconds,
        )
        return cls(
            Agent.usingEndpointFactory(reactor, endpoints, pool=pool),
            ProxyAgent(proxy, reactor, pool=pool),
            authorization,
        )

    def request(
        self,
        method: bytes,
        uri: bytes,
        headers: Headers | None = None,
        bodyProducer: IBodyProducer | None = None,  # noqa: N803 - IAgent
    ) -> Deferred[IResponse]:
        """
        As C{IAgent.request}.

        @param method: of HTTP.
        @param uri: absolute.
        @param headers: of the request.
        @param bodyProducer: of the request.
        @return: fires with the response.
        """
        if uri.lower().startswith(b"https:"):
            return self._tunnelled.request(method, uri, headers, bodyProducer)
        if self._authorization is not None:
            headers = Headers() if headers is None else headers.copy()
            headers.setRawHeaders(b"Proxy-Authorization", [self._authorization])
        return self._forwarded.request(method, uri, headers, bodyProducer)


def _parse(url: str) -> tuple[str, int, bytes | None]:
    """
    @return: host, port and C{Proxy-Authorization} of a proxy's URL.
    """
    try:
        parts = urlsplit(url)
        port = parts.port or 3128
    except ValueError:
        raise UpstreamMisconfigured("the proxy's URL cannot be read") from None
    if parts.scheme != "http" or not parts.hostname or parts.path not in ("", "/"):
        raise UpstreamMisconfigured(
            "the proxy has to be given as http://[user:password@]host[:port]"
        )
    authorization = None
    if parts.username is not None:
        pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        authorization = b"Basic " + b64encode(pair.encode())
    return parts.hostname, port, authorization
