"""
Parts of the daemon that count what passes through them.

They stand in the place of what they observe, so that nothing below knows of metrics.
"""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Final, TypeVar
from urllib.parse import parse_qsl, urlsplit

from treq.client import HTTPClient
from twisted.internet.defer import CancelledError
from twisted.internet.interfaces import IReactorCore, IReactorTime

from fjmcp_broker.limits.memory import Memory
from fjmcp_broker.limits.policy import Limited
from fjmcp_broker.mcp.lifecycle import CHANGES, State
from fjmcp_broker.metrics import OTHER, Metrics
from fjmcp_broker.oauth.vocabulary import (
    AUTHORIZATION_SERVER_PATH,
    AUTHORIZE_PATH,
    CALLBACK_PATH,
    CONSENT_PATH,
    MCP_PATH,
    PROTECTED_RESOURCE_PATH,
    REGISTER_PATH,
    REVOKE_PATH,
    TOKEN_PATH,
    ErrorCode,
)
from fjmcp_broker.secret import Secret
from fjmcp_broker.sessions.children.roles import Resident
from fjmcp_broker.sessions.processes.ending import ChildEnd, ChildObserver, EndReason
from fjmcp_broker.store.database import Database
from fjmcp_broker.store.errors import StoreUnavailable
from fjmcp_broker.timers import steady_timer
from fjmcp_broker.upstream.forgejo import Forgejo, ForgejoSettings
from fjmcp_broker.upstream.interfaces import Introspection, TokenAnswer, UserInfo
from fjmcp_broker.version import build_information
from fjmcp_broker.web.metrics import METRICS_PATH
from fjmcp_broker.web.request import BrokerRequest
from fjmcp_broker.web.site import BrokerSite

T = TypeVar("T")

DELAY_PERIOD_SECONDS: Final = 1.0

OWN_PATHS: Final = frozenset(
    (
        "/",
        "/healthz",
        "/healthz/stream",
        "/readyz",
        METRICS_PATH,
        AUTHORIZATION_SERVER_PATH,
        PROTECTED_RESOURCE_PATH,
        PROTECTED_RESOURCE_PATH + MCP_PATH,
        REGISTER_PATH,
        AUTHORIZE_PATH,
        CONSENT_PATH,
        CALLBACK_PATH,
        TOKEN_PATH,
        REVOKE_PATH,
        MCP_PATH,
    )
)
"""What the label C{endpoint} can be, beside C{other}."""


class CountedDatabase(Database):
    """The store, with its transactions counted."""

    metrics: Metrics
    seconds: Callable[[], float]

    async def write(self, transaction: Callable[[sqlite3.Connection], T]) -> T:
        """
        @param transaction: as for L{Database.write}.
        @return: likewise.
        """
        return await self._counted("write", super().write(transaction))

    async def read(self, query: Callable[[sqlite3.Connection], T]) -> T:
        """
        @param query: as for L{Database.read}.
        @return: likewise.
        """
        return await self._counted("read", super().read(query))

    async def _counted(self, kind: str, work: Awaitable[T]) -> T:
        began = self.seconds()
        outcome = "failed"
        try:
            result = await work
            outcome = "ok"
            return result
        except StoreUnavailable:
            outcome = "unavailable"
            raise
        finally:
            self.metrics.stored(kind, outcome, self.seconds() - began)


class CountedForgejo(Forgejo):
    """Forgejo's OAuth endpoints, with the calls counted."""

    metrics: Metrics
    seconds: Callable[[], float]

    async def exchange_code(self, code: str, verifier: str) -> TokenAnswer:
        """
        @param code: as for L{Forgejo.exchange_code}.
        @param verifier: likewise.
        @return: likewise.
        """
        return await self._counted("code", super().exchange_code(code, verifier))

    async def refresh(self, refresh_token: Secret) -> TokenAnswer:
        """
        @param refresh_token: as for L{Forgejo.refresh}.
        @return: likewise.
        """
        return await self._counted("refresh", super().refresh(refresh_token))

    async def userinfo(self, access_token: Secret) -> UserInfo:
        """
        @param access_token: as for L{Forgejo.userinfo}.
        @return: likewise.
        """
        return await self._counted("userinfo", super().userinfo(access_token))

    async def introspect(self, token: Secret) -> Introspection:
        """
        @param token: as for L{Forgejo.introspect}.
        @return: likewise.
        """
        return await self._counted("introspect", super().introspect(token))

    async def _counted(self, call: str, work: Awaitable[T]) -> T:
        began = self.seconds()
        outcome = "ok"
        try:
            return await work
        except CancelledError:
            outcome = "timeout"
            raise
        except Exception as error:
            outcome = type(error).__name__
            raise
        finally:
            self.metrics.called_upstream(call, outcome, self.seconds() - began)


class CountedChild:
    """Stands between a child and whoever owns it."""

    def __init__(self, observer: ChildObserver, metrics: Metrics) -> None:
        """
        @param observer: owns the child.
        @param metrics: counts.
        """
        self._observer = observer
        self._metrics = metrics
        self.child_line = observer.child_line

    def child_ended(self, end: ChildEnd) -> None:
        """
        @param end: how it ended.
        """
        self._metrics.child_ended(end.reason.value)
        self._observer.child_ended(end)


