"""What children leave behind: nothing, even when the daemon is killed."""

import gc
import os
import sys
import tempfile
import threading
from pathlib import Path

from twisted.internet.defer import Deferred
from twisted.internet.protocol import ProcessProtocol
from twisted.python.failure import Failure
from twisted.trial.unittest import SkipTest, TestCase

from fjmcp_broker.sessions.processes.spawn import remove_stale_working_directories
from tests.real.child_case import HERE, LAUNCHER, ChildTestCase, alive, reactor, until


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
        directory = self.mktemp()
        os.mkdir(directory)
        parent = reactor.spawnProcess(
            collector,
            sys.executable,
            [sys.executable, script, *kinds],
            env={
                **os.environ,
                "PYTHONPATH": str(HERE.parent.parent),
                "TMPDIR": os.path.abspath(directory),
            },
        )
        pids = await collector.all_there

        def stopped() -> bool:
            return "T (stopped)" in Path(f"/proc/{pids[3]}/status").read_text()

        def under_way(pid: int) -> bool:
            # The program in front has asked for the signal, and made room for it.
            line = Path(f"/proc/{pid}/cmdline").read_bytes()
            return b"bad_child.py" in line and b"setpriv" not in line

        await until(stopped)
        await until(lambda: all(under_way(pid) for pid in pids))
        self.assertTrue(all(alive(pid) for pid in pids))
        parent.signalProcess("KILL")
        await collector.ended
        await until(lambda: not any(alive(pid) for pid in pids))
        # Their directories are left to the next start.
        self.assertEqual(len(os.listdir(directory)), len(kinds))
        self.patch(tempfile, "tempdir", directory)
        remove_stale_working_directories()
        self.assertEqual(os.listdir(directory), [])


class MemoryProtectionTests(TestCase):
    """The daemon's own memory."""

    timeout = 20

    async def test_memory_is_protected(self) -> None:
        """The flag is set; run in a process of its own, since it cannot be undone."""
        collector = _Collector(3)
        code = (
            "from fjmcp_broker.sessions.processes.spawn import protect_memory;"
            "import ctypes;"
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
