"""
Two clocks, so that a system clock that is set forward or back harms nobody.

Twisted's timers follow the system clock: set back by an hour, they stand still for an
hour, and set forward, they all fire at once. L{follow_elapsed_time} makes them follow
the time that passes. What expires, however, is written down in seconds since the
epoch and has to be told from those: that is what L{LifetimeClock} is for.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any, Final

from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from zope.interface import implementer

NOTICEABLE_SECONDS: Final = 2.0
"""Smaller corrections of the system clock are nobody's concern."""

LOOK_SECONDS: Final = 0.1
"""How often the system clock is looked at: what it is asked for five times in a call of
a tool only has to be told from the time that passes."""


def follow_elapsed_time(
    reactor: Any,
    *,
    monotonic: Callable[[], float] = time.monotonic,
    wall: Callable[[], float] = time.time,
) -> None:
    """
    Have every timer of a reactor follow the time that passes. C{reactor.seconds()}
    begins at the time of the system clock and is never set.

    @param reactor: Twisted's, before or while it runs; it is C{Any} because
        C{seconds} is no attribute of an interface that may be replaced.
    @param monotonic: seconds from any beginning.
    @param wall: the system clock, seconds since the epoch.
    """
    # Calls that wait already keep their moment: both clocks agree now.
    beginning = wall() - monotonic()
    reactor.seconds = lambda: beginning + monotonic()


@implementer(IReactorTime)
class LifetimeClock:
    """
    Tells for how long tokens, grants and sessions live on. Its timers are the
    reactor's.

    It is the system clock as long as that goes on as time does. When the system clock
    is set forward, it follows: time may have passed while a machine was paused, and
    whatever expired early is renewed. When the system clock is set back, it goes on
    from where it was, because nothing gets younger: Forgejo, on another machine, ends
    its tokens when it said that it would. A restart begins again with the system clock.
    """

    log = Logger()

    def __init__(
        self, reactor: IReactorTime, wall: Callable[[], float] = time.time
    ) -> None:
        """
        @param reactor: whose C{seconds} follow the time that passes; runs the timers.
        @param wall: the system clock, seconds since the epoch.
        """
        self._reactor = reactor
        self._wall = wall
        self._ahead = 0.0
        self._told_behind = 0.0
        self._look_at = float("-inf")

    def seconds(self) -> float:
        """
        @return: seconds since the epoch, never less than before. When the system clock
            is set, this is noticed within L{LOOK_SECONDS}.
        """
        passed = self._reactor.seconds()
        now = passed + self._ahead
        if passed < self._look_at:
            return now
        self._look_at = passed + LOOK_SECONDS
        jump = self._wall() - now
        if jump > 0:
            self._ahead += jump
            now += jump
        if jump > NOTICEABLE_SECONDS:
            self._told_behind = 0.0
            self.log.warn(
                "the system clock was set forward by {seconds} s", seconds=round(jump)
            )
        elif abs(-jump - self._told_behind) > NOTICEABLE_SECONDS:
            self._told_behind = -min(jump, 0.0)
            self.log.warn(
                "the system clock is {seconds} s behind; until a restart, lifetimes"
                " are counted as if it had not been set back",
                seconds=round(self._told_behind),
            )
        return now

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
        return self._reactor.callLater(delay, callable, *args, **kw)

    def getDelayedCalls(self) -> Sequence[IDelayedCall]:  # noqa: N802 - IReactorTime's
        """
        @return: as the reactor's.
        """
        return self._reactor.getDelayedCalls()
