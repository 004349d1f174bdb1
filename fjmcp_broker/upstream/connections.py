"""
The connections to Forgejo. Loaded with the first call of it.
"""

from typing import Any, Final

from twisted.web.client import (
    Agent,
    BrowserLikePolicyForHTTPS,
    ContentDecoderAgent,
    GzipDecoder,
    HostnameCachingHTTPSPolicy,
    HTTPConnectionPool,
)
from twisted.web.iweb import IAgent

from fjmcp_broker import attrs

from .proxy import ProxyingAgent

_IDLE_CONNECTION_SECONDS: Final = 10
"""
Long enough for the calls of one sign-in to share a connection. Not longer: Twisted
does not retry a POST that meets a connection which the other side has just closed.
"""

_CONNECTIONS_PER_HOST: Final = 8


@attrs.frozen
class Connections:
    """
    Connections, and who uses them.

    @ivar agent: sends requests.
    @ivar pool: what is open.
    """

    agent: IAgent
    pool: HTTPConnectionPool


# The reactor is Any: Agent wants more interfaces of it than one type can say.
def build_connections(
    reactor: Any, trust: object | None, proxy: str | None, timeout_seconds: float
) -> Connections:
    """
    @param reactor: provider of C{IReactorTCP}, C{IReactorTime} and name resolution.
    @param trust: authorities; those of the system when C{None}.
    @param proxy: as for L{fjmcp_broker.upstream.http.build_http}.
    @param timeout_seconds: for each attempt to connect.
    @return: none is open.
    @raise UpstreamMisconfigured: the proxy is of no use.
    """
    pool = HTTPConnectionPool(reactor)
    pool.maxPersistentPerHost = _CONNECTIONS_PER_HOST
    pool.cachedConnectionTimeout = _IDLE_CONNECTION_SECONDS
    policy = HostnameCachingHTTPSPolicy(BrowserLikePolicyForHTTPS(trust))
    agent: IAgent
    if proxy is None:
        agent = Agent(reactor, policy, connectTimeout=timeout_seconds, pool=pool)
    else:
        agent = ProxyingAgent.build(
            reactor,
            proxy,
            policy=policy,
            pool=pool,
            connect_timeout_seconds=timeout_seconds,
        )
    return Connections(ContentDecoderAgent(agent, [(b"gzip", GzipDecoder)]), pool)
