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

    def test_newer_store_that_is_usable(self) -> None:
        """
        What a migration says about older programs is recorded in the store, and
        stays when an older program has used it.
        """
        third = Migration(
            3, "0003_c.sql", "-- Usable from schema 2 on.\n\nCREATE TABLE c (x);\n"
        )
        migrate(self.connection, NOW, [FIRST, SECOND, third])
        for _ in range(2):
            self.assertEqual(migrate(self.connection, NOW, [FIRST, SECOND]), 0)
            self.assertEqual(check(self.connection, [FIRST, SECOND]), 3)
            self.assertRaises(StoreRefused, check, self.connection, [FIRST])
        other = Migration(2, "0002_b.sql", "CREATE TABLE b (y);")
        self.assertRaises(StoreRefused, check, self.connection, [FIRST, other])
        self.assertEqual(migrate(self.connection, NOW, [FIRST, SECOND, third]), 0)

    def test_least_usable_migration_counts(self) -> None:
        """
        A later one cannot allow what an earlier one has not.
        """
        third = Migration(
            3, "0003_c.sql", "-- Usable from schema 1 on.\nCREATE TABLE c (x);\n"
        )
        migrate(self.connection, NOW, [FIRST, SECOND, third])
        self.assertRaises(StoreRefused, check, self.connection, [FIRST])
        self.assertEqual(check(self.connection, [FIRST, SECOND]), 3)

    def test_newer_store_that_says_nothing(self) -> None:
        """
        Stores of the first versions, and those from a textual dump, are not for
        older programs.
        """
        migrate(self.connection, NOW, [FIRST, SECOND])
        self.connection.execute("PRAGMA user_version = 0")
        self.assertRaises(StoreRefused, check, self.connection, [FIRST])
        migrate(self.connection, NOW, [FIRST, SECOND])
        (usable_from,) = self.connection.execute("PRAGMA user_version").fetchone()
        self.assertEqual(usable_from, 2)

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

    def test_usable_is_spelt_so_that_it_counts(self) -> None:
        """
        A line that nobody understands would make a downgrade impossible unnoticed.
        """
        for migration in embedded():
            self.assertLessEqual(migration.usable_from, migration.version)
            self.assertGreaterEqual(migration.usable_from, 1)
            if "usable from" in migration.sql.lower():
                self.assertIn("-- Usable from schema ", migration.sql)

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
