"""What anybody may ask for waits for itself, not in front of the others."""

from collections.abc import Callable
from sqlite3 import Connection
from typing import Any, TypeVar

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from fjmcp_broker.store.database import Database
from fjmcp_broker.store.errors import StoreUnavailable
from fjmcp_broker.store.lane import Lane

T = TypeVar("T")


class SlowDatabase(Database):
    """One whose transactions end when the test says so."""

    def __init__(self) -> None:
        self.begun: list[tuple[Callable[[Any], Any], Deferred[Any]]] = []

    async def write(self, transaction: Callable[[Connection], T]) -> T:
        """Wait."""
        ended: Deferred[T] = Deferred()
        self.begun.append((transaction, ended))
        return await ended

    async def read(self, query: Callable[[Connection], T]) -> T:
        """At once."""
        nothing: Any = None
        return query(nothing)

    def end(self, error: Exception | None = None) -> None:
        """End the oldest."""
        transaction, ended = self.begun.pop(0)
        if error is None:
            ended.callback(transaction(None))
        else:
            ended.errback(error)


class LaneTests(SynchronousTestCase):
    """At most one transaction is with the writer."""

    def setUp(self) -> None:
        """A lane with room for three."""
        self.clock = Clock()
        self.database = SlowDatabase()
        self.lane = Lane(
            self.database, self.clock, maximum_waiting=3, patience_seconds=5
        )

    def write(self, answer: object) -> "Deferred[object]":
        """Ask for a transaction."""
        return Deferred.fromCoroutine(self.lane.write(lambda connection: answer))

    def test_one_after_the_other(self) -> None:
        """In the order asked, each with its own result."""
        asked = [self.write(number) for number in range(4)]
        for number, one in enumerate(asked):
            self.assertEqual(len(self.database.begun), 1)
            self.assertNoResult(one)
            self.database.end()
            self.assertEqual(self.successResultOf(one), number)
        self.assertEqual(self.database.begun, [])
        self.database.begun.clear()
        self.write(9)
        self.assertEqual(len(self.database.begun), 1)

    def test_others_pass_by(self) -> None:
        """A flood leaves room for whoever goes to the writer directly."""
        asked = [self.write(number) for number in range(4)]
        refresh = Deferred.fromCoroutine(self.database.write(lambda c: "refreshed"))
        self.database.end()
        self.database.end()
        self.assertEqual(self.successResultOf(refresh), "refreshed")
        self.assertNoResult(asked[1])
        for _ in range(3):
            self.database.end()
        self.assertEqual(self.successResultOf(asked[3]), 3)

    def test_too_many(self) -> None:
        """One more than may wait is refused at once; nobody else is."""
        asked = [self.write(number) for number in range(4)]
        self.failureResultOf(self.write(4), StoreUnavailable)
        self.assertEqual(self.lane.waiting, 3)
        for one in asked:
            self.database.end()
            self.successResultOf(one)

    def test_too_long(self) -> None:
        """Who has waited in vain hears of it, and is not written down later."""
        first, second = self.write(1), self.write(2)
        self.clock.advance(5)
        self.failureResultOf(second, StoreUnavailable)
        self.database.end()
        self.successResultOf(first)
        self.assertEqual(self.database.begun, [])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_departed(self) -> None:
        """What waits for nobody is not done; what has begun is done to its end."""
        first, second, third = (self.write(number) for number in range(3))
        first.cancel()
        second.cancel()
        self.failureResultOf(first, CancelledError)
        self.failureResultOf(second, CancelledError)
        self.assertEqual(len(self.database.begun), 1)
        self.database.end()
        self.database.end()
        self.assertEqual(self.successResultOf(third), 2)

    def test_failure(self) -> None:
        """It is its caller's; the next one goes on."""
        first, second = self.write(1), self.write(2)
        self.database.end(StoreUnavailable("the disk is full"))
        self.failureResultOf(first, StoreUnavailable)
        self.database.end()
        self.assertEqual(self.successResultOf(second), 2)

    def test_failure_after_departure(self) -> None:
        """The log has it."""
        first = self.write(1)
        first.cancel()
        self.failureResultOf(first, CancelledError)
        self.database.end(StoreUnavailable("the disk is full"))
        self.assertEqual(self.successResultOf(self.next()), 7)

    def next(self) -> "Deferred[object]":
        """One more, done."""
        asked = self.write(7)
        self.database.end()
        return asked

    def test_reading(self) -> None:
        """Does not wait."""
        self.write(1)
        read = Deferred.fromCoroutine(self.lane.read(lambda connection: "found"))
        self.assertEqual(self.successResultOf(read), "found")
