"""
What the daemon writes down for its operator, beside the log: the audit trail and the
traces of sign-ins.

Nobody waits for it: both are collected in memory and written many at once.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Final

from twisted.internet.defer import Deferred, DeferredLock
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from fjmcp_broker.limits.addresses import Address
from fjmcp_broker.logs import background
from fjmcp_broker.store import traces
from fjmcp_broker.store.database import Database
from fjmcp_broker.store.errors import StoreError
from fjmcp_broker.store.trail import AuditTrail
from fjmcp_broker.timers import steady_timer
from fjmcp_broker.trace.book import KEPT_SECONDS, Book
from fjmcp_broker.web.audit import ToolCalls
from fjmcp_broker.web.request import BrokerRequest
from fjmcp_broker.web.tracing import Tracing

FLUSH_SECONDS: Final = 2.0
"""What a SIGKILL loses at most."""

MAXIMUM_BATCH: Final = 200
"""Attempts in one transaction."""


class Bookkeeping:
    """
    Keeps the books and writes them now and then.

    @ivar trail: takes audit events.
    @ivar calls: makes them of calls of tools.
    """

    log = Logger()

    def __init__(
        self,
        database: Database,
        reactor: IReactorTime,
        lifetimes: IReactorTime,
        random_bytes: Callable[[int], bytes] = secrets.token_bytes,
    ) -> None:
        """
        @param database: the store.
        @param reactor: for periods and durations.
        @param lifetimes: tells the time.
        @param random_bytes: for trace ids.
        """
        self._database = database
        self._reactor = reactor
        self._book = Book(random_bytes)
        self._writing = DeferredLock()
        self.trail = AuditTrail(database, lifetimes.seconds)
        self.trail.on_many = self._write_early
        self.calls = ToolCalls(self.trail, reactor.seconds)
        self._timer = steady_timer(
            FLUSH_SECONDS, self.flush, "write the books", reactor
        )

    @property
    def lost_traces(self) -> Mapping[str, int]:
        """
        @return: how many traces of sign-ins had to go before their time, by the bound
            that was reached.
        """
        return self._book.lost

    def tracing(self, address: Callable[[Any], Address | None]) -> Tracing:
        """
        @param address: of a request's client, C{None} when it is not known.
        @return: what stands around the endpoints of a sign-in.
        """
        return Tracing(self._book, self.trail, address, self._reactor)

    async def start(self) -> None:
        """
        Go on with the attempts that an earlier daemon has seen.

        @raise StoreError: they cannot be read.
        """
        self._book.load(await self._database.read(traces.load))
        self._timer.startService()

    async def stop(self) -> None:
        """Write what is left, after everything that causes events."""
        await self._timer.stopService()
        try:
            await self.flush()
        except StoreError as problem:
            self.log.error(
                "{count} audit events are lost: {problem}",
                count=self.trail.waiting,
                problem=str(problem),
            )

    async def flush(self) -> None:
        """
        Write what waits.

        @raise StoreError: the store cannot be used; what waits, waits on.
        """
        await self.trail.flush()
        await self._writing.run(lambda: Deferred.fromCoroutine(self._write_traces()))

    def _write_early(self) -> None:
        background(self.trail.flush(), "writing the audit trail")

    async def _write_traces(self) -> None:
        self._book.forget_before(self.trail.now - KEPT_SECONDS)
        while changes := self._book.take_changes(MAXIMUM_BATCH):
            work = partial(traces.write, saved=changes.saved, removed=changes.removed)
            try:
                await self._database.write(work)
            except BaseException:
                self._book.put_back(changes)
                raise


def both(
    first: Callable[[BrokerRequest, float], None], tracing: Tracing
) -> Callable[[BrokerRequest, float], None]:
    """
    @param first: hears of each request that was answered, and how long that took.
    @param tracing: hears of it, too.
    @return: tells both.
    """

    def answered(request: BrokerRequest, seconds: float) -> None:
        first(request, seconds)
        tracing.answered(request)

    return answered
