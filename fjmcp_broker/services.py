"""
The composition root: the only place that builds pools, agents, stores, sites and
timers, and puts them together into the daemon.

Nothing here opens a file, a socket or a thread before the service starts: C{build}
runs before C{twistd} becomes a daemon.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from functools import partial
from typing import Any, Final

from twisted.internet.defer import Deferred
from twisted.internet.endpoints import serverFromString
from twisted.internet.interfaces import IListeningPort
from twisted.logger import Logger
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.web.resource import IResource

from fjmcp_broker.config import Config
from fjmcp_broker.mcp.catalogue import ToolCatalogue
from fjmcp_broker.oauth.vocabulary import MCP_PATH
from fjmcp_broker.ordered import OrderedService, Part
from fjmcp_broker.preflight import (
    LOCK_WAIT_SECONDS,
    child_settings,
    forgejo_settings,
    preflight,
    tls_options,
)
from fjmcp_broker.process import OrderlyExit
from fjmcp_broker.secret import Secret
from fjmcp_broker.sessions.child import Child
from fjmcp_broker.sessions.ending import ChildObserver
from fjmcp_broker.sessions.population import Limits
from fjmcp_broker.sessions.registry import SessionRegistry
from fjmcp_broker.sessions.replay import Replays
from fjmcp_broker.sessions.rotation import Rotation
from fjmcp_broker.sessions.rows import SessionRows
from fjmcp_broker.sessions.spawn import Launcher, protect_memory
from fjmcp_broker.store.collector import collect
from fjmcp_broker.store.database import Database
from fjmcp_broker.store.keys import load_or_create_keys
from fjmcp_broker.store.lock import StoreLock
from fjmcp_broker.store.sealing import Sealer
from fjmcp_broker.store.token_endpoint import TokenTransactions
from fjmcp_broker.store.upstream_tokens import dormant
from fjmcp_broker.timers import steady_timer
from fjmcp_broker.upstream.forgejo import Forgejo
from fjmcp_broker.upstream.http import build_http
from fjmcp_broker.upstream.tokens import UpstreamTokens
from fjmcp_broker.version import build_information
from fjmcp_broker.web.app import build_web_resource
from fjmcp_broker.web.authorize import AuthorizeEndpoint
from fjmcp_broker.web.bearer import BearerAuthenticator
from fjmcp_broker.web.callback import CallbackEndpoint
from fjmcp_broker.web.consent import ConsentEndpoint, Departure
from fjmcp_broker.web.consent_page import ConsentPage
from fjmcp_broker.web.cookies import BrowserCookies
from fjmcp_broker.web.discovery import Discovery
from fjmcp_broker.web.health import Health
from fjmcp_broker.web.mcp import McpEndpoint
from fjmcp_broker.web.mcp_admission import McpAdmission
from fjmcp_broker.web.origins import OriginPolicy
from fjmcp_broker.web.pages import FrontPage
from fjmcp_broker.web.register import RegisterEndpoint
from fjmcp_broker.web.revoke import RevocationEndpoint
from fjmcp_broker.web.root import Root
from fjmcp_broker.web.routes import sign_in_routes, token_side_routes
from fjmcp_broker.web.site import BrokerSite
from fjmcp_broker.web.token import TokenEndpoint

__all__ = ["Daemon", "build", "preflight"]

COLLECT_SECONDS: Final = 3600.0
REAP_SECONDS: Final = 30.0
ROTATE_SECONDS: Final = 60.0
MARGIN_SECONDS: Final = 2.0


class Daemon(OrderedService):
    """
    The root service.

    @ivar exit_status: what the process should end with.
    """

    exit_status = 0


def build(
    config: Config, reactor: Any, *, on_ready: Callable[[], None] = lambda: None
) -> Daemon:
    """
    Put the daemon together. L{preflight} has found the configuration usable.

    @param config: checked.
    @param reactor: Twisted's, for everything that it does. It is C{Any} because it
        provides a dozen interfaces.
    @param on_ready: called each time the listener has begun to accept.
    @return: the service, not started.
    @raise BrokerError: a file named in the configuration has become unusable.
    """
    return _Composition(config, reactor, on_ready).daemon


class _Composition:
    """Every object of one daemon."""

    log = Logger()

    def __init__(
        self, config: Config, reactor: Any, on_ready: Callable[[], None]
    ) -> None:
        self._config = config
        self._reactor = reactor
        self._on_ready = on_ready
        self._port: IListeningPort | None = None
        self._exit = OrderlyExit(reactor)
        self._lock = StoreLock(config.database.path)
        self._database = Database(config.database.path, reactor=reactor)
        self._sealer = Sealer(
            load_or_create_keys(
                config.database.path,
                config.database.encryption_keys,
                # Preflight has made the key of a new store.
                store_has_sealed_rows=True,
            )
        )
        self._http = build_http(
            reactor, ca_file=config.forgejo.ca_file, proxy=config.forgejo.proxy
        )
        self._forgejo = Forgejo(forgejo_settings(config), self._http.client, reactor)
        self._upstream = UpstreamTokens(
            self._database,
            self._sealer,
            self._forgejo,
            reactor,
            self._user_suspended,
            requested_scope=config.forgejo.oauth_scopes,
        )
        self._authenticator = BearerAuthenticator(
            self._database, reactor, config.server.public_url
        )
        self._launcher = Launcher((), (), ())
        self._child_settings = child_settings(config)
        self._registry = SessionRegistry(
            clock=reactor,
            ledger=SessionRows(self._database, self._sealer),
            tokens=self._upstream,
            make_child=self._make_child,
            catalogue=ToolCatalogue.packaged(),
            limits=Limits(
                config.sessions.max,
                config.sessions.max_per_user,
                config.sessions.max_dormant_per_grant,
            ),
        )
        rotation = Rotation(
            self._registry.population, self._upstream, self._dormant_users, reactor
        )
        self._replays = Replays(reactor)
        self._timers = [
            steady_timer(COLLECT_SECONDS, self._collect, "collect garbage", reactor),
            steady_timer(
                min(REAP_SECONDS, max(1.0, config.sessions.idle_timeout_seconds / 2)),
                self._reap,
                "look after idle sessions",
                reactor,
            ),
            steady_timer(ROTATE_SECONDS, rotation.run, "rotate tokens", reactor),
        ]
        self._site = site = self._make_site()
        options = tls_options(config)
        self._factory: Any = site
        if options is not None:
            self._factory = TLSMemoryBIOFactory(
                options, isClient=False, wrappedFactory=site
            )
        patience = float(config.server.shutdown_timeout_seconds)
        self.daemon = Daemon(
            [
                Part("process", start=self._protect),
                Part("store lock", self._take_lock, self._release_lock),
                Part("store", self._database.open, self._database.close),
                Part(
                    "upstream",
                    self._upstream.start,
                    self._stop_upstream,
                    patience + MARGIN_SECONDS,
                ),
                Part(
                    "sessions",
                    self._registry.start,
                    self._stop_sessions,
                    patience + MARGIN_SECONDS,
                ),
                Part("timers", self._start_timers, self._stop_timers),
                Part("listener", self._listen, self._stop_listening),
                Part("announcement", start=self._announce),
            ],
            clock=reactor,
            on_failure=self._failed,
        )

    # What ends concerns several parts

    def _grant_ended(self, grant_id: str) -> None:
        self._authenticator.forget_grant(grant_id)
        self._registry.close_grant(grant_id)

    def _user_suspended(self, user_id: int) -> None:
        self._authenticator.forget_user(user_id)
        self._registry.suspend_user(user_id)

    # Construction

    def _make_child(self, observer: ChildObserver, token: Secret, name: str) -> Child:
        return Child(
            spawner=self._reactor,
            clock=self._reactor,
            launcher=self._launcher,
            settings=self._child_settings,
            token=token,
            observer=observer,
            name=name,
        )

    def _make_site(self) -> BrokerSite:
        config = self._config
        origins = OriginPolicy(config.server.public_url, config.server.allowed_origins)
        endpoint = McpEndpoint(
            registry=self._registry,
            authenticator=self._authenticator,
            clock=self._reactor,
            replays=self._replays,
            annotate=config.child.annotations,
        )
        admission = McpAdmission(
            self._authenticator,
            origins,
            maximum_body_bytes=config.server.max_request_bytes,
        )
        root = Root(endpoint, self._make_pages(origins))
        return BrokerSite(
            root,
            self._reactor,
            {MCP_PATH.encode(): admission},
            log_every_request=config.log.level == "debug",
        )

    def _make_pages(self, origins: OriginPolicy) -> IResource:
        config = self._config
        build_info = build_information()
        health = Health(
            self._database,
            self._reactor,
            version=build_info.version,
            revision=build_info.revision,
            build_date=build_info.build_date,
            is_ready=lambda: self.daemon.ready,
        )
        url, forgejo_url = config.server.public_url, config.forgejo.url
        clock, random_bytes = self._reactor, secrets.token_bytes
        token = TokenEndpoint(
            self._database,
            TokenTransactions(
                self._sealer,
                random_bytes,
                access_lifetime_seconds=config.tokens.access_lifetime_seconds,
                refresh_lifetime_seconds=config.tokens.refresh_lifetime_seconds,
            ),
            clock,
            url,
            on_grant_ended=self._grant_ended,
        )
        revocation = RevocationEndpoint(
            self._database,
            clock,
            on_grant_ended=self._grant_ended,
            on_token_revoked=self._authenticator.forget_token,
        )
        cookies = BrowserCookies(url, random_bytes)
        departure = Departure(cookies, self._forgejo.authorize_url, self._sealer)
        routes = (
            *token_side_routes(token, revocation, Discovery(url), health),
            *sign_in_routes(
                FrontPage(url, forgejo_url),
                RegisterEndpoint(
                    self._database,
                    clock=clock,
                    random_bytes=random_bytes,
                    application_schemes=config.clients.application_schemes,
                ),
                AuthorizeEndpoint(
                    self._database,
                    cookies,
                    ConsentPage(url, forgejo_url),
                    clock=clock,
                    random_bytes=random_bytes,
                    public_url=url,
                ),
                ConsentEndpoint(
                    self._database, cookies, departure, clock=clock, public_url=url
                ),
                CallbackEndpoint(
                    self._database,
                    cookies,
                    departure,
                    self._upstream,
                    clock=clock,
                    random_bytes=random_bytes,
                    public_url=url,
                    forgejo_url=forgejo_url,
                ),
            ),
        )
        return build_web_resource(routes, origins)

    # The parts' two ends

    async def _protect(self) -> None:
        self._launcher = Launcher.detect()
        self._exit.arrange()
        if not protect_memory():
            self.log.warn("other processes of this user can read this one's memory")

    async def _take_lock(self) -> None:
        await self._lock.acquire(self._reactor, LOCK_WAIT_SECONDS)

    async def _release_lock(self) -> None:
        self._lock.release()

    async def _stop_upstream(self) -> None:
        await self._upstream.stop(float(self._config.server.shutdown_timeout_seconds))
        await self._http.close()

    async def _stop_sessions(self) -> None:
        deadline = float(self._config.server.shutdown_timeout_seconds)
        began = self._reactor.seconds()
        await self._registry.stop(deadline)
        await self._registry.flush_activity()
        # What the last requests were told has to reach their clients, too.
        left = deadline - (self._reactor.seconds() - began)
        await self._site.drain(max(left, MARGIN_SECONDS / 2))

    async def _start_timers(self) -> None:
        for timer in self._timers:
            timer.startService()

    async def _stop_timers(self) -> None:
        for timer in self._timers:
            await timer.stopService()

    async def _collect(self) -> None:
        is_complete = False
        while not is_complete:
            now = int(self._reactor.seconds())
            done = await self._database.write(partial(collect, now=now))
            for grant_id in done.ended_grants:
                self._grant_ended(grant_id)
            is_complete = done.is_complete

    async def _reap(self) -> None:
        self._replays.expire()
        limits = self._config.sessions
        await self._registry.reap(limits.idle_timeout_seconds, limits.max_idle_seconds)

    async def _dormant_users(self, now: int, before: int) -> list[int]:
        return await self._database.read(
            partial(dormant, now=now, updated_before=before)
        )

    async def _listen(self) -> None:
        address = self._config.server.listen_addr
        endpoint = serverFromString(self._reactor, address.endpoint)
        self._port = await endpoint.listen(self._factory)
        self.log.info(
            "listening on {address}, public URL {url}",
            address=address.text,
            url=self._config.server.public_url,
        )

    async def _stop_listening(self) -> None:
        port, self._port = self._port, None
        if port is not None:
            stopped: Deferred[None] | None = port.stopListening()
            if stopped is not None:
                await stopped

    async def _announce(self) -> None:
        self._reactor.callLater(0, self._on_ready)

    def _failed(self) -> None:
        self.daemon.exit_status = 1
        self._exit.fail()
