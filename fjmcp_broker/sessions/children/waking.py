"""Those who wait for a session's child."""

from collections.abc import Callable
from typing import Final

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.python.failure import Failure

PATIENCE_SECONDS: Final = 5.0
"""So long calls wait for a replacement, as long as there is something to replace."""


class Waking:
    """
    Requests that wait until there is a child.
    """

    def __init__(self, clock: IReactorTime) -> None:
        """
        @param clock: for their patience.
        """
        self._clock = clock
        self._waiting: list[Deferred[None]] = []

    def __len__(self) -> int:
        """
        @return: how many wait.
        """
        return len(self._waiting)

    def join(self, may_go: Callable[[], bool] | None) -> Deferred[None]:
        """
        @param may_go: whether it can do without the new child when its patience ends;
            C{None}: it waits however long that takes.
        @return: fires when it may go on, or fails.
        """
        waiting: Deferred[None] = Deferred()
        self._waiting.append(waiting)
        if may_go is not None:
            overdue = self._clock.callLater(
                PATIENCE_SECONDS, self._overdue, waiting, may_go
            )
            waiting.addBoth(_stop, overdue)
        return waiting

    def release(self) -> None:
        """Let all of them go on."""
        waiting, self._waiting = self._waiting, []
        for each in waiting:
            each.callback(None)

    def fail(self, error: Exception) -> None:
        """
        @param error: why there will be no child.
        """
        waiting, self._waiting = self._waiting, []
        for each in waiting:
            each.errback(Failure(error))

    def _overdue(self, waiting: Deferred[None], may_go: Callable[[], bool]) -> None:
        if may_go() and waiting in self._waiting:
            self._waiting.remove(waiting)
            waiting.callback(None)


def _stop(result: None, overdue: IDelayedCall) -> None:
    if overdue.active():
        overdue.cancel()
    return result
