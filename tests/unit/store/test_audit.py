"""
Audit events: written in batches, read in pages, bounded, forgotten in time.
"""

from collections.abc import Callable
from functools import partial
from sqlite3 import Connection
from typing import Any, TypeVar, cast

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.logger import ILogObserver, globalLogPublisher

from fjmcp_broker.bookkeeping import Bookkeeping
from fjmcp_broker.store import audit, clients, grants
from fjmcp_broker.store.audit import ROWS_AT_ONCE, AuditEvent, Kind, ShownEvent
from fjmcp_broker.store.collector import collect
from fjmcp_broker.store.database import Database
from fjmcp_broker.store.errors import StoreUnavailable
from fjmcp_broker.store.trail import MANY_WAITING, MAXIMUM_BATCH, AuditTrail
from tests.relay_stubs import principal

from . import rows
from .memory import NOW
from .rows import CLIENT_ID, GRANT_ID, USER_ID, StoreTestCase

T = TypeVar("T")
DAY = 24 * 3600


def call(at: int = NOW, **changes: object) -> AuditEvent:
    """
    @return: a call of a tool that went well.
    """
    values: dict[str, object] = {
        "at": at,
        "kind": Kind.TOOL_CALL,
        "outcome": "ok",
        "user_id": USER_ID,
        "client_id": CLIENT_ID,
        "grant_id": GRANT_ID,
        "session": "0123456789",
        "tool": "get_issue",
        "duration_ms": 12,
    }
    return AuditEvent(**{**values, **changes})  # type: ignore[arg-type]


def call_row(duration_ms: int) -> audit.CallRow:
    """
    @return: the row of L{call}.
    """
    whose = USER_ID, CLIENT_ID, GRANT_ID
    return NOW, *whose, "0123456789", "get_issue", "ok", duration_ms


class AuditCase(StoreTestCase):
    """A store with a trail."""

    def events(self, **choice: object) -> list[ShownEvent]:
        """
        @return: what is written down.
        """
        asked: dict[str, object] = {"limit": 10_000, **choice}
        return self.read(partial(audit.select, **asked))  # type: ignore[arg-type]

    def insert(self, *events: AuditEvent) -> None:
        """Write events at once."""
        self.write(lambda c: audit.insert_many(c, events))