class RequestCounter:
    """Counts the requests of a site."""

    def __init__(self, metrics: Metrics) -> None:
        """
        @param metrics: counts.
        """
        self._metrics = metrics

    def __call__(self, request: BrokerRequest, seconds: float) -> None:
        """
        @param request: it has been answered.
        @param seconds: how long that took.
        """
        path = (request.path or b"").decode("latin-1")
        method = request.method.decode("latin-1")
        endpoint = path if path in OWN_PATHS else OTHER
        is_stream = path == MCP_PATH and method == "GET" and request.code == 200
        status = int(request.code)
        self._metrics.answered(endpoint, method, status, None if is_stream else seconds)
        if path == MCP_PATH and method == "POST":
            became = _call_outcome(request)
            self._metrics.posted(request.rpc_method, became, status, seconds)
        elif path in (CALLBACK_PATH, CONSENT_PATH):
            outcome = _outcome(request)
            if outcome is not None:
                self._metrics.signed_in(outcome)


def _call_outcome(request: BrokerRequest) -> str:
    if request.code >= 400:
        return "error"
    if request.code == 202:
        return "accepted"
    return "error" if request.has_failed else "result"


def _outcome(request: BrokerRequest) -> str | None:
    """
    @return: what the browser is sent back to its client with, C{page} when it is not,
        C{None} when it goes on to Forgejo.
    """
    if request.code != 303:
        return "page"
    location = request.responseHeaders.getRawHeaders(b"location") or [b""]
    query = dict(parse_qsl(urlsplit(location[0].decode("latin-1")).query))
    if query.get("error") in set(ErrorCode):
        return query["error"]
    return "success" if "code" in query and "iss" in query else None


class LoopDelay:
    """Measures how late the event loop comes to its timers."""

    def __init__(self, clock: IReactorTime, metrics: Metrics) -> None:
        """
        @param clock: the reactor.
        @param metrics: counts.
        """
        self._clock = clock
        self._metrics = metrics
        self._expected_at: float | None = None

    async def measure(self) -> None:
        """Called about every L{DELAY_PERIOD_SECONDS}."""
        now = self._clock.seconds()
        if self._expected_at is not None:
            self._metrics.delayed(now - self._expected_at)
        self._expected_at = now + DELAY_PERIOD_SECONDS


class Instruments:
    """
    The metrics of one daemon, and everything that feeds them.

    @ivar metrics: the counters.
    """

    def __init__(self, clock: IReactorTime) -> None:
        """
        @param clock: tells how much time has passed.
        """
        build = build_information()
        self.metrics = Metrics(build.version, build.revision)
        self.metrics.expect(
            limits=(*Limited, "initialize"),
            child_ends=[reason.value for reason in EndReason],
            events=sorted({change.event for change in CHANGES}),
            calls=("code", "refresh", "userinfo", "introspect"),
            sign_ins=("success", "page", str(ErrorCode.ACCESS_DENIED)),
        )
        self._clock = clock
        self._timer = steady_timer(
            DELAY_PERIOD_SECONDS,
            LoopDelay(clock, self.metrics).measure,
            "measure the delay of the event loop",
            clock,
        )

    async def start(self) -> None:
        """Begin to measure."""
        self._timer.startService()

    async def stop(self) -> None:
        """Measure no more."""
        await self._timer.stopService()

    def database(self, path: str, reactor: IReactorCore) -> Database:
        """
        @param path: as for L{Database}.
        @param reactor: likewise.
        @return: a database that is counted.
        """
        counted = CountedDatabase(path, reactor=reactor)
        counted.metrics, counted.seconds = self.metrics, self._clock.seconds
        return counted

    def forgejo(self, settings: ForgejoSettings, http: HTTPClient) -> Forgejo:
        """
        @param settings: as for L{Forgejo}.
        @param http: likewise.
        @return: a Forgejo whose calls are counted.
        """
        counted = CountedForgejo(settings, http, self._clock)
        counted.metrics, counted.seconds = self.metrics, self._clock.seconds
        return counted

    def child(self, observer: ChildObserver) -> ChildObserver:
        """
        @param observer: owns a child that is about to be made.
        @return: what the child gets in its place.
        """
        self.metrics.child_started()
        return CountedChild(observer, self.metrics)

    def watch(
        self, sessions: Iterable[Resident], site: BrokerSite, bodies: Memory
    ) -> None:
        """
        Show what others keep.

        @param sessions: those that are more than their rows, whenever asked.
        @param site: the one that clients use.
        @param bodies: what their bodies take.
        """

        def states() -> Mapping[str, int]:
            found = Counter(each.children.state.value for each in sessions)
            return {state.value: found[state.value] for state in State}

        self.metrics.watch_states(
            "fjmcp_sessions",
            "Sessions that have a child, a waiting request or an open stream; all "
            "others are rows in the store alone.",
            states,
        )
        self.metrics.watch(
            "fjmcp_connections",
            "Open connections of clients.",
            lambda: len(site.channels),
        )
        self.metrics.watch(
            "fjmcp_body_memory_bytes",
            "Bodies of requests to the MCP endpoint that are on their way.",
            lambda: bodies.held_bytes,
        )
