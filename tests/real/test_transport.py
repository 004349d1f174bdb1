"""Processes and their pipes, without the supervisor of children."""

import errno
import os
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.error import ProcessDone, ProcessTerminated
from twisted.internet.interfaces import IReadDescriptor
from twisted.internet.protocol import ProcessProtocol
from twisted.internet.task import deferLater
from twisted.python.failure import Failure
from twisted.trial.unittest import TestCase
from zope.interface.verify import verifyObject

from fjmcp_broker.sessions.processes.transport import (
    ISpawner,
    ProcessTransport,
    Spawner,
    open_pidfd,
)
from tests.real.child_case import alive, reactor, until


class Told(ProcessProtocol):
    """Keeps what a process does."""

    def __init__(self) -> None:
        """Nothing yet."""
        self.events: list[str] = []
        self.said = b""
        self.reason: Deferred[ProcessDone | ProcessTerminated] = Deferred()
        self.fails_in = ""

    def _keep(self, event: str) -> None:
        self.events.append(event)
        if event == self.fails_in:
            raise RuntimeError("as the test wants it")

    def connectionMade(self) -> None:
        """It runs."""
        self._keep("made")

    def childDataReceived(self, childFD: int, data: bytes) -> None:  # noqa: N803
        """It has said something."""
        self.said += data

    def childConnectionLost(self, childFD: int) -> None:  # noqa: N803 - Twisted's
        """A pipe is closed."""
        self._keep(f"lost {childFD}")

    def processExited(self, reason: Failure) -> None:
        """It is reaped."""
        self._keep("exited")

    def processEnded(self, reason: Failure) -> None:
        """All is over; told when the caller is done."""
        reactor.callLater(0, self.reason.callback, reason.value)
        self._keep("ended")


def no_pidfd(pid: int) -> int:
    """As on a system without them."""
    raise OSError(errno.ENOSYS, "no such system call")


