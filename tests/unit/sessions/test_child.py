"""The child supervisor against processes in memory."""

import signal
import weakref
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from fjmcp_broker.secret import Secret
from fjmcp_broker.sessions.errors import ChildBusy, ChildCannotStart, ChildGone
from fjmcp_broker.sessions.processes.child import DRAIN_SECONDS, Child
from fjmcp_broker.sessions.processes.ending import ChildEnd, EndReason
from fjmcp_broker.sessions.processes.spawn import ChildSettings
from fjmcp_broker.sessions.processes.transport import ISpawner
from tests.fakes import LAUNCHER, FakeProcess, FakeSpawner


class Recorder:
    """Keeps what a child says."""

    def __init__(self) -> None:
        """Nothing yet."""
        self.lines: list[bytes] = []
        self.ends: list[ChildEnd] = []

    def child_line(self, line: bytes) -> None:
        """Keep a line."""
        self.lines.append(line)

    def child_ended(self, end: ChildEnd) -> None:
        """Keep the end."""
        self.ends.append(end)


class ChildTests(SynchronousTestCase):
    """What the supervisor does at each turn of a child's life."""

    def setUp(self) -> None:
        """A child that was started."""
        self.clock = Clock()
        self.clock.advance(1_800_000_000)
        self.spawner = FakeSpawner()
        self.recorder = Recorder()
        self.child = self.make()
        self.child.start()

    def tearDown(self) -> None:
        """No working directory stays behind."""
        for process in self.spawner.processes:
            process.exit(0)
            process.loseConnection()

    def make(self, **settings: Any) -> Child:
        """A child that was not started."""
        return Child(
            spawner=self.spawner,
            clock=self.clock,
            launcher=LAUNCHER,
            settings=ChildSettings(
                **{
                    "command": ("/bin/cat", "--flag"),
                    "forgejo_url": "https://git.example",
                    **settings,
                }
            ),
            token=Secret("t0ken-of-the-user"),
            observer=self.recorder,
            name="test",
            inherited={"PATH": "/bin", "HOME": "/root", "SECRET": "x"},
            kill_group=self.spawner.kill_group,
        )

    @property
    def process(self) -> FakeProcess:
        """The newest process."""
        return self.spawner.processes[-1]

    def stop(self, grace_seconds: float | None = None) -> "Deferred[ChildEnd]":
        """Begin to stop the child."""
        return Deferred.fromCoroutine(self.child.stop(grace_seconds))

    def test_it_lets_its_owner_go(self) -> None:
        """Memory of both comes back at once, not with a garbage collection."""
        owner = weakref.ref(self.recorder)
        self.process.exit(0)
        self.assertEqual(len(self.recorder.ends), 1)
        self.recorder = Recorder()
        self.assertIsNone(owner())

    def test_fake_spawner_keeps_the_interface(self) -> None:
        """The spawner used here offers what the real one offers."""
        self.assertTrue(verifyObject(ISpawner, self.spawner))

    def test_it_is_launched_behind_the_helper(self) -> None:
        """A death signal, a directory of its own, no secret."""
        *helper, program, flag = self.process.arguments
        self.assertEqual(helper, ["/setpriv", "--pdeathsig", "KILL"])
        self.assertIn("fjmcp-child-", self.process.directory)
        self.assertTrue(program.endswith("/cat"))
        self.assertEqual(flag, "--flag")
        self.assertNotIn("t0ken", "".join(self.process.arguments))

    def test_its_environment_is_built_from_nothing(self) -> None:
        """Nothing of the daemon's environment leaks beyond three names."""
        self.assertEqual(
            self.process.environment.keys(),
            {
                "PATH",
                "LANG",
                "FORGEJO_URL",
                "FORGEJO_ACCESS_TOKEN",
                "FORGEJO_USER_AGENT",
            },
        )

    def test_lines_arrive_whole_and_redacted(self) -> None:
        """A token that the child repeats does not get any further."""
        self.process.protocol.outReceived(b'{"a":')
        self.assertEqual(self.recorder.lines, [])
        self.process.say(b'"t0ken-of-the-user"}')
        self.assertEqual(self.recorder.lines, [b'{"a":"[redacted]"}'])

    def test_messages_reach_its_standard_input(self) -> None:
        """Each on a line of its own."""
        self.child.send(b"one")
        self.child.send(b"two")
        self.assertEqual(self.process.written, b"one\ntwo\n")

    def test_a_message_is_one_line(self) -> None:
        """A request that stands on a line of its own inside would pass unjudged."""
        self.child.send(b'{"a":\n{"method":"x"}\r}')
        self.assertEqual(self.process.written, b'{"a": {"method":"x"} }\n')

    def test_a_full_queue_refuses(self) -> None:
        """A child that does not read gets no more than the limit; nothing is cut."""
        self.child = self.make(maximum_queued_bytes=100)
        self.child.start()
        self.process.reads_input = False
        self.child.send(b"x" * 70_000)
        self.child.send(b"y" * 60)
        with self.assertRaises(ChildBusy):
            self.child.send(b"z" * 60)
        self.process.read_again()
        self.child.send(b"w")
        self.assertEqual(
            bytes(self.process.written).split(),
            [b"x" * 70_000, b"y" * 60, b"w"],
        )

    def test_start_deadline_kills(self) -> None:
        """A child that never becomes ready is killed with all of its group."""
        self.clock.advance(29.9)
        self.assertEqual(self.process.signals, [])
        self.clock.advance(0.2)
        self.assertEqual(self.process.signals, [signal.SIGKILL])
        [end] = self.recorder.ends
        self.assertIs(end.reason, EndReason.START_TIMEOUT)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_ready_child_has_no_deadline(self) -> None:
        """The deadline ends with the answer to initialize."""
        self.child.mark_ready()
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_stop_begins_with_the_end_of_input(self) -> None:
        """An orderly child gets no signal."""
        self.child.mark_ready()
        end = self.successResultOf(self.stop())
        self.assertEqual(self.process.signals, [])
        self.assertIs(end.reason, EndReason.STOPPED)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_stop_climbs_to_kill(self) -> None:
        """Grace, SIGTERM, grace, SIGKILL."""
        self.process.ends_with_input = False
        self.process.dies_of = frozenset({signal.SIGKILL})
        stopped = self.stop(2)
        self.clock.advance(1.9)
        self.assertEqual(self.process.signals, [])
        self.clock.advance(0.2)
        self.assertEqual(self.process.signals, [signal.SIGTERM, signal.SIGCONT])
        self.assertNoResult(stopped)
        self.clock.advance(2)
        end = self.successResultOf(stopped)
        self.assertEqual(end.signal, signal.SIGKILL)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_concurrent_stops_share_one(self) -> None:
        """Every caller hears of the end, which happens once."""
        self.process.ends_with_input = False
        first, second = self.stop(5), self.stop(5)
        self.process.exit(0)
        self.assertEqual(self.successResultOf(first), self.successResultOf(second))
        self.assertEqual(self.successResultOf(self.stop()).exit_code, 0)
        self.assertEqual(len(self.recorder.ends), 1)

    def test_later_stop_may_hurry(self) -> None:
        """A shorter grace wins over a longer one, never the other way round."""
        self.process.ends_with_input = False
        self.stop(100)
        self.stop(200)
        self.stop(1)
        self.clock.advance(1)
        self.assertIn(signal.SIGTERM, self.process.signals)

    def test_cancelled_waiter_does_not_disturb_the_stop(self) -> None:
        """Each waiter has a Deferred of its own."""
        self.process.ends_with_input = False
        first, second = self.stop(5), self.stop(5)
        first.cancel()
        self.failureResultOf(first)
        self.process.exit(0)
        self.successResultOf(second)

    def test_crash_reports_what_it_said_last(self) -> None:
        """The last line of standard error comes with the end, colours removed."""
        self.process.complain(b"first\n\x1b[31mfatal:\x1b[0m t0ken-of-the-user no good")
        self.process.exit(1)
        [end] = self.recorder.ends
        self.assertIs(end.reason, EndReason.EXITED)
        self.assertEqual(end.last_stderr, "fatal: [redacted] no good")
        self.assertIn("exit status 1", end.describe())
        with self.assertRaises(ChildGone):
            self.child.send(b"x")

    def test_line_over_the_limit_kills(self) -> None:
        """Where the next message begins cannot be known any more."""
        self.child = self.make(maximum_line_bytes=10)
        self.child.start()
        self.process.say(b"x" * 20)
        self.assertIs(self.recorder.ends[0].reason, EndReason.LINE_TOO_LONG)

    def test_closed_output_ends_it(self) -> None:
        """A child that can say nothing more is stopped."""
        self.process.ends_with_input = False
        self.process.protocol.outConnectionLost()
        with self.assertRaises(ChildGone):
            self.child.send(b"x")
        self.clock.advance(3)
        self.assertIs(self.recorder.ends[0].reason, EndReason.CLOSED_OUTPUT)

    def test_pipes_closed_by_a_crash_are_a_crash(self) -> None:
        """The order in which pipes and process are seen to end does not matter."""
        self.process.ends_with_input = False
        self.process.protocol.outConnectionLost()
        self.process.protocol.inConnectionLost()
        self.process.exit(None, signal.SIGSEGV)
        [end] = self.recorder.ends
        self.assertIs(end.reason, EndReason.EXITED)
        self.assertEqual(end.signal, signal.SIGSEGV)

    def test_held_pipes_are_dropped(self) -> None:
        """A process that left the group cannot keep the session alive."""
        self.process.exit(0, held=True)
        self.assertEqual(self.recorder.ends, [])
        self.clock.advance(DRAIN_SECONDS)
        self.assertEqual(len(self.recorder.ends), 1)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_pausing_holds_standard_output_alone(self) -> None:
        """Two pausers must both resume; standard error is read all the time."""
        self.child.pause_output("a")
        self.child.pause_output("b")
        self.process.say(b"1")
        self.assertTrue(self.process.pipes[2].reading)
        self.child.resume_output("a")
        self.child.resume_output("a")
        self.process.deliver()
        self.assertEqual(self.recorder.lines, [])
        self.child.resume_output("b")
        self.process.deliver()
        self.assertEqual(self.recorder.lines, [b"1"])

    def test_what_a_paused_child_said_before_its_end_is_read(self) -> None:
        """A pause does not lose the last answers."""
        self.child.pause_output("a")
        self.process.say(b"1")
        self.process.exit(0)
        self.assertEqual(self.recorder.lines, [b"1"])

    def test_mishandled_line_is_logged(self) -> None:
        """A fault of the owner does not close the pipe."""
        seen = self.recorder.lines

        def broken(line: bytes) -> None:
            seen.append(line)
            raise ZeroDivisionError

        self.recorder.child_line = broken  # type: ignore[method-assign]
        self.process.protocol.outReceived(b"1\n2\n")
        self.assertEqual(seen, [b"1", b"2"])
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 2)

    def test_reaped_before_the_start_returns(self) -> None:
        """A program that ends at once leaves no deadline behind."""
        self.child.mark_ready()
        self.spawner.reaped_at_once = True
        child = self.make()
        child.start()
        self.assertFalse(child.usable())
        self.process.complain(b"no\n")
        self.process.loseConnection()
        self.assertEqual(self.successResultOf(child.when_ended()).last_stderr, "no")
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_missing_program(self) -> None:
        """The message names the program, and no directory is left."""
        child = self.make(command=("no-such-program-anywhere",))
        with self.assertRaises(ChildCannotStart) as caught:
            child.start()
        self.assertIn("no-such-program-anywhere", str(caught.exception))

    def test_failed_spawn_does_not_quote_the_environment(self) -> None:
        """The text of the operating system's error may hold the token."""
        self.spawner.refuse = OSError("t0ken-of-the-user")
        with self.assertRaises(ChildCannotStart) as caught:
            self.make().start()
        self.assertNotIn("t0ken", str(caught.exception))

    def test_mishandled_end_is_logged(self) -> None:
        """A fault of the owner does not keep waiters waiting."""

        def broken(end: ChildEnd) -> None:
            raise ZeroDivisionError

        self.recorder.child_ended = broken  # type: ignore[method-assign]
        ended = self.child.when_ended()
        self.process.exit(0)
        self.successResultOf(ended)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
