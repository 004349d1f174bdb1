"""
What the tests of real stores have in common.
"""

import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from sqlite3 import Connection
from typing import cast

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorCore, IReactorTime
from twisted.internet.task import deferLater
from twisted.trial.unittest import SynchronousTestCase, TestCase

from fjmcp_broker.secret import Secret
from fjmcp_broker.store import users
from fjmcp_broker.store.database import Database
from fjmcp_broker.store.errors import StoreRefused
from fjmcp_broker.store.instance import Instance
from fjmcp_broker.store.preflight import prepare

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
