"""
A store before the daemon runs: what is refused, each with its one clear line.
"""

import os
import shutil
import sqlite3
import stat
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from fjmcp_broker.secret import Secret
from fjmcp_broker.store import upstream_tokens, users
from fjmcp_broker.store.errors import StoreRefused
from fjmcp_broker.store.instance import Instance
from fjmcp_broker.store.migrations import embedded
from fjmcp_broker.store.preflight import prepare
from fjmcp_broker.store.sealing import Sealer, key_id
from fjmcp_broker.store.upstream_tokens import UpstreamSet

NOW = 1_800_000_000
OURS = Instance("https://git.example", "app")
NOBODY = 65534
KEY, OTHER_KEY = b"k" * 32, b"o" * 32

HOLDER = """
import sys
from fjmcp_broker.store.lock import StoreLock
assert StoreLock(sys.argv[1]).try_acquire()
print("held", flush=True)
sys.stdin.read()
"""

WRITER = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
for user, end in ((1, "COMMIT"), (2, "SELECT 1")):
    connection.execute("BEGIN IMMEDIATE")
    connection.execute("INSERT INTO users VALUES (?, 'x', 'x', 1, 1)", (user,))
    connection.execute(end)
print("held", flush=True)
sys.stdin.read()
"""


@contextmanager
def unprivileged() -> Iterator[None]:
    """
    Be somebody whom permissions stop: root's effective user id is given away for
    a while.
    """
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


def open_files() -> list[str]:
    """
    @return: what this process has open, by name.
    """
    found = []
    for number in os.listdir("/proc/self/fd"):
        try:
            found.append(os.readlink(f"/proc/self/fd/{number}"))
        except FileNotFoundError:
            # The descriptor that listed the directory.
            continue
    return sorted(found)


class PreflightTestCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.folder = tempfile.mkdtemp()
        self.addCleanup(shutil.rmtree, self.folder)
        if os.geteuid() == 0:
            os.chown(self.folder, NOBODY, NOBODY)
        self.path = os.path.join(self.folder, "store.db")

    def prepare(self, *keys: bytes, instance: Instance = OURS) -> tuple[bytes, ...]:
        return prepare(
            self.path,
            [Secret(key.hex()) for key in keys],
            instance,
            NOW,
            lock_wait_seconds=0.3,
            busy_timeout_seconds=0.05,
        )

    def refusal(self, *keys: bytes, instance: Instance = OURS) -> str:
        """
        @return: the message without its usual beginning; it is one line.
        """
        error = self.assertRaises(
            StoreRefused, lambda: self.prepare(*keys, instance=instance)
        )
        message = str(error)
        self.assertNotIn("\n", message)
        return message.removeprefix(f"the store {self.path} cannot be used: ")

    def connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self.path, isolation_level=None)
        self.addCleanup(connection.close)
        return connection

    def child(self, code: str) -> "subprocess.Popen[bytes]":
        """
        @return: a process that has done what the code says and waits.
        """
        root = Path(__file__).resolve().parents[2]
        process = subprocess.Popen(  # noqa: S603 - our own code
            [sys.executable, "-c", code, self.path],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": str(root)},
        )

        def reap() -> None:
            process.kill()
            process.communicate()

        self.addCleanup(reap)
        assert process.stdout is not None
        self.assertEqual(process.stdout.readline(), b"held\n")
        return process


class UsableStoreTests(PreflightTestCase):
    def test_fresh_store_is_made_with_its_directories(self) -> None:
        """
        On first start everything is made, for nobody else to look into.
        """
        self.path = os.path.join(self.folder, "a", "b", "store.db")
        keys = self.prepare()
        self.assertEqual([len(key) for key in keys], [32])
        self.assertEqual(
            sorted(os.listdir(os.path.dirname(self.path))),
            ["store.db", "store.db.key", "store.db.lock"],
        )
        for name in os.listdir(os.path.dirname(self.path)):
            path = os.path.join(os.path.dirname(self.path), name)
            self.assertEqual((name, stat.S_IMODE(os.stat(path).st_mode)), (name, 0o600))
        with closing(self.connect()) as connection:
            self.assertEqual(
                connection.execute("PRAGMA journal_mode").fetchone(), ("wal",)
            )
            self.assertEqual(
                connection.execute("SELECT version FROM schema_migrations").fetchall(),
                [(migration.version,) for migration in embedded()],
            )

    def test_reopened_store_keeps_its_rows_and_keys(self) -> None:
        """
        The second start finds what the first one left.
        """
        keys = self.prepare()
        with closing(self.connect()) as connection:
            users.upsert_user(connection, 7, "ada", "Ada", NOW)
        self.assertEqual(self.prepare(), keys)
        with closing(self.connect()) as connection:
            self.assertIsNotNone(users.find_user(connection, 7))

    def test_store_under_odd_names_is_found_again(self) -> None:
        """
        A path may contain what has a meaning in a URI.
        """
        self.path = os.path.join(self.folder, "a?mode=memory#%20 ü.db")
        self.prepare(KEY)
        self.assertTrue(os.path.getsize(self.path))

    def test_empty_file_is_a_new_store(self) -> None:
        """
        A file that some tool has made beforehand is filled.
        """
        open(self.path, "w").close()
        self.prepare()
        self.assertTrue(os.path.getsize(self.path))

    def test_nothing_stays_open(self) -> None:
        """
        Preflight leaves no handle, no lock and no thread, also when it refuses: the
        daemon forks afterwards.
        """
        before = open_files(), threading.enumerate()
        self.prepare()
        self.refusal(instance=Instance("https://other.example", "app"))
        self.assertEqual((open_files(), threading.enumerate()), before)
        self.prepare()

    def test_killed_writer_leaves_a_usable_store(self) -> None:
        """
        After a kill what was committed is there, and half a transaction is not.
        """
        self.prepare()
        self.child(WRITER).kill()
        self.prepare()
        with closing(self.connect()) as connection:
            self.assertEqual(
                connection.execute("SELECT user_id FROM users").fetchall(), [(1,)]
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


class SealedStoreTests(PreflightTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.prepare(KEY)
        with closing(self.connect()) as connection:
            users.upsert_user(connection, 7, "ada", "Ada", NOW)
            upstream_tokens.save(
                connection,
                Sealer([KEY]),
                UpstreamSet(7, Secret("access"), Secret("refresh"), NOW + 3600),
            )

    def test_missing_key(self) -> None:
        """
        Without a key nothing is made that could not open what is there.
        """
        self.assertEqual(
            self.refusal(),
            f"the store {self.path} holds sealed values, but there is no key:"
            f" configure database.encryption_keys or put {self.path}.key back;"
            " no new key was made",
        )
        self.assertFalse(os.path.exists(f"{self.path}.key"))

    def test_other_key(self) -> None:
        """
        A key that opens nothing is as bad as none; the message names the one that
        is needed by its id.
        """
        self.assertEqual(
            self.refusal(OTHER_KEY),
            f"the store {self.path} holds values sealed with another key"
            f" (id {key_id(KEY).hex()}): add it to database.encryption_keys or put"
            f" {self.path}.key back",
        )

    def test_new_key_before_the_old_one(self) -> None:
        """
        A key can be replaced: the new one seals, the old one still opens.
        """
        self.assertEqual(self.prepare(OTHER_KEY, KEY), (OTHER_KEY, KEY))

    def test_refused_store_is_unchanged(self) -> None:
        """
        Whatever the reason, a refused start leaves every byte as it was.
        """
        before = Path(self.path).read_bytes()
        self.refusal()
        self.refusal(OTHER_KEY)
        self.refusal(KEY, instance=Instance("https://other.example", "app"))
        self.assertEqual(Path(self.path).read_bytes(), before)
