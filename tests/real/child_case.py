"""Real child processes for tests, and what is left of them afterwards."""

import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from twisted.internet import reactor as _reactor
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater
from twisted.trial.unittest import TestCase

from fjmcp_broker.secret import Secret
from fjmcp_broker.sessions.processes.child import Child
from fjmcp_broker.sessions.processes.ending import ChildEnd
from fjmcp_broker.sessions.processes.spawn import ChildSettings, Launcher
from fjmcp_broker.sessions.processes.transport import Spawner

reactor: Any = _reactor  # a module to mypy
HERE = Path(__file__).parent
LAUNCHER = Launcher.detect()


def alive(pid: int) -> bool:
    """
    @return: whether a process runs; a zombie does not.
    """
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state not in "ZX"


async def until(true: Callable[[], bool], seconds: float = 30) -> None:
    """
    Wait for the world outside to become so.
    """
    deadline = time.monotonic() + seconds
    while not true():
        if time.monotonic() > deadline:
            raise AssertionError("it did not happen")
        await deferLater(reactor, 0.01)


class Owner:
    """Keeps what a child says, and tells when."""

    def __init__(self) -> None:
        """Nothing yet."""
        self.lines: list[bytes] = []
        self.ends: list[ChildEnd] = []
        self.waiting: Deferred[bytes] | None = None

    def child_line(self, line: bytes) -> None:
        """Keep a line."""
        self.lines.append(line)
        if self.waiting is not None:
            waiting, self.waiting = self.waiting, None
            waiting.callback(line)

    def child_ended(self, end: ChildEnd) -> None:
        """Keep the end."""
        self.ends.append(end)

    async def next_line(self) -> bytes:
        """Wait for a line."""
        self.waiting = Deferred()
        return await self.waiting

    async def next_number(self) -> int:
        """Wait for a line that is one, whatever else is said meanwhile."""
        while True:
            line = await self.next_line()
            if line.isdigit():
                return int(line)


class ChildTestCase(TestCase):
    """Starts children and leaves none behind."""

    timeout = 60

    def setUp(self) -> None:
        """Nothing runs; directories are made in a place of our own."""
        self.children: list[Child] = []
        self.owner = Owner()
        self.directory = tempfile.mkdtemp(prefix="fjmcp-test-")
        self.patch(tempfile, "tempdir", self.directory)

    def tearDown(self) -> "Deferred[None]":  # type: ignore[override]  # trial's
        """Kill what a failed test left; every directory is gone."""
        return Deferred.fromCoroutine(self._clean_up())

    async def _clean_up(self) -> None:
        for child in self.children:
            child.kill()
            await child.when_ended()
        self.assertEqual(os.listdir(self.directory), [])
        os.rmdir(self.directory)

    def start(self, *command: str, **settings: Any) -> Child:
        """Start a child."""
        if len(command) == 1:
            command = (sys.executable, str(HERE / "bad_child.py"), *command)
        child = Child(
            spawner=Spawner(reactor),
            clock=reactor,
            launcher=settings.pop("launcher", LAUNCHER),
            settings=ChildSettings(
                **{
                    "command": command,
                    "forgejo_url": "http://127.0.0.1:1",
                    "stop_grace_seconds": 0.3,
                    **settings,
                }
            ),
            token=Secret("t0ken-of-the-user"),
            observer=self.owner,
            name="test",
        )
        child.start()
        self.children.append(child)
        return child
