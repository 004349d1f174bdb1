"""
The store that other tests use.
"""

import sqlite3

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from .memory import memory_database


class MemoryDatabaseTests(SynchronousTestCase):
    def test_written_rows_are_read_at_once(self) -> None:
        """
        What was written is there when the call returns.
        """
        database = memory_database(self)

        def insert(c: sqlite3.Connection) -> None:
            c.execute("INSERT INTO users VALUES (7, 'ada', 'Ada', 1, 2)")

        self.successResultOf(Deferred.fromCoroutine(database.write(insert)))
        rows = self.successResultOf(
            Deferred.fromCoroutine(
                database.read(lambda c: c.execute("SELECT * FROM users").fetchall())
            )
        )
        self.assertEqual(rows, [(7, "ada", "Ada", 1, 2)])
