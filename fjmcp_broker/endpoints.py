"""
The half of the composition that clients and browsers see: every endpoint but the MCP
one, made with what it needs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

import msgspec
from twisted.internet.interfaces import IReactorTime
from twisted.web.resource import IResource

from fjmcp_broker.config import Config
from fjmcp_broker.oauth.metadata import resource_url
from fjmcp_broker.store.database import Database
from fjmcp_broker.store.lane import Lane
from fjmcp_broker.store.sealing import Sealer
from fjmcp_broker.store.token_endpoint import TokenTransactions
from fjmcp_broker.upstream.document_http import GuardedFetcher
from fjmcp_broker.upstream.documents import FetchOutcome, MetadataDocuments
from fjmcp_broker.upstream.forgejo import Forgejo
from fjmcp_broker.upstream.resolver import SystemResolver, system_look_up
from fjmcp_broker.upstream.tokens import UpstreamTokens
from fjmcp_broker.version import build_information
from fjmcp_broker.web.app import Route, build_web_resource
from fjmcp_broker.web.health import Health
from fjmcp_broker.web.limiting import RateLimiter
from fjmcp_broker.web.metrics import METRICS_PATH, MetricsEndpoint
from fjmcp_broker.web.oauth.authorize import AuthorizeEndpoint
from fjmcp_broker.web.oauth.callback import CallbackEndpoint
from fjmcp_broker.web.oauth.carried import CarriedRequests
from fjmcp_broker.web.oauth.clients import ClientDirectory
from fjmcp_broker.web.oauth.consent import ConsentEndpoint
from fjmcp_broker.web.oauth.cookies import BrowserCookies
from fjmcp_broker.web.oauth.departure import Departure
from fjmcp_broker.web.oauth.discovery import Discovery
from fjmcp_broker.web.oauth.outcomes import Outcomes
from fjmcp_broker.web.oauth.register import RegisterEndpoint
from fjmcp_broker.web.oauth.revoke import RevocationEndpoint
from fjmcp_broker.web.oauth.token import TokenEndpoint
from fjmcp_broker.web.origins import OriginPolicy
from fjmcp_broker.web.pages.consent import ConsentPage
from fjmcp_broker.web.pages.front import FrontPage
from fjmcp_broker.web.routes import sign_in_routes, token_side_routes
from fjmcp_broker.web.tracing import Tracing


class Surroundings(msgspec.Struct, frozen=True, kw_only=True):
    """
    What the endpoints work with.

    @ivar clock: tells what has expired.
    @ivar random_bytes: gives that many cryptographically random bytes.
    @ivar documents: fetches client metadata documents; C{None}: switched off.
    @ivar origins: which Host and Origin are allowed.
    @ivar limiter: refuses what is too much.
    @ivar tracing: writes down how far sign-ins come.
    @ivar metrics: what those may read that C{metrics.allow} names.
    @ivar is_ready: whether the daemon accepts requests.
    @ivar on_grant_ended: called with the grant id after the commit that ended it.
    @ivar on_token_revoked: likewise with the digest of one access token.
    """

    config: Config
    clock: IReactorTime
    random_bytes: Callable[[int], bytes]
    database: Database
    sealer: Sealer
    forgejo: Forgejo
    upstream: UpstreamTokens
    documents: MetadataDocuments | None
    origins: OriginPolicy
    limiter: RateLimiter
    tracing: Tracing
    metrics: MetricsEndpoint
    is_ready: Callable[[], bool]
    on_grant_ended: Callable[[str], None]
    on_token_revoked: Callable[[bytes], None]


def build_documents(
    config: Config,
    reactor: Any,
    clock: IReactorTime,
    on_asked: Callable[[], Callable[[FetchOutcome], None]],
) -> MetadataDocuments | None:
    """
    @param config: checked.
    @param reactor: Twisted's; it is C{Any} because it provides a dozen interfaces.
    @param clock: tells what has expired.
    @param on_asked: as for L{MetadataDocuments}.
    @return: what fetches client metadata documents; C{None}: switched off.
    @raise BrokerError: the file of certificates has become unusable.
    """
    if not config.clients.metadata_documents:
        return None
    fetcher = GuardedFetcher(
        reactor,
        SystemResolver(system_look_up(reactor)),
        own_host=urlsplit(config.server.public_url).hostname or "",
        ca_file=config.clients.metadata_documents_ca_file,
    )
    return MetadataDocuments(
        fetcher,
        clock,
        application_schemes=config.clients.application_schemes,
        on_asked=on_asked,
    )


def build_endpoints(around: Surroundings) -> IResource:
    """
    @param around: what they work with.
    @return: a leaf resource for every path but C{/mcp}.
    """
    routes = around.tracing.guard((*_token_side(around), *_sign_in(around)))
    routes = around.limiter.guard(routes)
    shown = Route("GET", METRICS_PATH, around.metrics.get)
    return build_web_resource((*routes, shown), around.origins)


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
        url, client_id_metadata_documents=around.documents is not None
    )
    return token_side_routes(token, revocation, discovery, health)


def _sign_in(around: Surroundings) -> tuple[Route, ...]:
    config, database = around.config, around.database
    clock, random_bytes = around.clock, around.random_bytes
    url, forgejo_url = config.server.public_url, config.forgejo.url
    cookies = BrowserCookies(url, random_bytes)
    departure = Departure(cookies, around.forgejo.authorize_url, around.sealer)
    carried = CarriedRequests(around.sealer)
    outcomes = Outcomes(clock)
    directory = ClientDirectory(database, clock, around.documents)
    return sign_in_routes(
        FrontPage(url, forgejo_url),
        RegisterEndpoint(
            # Whoever floods this or the answers of the consent page waits for himself.
            Lane(database, clock),
            clock=clock,
            random_bytes=random_bytes,
            application_schemes=config.clients.application_schemes,
        ),
        AuthorizeEndpoint(
            directory,
            cookies,
            ConsentPage(url, forgejo_url),
            carried,
            clock=clock,
            random_bytes=random_bytes,
            public_url=url,
        ),
        ConsentEndpoint(
            Lane(database, clock),
            cookies,
            departure,
            carried,
            outcomes,
            clock=clock,
            random_bytes=random_bytes,
            public_url=url,
            may_redirect=directory.may_redirect,
        ),
        CallbackEndpoint(
            database,
            cookies,
            departure,
            outcomes,
            around.upstream,
            clock=clock,
            random_bytes=random_bytes,
            public_url=url,
            forgejo_url=forgejo_url,
            may_redirect=directory.may_redirect,
        ),
    )
