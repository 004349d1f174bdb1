"""
The store on a real file, with real threads.
"""

import os
import shutil
import sqlite3
import tempfile
import threading
from contextlib import closing
from sqlite3 import Connection
from typing import cast

from twisted.internet import reactor
from twisted.internet.defer import CancelledError, Deferred, gatherResults
from twisted.internet.interfaces import IReactorCore, IReactorTime
from twisted.internet.task import deferLater
from twisted.logger import ILogObserver, LogEvent, globalLogPublisher
from twisted.trial.unittest import TestCase

from fjmcp_broker.store import users
from fjmcp_broker.store.database import Database
from fjmcp_broker.store.errors import StoreUnavailable
from fjmcp_broker.store.instance import Instance
from fjmcp_broker.store.preflight import prepare

from .test_store_preflight import NOW, open_files

#: Threads that wait for the test give up then, so that a failure does not hang.
PATIENCE_SECONDS = 20


def add_user(connection: Connection, user_id: int = 1) -> None:
    """
    Write something.
    """
    users.upsert_user(connection, user_id, "ada", "Ada", NOW)


def count_users(connection: Connection) -> int:
    """
    Read something.
    """
    number: int = connection.execute("SELECT count(*) FROM users").fetchone()[0]
    return number


class Gate:
    """
    Holds a thread until the test lets it go on.
    """

    def __init__(self) -> None:
        self.reached: Deferred[None] = Deferred()
        self._opened = threading.Event()

    def hold(self) -> None:
        """
        In the thread: say that it is here, then wait.
        """
        reactor.callFromThread(self.reached.callback, None)  # type: ignore[attr-defined]
        assert self._opened.wait(PATIENCE_SECONDS)

    def open(self) -> None:
        """
        In the test: let the thread go on.
        """
        self._opened.set()


class DatabaseTestCase(TestCase):
    timeout = 60

    async def setUp(self) -> None:  # type: ignore[override]
        # The reactor has made its own handles once it has turned.
        await deferLater(cast(IReactorTime, reactor), 0)
        self.folder = tempfile.mkdtemp()
        self.addCleanup(shutil.rmtree, self.folder)
        self.path = os.path.join(self.folder, "store.db")
        prepare(self.path, [], Instance("https://git.example", "app"), NOW)
        self.before = open_files(), threading.enumerate()
        self.database = self.make()
        await self.database.open()
        self.addCleanup(self.close)

    def make(self, busy_timeout_seconds: float = 5.0) -> Database:
        return Database(
            self.path,
            reactor=cast(IReactorCore, reactor),
            busy_timeout_seconds=busy_timeout_seconds,
        )

    def close(self) -> "Deferred[None]":
        return Deferred.fromCoroutine(self.database.close())

    def other_program(self) -> Connection:
        connection = sqlite3.connect(self.path, isolation_level=None)
        self.addCleanup(connection.close)
        return connection

    async def turn(self) -> None:
        """
        Let the reactor do everything that is due, results of threads included.
        """
        for _ in range(20):
            await self.database.read(count_users)
            await deferLater(cast(IReactorTime, reactor), 0)


class SettingsTests(DatabaseTestCase):
    async def test_live_writer_is_durable(self) -> None:
        """
        The very connection that writes has synchronous=FULL (2), foreign keys and a
        busy timeout, in a write-ahead log: a lost rotation would log a user out.
        """

        def pragmas(connection: Connection) -> dict[str, object]:
            return {
                name: connection.execute(f"PRAGMA {name}").fetchone()[0]
                for name in (
                    "synchronous",
                    "foreign_keys",
                    "journal_mode",
                    "busy_timeout",
                    "query_only",
                )
            }

        expected = {
            "synchronous": 2,
            "foreign_keys": 1,
            "journal_mode": "wal",
            "busy_timeout": 5000,
            "query_only": 0,
        }
        self.assertEqual(await self.database.write(pragmas), expected)
        self.assertEqual(
            await self.database.read(pragmas), {**expected, "query_only": 1}
        )

    async def test_all_writes_use_one_connection(self) -> None:
        """
        However many ask at once, one connection writes, in the order of asking.
        """
        order: list[int] = []

        def write(number: int) -> "Deferred[int]":
            def transaction(connection: Connection) -> int:
                order.append(number)
                return id(connection)

            return Deferred.fromCoroutine(self.database.write(transaction))

        connections = await gatherResults([write(number) for number in range(20)])
        self.assertEqual(len(set(connections)), 1)
        self.assertEqual(order, list(range(20)))

    async def test_readers_work_side_by_side(self) -> None:
        """
        Two readers are at work at the same time.
        """
        both = threading.Barrier(2, timeout=PATIENCE_SECONDS)
        reads = [
            Deferred.fromCoroutine(self.database.read(lambda c: both.wait()))
            for _ in range(2)
        ]
        self.assertEqual(set(await gatherResults(reads)), {0, 1})


