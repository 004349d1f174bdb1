"""
The schema and how it comes about.
"""

import sqlite3
from contextlib import closing

from twisted.trial.unittest import SynchronousTestCase

from fjmcp_broker.store.errors import StoreRefused
from fjmcp_broker.store.migrations import Migration, check, embedded, migrate

from .memory import NOW

FIRST = Migration(1, "0001_a.sql", "CREATE TABLE a (x); -- a; comment\n")
SECOND = Migration(
    2, "0002_b.sql", "CREATE TABLE b (x);\nINSERT INTO b VALUES (';');\n"
)
BROKEN = Migration(2, "0002_b.sql", "CREATE TABLE b (x);\nINSERT INTO nowhere (1);\n")


class MigrationTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.connection = sqlite3.connect(":memory:", isolation_level=None)
        self.addCleanup(self.connection.close)

    def tables(self) -> set[str]:
        return {
            name
            for (name,) in self.connection.execute("SELECT name FROM sqlite_schema")
        }

    def test_new_store_gets_all(self) -> None:
        """
        A fresh store gets every migration, with time and checksum.
        """
        self.assertEqual(check(self.connection, [FIRST, SECOND]), 0)
        self.assertEqual(migrate(self.connection, NOW, [FIRST, SECOND]), 2)
        self.assertEqual(self.tables(), {"schema_migrations", "a", "b"})
        self.assertEqual(
            self.connection.execute("SELECT * FROM schema_migrations").fetchall(),
            [(1, NOW, FIRST.checksum), (2, NOW, SECOND.checksum)],
        )

    def test_older_store_gets_what_is_missing(self) -> None:
        """
        A store of an older version gets only the newer migrations.
        """
        migrate(self.connection, NOW, [FIRST])
        self.assertEqual(migrate(self.connection, NOW + 1, [FIRST, SECOND]), 1)
        self.assertEqual(migrate(self.connection, NOW + 2, [FIRST, SECOND]), 0)
        self.assertEqual(
            self.connection.execute("SELECT x FROM b").fetchall(), [(";",)]
        )

    def test_newer_store_is_refused(self) -> None:
        """
        A store of a newer version is not touched; the message says what to do.
        """
        migrate(self.connection, NOW, [FIRST, SECOND])
        error = self.assertRaises(StoreRefused, migrate, self.connection, NOW, [FIRST])
        self.assertEqual(
            str(error),
            "its schema is version 2, but this version of fjmcp-broker only knows up"
            " to 1; install the version that wrote it or restore an older backup",
        )
        self.assertFalse(self.connection.in_transaction)

    def test_changed_migration_is_refused(self) -> None:
        """
        A migration whose text has changed since is not the one that was applied.
        """
        migrate(self.connection, NOW, [FIRST])
        other = Migration(1, "0001_a.sql", "CREATE TABLE a (y);")
        error = self.assertRaises(StoreRefused, check, self.connection, [other])
        self.assertEqual(
            str(error),
            "its migration 1 differs from 0001_a.sql of this version of fjmcp-broker",
        )

    def test_database_of_another_program_is_refused(self) -> None:
        """
        Tables that are not ours are left alone.
        """
        self.connection.execute("CREATE TABLE bookmarks (url)")
        error = self.assertRaises(StoreRefused, migrate, self.connection, NOW, [FIRST])
        self.assertEqual(str(error), "it is the database of another program")
        self.assertEqual(self.tables(), {"bookmarks"})

    def test_failing_migration_leaves_nothing(self) -> None:
        """
        Migrations are applied together or not at all.
        """
        self.assertRaises(sqlite3.Error, migrate, self.connection, NOW, [FIRST, BROKEN])
        self.assertEqual(self.tables(), set())

    def test_unfinished_statement_is_a_bug(self) -> None:
        """
        A file whose last semicolon is missing would lose its last statement.
        """
        unfinished = Migration(1, "0001_a.sql", "CREATE TABLE a (x)\n")
        self.assertRaises(ValueError, migrate, self.connection, NOW, [unfinished])


class EmbeddedTests(SynchronousTestCase):
    def test_schema_is_packaged_and_numbered(self) -> None:
        """
        The package brings its migrations, from 1 without gaps.
        """
        found = embedded()
        self.assertEqual(
            [migration.version for migration in found],
            list(range(1, len(found) + 1)),
        )

    def test_every_table_is_strict(self) -> None:
        """
        SQLite checks the types of all our tables, and every foreign key cascades.
        """
        with closing(sqlite3.connect(":memory:", isolation_level=None)) as connection:
            migrate(connection, NOW)
            tables = connection.execute(
                "SELECT name, strict FROM pragma_table_list"
                " WHERE type = 'table' AND name NOT LIKE 'sqlite%'"
            ).fetchall()
            self.assertGreaterEqual(len(tables), 11)
            self.assertEqual({strict for _, strict in tables}, {1})
            for table, _ in tables:
                for key in connection.execute(f"PRAGMA foreign_key_list({table})"):
                    self.assertEqual((table, key[6]), (table, "CASCADE"))
