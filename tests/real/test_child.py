"""The child supervisor against real processes, bad ones above all."""

import gc
import json
import os
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from twisted.internet import reactor as _reactor
from twisted.internet.defer import Deferred
from twisted.internet.protocol import ProcessProtocol
from twisted.internet.task import deferLater
from twisted.logger import ILogObserver, LogEvent, globalLogPublisher
from twisted.python.failure import Failure
from twisted.trial.unittest import SkipTest, TestCase
from zope.interface import implementer

from fjmcp_broker.secret import Secret
from fjmcp_broker.sessions.child import Child
from fjmcp_broker.sessions.ending import ChildEnd, EndReason
from fjmcp_broker.sessions.spawn import ChildSettings, Launcher

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


async def until(true: Callable[[], bool], seconds: float = 10) -> None:
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
            spawner=reactor,
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


class SupervisorTests(ChildTestCase):
    """One real process at a time."""

    async def test_child_gets_what_it_should_and_nothing_else(self) -> None:
        """Environment, directory, descriptors, group; its token comes back nowhere."""
        logged: list[str] = []

        @implementer(ILogObserver)
        def keep(event: LogEvent) -> None:
            logged.append(repr(event))

        globalLogPublisher.addObserver(keep)
        self.addCleanup(globalLogPublisher.removeObserver, keep)
        child = self.start("telling", env={"EXTRA": "1"})
        line = await self.owner.next_line()
        told = json.loads(line)
        self.assertNotIn(b"t0ken", line)
        self.assertEqual(told["token"], "a [redacted] b")
        self.assertLessEqual(
            told["environment"].keys(),
            {
                *("PATH", "LANG", "TZ", "FORGEJO_URL", "FORGEJO_USER_AGENT", "EXTRA"),
                "LC_CTYPE",  # set by Python itself
            },
        )
        self.assertTrue(told["directory"].startswith(self.directory))
        self.assertEqual((told["files"], told["mode"]), ([], 0o700))
        self.assertEqual(told["descriptors"], [0, 1, 2])
        self.assertTrue(told["leads_group"])
        end = await child.stop()
        self.assertEqual((end.reason, end.exit_code), (EndReason.STOPPED, 0))
        self.assertNotIn("t0ken", "".join(logged))
        self.assertIn("my token is [redacted]", "".join(logged))

    async def test_without_helper_programs(self) -> None:
        """Stopping still works where setpriv, setsid and env -C are missing."""
        launcher = Launcher.detect(works=lambda command: False)
        child = self.start("deaf", launcher=launcher)
        await self.owner.next_line()
        end = await child.stop()
        self.assertEqual(end.signal, signal.SIGKILL)

    async def test_silent_child_meets_the_start_deadline(self) -> None:
        """It is killed, and reaped."""
        child = self.start("hanging", start_timeout_seconds=0.3)
        end = await child.when_ended()
        self.assertIs(end.reason, EndReason.START_TIMEOUT)

    async def test_silent_child_ends_with_its_input(self) -> None:
        """An orderly stop sends no signal."""
        child = self.start("silent", stop_grace_seconds=30)
        end = await child.stop()
        self.assertEqual((end.exit_code, end.signal), (0, None))

    async def test_flooding_child(self) -> None:
        """Standard error is drained for ever, and kept bounded."""
        child = self.start("flooding")
        self.assertEqual(await self.owner.next_line(), b'"done"')
        end = await child.stop()
        self.assertEqual(end.last_stderr, "last words")

    async def test_crashing_child(self) -> None:
        """Exit status and last words are reported."""
        end = await self.start("crashing").when_ended()
        self.assertEqual(end, ChildEnd(EndReason.EXITED, 3, None, "cannot go on"))

    async def test_child_dying_of_a_signal(self) -> None:
        """The signal is reported."""
        end = await self.start("segfaulting").when_ended()
        self.assertEqual((end.reason, end.signal), (EndReason.EXITED, signal.SIGSEGV))

    async def test_deaf_child(self) -> None:
        """SIGTERM does not help, SIGKILL does."""
        child = self.start("deaf")
        await self.owner.next_line()
        end = await child.stop()
        self.assertEqual(end.signal, signal.SIGKILL)

    async def test_stopped_child(self) -> None:
        """A child in state T is stopped like any other."""
        child = self.start("stopping")
        await self.owner.next_line()
        end = await child.stop()
        self.assertEqual(end.signal, signal.SIGTERM)

    async def test_child_that_closes_its_output(self) -> None:
        """It can say nothing more, so it is stopped."""
        end = await self.start("closing").when_ended()
        self.assertIs(end.reason, EndReason.CLOSED_OUTPUT)

    async def test_child_that_closes_its_input(self) -> None:
        """It can be told nothing more, so it is stopped."""
        end = await self.start("closing_input").when_ended()
        self.assertIs(end.reason, EndReason.CLOSED_OUTPUT)

    async def test_grandchild_in_the_group_dies_too(self) -> None:
        """What a child leaves behind holds its pipes no longer."""
        child = self.start("forking")
        grandchild = int(await self.owner.next_line())
        await child.when_ended()
        await until(lambda: not alive(grandchild))

    async def test_escaped_grandchild_cannot_hold_the_session(self) -> None:
        """A process in another session is left alone, its pipes are dropped."""
        child = self.start("escaping")
        grandchild = int(await self.owner.next_line())
        self.addCleanup(os.kill, grandchild, signal.SIGKILL)
        end = await child.when_ended()
        self.assertEqual(end.exit_code, 0)

    async def test_huge_line(self) -> None:
        """A line of 60 MiB passes, in linear time."""
        size = 60 * 1024 * 1024
        child = self.start("huge", env={"HUGE_BYTES": str(size)})
        before = time.monotonic()
        line = await self.owner.next_line()
        self.assertLess(time.monotonic() - before, 20)
        self.assertEqual(len(line), size + 2)
        self.owner.lines.clear()
        await child.stop()

    async def test_line_over_the_limit(self) -> None:
        """The child is killed before its line fills the memory."""
        child = self.start(
            "huge", env={"HUGE_BYTES": "5000000"}, maximum_line_bytes=100_000
        )
        end = await child.when_ended()
        self.assertIs(end.reason, EndReason.LINE_TOO_LONG)
        self.assertEqual(self.owner.lines, [])

    async def test_broken_program(self) -> None:
        """A program that cannot be executed ends like one that crashes."""
        path = Path(self.directory, "broken")
        path.write_bytes(b"\x7fELF is not enough")
        path.chmod(0o755)
        end = await self.start(str(path), "x").when_ended()
        path.unlink()
        self.assertNotEqual(end.exit_code, 0)
        self.assertIn("broken", end.last_stderr)

    async def test_many_concurrent_stops(self) -> None:
        """All of them hear of the one end."""
        child = self.start("deaf")
        await self.owner.next_line()
        stops = [Deferred.fromCoroutine(child.stop(g / 10)) for g in (5, 0, 3)]
        ends = [await stop for stop in stops]
        self.assertEqual(ends, [ends[0]] * 3)
        self.assertEqual(len(self.owner.ends), 1)


