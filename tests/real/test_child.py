"""The child supervisor against real processes, bad ones above all."""

import json
import os
import signal
import time
from pathlib import Path

from twisted.internet.defer import Deferred
from twisted.logger import ILogObserver, LogEvent, globalLogPublisher
from zope.interface import implementer

from fjmcp_broker.sessions.errors import ChildBusy
from fjmcp_broker.sessions.processes.ending import ChildEnd, EndReason
from fjmcp_broker.sessions.processes.spawn import Launcher
from tests.real.child_case import ChildTestCase, alive, until


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
        child = self.start("telling", env={"EXTRA": "1"}, stop_grace_seconds=30)
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

    async def test_without_the_helper_program(self) -> None:
        """Stopping still works where setpriv is missing."""
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

    async def test_child_that_reads_late(self) -> None:
        """What it did not read is queued and arrives whole, as far as it was taken."""
        child = self.start("sluggish", maximum_queued_bytes=3_000_000)
        taken = 0
        with self.assertRaises(ChildBusy):
            while True:
                child.send(b"x" * 65_000)
                taken += 1
        self.assertGreater(taken, 45)
        self.assertLess(taken, 50)
        # A stop drops what still waits for the child.
        await until(lambda: not child._stdin._messages)
        end = await child.stop(30)
        self.assertEqual(end.exit_code, 0)
        self.assertEqual(json.loads(self.owner.lines[0]), [taken, True, 0])

    async def test_child_that_never_reads(self) -> None:
        """It is stopped although its input cannot be delivered."""
        child = self.start("hanging")
        for _ in range(20):
            child.send(b"x" * 65_000)
        end = await child.stop()
        self.assertEqual(end.signal, signal.SIGTERM)

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
        grandchild = await self.owner.next_number()
        await child.when_ended()
        await until(lambda: not alive(grandchild))

    async def test_escaped_grandchild_cannot_hold_the_session(self) -> None:
        """A process in another session is left alone, its pipes are dropped."""
        child = self.start("escaping")
        grandchild = await self.owner.next_number()
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
