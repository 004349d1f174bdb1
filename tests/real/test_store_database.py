"""
The store on a real file, with real threads.
"""

import os
import sqlite3
import threading
from sqlite3 import Connection

from twisted.internet.defer import Deferred, gatherResults

from fjmcp_broker.store import users
from fjmcp_broker.store.database import Database
from fjmcp_broker.store.errors import StoreUnavailable

from .stores import (
    NOW,
    PATIENCE_SECONDS,
    DatabaseTestCase,
    Gate,
    add_user,
    count_users,
)


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

    async def test_what_a_transaction_has_read_stays_true(self) -> None:
        """
        A transaction that reads first and writes later keeps other writers out from
        its beginning; else it would fail, or decide on what is no longer so.
        """
        gate = Gate()

        def read_then_write(connection: Connection) -> int:
            count = count_users(connection)
            gate.hold()
            add_user(connection, 100 + count)
            return count

        answer = Deferred.fromCoroutine(self.database.write(read_then_write))
        await gate.reached
        other = self.other_program()
        other.execute("PRAGMA busy_timeout = 0")
        self.assertRaises(sqlite3.OperationalError, add_user, other)
        gate.open()
        self.assertEqual(await answer, 0)

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
        impatient = self.make(busy_timeout_seconds=0.5)
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

    async def refusal(self, database: Database) -> str:
        """
        Why a write is refused.
        """
        with self.assertRaises(StoreUnavailable) as raised:
            await database.write(add_user)
        return str(raised.exception)

    async def test_nobody_waits_for_the_patience_of_others(self) -> None:
        """
        While another program holds its lock for long, those in the queue are refused
        when their own time is over, not one timeout after the other.
        """
        impatient = self.make(busy_timeout_seconds=0.5)
        await impatient.open()
        self.addCleanup(lambda: Deferred.fromCoroutine(impatient.close()))
        other = self.other_program()
        other.execute("BEGIN IMMEDIATE")
        refused = await gatherResults(
            [Deferred.fromCoroutine(self.refusal(impatient)) for _ in range(10)]
        )
        # The first has waited for the lock, the second for it and perhaps also.
        self.assertGreaterEqual(
            refused.count(f"the store {self.path} is not available: too much to do"), 8
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