class CommitTests(DatabaseTestCase):
    async def test_answer_waits_for_the_commit(self) -> None:
        """
        A write does not answer before its commit: the commit is held back, and
        neither the answer nor the row is there until it is let go.
        """
        gate = Gate()

        def hold_the_commit(statement: str) -> None:
            if statement == "COMMIT":
                gate.hold()

        def transaction(connection: Connection) -> str:
            add_user(connection)
            connection.set_trace_callback(hold_the_commit)
            return "done"

        answer = Deferred.fromCoroutine(self.database.write(transaction))
        await gate.reached
        await self.turn()
        self.assertNoResult(answer)
        self.assertEqual(await self.database.read(count_users), 0)
        gate.open()
        self.assertEqual(await answer, "done")
        self.assertEqual(await self.database.read(count_users), 1)
        await self.database.write(lambda c: c.set_trace_callback(None))

    async def test_write_waits_for_another_program(self) -> None:
        """
        While another program writes, ours waits and readers go on.
        """
        other = self.other_program()
        other.execute("BEGIN IMMEDIATE")
        add_user(other, 1)
        answer = Deferred.fromCoroutine(self.database.write(add_user))
        await self.turn()
        self.assertNoResult(answer)
        other.execute("COMMIT")
        await answer

    async def test_reader_sees_one_moment(self) -> None:
        """
        What is committed during a read is not seen by it.
        """
        gate = Gate()

        def read_twice(connection: Connection) -> tuple[int, int]:
            first = count_users(connection)
            gate.hold()
            return first, count_users(connection)

        answer = Deferred.fromCoroutine(self.database.read(read_twice))
        await gate.reached
        await self.database.write(add_user)
        gate.open()
        self.assertEqual(await answer, (0, 0))
        self.assertEqual(await self.database.read(count_users), 1)


