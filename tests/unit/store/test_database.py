"""
Transactions, one at a time, with threads that run inline.
"""

import os
import sqlite3
from sqlite3 import Connection

from twisted.internet.defer import Deferred

from fjmcp_broker.oauth.errors import OAuthError
from fjmcp_broker.store import users
from fjmcp_broker.store.connection import set_up_writer
from fjmcp_broker.store.errors import StoreRefused, StoreUnavailable

from .memory import NOW, inline_database
from .rows import StoreTestCase


class WriteTests(StoreTestCase):
    def test_error_rolls_back_and_passes_through(self) -> None:
        """
        A transaction that raises leaves nothing behind, and its error is the
        caller's.
        """

        def refuse(connection: Connection) -> None:
            users.upsert_user(connection, 8, "bob", "Bob", NOW)
            raise OAuthError("invalid_grant", "no")  # type: ignore[arg-type]

        self.failureResultOf(
            Deferred.fromCoroutine(self.database.write(refuse)), OAuthError
        )
        self.assertEqual(self.count("users"), 1)

    def test_cursor_is_not_returned(self) -> None:
        """
        Rows are fetched before the commit: a cursor as the result is a bug, and
        nothing is written.
        """
        self.failureResultOf(
            Deferred.fromCoroutine(
                self.database.write(lambda c: c.execute("DELETE FROM grants"))
            ),
            TypeError,
        )
        self.assertEqual(self.count("grants"), 1)

    def test_function_must_not_commit(self) -> None:
        """
        Only the database ends its transactions.
        """
        self.failureResultOf(
            Deferred.fromCoroutine(self.database.write(lambda c: c.commit())),
            RuntimeError,
        )

    def test_violated_constraint_is_not_unavailability(self) -> None:
        """
        A wrong statement is a bug, not a reason to tell clients to come back.
        """
        self.failureResultOf(
            Deferred.fromCoroutine(
                self.database.write(
                    lambda c: c.execute("INSERT INTO users (user_id) VALUES (9)") and 0
                )
            ),
            sqlite3.IntegrityError,
        )

    def test_next_transaction_works_after_a_failed_one(self) -> None:
        """
        A failure leaves the connection usable.
        """
        self.failureResultOf(
            Deferred.fromCoroutine(self.database.write(lambda c: 1 // 0)),
            ZeroDivisionError,
        )
        self.write(lambda c: users.upsert_user(c, 8, "bob", "Bob", NOW))
        self.assertEqual(self.count("users"), 2)


class ReadTests(StoreTestCase):
    def test_wrong_statement_is_a_bug(self) -> None:
        """
        A statement that cannot work is not told as a store that is not available.
        """
        self.failureResultOf(
            Deferred.fromCoroutine(
                self.database.read(lambda c: c.execute("SELECT * FROM x").fetchall())
            ),
            sqlite3.OperationalError,
        )
        self.assertEqual(self.count("users"), 1)

    def test_reading_cannot_write(self) -> None:
        """
        A statement that writes fails in a read, as the bug that it is, and the
        writer still writes.
        """
        self.failureResultOf(
            Deferred.fromCoroutine(
                self.database.read(lambda c: c.execute("DELETE FROM users").rowcount)
            ),
            RuntimeError,
        )
        self.assertEqual(self.count("users"), 1)
        self.write(lambda c: users.upsert_user(c, 8, "bob", "Bob", NOW))
        self.assertEqual(self.count("users"), 2)

    def test_cursor_is_not_returned(self) -> None:
        """
        Rows are fetched within the read.
        """
        self.failureResultOf(
            Deferred.fromCoroutine(
                self.database.read(lambda c: c.execute("SELECT * FROM users"))
            ),
            TypeError,
        )


class LifeTests(StoreTestCase):
    def test_closed_database_is_unavailable(self) -> None:
        """
        Requests that come while the daemon stops are told to come back.
        """
        self.successResultOf(Deferred.fromCoroutine(self.database.close()))
        for call in (self.database.write, self.database.read):
            failure = self.failureResultOf(
                Deferred.fromCoroutine(call(lambda c: None)), StoreUnavailable
            )
            self.assertEqual(str(failure.value), "the store is closed")

    def test_database_is_unavailable_before_it_opens(self) -> None:
        """
        Making the object opens nothing.
        """
        database = inline_database()
        self.failureResultOf(
            Deferred.fromCoroutine(database.write(lambda c: None)), StoreUnavailable
        )

    def test_closing_twice_does_nothing(self) -> None:
        """
        Closing a closed database is no error.
        """
        for _ in range(2):
            self.successResultOf(Deferred.fromCoroutine(self.database.close()))

    def test_opening_twice_is_refused(self) -> None:
        """
        Opening again would lose the connections that are open.
        """
        failure = self.failureResultOf(
            Deferred.fromCoroutine(self.database.open()), StoreRefused
        )
        self.assertEqual(str(failure.value), "the store :memory: is open already")

    def test_missing_file_is_not_made(self) -> None:
        """
        A store that has gone between preflight and start is not replaced by an
        empty one.
        """
        path = self.mktemp()
        database = inline_database(path)
        failure = self.failureResultOf(
            Deferred.fromCoroutine(database.open()), StoreRefused
        )
        self.assertEqual(
            str(failure.value),
            f"the store {path} is not available: unable to open database file",
        )

    def test_relative_path_survives_a_change_of_directory(self) -> None:
        """
        A path means what it meant when the daemon was configured, wherever the
        daemon runs later.
        """
        os.mkdir(folder := self.mktemp())
        before = os.getcwd()
        os.chdir(folder)
        try:
            open("store.db", "w").close()
            database = inline_database("store.db")
        finally:
            os.chdir(before)
        self.successResultOf(Deferred.fromCoroutine(database.open()))
        self.successResultOf(Deferred.fromCoroutine(database.close()))

    def test_store_without_a_write_ahead_log_is_refused(self) -> None:
        """
        Readers and the writer work side by side only with a write-ahead log; a
        database without a name, say, has none.
        """
        connection = sqlite3.connect("", isolation_level=None)
        self.addCleanup(connection.close)
        error = self.assertRaises(StoreRefused, set_up_writer, connection)
        self.assertEqual(str(error), "its file system has no write-ahead logging")
        self.assertRaises(sqlite3.ProgrammingError, connection.execute, "SELECT 1")

    def test_failed_opening_leaves_it_closed(self) -> None:
        """
        Whatever goes wrong while opening, nothing is left open.
        """
        reader = inline_database(path := self.mktemp())
        self.assertEqual(reader.path, path)
        self.failureResultOf(Deferred.fromCoroutine(reader.open()), StoreRefused)
        self.failureResultOf(
            Deferred.fromCoroutine(reader.read(lambda c: None)), StoreUnavailable
        )

    def test_foreign_keys_cascade(self) -> None:
        """
        With a user go the user's tokens and grants, and with these all they issued.
        """
        self.assertEqual(self.count("grants"), 1)
        self.write(lambda c: c.execute("DELETE FROM users").rowcount)
        self.assertEqual(self.count("grants"), 0)
