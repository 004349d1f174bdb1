"""The children that are on their way out, until each of them is reaped."""

from contextlib import suppress
from typing import TypeVar

from twisted.internet.defer import Deferred, TimeoutError, gatherResults
from twisted.internet.interfaces import IReactorTime

from fjmcp_broker.logs import background
from fjmcp_broker.sessions.processes.child import Child
from fjmcp_broker.sessions.processes.ending import ChildEnd

T = TypeVar("T")


class Partings:
    """
    Children that were told to stop.
    """

    def __init__(self, clock: IReactorTime) -> None:
        """
        @param clock: for the deadline.
        """
        self._clock = clock
        self._ending: set[Child] = set()

    def stop(self, child: Child, *, at_once: bool) -> None:
        """
        @param child: of no use any more.
        @param at_once: kill it instead of letting it finish.
        """
        if child.pid is None or child in self._ending:
            if at_once:
                child.kill()
            return
        self._ending.add(child)
        if at_once:
            child.kill()
        background(self._stop(child), "stopping a child")

    async def finish(self, seconds: float, grace_seconds: float) -> None:
        """
        Wait for all of them; those that are left at the end are killed.

        @param seconds: for everything together.
        @param grace_seconds: between the steps of each stop.
        """
        for child in list(self._ending):
            background(child.stop(grace_seconds), "stopping a child")
        await at_most(self._all_ended(), seconds, self._clock)
        for child in self._ending:
            child.kill()
        await self._all_ended()

    async def _stop(self, child: Child) -> None:
        await child.stop()
        self._ending.discard(child)

    def _all_ended(self) -> "Deferred[list[ChildEnd]]":
        return gatherResults(
            [child.when_ended() for child in self._ending], consumeErrors=True
        )


async def at_most(waiting: "Deferred[T]", seconds: float, clock: IReactorTime) -> None:
    """
    @param waiting: what to wait for.
    @param seconds: no longer than that.
    @param clock: measures them.
    """
    with suppress(TimeoutError):
        await waiting.addTimeout(seconds, clock)
