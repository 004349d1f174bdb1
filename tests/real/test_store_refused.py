"""
Stores that cannot be used: each is refused with its one clear line.
"""

import os
from contextlib import closing
from pathlib import Path

from fjmcp_broker.store.errors import StoreRefused
from fjmcp_broker.store.instance import Instance
from fjmcp_broker.store.migrations import embedded
from fjmcp_broker.store.preflight import check_sqlite

from .stores import (
    HOLDER,
    NOW,
    PreflightTestCase,
    unprivileged,
)


class RefusedStoreTests(PreflightTestCase):
    def test_newer_schema(self) -> None:
        """
        A store of a newer version is not touched.
        """
        self.prepare()
        newest = len(embedded())
        with closing(self.connect()) as connection:
            connection.execute(
                "INSERT INTO schema_migrations VALUES (?, ?, ?)", (newest + 1, NOW, b"")
            )
            connection.execute(f"PRAGMA user_version = {newest + 1}")
        self.assertEqual(
            self.refusal(),
            f"its schema is version {newest + 1}, but this version of fjmcp-broker"
            f" only knows up to {newest}; install the version that wrote it or restore"
            " an older backup",
        )

    def test_not_a_database(self) -> None:
        """
        Any other file is left as it is, and gets no company.
        """
        content = b"swordfish " * 1000
        Path(self.path).write_bytes(content)
        self.assertEqual(
            self.refusal(), "it is not a database, or damaged; restore a backup"
        )
        self.assertEqual(Path(self.path).read_bytes(), content)
        self.assertEqual(sorted(os.listdir(self.folder)), ["store.db", "store.db.lock"])

    def test_damaged_pages(self) -> None:
        """
        Damage in the middle of the file is seen before anything is written.
        """
        self.prepare()
        size = os.path.getsize(self.path)
        with open(self.path, "r+b") as file:
            file.seek(4096)
            file.write(b"\xff" * (size - 4096))
        damaged = Path(self.path).read_bytes()
        self.assertRegex(self.refusal(), r"^it is damaged; restore a backup")
        self.assertEqual(Path(self.path).read_bytes(), damaged)

    def test_rows_that_contradict_the_schema(self) -> None:
        """
        Damage that only a check of the rows finds is told with what it found.
        """
        self.prepare()
        with closing(self.connect()) as connection:
            connection.execute("CREATE TABLE extra (x)")
            connection.execute("INSERT INTO extra VALUES (NULL)")
            connection.execute("PRAGMA writable_schema = ON")
            connection.execute(
                "UPDATE sqlite_schema SET sql = 'CREATE TABLE extra (x NOT NULL)'"
                " WHERE name = 'extra'"
            )
        self.assertEqual(
            self.refusal(), "it is damaged; restore a backup (NULL value in extra.x)"
        )

    def test_database_of_another_program(self) -> None:
        """
        Tables that are not ours are left alone.
        """
        with closing(self.connect()) as connection:
            connection.execute("CREATE TABLE bookmarks (url)")
        before = Path(self.path).read_bytes()
        self.assertEqual(self.refusal(), "it is the database of another program")
        self.assertEqual(Path(self.path).read_bytes(), before)

    def test_second_daemon(self) -> None:
        """
        While one daemon runs a second one says who that is; the lock ends with the
        process, however that ends.
        """
        self.prepare()
        holder = self.child(HOLDER)
        self.assertEqual(
            self.refusal(),
            f"the store {self.path} is in use by process {holder.pid} on"
            f" {os.uname().nodename}; only one daemon can use a store (waited 0.3 s for"
            f" {os.path.realpath(self.path)}.lock)",
        )
        holder.kill()
        holder.wait()
        self.prepare()

    def test_locked_by_another_program(self) -> None:
        """
        A program that holds SQLite's own lock, a backup tool say, is waited for and
        then named as the reason.
        """
        self.prepare()
        connection = self.connect()
        connection.execute("BEGIN IMMEDIATE")
        self.assertEqual(self.refusal(), "another program has locked it")
        connection.execute("ROLLBACK")
        self.prepare()

    def test_read_only_file(self) -> None:
        """
        A store that can only be read is refused.
        """
        with unprivileged():
            self.prepare()
            os.chmod(self.path, 0o400)
            self.assertEqual(self.refusal(), "it cannot be written: Permission denied")

    def test_read_only_database(self) -> None:
        """
        A store whose file may be written, but whose log may not, is refused.
        """
        with unprivileged():
            self.prepare()
            Path(f"{self.path}-wal").write_bytes(b"")
            Path(f"{self.path}-shm").write_bytes(b"")
            os.chmod(f"{self.path}-wal", 0o400)
            os.chmod(f"{self.path}-shm", 0o400)
            self.assertIn(self.refusal(), ("it is read-only", "it cannot be opened"))

    def test_read_only_directory(self) -> None:
        """
        SQLite and the lock need files beside the store.
        """
        with unprivileged():
            os.chmod(self.folder, 0o500)
            message = self.refusal()
            os.chmod(self.folder, 0o700)
        self.assertEqual(
            message,
            f"cannot write {os.path.realpath(self.path)}.lock: Permission denied",
        )

    def test_directory_that_cannot_be_made(self) -> None:
        """
        A file where a directory is expected is named.
        """
        Path(self.path).write_text("in the way")
        self.path = os.path.join(self.path, "below", "store.db")
        self.assertEqual(
            self.refusal(),
            f"cannot make the directory {os.path.dirname(self.path)}: Not a directory",
        )

    def test_directory_in_its_place(self) -> None:
        """
        A directory is no store.
        """
        os.mkdir(self.path)
        self.assertEqual(self.refusal(), "it cannot be written: Is a directory")

    def test_old_sqlite(self) -> None:
        """
        A library that does not know our schema is named before a file is made.
        """
        check_sqlite((3, 37, 0))
        error = self.assertRaises(StoreRefused, check_sqlite, (3, 34, 1))
        self.assertEqual(
            str(error),
            "SQLite 3.37.0 or newer is needed, and this Python has 3.34.1",
        )

    def test_no_file_at_all(self) -> None:
        """
        A store in memory would forget everybody at the next restart.
        """
        for self.path in (":memory:", ""):
            self.assertEqual(self.refusal(), "the store must be a file")

    def test_other_instance(self) -> None:
        """
        A store of another Forgejo is not used for this one.
        """
        self.prepare()
        self.assertEqual(
            self.refusal(instance=Instance("https://other.example", "app2")),
            "it belongs to https://git.example (application app), but the configuration"
            " names https://other.example (application app2); use another store",
        )