class UnavailableTests(DatabaseTestCase):
    async def test_locked_store_is_unavailable(self) -> None:
        """
        A lock that lasts longer than the timeout is told as such, and the next
        write works.
        """
        impatient = self.make(busy_timeout_seconds=0.05)
        await impatient.open()
        self.addCleanup(lambda: Deferred.fromCoroutine(impatient.close()))
        other = self.other_program()
        other.execute("BEGIN IMMEDIATE")
        with self.assertRaises(StoreUnavailable) as raised:
            await impatient.write(add_user)
        self.assertEqual(
            str(raised.exception),
            f"the store {self.path} is not available: database is locked",
        )
        other.execute("ROLLBACK")
        await impatient.write(add_user)

    async def test_full_disk_is_unavailable_and_rolls_back(self) -> None:
        """
        A transaction that does not fit is undone as a whole; smaller ones go on.
        """

        def limit(connection: Connection, pages: int) -> None:
            connection.execute(f"PRAGMA max_page_count = {pages}")

        def too_much(connection: Connection) -> None:
            add_user(connection)
            for number in range(2, 2000):
                users.upsert_user(connection, number, "x" * 200, "x", NOW)

        await self.database.write(lambda c: limit(c, 1))
        with self.assertRaises(StoreUnavailable) as raised:
            await self.database.write(too_much)
        self.assertEqual(
            str(raised.exception),
            f"the store {self.path} is not available: database or disk is full",
        )
        self.assertEqual(await self.database.read(count_users), 0)
        await self.database.write(lambda c: limit(c, 100_000))
        await self.database.write(too_much)

    async def test_damaged_file_is_unavailable(self) -> None:
        """
        Damage that appears while the daemon runs does not look like a client's
        mistake.
        """

        def fill(connection: Connection) -> None:
            for number in range(2000):
                users.upsert_user(connection, number, "x" * 200, "x", NOW)

        await self.database.write(fill)
        await self.database.close()
        size = os.path.getsize(self.path)
        with open(self.path, "r+b") as file:
            file.seek(size // 2)
            file.write(b"\xff" * (size - size // 2))
        database = self.make()
        await database.open()
        self.addCleanup(lambda: Deferred.fromCoroutine(database.close()))
        with self.assertRaises(StoreUnavailable) as raised:
            await database.read(
                lambda c: c.execute("SELECT sum(length(login)) FROM users").fetchone()
            )
        self.assertEqual(
            str(raised.exception),
            f"the store {self.path} is not available: database disk image is malformed",
        )


class CancellationTests(DatabaseTestCase):
    def begun(self, gate: Gate) -> "Deferred[None]":
        """
        @return: a caller whose transaction waits in the middle.
        """

        def transaction(connection: Connection) -> None:
            add_user(connection, 1)
            gate.hold()
            add_user(connection, 2)

        async def call() -> None:
            await self.database.write(transaction)

        return Deferred.fromCoroutine(call())

    async def test_cancelled_caller_does_not_stop_its_transaction(self) -> None:
        """
        A browser that goes away in the middle of a transaction changes nothing: it
        is committed as a whole.
        """
        gate = Gate()
        caller = self.begun(gate)
        await gate.reached
        caller.cancel()
        self.failureResultOf(caller, CancelledError)
        gate.open()
        self.assertEqual(await self.database.write(count_users), 2)

    async def test_cancelled_caller_does_not_take_back_what_it_asked_for(self) -> None:
        """
        A transaction that still waits for its turn runs too: a code may be spent.
        """
        gate = Gate()
        first = self.begun(gate)
        await gate.reached
        second = Deferred.fromCoroutine(self.database.write(lambda c: add_user(c, 3)))
        second.cancel()
        self.failureResultOf(second, CancelledError)
        gate.open()
        await first
        self.assertEqual(await self.database.write(count_users), 3)

    async def test_failure_that_nobody_waits_for_is_logged(self) -> None:
        """
        A dropped result is dropped, a dropped failure is not silent.
        """
        events: list[LogEvent] = []
        observer = cast(ILogObserver, events.append)
        globalLogPublisher.addObserver(observer)
        self.addCleanup(globalLogPublisher.removeObserver, observer)
        gate = Gate()

        def fail(connection: Connection) -> None:
            add_user(connection)
            gate.hold()
            raise LookupError("nobody hears this")

        caller = Deferred.fromCoroutine(self.database.write(fail))
        await gate.reached
        caller.cancel()
        self.failureResultOf(caller, CancelledError)
        gate.open()
        self.assertEqual(await self.database.write(count_users), 0)
        self.assertIn(
            "nobody hears this", [str(event.get("error")) for event in events]
        )


class CloseTests(DatabaseTestCase):
    async def test_nothing_is_open_before_or_after(self) -> None:
        """
        Between open and close there are handles and threads, before and after there
        are none: a daemon may fork before, and leaves nothing behind.
        """
        await self.database.write(add_user)
        await gatherResults(
            [Deferred.fromCoroutine(self.database.read(count_users)) for _ in range(10)]
        )
        self.assertNotEqual((open_files(), threading.enumerate()), self.before)
        await self.database.close()
        self.assertEqual((open_files(), threading.enumerate()), self.before)
        again = self.make()
        self.assertEqual((open_files(), threading.enumerate()), self.before)
        for _ in range(20):
            await again.open()
            await again.read(count_users)
            await again.close()
        self.assertEqual((open_files(), threading.enumerate()), self.before)
        self.assertEqual(
            sorted(os.listdir(self.folder)),
            ["store.db", "store.db.key", "store.db.lock"],
        )

    async def test_failed_open_leaves_nothing(self) -> None:
        """
        A store that cannot be opened costs no handle and no thread.
        """
        await self.database.close()
        self.path = os.path.join(self.folder, "missing.db")
        for _ in range(3):
            database = self.make()
            with self.assertRaises(Exception) as raised:
                await database.open()
            self.assertIn("unable to open database file", str(raised.exception))
        self.assertEqual((open_files(), threading.enumerate()), self.before)

    async def test_close_waits_for_what_has_been_asked(self) -> None:
        """
        Transactions under way and in the queue are finished; new ones are refused.
        """
        gate = Gate()

        def slow(connection: Connection) -> None:
            gate.hold()
            add_user(connection, 1)

        first = Deferred.fromCoroutine(self.database.write(slow))
        second = Deferred.fromCoroutine(self.database.write(lambda c: add_user(c, 2)))
        await gate.reached
        closing_now = self.close()
        with self.assertRaises(StoreUnavailable):
            await self.database.write(add_user)
        self.assertNoResult(closing_now)
        gate.open()
        await closing_now
        await gatherResults([first, second])
        with closing(sqlite3.connect(self.path)) as connection:
            self.assertEqual(count_users(connection), 2)
