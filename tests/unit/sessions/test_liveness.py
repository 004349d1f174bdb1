"""Children that owe an answer and say nothing."""

import os
from pathlib import Path

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from fjmcp_broker.sessions.children import liveness
from fjmcp_broker.sessions.children.liveness import (
    LOOK_SECONDS,
    PING_SECONDS,
    STOPPED_SECONDS,
    UNANSWERED_SECONDS,
    is_stopped,
)
from tests.unit.sessions.test_waking import WakingWorld
from tests.unit.web.mcp_world import request


class LivenessTests(WakingWorld):
    """Which of them are given up."""

    def setUp(self) -> None:
        """A session with a call under way, and a child that is stopped on demand."""
        super().setUp()
        self.stopped: set[int] = set()
        self.patch(liveness, "is_stopped", self.stopped.__contains__)
        self.manual |= {"slow", "ping"}
        self.session = self.open()
        self.child = self.living[0]
        self.slow = self.send(request("s", "slow"), self.session)

    def wait(self, seconds: float) -> None:
        """Let the timer look at its usual pace."""
        for _ in range(int(seconds / LOOK_SECONDS)):
            self.clock.advance(LOOK_SECONDS)
            self.successResultOf(
                Deferred.fromCoroutine(self.registry.population.look_after_children())
            )

    def assert_given_up(self) -> None:
        """The call is answered, and the next one works."""
        self.assertIn(9, self.child.signals)
        answer = self.answer(self.slow)
        self.assertEqual(answer["error"]["data"], {"reason": "child_exited"})
        self.check_call(self.session)

    def test_stopped(self) -> None:
        """It is killed, soon."""
        self.stopped.add(self.child.pid)
        self.wait(STOPPED_SECONDS)
        self.assertEqual(self.child.signals, [])
        self.wait(2 * LOOK_SECONDS)
        self.assert_given_up()

    def test_stopped_for_a_moment(self) -> None:
        """Nobody notices."""
        self.stopped.add(self.child.pid)
        self.wait(STOPPED_SECONDS - LOOK_SECONDS)
        self.stopped.clear()
        self.wait(PING_SECONDS)
        self.assertEqual(self.child.signals, [])

    def test_stopped_without_anything_to_do(self) -> None:
        """Nobody waits for it."""
        self.reply(self.child, 2, {})
        self.stopped.add(self.child.pid)
        self.wait(3 * STOPPED_SECONDS)
        self.assertEqual(self.child.signals, [])

    def test_waits_for_its_client(self) -> None:
        """A person may take longer than any program; then it owes an answer again."""
        self.child.say(b'{"jsonrpc":"2.0","id":"q","method":"roots/list"}')
        self.wait(PING_SECONDS + UNANSWERED_SECONDS + 2 * LOOK_SECONDS)
        self.assertNotIn("ping", self.methods(self.child))
        asked = self.slow.events[-1]["id"]
        answer = {"jsonrpc": "2.0", "id": asked, "result": {"roots": []}}
        self.assertEqual(self.send(answer, self.session).status, 202)
        self.wait(PING_SECONDS + 2 * LOOK_SECONDS)
        self.assertIn("ping", self.methods(self.child))

    def test_does_not_answer_ping(self) -> None:
        """It is killed, late."""
        self.wait(PING_SECONDS + 2 * LOOK_SECONDS)
        self.assertEqual(self.methods(self.child)[-1], "ping")
        self.wait(UNANSWERED_SECONDS - 2 * LOOK_SECONDS)
        self.assertEqual(self.child.signals, [])
        self.wait(2 * LOOK_SECONDS)
        self.assert_given_up()
        self.assertEqual(self.methods(self.child).count("ping"), 1)

    def test_answers_ping(self) -> None:
        """However long its call takes."""
        self.manual.remove("ping")
        self.wait(3600 - 60)
        self.assertEqual(self.child.signals, [])
        self.assertGreater(self.methods(self.child).count("ping"), 40)
        self.reply(self.child, 2, {"it": "took long"})
        self.assertEqual(self.answer(self.slow)["result"], {"it": "took long"})

    def test_says_something(self) -> None:
        """A child that works on has no need of answering."""
        for _ in range(20):
            self.wait(PING_SECONDS - 2 * LOOK_SECONDS)
            self.child.say(b'{"jsonrpc":"2.0","method":"notifications/message"}')
        self.assertNotIn("ping", self.methods(self.child))


class IsStoppedTests(SynchronousTestCase):
    """What the kernel tells."""

    def test_states(self) -> None:
        """Stopped by a signal, traced, running, gone; a name may hold anything."""
        root = Path(self.mktemp())
        for pid, state in enumerate("TtSRDZ"):
            (root / str(pid)).mkdir(parents=True)
            (root / str(pid) / "stat").write_text(f"{pid} (a) T (b) {state} 1 2 3")
        found = [pid for pid in range(9) if is_stopped(pid, root)]
        self.assertEqual(found, [0, 1])

    def test_this_process(self) -> None:
        """It runs."""
        self.assertFalse(is_stopped(os.getpid()))
