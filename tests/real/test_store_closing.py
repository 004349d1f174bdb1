"""
Callers that go away, and the end of the store: nothing is lost, nothing stays open.
"""

import os
import sqlite3
import threading
from contextlib import closing
from sqlite3 import Connection
from typing import cast

from twisted.internet.defer import CancelledError, Deferred, gatherResults
from twisted.logger import ILogObserver, LogEvent, globalLogPublisher

from fjmcp_broker.store.errors import StoreUnavailable

from .stores import (
    DatabaseTestCase,
    Gate,
    add_user,
    count_users,
    open_files,
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
