"""
What the daemon writes down for its operator, beside the log: the audit trail.

Nobody waits for it: events are collected in memory and written many at once.
"""

from __future__ import annotations

from typing import Final

from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from fjmcp_broker.store.database import Database
from fjmcp_broker.store.errors import StoreError
from fjmcp_broker.store.trail import AuditTrail
from fjmcp_broker.timers import steady_timer
from fjmcp_broker.web.mcp_audit import ToolCalls

FLUSH_SECONDS: Final = 2.0
"""What a SIGKILL loses at most."""


class Bookkeeping:
    """
    Keeps the books and writes them now and then.

    @ivar trail: takes audit events.
    @ivar calls: makes them of calls of tools.
    """

    log = Logger()

    def __init__(
        self, database: Database, reactor: IReactorTime, lifetimes: IReactorTime
    ) -> None:
        """
        @param database: the store.
        @param reactor: for periods and durations.
        @param lifetimes: tells the time.
        """
        self.trail = AuditTrail(database, lifetimes.seconds)
        self.calls = ToolCalls(self.trail, reactor.seconds)
        self._timer = steady_timer(
            FLUSH_SECONDS, self.flush, "write audit events", reactor
        )

    async def start(self) -> None:
        """Begin to write."""
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
