"""
The metrics of one daemon, and where they are put in.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Final

from treq.client import HTTPClient
from twisted.internet.interfaces import IReactorCore, IReactorTime

from fjmcp_broker.bookkeeping import Bookkeeping
from fjmcp_broker.config import MetricsConfig
from fjmcp_broker.limits.memory import Memory
from fjmcp_broker.limits.policy import Limited
from fjmcp_broker.mcp.lifecycle import CHANGES, Change, State
from fjmcp_broker.metrics import Metrics
from fjmcp_broker.oauth.vocabulary import ErrorCode
from fjmcp_broker.observing.census import COUNT_SECONDS, Census
from fjmcp_broker.observing.labels import Limit, Rotated
from fjmcp_broker.observing.parts import (
    CountedChild,
    CountedDatabase,
    CountedForgejo,
    CountedRows,
)
from fjmcp_broker.sessions.children.population import Full, Reaped
from fjmcp_broker.sessions.processes.ending import ChildObserver, EndReason
from fjmcp_broker.sessions.registry import SessionRegistry
from fjmcp_broker.sessions.rows import SessionRows
from fjmcp_broker.store.database import Database
from fjmcp_broker.store.sealing import Sealer
from fjmcp_broker.store.sessions import count_open
from fjmcp_broker.timers import steady_timer
from fjmcp_broker.upstream.documents import FetchOutcome
from fjmcp_broker.upstream.forgejo import Forgejo, ForgejoSettings
from fjmcp_broker.version import build_information
from fjmcp_broker.web.mcp.admission import body_memory
from fjmcp_broker.web.site import BrokerSite

DELAY_PERIOD_SECONDS: Final = 1.0

_FULL: Final = {
    Full.TOTAL: Limit.CHILDREN,
    Full.OF_USER: Limit.CHILDREN_PER_USER,
}


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

    def __init__(self, clock: IReactorTime, shown: MetricsConfig) -> None:
        """
        @param clock: tells how much time has passed.
        @param shown: to whom, if anybody.
        """
        build = build_information()
        self.metrics = Metrics(build.version, build.revision)
        self._expect()
        self._clock = clock
        self._is_shown = shown.listen_addr is not None or bool(shown.allow)
        self._rows: Callable[[], Awaitable[int]] = _no_rows
        self._timers = [
            steady_timer(
                DELAY_PERIOD_SECONDS,
                LoopDelay(clock, self.metrics).measure,
                "measure the delay of the event loop",
                clock,
            )
        ]

    async def start(self) -> None:
        """Begin to measure."""
        for timer in self._timers:
            timer.startService()

    async def stop(self) -> None:
        """Measure no more."""
        for timer in self._timers:
            await timer.stopService()

    # In the place of parts

    def database(self, path: str, reactor: IReactorCore) -> Database:
        """
        @param path: as for L{Database}.
        @param reactor: likewise.
        @return: a database that is counted.
        """
        counted = CountedDatabase(path, reactor=reactor)
        counted.metrics, counted.seconds = self.metrics, self._clock.seconds
        self._rows = partial(counted.read, count_open)
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
        self.metrics.child_spawned()
        return CountedChild(observer, self.metrics)

    def rows(self, database: Database, sealer: Sealer) -> SessionRows:
        """
        @param database: as for L{SessionRows}.
        @param sealer: likewise.
        @return: rows that are counted when they are too many.
        """
        return CountedRows(database, sealer, self.metrics.limits_hit)

    def memory(self, total_bytes: int) -> Memory:
        """
        @param total_bytes: that the bodies of requests may take together.
        @return: a bound on it, which counts those for whom there was no room.
        """
        hit = partial(self.metrics.limits_hit.add, Limit.BODY_MEMORY)
        return Memory(body_memory(total_bytes), hit)

    # Hearing of things

    def document_asked(self) -> Callable[[FetchOutcome], None]:
        """
        @return: to be told what came of the request for a client's document that
            begins now.
        """
        began = self._clock.seconds()

        def over(outcome: FetchOutcome) -> None:
            seconds = self._clock.seconds() - began
            was_tried = outcome is not FetchOutcome.LIMITED
            self.metrics.documents.add(seconds if was_tried else None, outcome)

        return over

    def moved(self, change: Change) -> None:
        """
        @param change: of the state of some session.
        """
        self.metrics.transitions.add(change.event)
        if change.source is State.ROTATING:
            self.metrics.rotations.add(_how_rotated(change.event))

    # What others keep

    def watch(
        self,
        registry: SessionRegistry,
        site: BrokerSite,
        bodies: Memory,
        books: Bookkeeping,
    ) -> None:
        """
        @param registry: the sessions.
        @param site: the one that clients use.
        @param bodies: what their bodies take.
        @param books: the audit trail and the traces of sign-ins.
        """
        self._watch_sessions(registry)
        self._watch_books(books)
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

    # Inside

    def _watch_sessions(self, registry: SessionRegistry) -> None:
        population, metrics = registry.population, self.metrics
        registry.on_moved = self.moved
        population.on_reaped = metrics.reaps.add
        population.on_full = lambda full: metrics.limits_hit.add(_FULL[full])
        census = Census(self._rows, population, self._clock.seconds)
        if self._is_shown:
            self._timers.append(
                steady_timer(COUNT_SECONDS, census.count, "count rows", self._clock)
            )
        metrics.watch_each(
            "fjmcp_sessions",
            "Sessions, those included that are rows in the store alone (dormant).",
            ("kind", "state"),
            census.states,
        )

    def _watch_books(self, books: Bookkeeping) -> None:
        trail = books.trail
        self.metrics.watch(
            "fjmcp_audit_events_waiting",
            "Audit events that are not in the store yet.",
            lambda: trail.waiting,
        )
        self.metrics.watch_each(
            "fjmcp_audit_events_lost",
            "Audit events for which there was no room while the store did not work.",
            (),
            lambda: {(): trail.lost},
            only_grow=True,
        )
        self.metrics.watch_each(
            "fjmcp_sign_in_traces_lost",
            "Traces of sign-ins that went before their time, because of their network "
            "or of all together there were too many.",
            ("bound",),
            lambda: {(bound,): count for bound, count in books.lost_traces.items()},
            only_grow=True,
        )

    def _expect(self) -> None:
        metrics = self.metrics
        metrics.rate_limited.expect((*Limited, "initialize"))
        metrics.limits_hit.expect(Limit)
        metrics.exits.expect(reason.value for reason in EndReason)
        metrics.reaps.expect(Reaped)
        metrics.rotations.expect(Rotated)
        metrics.transitions.expect(sorted({change.event for change in CHANGES}))
        metrics.sign_ins.expect(("success", "page", ErrorCode.ACCESS_DENIED))
        for call in ("code", "refresh", "userinfo", "introspect"):
            metrics.upstream.expect(call, "ok")
        for fetched in FetchOutcome:
            metrics.documents.expect(fetched)
        for kind in ("write", "read"):
            for outcome in ("ok", "unavailable", "failed"):
                metrics.store.expect(kind, outcome)


async def _no_rows() -> int:
    """There is no store."""
    return 0


def _how_rotated(event: str) -> Rotated:
    if event == "child_ready":
        return Rotated.REPLACED
    return Rotated.FAILED if event == "child_failed" else Rotated.INTERRUPTED
