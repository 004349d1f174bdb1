"""
Work that goes on whether or not anybody still waits for it.

A Deferred that several callers share has a flaw that would cost users their sign-in
here: cancelling one caller cancels the work for all. So the work runs in a task of
its own, and each caller gets a Deferred of its own.
"""

from collections.abc import Coroutine
from typing import Any, Generic, TypeVar

from twisted.internet.defer import CancelledError, Deferred, TimeoutError
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from fjmcp_broker.errors import BrokerError

T = TypeVar("T")


class Task(Generic[T]):
    """
    One piece of work and those who wait for its result.
    """

    _log = Logger()

    def __init__(self, what: str) -> None:
        """
        Use L{Tasks.start} instead.

        @param what: names it in the log, from our own code alone.
        """
        self._what = what
        self._waiters: list[Deferred[T]] = []
        self._ends: list[Deferred[None]] = []
        self._outcome: list[T | Failure] = []

    @property
    def is_done(self) -> bool:
        """
        @return: whether the work has ended, either way.
        """
        return bool(self._outcome)

    def join(self) -> Deferred[T]:
        """
        @return: fires with the result or failure of the work; cancelling it stops
            the waiting, not the work.
        """
        waiter: Deferred[T] = Deferred(self._forget)
        self._waiters.append(waiter)
        if self._outcome:
            self._hand_out(self._outcome[0])
        return waiter

    def ended(self) -> Deferred[None]:
        """
        @return: fires with C{None} when the work has ended, however it did.
        """
        end: Deferred[None] = Deferred(self._forget_end)
        if self._outcome:
            end.callback(None)
        else:
            self._ends.append(end)
        return end

    def finish(self, outcome: T | Failure) -> None:
        """
        Take the outcome; for L{Tasks} alone.

        @param outcome: of the work.
        """
        self._outcome.append(outcome)
        if isinstance(outcome, Failure) and not self._waiters:
            self._log_unheard(outcome)
        self._hand_out(outcome)
        ends, self._ends = self._ends, []
        for end in ends:
            end.callback(None)

    def _hand_out(self, outcome: T | Failure) -> None:
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            # A callback of an earlier waiter may have cancelled a later one.
            if waiter.called:
                continue
            if isinstance(outcome, Failure):
                waiter.errback(outcome)
            else:
                waiter.callback(outcome)

    def _forget(self, waiter: Deferred[T]) -> None:
        if waiter in self._waiters:
            self._waiters.remove(waiter)

    def _forget_end(self, end: Deferred[None]) -> None:
        if end in self._ends:
            self._ends.remove(end)

    def _log_unheard(self, failure: Failure) -> None:
        if failure.check(BrokerError, CancelledError):
            self._log.warn(
                "{what} failed, nobody waits for it any more: {error}",
                what=self._what,
                error=failure.getErrorMessage(),
            )
        else:
            self._log.failure("{what} failed", failure=failure, what=self._what)


class Tasks:
    """
    The tasks of one owner, who waits for them when it stops.
    """

    _log = Logger()

    def __init__(self, clock: IReactorTime) -> None:
        """
        @param clock: for the patience of L{Tasks.finish}.
        """
        self._clock = clock
        self._running: dict[Task[Any], Deferred[None]] = {}

    def start(self, work: Coroutine[Deferred[Any], Any, T], what: str) -> Task[T]:
        """
        @param work: runs to its end; only L{Tasks.finish} may cut it short.
        @param what: names it in the log, from our own code alone.
        @return: the task, which may be done already.
        """
        task: Task[T] = Task(what)

        async def run() -> None:
            outcome: T | Failure
            try:
                outcome = await work
            # Not swallowed: it goes to whoever joins, or to the log.
            except Exception:
                outcome = Failure()
            self._running.pop(task, None)
            task.finish(outcome)

        running = Deferred.fromCoroutine(run())
        if not task.is_done:
            self._running[task] = running
        return task

    async def finish(self, timeout_seconds: float) -> None:
        """
        Wait for all tasks, those that start meanwhile included.

        @param timeout_seconds: what is left after it is cancelled.
        """
        everything = Deferred.fromCoroutine(self._all_ended())
        try:
            await everything.addTimeout(timeout_seconds, self._clock)
        except TimeoutError:
            self._log.error(
                "{count} pieces of work are given up at the stop",
                count=len(self._running),
            )
            for running in list(self._running.values()):
                running.cancel()

    async def _all_ended(self) -> None:
        while self._running:
            await next(iter(self._running)).ended()