class LeakTests(ChildTestCase):
    """What a thousand children leave behind."""

    timeout = 180

    def count(self) -> dict[str, int]:
        """What there is of everything that could leak."""
        gc.collect()
        return {
            "descriptors": len(os.listdir("/proc/self/fd")),
            "threads": threading.active_count(),
            "delayed calls": len(reactor.getDelayedCalls()),
            "readers": len(reactor.getReaders()),
            "writers": len(reactor.getWriters()),
            "directories": len(os.listdir(self.directory)),
            "children": len(
                Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
            ),
        }

    async def test_thousand_starts_and_stops_leave_nothing(self) -> None:
        """No descriptor, thread, delayed call, directory or zombie."""
        await self.cycle(0)
        before = self.count()
        for number in range(0, 1000, 20):
            together = [
                Deferred.fromCoroutine(self.cycle(number + n)) for n in range(20)
            ]
            for each in together:
                await each
        self.assertEqual(self.count(), before)
        self.assertEqual(len(self.owner.ends), 1001)

    async def cycle(self, number: int) -> None:
        """One life; every kind of end has its turn."""
        child = self.start("sh", "-c", "read line && echo $line && read line")
        child.send(b"%d" % number)
        if number % 4 == 0:
            await until(lambda: b"%d" % number in self.owner.lines)
            child.mark_ready()
            await child.stop()
        elif number % 4 == 1:
            await child.stop()
        elif number % 4 == 2:
            child.kill()
            await child.when_ended()
        else:
            child.send(b"end")
            await child.when_ended()
        self.children.remove(child)


class _Collector(ProcessProtocol):
    """Reads the process ids that the broker-like parent prints."""

    def __init__(self, expected: int) -> None:
        self.text = b""
        self.expected = expected
        self.all_there: Deferred[list[int]] = Deferred()
        self.ended: Deferred[None] = Deferred()

    def outReceived(self, data: bytes) -> None:
        self.text += data
        pids = self.text.split()
        if len(pids) == self.expected and self.text.endswith(b"\n"):
            self.all_there.callback([int(pid) for pid in pids])

    def processEnded(self, reason: Failure) -> None:
        self.ended.callback(None)


class KilledBrokerTests(TestCase):
    """The daemon is killed without a chance to clean up."""

    timeout = 60

    async def test_no_child_survives(self) -> None:
        """Not the idle, the deaf, the hanging, nor one that is stopped."""
        if not LAUNCHER.death_signal:
            raise SkipTest("setpriv with --pdeathsig is not installed")
        kinds = ["silent", "deaf", "hanging", "stopping"]
        collector = _Collector(len(kinds))
        script = str(HERE / "broker_like.py")
        parent = reactor.spawnProcess(
            collector,
            sys.executable,
            [sys.executable, script, *kinds],
            env={**os.environ, "PYTHONPATH": str(HERE.parent.parent)},
        )
        pids = await collector.all_there

        def stopped() -> bool:
            return "T (stopped)" in Path(f"/proc/{pids[3]}/status").read_text()

        await until(stopped)
        self.assertTrue(all(alive(pid) for pid in pids))
        parent.signalProcess("KILL")
        await collector.ended
        await until(lambda: not any(alive(pid) for pid in pids))


class MemoryProtectionTests(TestCase):
    """The daemon's own memory."""

    timeout = 20

    async def test_memory_is_protected(self) -> None:
        """The flag is set; run in a process of its own, since it cannot be undone."""
        collector = _Collector(3)
        code = (
            "from fjmcp_broker.sessions.spawn import protect_memory; import ctypes;"
            "print(int(protect_memory()), ctypes.CDLL(None).prctl(3, 0, 0, 0, 0), 7)"
        )
        reactor.spawnProcess(
            collector,
            sys.executable,
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONPATH": str(HERE.parent.parent)},
        )
        self.assertEqual(await collector.all_there, [1, 0, 7])
        await collector.ended