class TransportTests(TestCase):
    """One process at a time."""

    timeout = 60
    open_pidfd: Callable[[int], int] = staticmethod(open_pidfd)

    def setUp(self) -> "Deferred[None]":  # type: ignore[override]  # trial's
        """Nothing runs but the reactor."""
        self.told = Told()
        return deferLater(reactor, 0, self._count)

    def _count(self) -> None:
        self.descriptors = os.listdir("/proc/self/fd")

    def tearDown(self) -> None:
        """No descriptor is left, nothing is watched, and nothing is a zombie."""
        self.assertEqual(os.listdir("/proc/self/fd"), self.descriptors)
        self.assertRaises(ChildProcessError, os.waitpid, -1, os.WNOHANG)

    def spawn(self, *arguments: str, directory: str = "/") -> ProcessTransport:
        """Start a program."""
        program = shutil.which(arguments[0])
        assert program is not None
        spawner = Spawner(reactor, self.open_pidfd)
        return spawner.spawn(
            self.told, [program, *arguments[1:]], {"ONLY": "this"}, directory
        )

    def test_interface(self) -> None:
        """It is what the supervisor asks for."""
        self.assertTrue(verifyObject(ISpawner, Spawner(reactor)))

    async def test_order_of_events(self) -> None:
        """It is made first and ended last; all that it said is there by then."""
        self.spawn("sh", "-c", "echo some; echo other >&2")
        self.assertIsInstance(await self.told.reason, ProcessDone)
        self.assertEqual(self.told.said.split(), [b"some", b"other"])
        self.assertEqual((self.told.events[0], self.told.events[-1]), ("made", "ended"))
        self.assertEqual(
            sorted(self.told.events[1:-1]), ["exited", "lost 0", "lost 1", "lost 2"]
        )

    async def test_it_has_what_it_was_given(self) -> None:
        """Group, session, directory, environment; no signal is blocked."""
        code = (
            "import os, signal;"
            "print(os.getpid() == os.getpgrp() == os.getsid(0), os.getcwd(),"
            " sorted(os.environ), sorted(map(int, os.listdir('/proc/self/fd')))[:-1],"
            " signal.pthread_sigmask(signal.SIG_BLOCK, []))"
        )
        # What of ours could be inherited is not.
        reading, writing = os.pipe()
        os.set_inheritable(reading, True)
        os.set_inheritable(writing, True)
        try:
            self.spawn(sys.executable, "-S", "-E", "-c", code, directory="/usr")
        finally:
            os.close(reading)
            os.close(writing)
        await self.told.reason
        leads, directory, *others = self.told.said.decode().split(maxsplit=2)
        self.assertEqual((leads, directory), ("True", "/usr"))
        self.assertIn(" [0, 1, 2] set()", others[0])
        self.assertIn("'ONLY'", others[0])
        self.assertNotIn("'PATH'", others[0])

    async def test_signals_that_python_ignores(self) -> None:
        """They are not ignored there; what ours was started with is."""
        self.spawn("sed", "-n", "s/^SigIgn://p", "/proc/self/status")
        await self.told.reason
        python_s = 1 << signal.SIGPIPE - 1 | 1 << signal.SIGXFSZ - 1
        with open("/proc/self/status", encoding="ascii") as file:
            ours = int(file.read().split("SigIgn:")[1].split()[0], 16)
        self.assertEqual(ours & python_s, python_s)
        self.assertEqual(int(self.told.said, 16), ours & ~python_s)

    async def test_exit_status_and_signal(self) -> None:
        """Both are told."""
        self.spawn("sh", "-c", "exit 3")
        error = await self.told.reason
        self.assertIsInstance(error, ProcessTerminated)
        self.assertEqual((error.exitCode, error.signal), (3, None))
        self.told = Told()
        self.spawn("sh", "-c", "kill -SEGV $$")
        error = await self.told.reason
        self.assertEqual((error.exitCode, error.signal), (None, signal.SIGSEGV))

    async def test_many_that_end_at_once(self) -> None:
        """Each is told of, once, however their ends fall together."""
        spawner = Spawner(reactor, self.open_pidfd)
        program = shutil.which("true")
        assert program is not None
        everybody = []
        for _ in range(100):
            told = Told()
            spawner.spawn(told, [program], {}, "/")
            everybody.append(told)
        for told in everybody:
            self.assertIsInstance(await told.reason, ProcessDone)
            self.assertEqual(told.events.count("exited"), 1)

    async def test_no_such_program(self) -> None:
        """Nothing is left of the attempt; nobody hears of it."""
        spawner = Spawner(reactor, self.open_pidfd)
        for arguments, directory in (
            (["/nowhere/to/be/found"], "/"),
            (["/etc/passwd"], "/"),
            (["/bin/sh"], "/nowhere"),
        ):
            with self.assertRaises(OSError):
                spawner.spawn(self.told, arguments, {}, directory)
        self.assertEqual(self.told.events, [])

    async def test_input_is_written_and_closed(self) -> None:
        """Behind all that was written."""
        process = self.spawn("cat")
        process.write(b"x" * 300_000)
        process.closeStdin()
        await self.told.reason
        self.assertEqual(len(self.told.said), 300_000)
        # Too late, and nobody minds.
        process.write(b"more")
        process.closeStdin()
        process.unregisterProducer()

    async def test_others_hold_the_pipes(self) -> None:
        """It has exited, and is over when the pipes are dropped."""
        process = self.spawn("sh", "-c", "sleep 1000 & echo $!")
        await until(lambda: "exited" in self.told.events)
        await until(lambda: b"\n" in self.told.said)
        self.assertNotIn("ended", self.told.events)
        process.loseConnection()
        self.assertIsInstance(await self.told.reason, ProcessDone)
        other = int(self.told.said)
        os.kill(other, signal.SIGKILL)
        await until(lambda: not alive(other))

    async def test_faults_of_the_protocol_are_logged(self) -> None:
        """They keep nothing from being closed, reaped and told."""
        for event in ("lost 1", "exited", "ended"):
            self.told = Told()
            self.told.fails_in = event
            self.spawn("true")
            await self.told.reason
            self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1, event)


class _FullReactor:
    """The kernel watches a few descriptors more, and then no others."""

    def __init__(self, room: int) -> None:
        """
        @param room: how many more.
        """
        self._room = room

    def __getattr__(self, name: str) -> Any:
        return getattr(reactor, name)

    def addReader(self, reader: IReadDescriptor) -> None:  # noqa: N802 - Twisted's
        """As epoll_ctl(2) does it."""
        if not self._room:
            raise OSError(errno.ENOSPC, "max_user_watches")
        self._room -= 1
        reactor.addReader(reader)


class FullReactorTests(TestCase):
    """There is no room to watch a process."""

    timeout = 60

    async def test_its_pipes(self) -> None:
        """It is killed and reaped, and nothing of it is left."""
        for room in range(3):
            descriptors, before = os.listdir("/proc/self/fd"), _children()
            told = Told()
            with self.assertRaises(OSError):
                Spawner(_FullReactor(room)).spawn(told, ["/bin/sleep", "1000"], {}, "/")
            self.assertEqual(os.listdir("/proc/self/fd"), descriptors)
            new = _children() - before
            await until(lambda new=new: new.isdisjoint(_children()))  # type: ignore[misc]
            self.assertEqual(told.events, [])

    async def test_its_end(self) -> None:
        """Then it is told of by SIGCHLD."""
        told = Told()
        Spawner(_FullReactor(3)).spawn(told, ["/bin/sh", "-c", "exit 3"], {}, "/")
        error = await told.reason
        self.assertEqual(error.exitCode, 3)


def _children() -> set[str]:
    pid = os.getpid()
    return set(Path(f"/proc/{pid}/task/{pid}/children").read_text().split())


class WithoutPidfdTests(TransportTests):
    """The same where the system has no pidfd."""

    open_pidfd = staticmethod(no_pidfd)