class EventTests(AuditCase):
    """The table."""

    def test_event_comes_back_whole(self) -> None:
        """With the names that user and client have now."""
        self.insert(call())
        (shown,) = self.events()
        self.assertEqual(shown.event, call())
        self.assertEqual(shown.client_name, "Tests")
        self.assertIsNotNone(shown.login)

    def test_events_outlive_what_they_name(self) -> None:
        """A client that was removed takes nothing along."""
        self.insert(call(), call(user_id=99, client_id="gone", grant_id="gone"))
        self.write(lambda c: c.execute("DELETE FROM grants").rowcount)
        self.write(lambda c: c.execute("DELETE FROM clients").rowcount)
        first, second = self.events()
        self.assertEqual(first.event, call())
        self.assertEqual((second.login, second.client_name), (None, None))

    def test_end_of_a_grant_is_completed_by_the_store(self) -> None:
        """Whoever hears of the end knows nothing but the id."""
        self.write(lambda c: grants.revoke(c, GRANT_ID, NOW, "refresh_reuse"))
        trail = AuditTrail(self.database, lambda: NOW)
        trail.grant_ended(GRANT_ID)
        trail.grant_ended("nobody")
        trail.user_suspended(USER_ID)
        self.successResultOf(Deferred.fromCoroutine(trail.flush()))
        ended, unknown, suspended = (shown.event for shown in self.events())
        self.assertEqual(
            (ended.user_id, ended.client_id, ended.outcome),
            (USER_ID, CLIENT_ID, "refresh_reuse"),
        )
        self.assertEqual((unknown.user_id, unknown.outcome), (None, "unknown"))
        self.assertEqual(suspended.user_id, USER_ID)

    def test_many_rows_are_few_statements(self) -> None:
        """However many there are, each is there once, in its place."""
        most = ROWS_AT_ONCE[0]
        for count in (0, 1, most - 1, most, 2 * most + 11):
            self.write(lambda c: c.execute("DELETE FROM audit_events").rowcount)
            written = [call_row(n) for n in range(count)]
            self.write(partial(audit.insert_rows, rows=written))
            numbers = [shown.event.duration_ms for shown in self.events()]
            self.assertEqual(numbers, list(range(count)))
        statements: list[str] = []

        def insert(connection: Connection) -> None:
            connection.set_trace_callback(statements.append)
            audit.insert_rows(connection, [call_row(1)] * (3 * most + 99))
            connection.set_trace_callback(None)

        self.write(insert)
        self.assertEqual(len(statements), 3 + 9 + 9)

    def test_incomplete_rows_between_complete_ones(self) -> None:
        """They are other statements, and yet in the order in which they happened."""
        self.write(lambda c: grants.revoke(c, GRANT_ID, NOW, "expired"))
        ends = (0, 7, 8, 205)
        mixed: list[audit.Row] = []
        for n in range(2 * ROWS_AT_ONCE[0] + 10):
            ended = AuditEvent(
                at=NOW,
                kind=Kind.GRANT_ENDED,
                outcome="",
                grant_id=GRANT_ID,
                duration_ms=n,
            )
            mixed.append(audit.row_of(ended) if n in ends else call_row(n))
        self.write(lambda c: audit.insert_rows(c, mixed))
        for n, shown in enumerate(self.events()):
            expected = call(duration_ms=n)
            if n in ends:
                end: dict[str, Any] = {"kind": Kind.GRANT_ENDED, "outcome": "expired"}
                expected = call(duration_ms=n, session=None, tool=None, **end)
            self.assertEqual(shown.event, expected)

    def test_pages_and_choice(self) -> None:
        """In the order of time, each event once."""
        self.insert(*(call(NOW + n // 3, duration_ms=n) for n in range(10)))
        self.insert(call(NOW + 1, user_id=8))
        self.assertEqual(len(self.events(user_id=8)), 1)
        self.assertEqual(len(self.events(since=NOW + 3)), 1)
        seen: list[int] = []
        after = None
        while page := self.events(limit=4, user_id=USER_ID, after=after):
            seen += [shown.event.duration_ms or 0 for shown in page]
            after = (page[-1].event.at, page[-1].event_id)
        self.assertEqual(seen, list(range(10)))

    def test_client_that_has_no_name(self) -> None:
        """Registration does not ask for one."""
        nameless = rows.client(
            "nameless",
            metadata='{"redirect_uris":["http://127.0.0.1/"],'
            '"token_endpoint_auth_method":"none","application_type":"native"}',
        )
        self.write(lambda c: clients.insert(c, nameless))
        self.insert(call(client_id="nameless"))
        self.assertIsNone(self.events()[0].client_name)

    def test_collector_forgets_old_events(self) -> None:
        """After the configured time, a bounded number in one run."""
        self.insert(*(call(NOW + n) for n in range(5)))
        run = partial(collect, limit=2, audit_retention_seconds=DAY)
        done = self.write(lambda c: run(c, NOW + DAY + 2))
        self.assertEqual((done.audit_events, done.is_complete), (2, False))
        done = self.write(lambda c: run(c, NOW + DAY + 2))
        self.assertEqual((done.audit_events, done.is_complete), (1, True))
        self.assertEqual(len(self.events()), 2)


class FailingDatabase(Database):
    """A store that cannot be written while C{fails}."""

    fails = True
    transactions = 0

    def meanwhile(self) -> None:
        """What happens during a transaction."""

    async def write(self, transaction: Callable[[Connection], T]) -> T:
        """Count, or refuse."""
        if self.fails:
            raise StoreUnavailable("the disk is full")
        self.transactions += 1
        self.meanwhile()
        return await super().write(transaction)


class TrailTests(AuditCase):
    """The way to the table."""

    def setUp(self) -> None:
        """A trail that keeps five events."""
        super().setUp()
        self.database.__class__ = FailingDatabase
        self.trail = AuditTrail(self.database, lambda: NOW, maximum_waiting=5)

    def flush(self) -> None:
        """Write."""
        self.successResultOf(Deferred.fromCoroutine(self.trail.flush()))

    def store(self) -> FailingDatabase:
        """The store, as it is here."""
        assert isinstance(self.database, FailingDatabase)
        return self.database

    def test_trouble_with_the_store_loses_nothing(self) -> None:
        """What waits is written when it can be."""
        self.trail.note(call())
        failed = Deferred.fromCoroutine(self.trail.flush())
        self.failureResultOf(failed, StoreUnavailable)
        self.assertEqual(self.trail.waiting, 1)
        self.store().fails = False
        self.flush()
        self.flush()
        self.assertEqual(len(self.events()), 1)
        self.assertEqual(self.trail.waiting, 0)

    def test_what_does_not_fit_is_counted(self) -> None:
        """In the trail itself, where the gap is, and in the log."""
        said: list[object] = []
        watch = cast(ILogObserver, lambda event: said.append(event.get("count")))
        globalLogPublisher.addObserver(watch)
        self.addCleanup(globalLogPublisher.removeObserver, watch)
        for n in range(8):
            self.trail.note(call(duration_ms=n))
        self.assertEqual((self.trail.waiting, self.trail.lost), (5, 3))
        self.store().fails = False
        self.flush()
        *kept, told = (shown.event for shown in self.events())
        self.assertEqual([event.duration_ms for event in kept], list(range(5)))
        self.assertEqual((told.kind, told.outcome), (Kind.EVENTS_LOST, "3"))
        self.assertIn(3, said)
        self.trail.note(call())
        self.flush()
        self.assertEqual(len(self.events()), 7)

    def test_many_events_are_few_transactions(self) -> None:
        """A refresh behind them does not wait for all of them."""
        self.store().fails = False
        trail = AuditTrail(self.database, lambda: NOW)
        for _ in range(2 * MAXIMUM_BATCH + 1):
            trail.note(call())
        before = self.store().transactions
        self.successResultOf(Deferred.fromCoroutine(trail.flush()))
        self.assertEqual(self.store().transactions - before, 3)
        self.assertEqual(len(self.events()), 2 * MAXIMUM_BATCH + 1)

    def note_during_writes(self, each: list[int]) -> AuditTrail:
        """
        @param each: so many events come during the first transaction, the second, ...
        @return: a trail where ten events are many, with 25 that wait.
        """
        self.store().fails = False
        trail = AuditTrail(self.database, lambda: NOW, many_waiting=10)
        for _ in range(25):
            trail.note(call())

        def meanwhile() -> None:
            for _ in range(each.pop(0) if each else 0):
                trail.note(call())

        self.patch(self.store(), "meanwhile", meanwhile)
        return trail

    def test_few_events_during_a_transaction_have_none_of_their_own(self) -> None:
        """They are left to the next time, which is not far away."""
        trail = self.note_during_writes([9, 9])
        self.successResultOf(Deferred.fromCoroutine(trail.flush()))
        self.assertEqual((self.store().transactions, trail.waiting), (1, 9))
        self.successResultOf(Deferred.fromCoroutine(trail.flush()))
        self.assertEqual((self.store().transactions, trail.waiting), (2, 9))

    def test_many_events_during_a_transaction_are_written_too(self) -> None:
        """Nobody would ask for them to be written early: that many are there."""
        trail = self.note_during_writes([10, 11, 3])
        self.successResultOf(Deferred.fromCoroutine(trail.flush()))
        self.assertEqual((self.store().transactions, trail.waiting), (3, 3))
        asked: list[int] = []
        trail.on_many = lambda: asked.append(trail.waiting)
        for _ in range(7):
            trail.note(call())
        self.assertEqual(asked, [10])

    def test_early_writing_is_asked_for_once(self) -> None:
        """Not again with each event while it cannot be done, and not during it."""
        asked: list[int] = []
        trail = AuditTrail(self.database, lambda: NOW, many_waiting=3)
        trail.on_many = lambda: asked.append(trail.waiting)
        for _ in range(5):
            trail.note(call())
        self.assertEqual(asked, [3])
        self.failureResultOf(Deferred.fromCoroutine(trail.flush()), StoreUnavailable)
        trail.note(call())
        self.assertEqual(asked, [3])
        self.store().fails = False
        self.successResultOf(Deferred.fromCoroutine(trail.flush()))
        for _ in range(4):
            trail.note(call())
        self.assertEqual(asked, [3, 3])


class SlowDatabase(Database):
    """A store whose transactions take their time."""

    clock: Clock
    write_seconds: float

    async def write(self, transaction: Callable[[Connection], T]) -> T:
        """Wait, then write."""
        done: Deferred[None] = Deferred()
        self.clock.callLater(self.write_seconds, done.callback, None)
        await done
        return await super().write(transaction)


class RateTests(AuditCase):
    """Many calls in a second."""

    def setUp(self) -> None:
        """The books of a daemon, on a disk that is slow."""
        super().setUp()
        self.clock = Clock()
        self.clock.advance(NOW)
        self.database.__class__ = SlowDatabase
        assert isinstance(self.database, SlowDatabase)
        self.database.clock = self.clock
        self.books = Bookkeeping(self.database, self.clock, self.clock)
        self.successResultOf(Deferred.fromCoroutine(self.books.start()))

    def run_for(self, milliseconds: int, calls: int, write_seconds: float) -> int:
        """
        @param calls: in a millisecond.
        @param write_seconds: how long a transaction takes.
        @return: how many waited at most.
        """
        assert isinstance(self.database, SlowDatabase)
        self.database.write_seconds = write_seconds
        trail, most = self.books.trail, 0
        for _ in range(milliseconds):
            for _ in range(calls):
                trail.called(principal(), "0123456789", "echo", "ok", 0.001)
            most = max(most, trail.waiting)
            self.clock.advance(0.001)
        return most

    def stop(self) -> None:
        """The daemon ends."""
        stopped = Deferred.fromCoroutine(self.books.stop())
        while not stopped.called:
            self.clock.advance(0.1)
        self.successResultOf(stopped)

    def written(self) -> int:
        """How many are written."""
        query = "SELECT count(*) FROM audit_events WHERE kind = 'tool_call'"
        return int(self.read(lambda c: c.execute(query).fetchone())[0])

    def test_fifteen_thousand_calls_in_a_second(self) -> None:
        """A thousand rows and an fsync of 1 ms take 10 ms at most: none is lost."""
        most = self.run_for(4_000, 15, 0.01)
        self.stop()
        self.assertEqual((self.books.trail.lost, self.written()), (0, 60_000))
        self.assertLess(most, MANY_WAITING + MAXIMUM_BATCH)

    def test_disk_that_is_too_slow(self) -> None:
        """The bound is kept, and each event is written or counted."""
        most = self.run_for(2_000, 15, 0.4)
        self.stop()
        self.assertEqual(most, 10_000)
        self.assertGreater(self.books.trail.lost, 0)
        self.assertEqual(self.written() + self.books.trail.lost, 30_000)
