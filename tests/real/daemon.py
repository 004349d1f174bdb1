"""The broker as a process of its own, for tests that treat it as a black box."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.error import ProcessDone
from twisted.internet.interfaces import IReactorProcess, IReactorTime
from twisted.internet.protocol import ProcessProtocol
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread
from twisted.python.failure import Failure

from tests.real.browser import Browser, Page
from tests.real.ports import free_port as free_port

CLOCK: Final = IReactorTime(reactor)
SCRIPTS: Final = Path(sys.executable).parent


async def pause(seconds: float) -> None:
    """Let the reactor run for a while, between two looks at a condition."""
    await deferLater(CLOCK, seconds, lambda: None)


class Program(ProcessProtocol):
    """A program under test: what it wrote, and how it ended."""

    def __init__(self) -> None:
        self.output = b""
        self.errors = b""
        self.exit_code: int | None = None
        self.signal: int | None = None
        self.ended: Deferred[None] = Deferred()

    @classmethod
    def start(
        cls,
        arguments: Sequence[str],
        *,
        environment: Mapping[str, str] | None = None,
        directory: str | None = None,
        descriptors: Mapping[int, int] | None = None,
    ) -> Program:
        """
        @param arguments: the program (a name is looked up beside the interpreter)
            and its arguments.
        @param environment: added to PATH, HOME and LANG; nothing else is inherited.
        @param descriptors: our descriptors by the numbers that they get there.
        """
        program = cls()
        executable = arguments[0]
        if "/" not in executable:
            executable = str(SCRIPTS / executable)
        inherited = {
            name: os.environ[name]
            for name in ("PATH", "HOME", "LANG", "PYTHONPATH")
            if name in os.environ
        }
        IReactorProcess(reactor).spawnProcess(
            program,
            executable,
            [executable, *arguments[1:]],
            env={**inherited, **(environment or {})},
            path=directory,
            childFDs={0: "w", 1: "r", 2: "r", **(descriptors or {})},
        )
        return program

    def outReceived(self, data: bytes) -> None:
        self.output += data

    def errReceived(self, data: bytes) -> None:
        self.errors += data

    def processEnded(self, reason: Failure) -> None:
        self.exit_code = (
            0 if reason.check(ProcessDone) else getattr(reason.value, "exitCode", None)
        )
        self.signal = getattr(reason.value, "signal", None)
        self.ended.callback(None)

    @property
    def pid(self) -> int:
        """
        @return: the process id, while it runs.
        """
        assert self.transport is not None
        pid = self.transport.pid
        assert isinstance(pid, int)
        return pid

    @property
    def text(self) -> str:
        """
        @return: everything it wrote, to both streams.
        """
        return (self.output + self.errors).decode("utf-8", "replace")

    def processor_seconds(self) -> float:
        """
        @return: of the processors' time that it has taken so far; unlike the clock's,
            it does not depend on what else is done on this machine.
        """
        stat = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(stat[11]) + int(stat[12])) / os.sysconf("SC_CLK_TCK")

    def signal_with(self, number: int) -> None:
        """
        Send a signal, unless the program has ended.
        """
        # It has no id any more as soon as it is reaped, which is before it counts as
        # ended: there may be something to read still.
        if self.transport is not None and self.transport.pid is not None:
            os.kill(self.pid, number)

    async def wait(self, seconds: float = 60.0) -> None:
        """
        Wait for the end.

        @raise AssertionError: it runs on; it is killed then.
        """
        waiting: Deferred[None] = Deferred()
        self.ended.addBoth(lambda _: waiting.callback(None))
        overdue = CLOCK.callLater(seconds, self.signal_with, 9)
        await waiting
        if not overdue.active():
            raise AssertionError(f"still running after {seconds} s:\n{self.text}")
        overdue.cancel()
        self.ended = Deferred()
        self.ended.callback(None)


class Daemon(Program):
    """A broker under test, at C{url}."""

    port: int
    url: str

    @classmethod
    def launch(
        cls,
        settings: Mapping[str, str],
        *,
        port: int | None = None,
        runner: Sequence[str] = ("twistd", "-n", "--pidfile=", "fjmcp"),
        directory: str | None = None,
        descriptors: Mapping[int, int] | None = None,
    ) -> Daemon:
        """
        Start a broker that is configured by its environment alone.

        @param settings: environment variables; the public URL and the listen address
            are added.
        """
        port = port or free_port()
        url = f"http://127.0.0.1:{port}"
        daemon = cls.start(
            runner,
            environment={
                "FJMCP_BROKER_PUBLIC_URL": url,
                "FJMCP_BROKER_LISTEN": f"127.0.0.1:{port}",
                **settings,
            },
            directory=directory,
            descriptors=descriptors,
        )
        assert isinstance(daemon, Daemon)
        daemon.port, daemon.url = port, url
        return daemon

    async def until_ready(self, seconds: float = 60.0) -> None:
        """
        Wait until C{/readyz} answers 200.

        @raise AssertionError: it ended, or was not ready in time.
        """
        deadline = CLOCK.seconds() + seconds
        while CLOCK.seconds() < deadline and self.exit_code is None:
            try:
                answer = await self.fetch("GET", "/readyz")
            except OSError:
                answer = None
            if answer is not None and answer.status == 200:
                return
            await pause(0.05)
        raise AssertionError(f"not ready (exit code {self.exit_code}):\n{self.text}")

    async def fetch(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Page:
        """
        @return: the answer to one request, redirects not followed.
        """
        page: Page = await deferToThread(
            Browser().request, method, self.url + path, body, headers
        )
        return page

    async def stop(self, seconds: float = 60.0) -> None:
        """
        SIGTERM, and wait for the end.
        """
        self.signal_with(15)
        await self.wait(seconds)


def processes(pattern: str) -> list[int]:
    """
    @return: the ids of the living processes whose command line or environment has
        this text; zombies are not counted.
    """
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            text = (entry / "cmdline").read_bytes() + (entry / "environ").read_bytes()
            state = (entry / "stat").read_text().rsplit(")", 1)[1].split()[0]
        except OSError:
            continue
        if pattern.encode() in text and state != "Z":
            found.append(int(entry.name))
    return found


def children_of(daemon: Program, pattern: str) -> list[int]:
    """
    @param daemon: runs, if there are any.
    @return: the processes whose command line or environment has this text and that
        run a program of their own. In the moment before it executes one, a child is
        the daemon once more: stopped there it would keep the daemon's port.
    """
    found = processes(pattern)
    own = _command_line(daemon.pid) if found else b""
    return [pid for pid in found if _command_line(pid) not in (own, b"")]


def _command_line(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""
