"""Clocks that a jump of the system clock does not confuse."""

from typing import Any

from twisted.internet.base import ReactorBase
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from fjmcp_broker.clocks import LOOK_SECONDS, LifetimeClock, follow_elapsed_time

NOON = 1_800_000_000.0
HOURS = 5 * 3600.0


class _Reactor(ReactorBase):
    """Twisted's timers, without anything to wait for."""

    def installWaker(self) -> None:  # noqa: N802 - Twisted's name
        """Nobody wakes it."""


class ElapsedTimeTests(SynchronousTestCase):
    """Timers of a reactor."""

    def setUp(self) -> None:
        """A reactor with Twisted's own timers."""
        self.passed = Clock()
        self.wall = NOON
        self.reactor: Any = _Reactor()
        self.fired: list[str] = []

    def follow(self) -> None:
        """Have it follow the time that passes."""
        follow_elapsed_time(
            self.reactor, monotonic=self.passed.seconds, wall=lambda: self.wall
        )

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        self.passed.advance(seconds)
        self.wall += seconds
        self.reactor.runUntilCurrent()

    def test_set_back(self) -> None:
        """Timers do not stand still."""
        self.follow()
        self.reactor.callLater(10, self.fired.append, "ten")
        self.wall -= HOURS
        self.advance(9)
        self.assertEqual(self.fired, [])
        self.assertLessEqual(self.reactor.timeout(), 1)
        self.advance(1)
        self.assertEqual(self.fired, ["ten"])

    def test_set_forward(self) -> None:
        """They do not fire early."""
        self.follow()
        self.reactor.callLater(10, self.fired.append, "ten")
        self.wall += HOURS
        self.advance(9)
        self.assertEqual(self.fired, [])
        self.advance(1)
        self.assertEqual(self.fired, ["ten"])

    def test_calls_that_wait_already(self) -> None:
        """They keep their moment."""
        self.reactor.seconds = lambda: self.wall
        self.reactor.callLater(10, self.fired.append, "ten")
        self.follow()
        self.advance(9.5)
        self.assertEqual(self.fired, [])
        self.advance(1)
        self.assertEqual(self.fired, ["ten"])


class LifetimeClockTests(SynchronousTestCase):
    """What has expired."""

    def setUp(self) -> None:
        """A clock at noon."""
        self.reactor = Clock()
        self.reactor.rightNow = NOON
        self.off = 0.0
        self.clock = LifetimeClock(
            self.reactor, lambda: self.reactor.seconds() + self.off
        )

    def test_interface(self) -> None:
        """It is a clock of Twisted's, with the reactor's timers."""
        verifyObject(IReactorTime, self.clock)
        fired: list[int] = []
        self.clock.callLater(5, fired.append, 1)
        self.off = HOURS
        self.clock.seconds()
        self.assertEqual(len(self.clock.getDelayedCalls()), 1)
        self.reactor.advance(5)
        self.assertEqual(fired, [1])

    def test_agrees_with_the_system_clock(self) -> None:
        """As long as that goes on as time does."""
        self.reactor.advance(100)
        self.assertEqual(self.clock.seconds(), NOON + 100)

    def test_set_forward(self) -> None:
        """It follows."""
        self.off = HOURS
        self.assertEqual(self.clock.seconds(), NOON + HOURS)
        self.reactor.advance(10)
        self.assertEqual(self.clock.seconds(), NOON + HOURS + 10)

    def test_set_back(self) -> None:
        """It goes on from where it was."""
        self.off = -HOURS
        self.assertEqual(self.clock.seconds(), NOON)
        self.reactor.advance(10)
        self.assertEqual(self.clock.seconds(), NOON + 10)

    def test_set_between_two_looks(self) -> None:
        """It is noticed with the next one, and time goes on until then."""
        self.assertEqual(self.clock.seconds(), NOON)
        self.off = HOURS
        self.reactor.advance(LOOK_SECONDS / 2)
        self.assertEqual(self.clock.seconds(), NOON + LOOK_SECONDS / 2)
        self.reactor.advance(LOOK_SECONDS / 2)
        self.assertEqual(self.clock.seconds(), NOON + LOOK_SECONDS + HOURS)

    def test_there_and_back(self) -> None:
        """What was issued meanwhile does not live longer for it."""
        self.off = HOURS
        expires_at = self.clock.seconds() + 60
        self.off = 0.0
        self.reactor.advance(LOOK_SECONDS)
        self.assertLess(self.clock.seconds(), expires_at)
        self.reactor.advance(60)
        self.assertGreaterEqual(self.clock.seconds(), expires_at)
