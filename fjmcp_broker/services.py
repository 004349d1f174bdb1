"""
The composition root: the only place that builds pools, agents, stores, sites and
timers, and puts them together into the daemon.

Nothing here opens a file, a socket or a thread before the service starts: C{build}
runs before C{twistd} becomes a daemon.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable
from typing import Any, Final

from twisted.logger import Logger

from fjmcp_broker.bookkeeping import Bookkeeping, both
from fjmcp_broker.clocks import LifetimeClock
from fjmcp_broker.config import Config
from fjmcp_broker.control.administration import Administration, Parts
from fjmcp_broker.control.server import ControlSocket
from fjmcp_broker.deadlines import SharedTimers
from fjmcp_broker.endpoints import Surroundings, build_documents, build_endpoints
from fjmcp_broker.limits.policy import Limiter
from fjmcp_broker.listeners import Listener, Listeners
from fjmcp_broker.mcp.catalogue import ToolCatalogue
from fjmcp_broker.oauth.vocabulary import MCP_PATH
from fjmcp_broker.observing.instruments import Instruments
from fjmcp_broker.observing.requests import RequestCounter
from fjmcp_broker.ordered import OrderedService, Part
from fjmcp_broker.periodic import Periodic
from fjmcp_broker.preflight import (
    LOCK_WAIT_SECONDS,
    access_rules,
    child_settings,
    forgejo_settings,
    preflight,
)
from fjmcp_broker.process import OrderlyExit
from fjmcp_broker.reload import Certificate, Operator, Reloader
from fjmcp_broker.secret import Secret
from fjmcp_broker.sessions.children.population import Limits
from fjmcp_broker.sessions.children.profiles import (
    ChildProfiles,
    ProgramIdentity,
    StoredProfiles,
)
from fjmcp_broker.sessions.processes.child import Child
from fjmcp_broker.sessions.processes.ending import ChildObserver
from fjmcp_broker.sessions.processes.spawn import Launcher, protect_memory
from fjmcp_broker.sessions.processes.transport import Spawner
from fjmcp_broker.sessions.registry import SessionRegistry
from fjmcp_broker.sessions.streams.replay import Replays
from fjmcp_broker.store.errors import StoreError
from fjmcp_broker.store.keys import load_or_create_keys
from fjmcp_broker.store.lock import StoreLock
from fjmcp_broker.store.sealing import Sealer
from fjmcp_broker.systemd import Notifier
from fjmcp_broker.upstream.http import build_http
from fjmcp_broker.upstream.tokens import UpstreamTokens
from fjmcp_broker.web.app import Route, build_web_resource
from fjmcp_broker.web.bearer import BearerAuthenticator
from fjmcp_broker.web.limiting import ClientAddresses, RateLimiter, SessionLimiter
from fjmcp_broker.web.mcp.admission import McpAdmission
from fjmcp_broker.web.mcp.endpoint import McpEndpoint
from fjmcp_broker.web.metrics import METRICS_PATH, MetricsEndpoint
from fjmcp_broker.web.origins import OriginPolicy
from fjmcp_broker.web.root import Root
from fjmcp_broker.web.site import BodyLimit, BrokerSite

__all__ = ["Daemon", "build", "preflight"]

MARGIN_SECONDS: Final = 2.0


class Daemon(OrderedService):
    """
    The root service.

    @ivar exit_status: what the process should end with.
    """

    exit_status = 0


def build(
    config: Config,
    reactor: Any,
    *,
    on_ready: Callable[[], None] = lambda: None,
    operator: Operator | None = None,
) -> Daemon:
    """
    Put the daemon together. L{preflight} has found the configuration usable.

    @param config: checked.
    @param reactor: Twisted's, for everything that it does. It is C{Any} because it
        provides a dozen interfaces.
    @param on_ready: called each time the listener has begun to accept.
    @param operator: what a reload needs; without it SIGHUP is left alone.
    @return: the service, not started.
    @raise BrokerError: a file named in the configuration has become unusable.
    """
    return _Composition(config, reactor, on_ready, operator).daemon


class _Composition:
    """Every object of one daemon."""

    log = Logger()

    def __init__(
        self,
        config: Config,
        reactor: Any,
        on_ready: Callable[[], None],
        operator: Operator | None,
    ) -> None:
        self._config = config
        self._reactor = reactor
        self._lifetimes = LifetimeClock(reactor)
        self._on_ready = on_ready
        self._instruments = Instruments(reactor, config.metrics)
        self._exit = OrderlyExit(reactor)
        self._notifier = Notifier(reactor)
        self._lock = StoreLock(config.database.path)
        self._database = self._instruments.database(config.database.path, reactor)
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
        self._forgejo = self._instruments.forgejo(
            forgejo_settings(config), self._http.client
        )
        self._upstream = UpstreamTokens(
            self._database,
            self._sealer,
            self._forgejo,
            self._lifetimes,
            self._user_suspended,
            requested_scope=config.forgejo.oauth_scopes,
            access=access_rules(config),
        )
        self._documents = build_documents(
            config, reactor, self._lifetimes, self._instruments.document_asked
        )
        self._authenticator = BearerAuthenticator(
            self._database, self._lifetimes, config.server.public_url
        )
        self._launcher = Launcher(())
        self._child_settings = child_settings(config)
        self._registry = SessionRegistry(
            clock=self._lifetimes,
            ledger=self._instruments.rows(self._database, self._sealer),
            tokens=self._upstream,
            make_child=self._make_child,
            catalogue=ToolCatalogue.packaged().allowing(config.child.allowed_tools),
            limits=Limits(
                config.sessions.max,
                config.sessions.max_per_user,
                config.sessions.max_dormant_per_grant,
            ),
            profiles=ChildProfiles(
                ProgramIdentity(config.child.command, self._lifetimes.seconds),
                StoredProfiles(self._database),
                self._lifetimes.seconds,
            ),
            sealing=self._sealer,
            interactive=config.child.interactive,
        )
        self._books = Bookkeeping(self._database, reactor, self._lifetimes)
        self._replays = Replays(reactor)
        self._periodic = Periodic(
            config,
            reactor,
            self._lifetimes,
            database=self._database,
            registry=self._registry,
            upstream=self._upstream,
            replays=self._replays,
            on_grant_ended=self._grant_ended,
        )
        self._control = self._make_control()
        self._site = site = self._make_site()
        certificate = Certificate.configured(config)
        factory = site if certificate is None else certificate.wrap(site)
        server = Listener("server.listen_addr", config.server.listen_addr, factory)
        self._listeners = Listeners(reactor, [server, *self._metrics_listener()])
        self._on_hangup: Callable[[], None] | None = None
        if operator is not None:
            self._on_hangup = Reloader(
                config, operator, certificate, self._notifier, site
            )
        patience = float(config.server.shutdown_timeout_seconds)
        self.daemon = Daemon(
            [
                Part("process", self._protect, self._notifier.stop),
                Part("store lock", self._take_lock, self._release_lock),
                Part("store", self._database.open, self._database.close),
                Part("bookkeeping", self._books.start, self._books.stop),
                Part("control socket", self._control.start, self._control.stop),
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
                Part("instruments", self._instruments.start, self._instruments.stop),
                Part("timers", self._periodic.start, self._periodic.stop),
                Part("listener", self._listeners.start, self._stop_listening),
                Part("announcement", start=self._announce),
            ],
            clock=reactor,
            on_failure=self._failed,
        )

    # What ends concerns several parts

    def _grant_ended(self, grant_id: str) -> None:
        self._books.trail.grant_ended(grant_id)
        self._authenticator.forget_grant(grant_id)
        self._registry.close_grant(grant_id)
        self._site.end_streams(lambda p: p.grant_id == grant_id, calls=True)

    def _token_revoked(self, token_digest: bytes) -> None:
        self._authenticator.forget_token(token_digest)
        self._site.end_streams(lambda p: p.token_digest == token_digest)

    def _user_suspended(self, user_id: int) -> None:
        self._books.trail.user_suspended(user_id)
        self._authenticator.forget_user(user_id)
        self._registry.suspend_user(user_id)

    # Construction

    def _make_child(self, observer: ChildObserver, token: Secret, name: str) -> Child:
        return Child(
            spawner=Spawner(self._reactor),
            clock=self._reactor,
            launcher=self._launcher,
            settings=self._child_settings,
            token=token,
            observer=self._instruments.child(observer),
            name=name,
        )

    def _make_control(self) -> ControlSocket:
        config = self._config.database
        parts = Parts(
            database=self._database,
            database_path=os.path.abspath(config.path),
            sealer=self._sealer,
            configured_keys=config.encryption_keys,
            clock=self._lifetimes,
            trail=self._books.trail,
            flush=self._books.flush,
            residents=self._registry.population,
            on_grant_ended=self._grant_ended,
        )
        perform = Administration(parts).perform
        return ControlSocket(config.path, perform, self._reactor)

    def _metrics_listener(self) -> list[Listener]:
        address = self._config.metrics.listen_addr
        if address is None:
            return []
        route = Route("GET", METRICS_PATH, self._metrics.show)
        nobody = OriginPolicy(self._config.server.public_url)
        site = BrokerSite(build_web_resource([route], nobody), self._reactor, {})
        return [Listener("metrics.listen_addr", address, site)]

    def _make_site(self) -> BrokerSite:
        config = self._config
        origins = OriginPolicy(config.server.public_url, config.server.allowed_origins)
        endpoint = McpEndpoint(
            registry=self._registry,
            authenticator=self._authenticator,
            clock=SharedTimers(self._reactor),
            replays=self._replays,
            annotate=config.child.annotations,
            calls=self._books.calls,
            session_limiter=SessionLimiter(
                config.limits.initialize,
                self._reactor,
                self._instruments.metrics.rate_limited.add,
            ),
        )
        addresses = ClientAddresses(config.server.trusted_proxies, config.log.addresses)
        tracing = self._books.tracing(addresses.of)
        limiter = RateLimiter(
            Limiter(config.limits.rate_limits()),
            addresses,
            self._reactor,
            self._instruments.metrics.rate_limited.add,
        )
        self._metrics = MetricsEndpoint(
            self._instruments.metrics, addresses, config.metrics.allow
        )
        bodies = self._instruments.memory(config.server.max_body_memory_bytes)
        admission = McpAdmission(
            self._authenticator,
            origins,
            maximum_body_bytes=config.server.max_request_bytes,
            limiter=limiter,
            memory=bodies,
        )
        endpoints = build_endpoints(
            Surroundings(
                config=config,
                clock=self._lifetimes,
                random_bytes=secrets.token_bytes,
                database=self._database,
                sealer=self._sealer,
                forgejo=self._forgejo,
                upstream=self._upstream,
                documents=self._documents,
                origins=origins,
                limiter=limiter,
                tracing=tracing,
                metrics=self._metrics,
                is_ready=lambda: self.daemon.ready,
                on_grant_ended=self._grant_ended,
                on_token_revoked=self._token_revoked,
            )
        )
        root = Root(endpoint, endpoints)
        site = BrokerSite(
            root,
            self._reactor,
            {MCP_PATH.encode(): admission},
            log_every_request=config.log.level == "debug",
            shown_client=addresses.shown,
            others=BodyLimit(network=addresses.network),
            on_answered=both(RequestCounter(self._instruments.metrics), tracing),
        )
        self._instruments.watch(self._registry, site, bodies, self._books)
        return site

    # The parts' two ends

    async def _protect(self) -> None:
        self._launcher = Launcher.detect()
        self._exit.arrange(self._on_hangup)
        self._notifier.start(os.environ)
        if not protect_memory():
            self.log.warn("other processes of this user can read this one's memory")

    async def _take_lock(self) -> None:
        await self._lock.acquire(self._reactor, LOCK_WAIT_SECONDS)

    async def _release_lock(self) -> None:
        self._lock.release()

    async def _stop_upstream(self) -> None:
        if self._documents is not None:
            await self._documents.stop(MARGIN_SECONDS / 2)
        await self._upstream.stop(float(self._config.server.shutdown_timeout_seconds))
        await self._http.close()

    async def _stop_listening(self) -> None:
        await self._listeners.stop()
        await self._site.settle()

    async def _stop_sessions(self) -> None:
        deadline = float(self._config.server.shutdown_timeout_seconds)
        began = self._reactor.seconds()
        await self._registry.stop(deadline)
        try:
            await self._registry.flush_activity()
        except StoreError as problem:
            self.log.warn("the last use of sessions is not known: {e}", e=str(problem))
        # What the last requests were told has to reach their clients, too.
        left = deadline - (self._reactor.seconds() - began)
        await self._site.drain(max(left, MARGIN_SECONDS / 2))

    async def _announce(self) -> None:
        self._reactor.callLater(0, self._announced)

    def _announced(self) -> None:
        server = self._config.server
        self._notifier.ready(f"serving {server.public_url} on {server.listen_addr}")
        self._on_ready()

    def _failed(self) -> None:
        self.daemon.exit_status = 1
        self._exit.fail()
