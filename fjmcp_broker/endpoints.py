"""
The half of the composition that clients and browsers see: every endpoint but the MCP
one, made with what it needs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from twisted.internet.interfaces import IReactorTime
from twisted.web.iweb import IRequest
from twisted.web.resource import IResource

from fjmcp_broker import attrs
from fjmcp_broker.config import Config
from fjmcp_broker.late import Late
from fjmcp_broker.oauth.metadata import resource_url
from fjmcp_broker.store.database import Database
from fjmcp_broker.store.sealing import Sealer
from fjmcp_broker.store.token_endpoint import TokenTransactions
from fjmcp_broker.upstream.forgejo import Forgejo
from fjmcp_broker.upstream.http import trust_roots
from fjmcp_broker.upstream.tokens import UpstreamTokens
from fjmcp_broker.version import build_information
from fjmcp_broker.web.app import Handler, Route, build_web_resource
from fjmcp_broker.web.health import Health
from fjmcp_broker.web.limiting import RateLimiter
from fjmcp_broker.web.metrics import METRICS_PATH, MetricsEndpoint
from fjmcp_broker.web.oauth.discovery import Discovery
from fjmcp_broker.web.oauth.revoke import RevocationEndpoint
from fjmcp_broker.web.oauth.token import TokenEndpoint
from fjmcp_broker.web.origins import OriginPolicy
from fjmcp_broker.web.routes import SIGN_IN, token_side_routes
from fjmcp_broker.web.tracing import Tracing

if TYPE_CHECKING:
    from fjmcp_broker.signing_in import SignIn
    from fjmcp_broker.upstream.fetch_outcome import FetchOutcome


@attrs.frozen(kw_only=True)
class Surroundings:
    """
    What the endpoints work with.

    @ivar reactor: Twisted's; it is C{Any} because it provides a dozen interfaces.
    @ivar clock: tells what has expired.
    @ivar random_bytes: gives that many cryptographically random bytes.
    @ivar document_asked: as for L{fjmcp_broker.upstream.documents.MetadataDocuments}.
    @ivar origins: which Host and Origin are allowed.
    @ivar limiter: refuses what is too much.
    @ivar tracing: writes down how far sign-ins come.
    @ivar metrics: what those may read that C{metrics.allow} names.
    @ivar is_ready: whether the daemon accepts requests.
    @ivar on_grant_ended: called with the grant id after the commit that ended it.
    @ivar on_token_revoked: likewise with the digest of one access token.
    """

    config: Config
    reactor: Any
    clock: IReactorTime
    random_bytes: Callable[[int], bytes]
    database: Database
    sealer: Sealer
    forgejo: Forgejo
    upstream: UpstreamTokens
    document_asked: Callable[[], Callable[[FetchOutcome], None]]
    origins: OriginPolicy
    limiter: RateLimiter
    tracing: Tracing
    metrics: MetricsEndpoint
    is_ready: Callable[[], bool]
    on_grant_ended: Callable[[str], None]
    on_token_revoked: Callable[[bytes], None]


class Endpoints:
    """
    All endpoints but the MCP one.

    @ivar resource: a leaf resource for every path but C{/mcp}.
    """

    def __init__(self, around: Surroundings) -> None:
        """
        @param around: what they work with.
        @raise BrokerError: a file of certificates has become unusable.
        """
        ca_file = around.config.clients.metadata_documents_ca_file
        if ca_file is not None:
            trust_roots(ca_file)  # now, though it is needed with the first sign-in
        self._sign_in: Late[SignIn] = Late(
            around.reactor,
            "fjmcp_broker.signing_in",
            lambda module: module.SignIn(around),
        )
        routes = (*_token_side(around), *self._sign_in_routes())
        routes = around.limiter.guard(around.tracing.guard(routes))
        shown = Route("GET", METRICS_PATH, around.metrics.get)
        self.resource: IResource = build_web_resource((*routes, shown), around.origins)

    async def stop(self, timeout_seconds: float) -> None:
        """
        Let what is under way finish.

        @param timeout_seconds: what takes longer is given up.
        """
        if self._sign_in.made is not None:
            await self._sign_in.made.stop(timeout_seconds)

    def _sign_in_routes(self) -> tuple[Route, ...]:
        def handler(method: str, path: str) -> Handler:
            async def handle(request: IRequest) -> bytes:
                sign_in = await self._sign_in.get()
                return await sign_in.handlers[method, path](request)

            return handle

        return tuple(
            Route(method, path, handler(method, path), error_page)
            for method, path, error_page in SIGN_IN
        )


def _token_side(around: Surroundings) -> tuple[Route, ...]:
    config, url = around.config, around.config.server.public_url
    build = build_information()
    health = Health(
        around.database,
        around.clock,
        version=build.version,
        revision=build.revision,
        build_date=build.build_date,
        instance=around.random_bytes(8).hex(),
        client_source=around.limiter.source,
        is_ready=around.is_ready,
    )
    token = TokenEndpoint(
        around.database,
        TokenTransactions(
            around.sealer,
            around.random_bytes,
            access_lifetime_seconds=config.tokens.access_lifetime_seconds,
            refresh_lifetime_seconds=config.tokens.refresh_lifetime_seconds,
            resource=resource_url(url),
        ),
        around.clock,
        url,
        on_grant_ended=around.on_grant_ended,
    )
    revocation = RevocationEndpoint(
        around.database,
        around.clock,
        on_grant_ended=around.on_grant_ended,
        on_token_revoked=around.on_token_revoked,
    )
    discovery = Discovery(
        url, client_id_metadata_documents=config.clients.metadata_documents
    )
    return token_side_routes(token, revocation, discovery, health)
