"""
Timers that nearly always are cancelled. Each call of a tool has one, for the case that
its answer is late, and thousands of calls a second make and cancel as many. Each of
Twisted's own is half a dozen objects, and a place in a heap until that is put in order
again.

Here all timers of the same length stand in one queue: each is due later than those
that were made before it, so that one of Twisted's, for the first of them, is enough.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from twisted.internet.error import AlreadyCalled, AlreadyCancelled
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from zope.interface import implementer


@implementer(IDelayedCall)
class _Deadline:
    """One timer, and its place in the queue of its length."""

    __slots__ = ("_call", "_queue", "_was_called", "at")

    def __init__(self, queue: _Queue, at: float, call: Callable[[], object]) -> None:
        self._queue = queue
        self.at = at
        self._call: Callable[[], object] | None = call
        self._was_called = False

    def take(self) -> Callable[[], object]:
        """Out of the queue; the call is the caller's to make, or to forget."""
        call = self._call
        if call is None:
            raise AlreadyCalled() if self._was_called else AlreadyCancelled()
        del self._queue.waiting[self]
        self._call = None
        return call

    def due(self) -> Callable[[], object] | None:
        """As L{take}, unless it has been cancelled."""
        if self._call is None:
            return None
        self._was_called = True
        return self.take()

    # IDelayedCall

    def active(self) -> bool:
        return self._call is not None

    def cancel(self) -> None:
        self.take()

    def getTime(self) -> float:  # noqa: N802 - IDelayedCall's name
        return self.at

    def reset(self, secondsFromNow: float) -> None:  # noqa: N803 - IDelayedCall's
        call = self.take()
        self._queue = self._queue.timers.queue(secondsFromNow)
        self.at, self._call = self._queue.timers.seconds() + secondsFromNow, call
        self._queue.add(self)

    def delay(self, secondsLater: float) -> None:  # noqa: N803 - IDelayedCall's
        self.reset(self.at + secondsLater - self._queue.timers.seconds())


class _Queue:
    """
    Timers of one length.

    @ivar waiting: a set in the order in which they were made, which is that in which
        they are due.
    """

    log = Logger()

    def __init__(self, timers: SharedTimers, seconds: float) -> None:
        self.timers = timers
        self.waiting: dict[_Deadline, None] = {}
        self._seconds = seconds
        self._is_watched = False

    def add(self, deadline: _Deadline) -> None:
        self.waiting[deadline] = None
        if not self._is_watched:
            self._watch(self._seconds)

    def _watch(self, seconds: float) -> None:
        self._is_watched = True
        self.timers.clock.callLater(seconds, self._look)

    def _look(self) -> None:
        """
        The one that was first when this was set up is due, or was cancelled.
        """
        now = self.timers.seconds()
        due = []
        for deadline in self.waiting:
            if deadline.at > now:
                break
            due.append(deadline)
        for deadline in due:
            call = deadline.due()
            if call is None:
                continue  # one before it has cancelled it
            try:
                call()
            except Exception:
                # As the reactor does: the others are due all the same.
                self.log.failure("a timed call failed")
        first = next(iter(self.waiting), None)
        if first is None:
            self._is_watched = False
            self.timers.forget(self._seconds)
        else:
            self._watch(max(0.0, first.at - self.timers.seconds()))


@implementer(IReactorTime)
class SharedTimers:
    """
    A clock for many timers of a few lengths. To make or to cancel one takes the same
    time however many there are, and leaves nothing behind but, for at most that
    length, one timer of the clock behind this one.

    @ivar clock: that clock.
    """

    def __init__(self, clock: IReactorTime) -> None:
        """
        @param clock: the reactor, whose C{seconds} follow the time that passes
            (L{fjmcp_broker.clocks.follow_elapsed_time}).
        """
        self.clock = clock
        self._queues: dict[float, _Queue] = {}

    def seconds(self) -> float:
        """
        @return: as of the clock behind this one.
        """
        return self.clock.seconds()

    def callLater(  # noqa: N802 - IReactorTime's name
        self, delay: float, callable: Callable[..., Any], *args: object, **kw: object
    ) -> IDelayedCall:
        """
        As the reactor's.

        @param delay: seconds that pass until then.
        @param callable: what to call.
        @param args: for it.
        @param kw: for it.
        @return: the call.
        """
        call = partial(callable, *args, **kw) if args or kw else callable
        queue = self._queues.get(delay) or self.queue(delay)
        deadline = _Deadline(queue, self.seconds() + delay, call)
        queue.add(deadline)
        return deadline

    def getDelayedCalls(self) -> Sequence[IDelayedCall]:  # noqa: N802 - IReactorTime's
        """
        @return: those that were made here and wait.
        """
        return [call for queue in self._queues.values() for call in queue.waiting]

    def queue(self, seconds: float) -> _Queue:
        """
        @param seconds: a length.
        @return: the queue of the timers that have it.
        """
        if seconds not in self._queues:
            self._queues[seconds] = _Queue(self, seconds)
        return self._queues[seconds]

    def forget(self, seconds: float) -> None:
        """
        @param seconds: a length that no timer has any more.
        """
        del self._queues[seconds]
