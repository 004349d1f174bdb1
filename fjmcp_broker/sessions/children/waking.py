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

    def __init__(self, clock: IReactorTime, may_go: Callable[[], bool]) -> None:
        """
        @param clock: for their patience.
        @param may_go: whether one whose patience ends can do without a new child.
        """
        self._clock = clock
        self._may_go = may_go
        self._waiting: list[Deferred[None]] = []

    def __len__(self) -> int:
        """
        @return: how many wait.
        """
        return len(self._waiting)

    def join(self, *, is_patient: bool) -> Deferred[None]:
        """
        @param is_patient: whether it waits for the new child however long that takes,
            instead of going on when it may.
        @return: fires when it may go on, or fails.
        """
        waiting: Deferred[None] = Deferred()
        self._waiting.append(waiting)
        if not is_patient:
            overdue = self._clock.callLater(PATIENCE_SECONDS, self._overdue, waiting)
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

    def _overdue(self, waiting: Deferred[None]) -> None:
        if self._may_go() and waiting in self._waiting:
            self._waiting.remove(waiting)
            waiting.callback(None)


def _stop(result: None, overdue: IDelayedCall) -> None:
    if overdue.active():
        overdue.cancel()
    return result
