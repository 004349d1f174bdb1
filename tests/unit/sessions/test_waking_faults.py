"""What a session's next child, and what nobody waits for, must not forget."""

import gc
import weakref
from typing import Any

from twisted.internet.defer import Deferred

from fjmcp_broker.sessions.errors import ChildBusy, ChildCannotStart
from fjmcp_broker.sessions.processes.backoff import Backoff
from fjmcp_broker.store.errors import StoreUnavailable
from fjmcp_broker.upstream.errors import UpstreamUnavailable
from tests.relay_stubs import key_of
from tests.unit.sessions.test_waking import (
    IDLE_SECONDS,
    ListChangedWorld,
    WakingWorld,
)
from tests.unit.web.mcp_world import Wire, request


class FailedWakeTests(WakingWorld):
    """No child could be started."""

    def test_leaves_nothing_in_memory(self) -> None:
        """A session whose wake failed is a row again."""
        session = self.open()
        self.restart()
        held: Deferred[None] = Deferred()

        async def failing(user_id: int, minimum_life_seconds: int = 120) -> Any:
            await held

        before = self.tokens.access_token
        self.patch(self.tokens, "access_token", failing)
        wire = self.call(session)
        held.errback(UpstreamUnavailable("no answer"))
        self.assertEqual(wire.status, 503)
        self.assertEqual(len(self.registry), 0)
        self.patch(self.tokens, "access_token", before)
        self.check_call(session)

    def fail_to_start(self, session: str, id: int) -> Wire:
        """A call whose child never becomes ready."""
        wire = self.call(session, id)
        self.clock.advance(4)
        if self.living:
            self.living[0].complain(b"disk on fire\n")
            self.living[0].exit(1)
        return wire

    def test_back_off_outlives_the_object(self) -> None:
        """However soon the memory of a dormant session is used again."""
        session = self.open()
        self.living[0].exit(1)
        self.manual.add("initialize")
        started = 0
        for number in range(8):
            self.fail_to_start(session, number)
            # The test's own memory of what ran.
            started += len(self.spawner.processes)
            self.spawner.processes.clear()
            gc.collect()
        self.assertEqual(started, 1 + 5)

    def test_back_off_says_why_a_child_never_was_ready(self) -> None:
        """Its last words; short waits are part of the call."""
        session = self.open()
        self.living[0].exit(1)
        self.manual.add("initialize")
        wires = [self.fail_to_start(session, number) for number in range(5)]
        self.assertEqual([wire.status for wire in wires], [502] * 5)
        for wire in wires[:4]:
            self.assertIn("disk on fire", wire.json["error"]["message"])
        self.assertIn("keeps ending", wires[-1].json["error"]["message"])
        self.assertIn("disk on fire", wires[-1].json["error"]["message"])


class EndedTests(WakingWorld):
    """The end of a session could not be written down at once."""

    def test_written_before_the_daemon_stops(self) -> None:
        """With what else is left to write then."""
        session = self.open()
        closed = self.ledger.closed

        async def failing(*arguments: Any) -> None:
            raise StoreUnavailable("busy")

        self.patch(self.ledger, "closed", failing)
        self.registry.close_grant("g_1")
        self.patch(self.ledger, "closed", closed)
        for work in (self.registry.stop(1), self.registry.flush_activity()):
            self.successResultOf(Deferred.fromCoroutine(work))
        self.assertEqual(self.ledger.rows[key_of(session)], "grant_ended")

    def test_deleted_when_it_is_written(self) -> None:
        """Not before: a client that was told so never finds it again."""
        session = self.open()
        closed = self.ledger.closed
        held: Deferred[None] = Deferred()

        async def slow(*arguments: Any) -> None:
            await held
            await closed(*arguments)

        self.patch(self.ledger, "closed", slow)
        wire = self.send(b"", session, method="DELETE")
        self.assertIsNone(wire.status)
        self.check_call(session)
        # Its client need not wait for it.
        wire.depart()
        again = self.send(b"", session, method="DELETE")
        held.callback(None)
        self.assertEqual(again.status, 204)
        self.assertEqual(self.ledger.rows[key_of(session)], "deleted_by_client")
        self.assertEqual(self.call(session).status, 404)
        self.assertEqual(self.living, [])

    def test_not_deleted_when_it_cannot_be_written(self) -> None:
        """The client may try again, and the session goes on until then."""
        session = self.open()

        async def failing(*arguments: Any) -> None:
            raise StoreUnavailable("full")

        self.patch(self.ledger, "closed", failing)
        wire = self.send(b"", session, method="DELETE")
        self.assertEqual(wire.status, 503)
        self.assertIn("retry-after", wire.headers)
        self.check_call(session)


class ToldTests(WakingWorld):
    """What a client told its child could not be written down at once."""

    def test_written_later(self) -> None:
        """With what else is left to write; a later child knows it, a later daemon
        too."""
        session = self.open()
        told = self.ledger.told

        async def failing(*arguments: Any) -> None:
            raise StoreUnavailable("locked")

        self.patch(self.ledger, "told", failing)
        level = request(1, "logging/setLevel", level="debug")
        self.assertEqual(self.send(level, session).status, 200)
        self.clock.advance(IDLE_SECONDS)
        self.registry.population.put_idle_to_sleep(self.clock.seconds())
        self.spawner.processes.clear()
        gc.collect()
        self.assert_told(session, 2)
        self.patch(self.ledger, "told", told)
        self.reap()
        self.restart()
        self.assert_told(session, 3)

    def assert_told(self, session: str, id: int) -> None:
        """The newest child is told of the level at its start."""
        self.check_call(session, id)
        told = self.received(self.spawner.processes[-1])
        levels = [m["params"] for m in told if m.get("method") == "logging/setLevel"]
        self.assertEqual(levels, [{"level": "debug"}])


class BackoffTests(WakingWorld):
    """Only children that end quickly one after another count."""

    def test_long_life_between(self) -> None:
        """Also of a child that was stopped in the end."""
        session = self.open()
        self.living[0].exit(1)
        self.check_call(session)
        self.clock.advance(3600 - 20)
        self.check_call(session, 2)
        self.living[-1].exit(1)
        self.check_call(session, 3)

    def test_never_promises_no_wait(self) -> None:
        """What is left is rounded up."""
        backoff = Backoff()
        for _ in range(5):
            backoff.ended(100, None, "words")
        with self.assertRaisesRegex(ChildCannotStart, "in 5 s: words"):
            backoff.check(103.9)


class TwoChildrenTests(WakingWorld):
    """An old child finishes what it has, a new one serves."""

    def setUp(self) -> None:
        """A session with a call under way."""
        super().setUp()
        self.manual.add("slow")
        self.session = self.open()
        self.old = self.spawner.processes[0]
        self.slow = self.send(request("s", "slow"), self.session)

    def rotate(self) -> None:
        """As the timer does when a newer token is there."""
        self.clock.advance(10)
        self.registry.population.rotate_user(1, int(self.clock.seconds()) + 3601)

    def note(self, method: str, **params: Any) -> Wire:
        """A notification of the client."""
        note = {"jsonrpc": "2.0", "method": method, "params": params}
        return self.send(note, self.session)

    def test_those_before_are_forgotten(self) -> None:
        """However often a child is replaced, no old one stays in memory."""
        self.reply(self.old, self.received(self.old)[-1]["id"], {})
        gone = []
        for _ in range(5):
            gone.append(weakref.ref(self.living[-1].protocol))
            self.rotate()
            self.clock.advance(10)
        self.assertEqual(len(self.living), 1)
        # What the fakes and this test remember.
        del self.spawner.processes[:-1], self.old
        gc.collect()
        self.assertEqual([child() for child in gone if child()], [])

    def test_notification_about_everything(self) -> None:
        """Both children hear it."""
        self.rotate()
        self.note("notifications/roots/list_changed")
        for process in self.spawner.processes:
            self.assertIn("notifications/roots/list_changed", self.methods(process))

    def test_old_child_agrees_to_what_the_new_one_was_not_told(self) -> None:
        """The new one is told then."""
        self.manual |= {"logging/setLevel", "resources/subscribe"}
        level = request(1, "logging/setLevel", level="debug")
        self.send(level, self.session)
        self.send(request(2, "resources/subscribe", uri="a:1"), self.session)
        self.rotate()
        new = self.spawner.processes[1]
        self.assertNotIn("logging/setLevel", self.methods(new))
        for message in self.received(self.old)[-2:]:
            self.reply(self.old, message["id"], {})
        told = [(m["method"], m.get("params")) for m in self.received(new)]
        self.assertIn(("logging/setLevel", {"level": "debug"}), told)
        self.assertIn(("resources/subscribe", {"uri": "a:1"}), told)

    def test_cancelled_while_the_child_does_not_read(self) -> None:
        """The call ends all the same."""
        child = self.old.protocol

        def full(message: bytes) -> None:
            raise ChildBusy("full")

        self.patch(child, "send", full)
        self.note("notifications/cancelled", requestId="s")
        self.assertIn(b"0\r\n\r\n", self.slow.value())


class SlowReplacementTests(WakingWorld):
    """A child's token is about to end, and its replacement hangs at its start."""

    def setUp(self) -> None:
        """A session whose token lives for another twenty seconds."""
        super().setUp()
        self.tokens.life_seconds = 50
        self.session = self.open()
        self.clock.advance(30)
        self.tokens.life_seconds = 3600
        self.manual.add("initialize")

    def test_calls_go_on(self) -> None:
        """The first one waits a little, the next ones not at all."""
        first = self.call(self.session, 1)
        self.assertEqual(len(self.living), 2)
        self.clock.advance(4.9)
        self.assertIsNone(first.status)
        self.clock.advance(0.1)
        self.assertEqual(self.answer(first)["result"], {"params": {"n": 1}})
        self.check_call(self.session, 2)
        self.assertEqual(len(self.living), 2)

    def test_until_the_token_ends(self) -> None:
        """Then they wait for the deadline of the start, and are told."""
        self.call(self.session, 1)
        self.clock.advance(5)
        self.clock.advance(5)
        late = self.call(self.session, 2)
        self.assertIsNone(late.status)
        self.clock.advance(19.9)
        self.assertIsNone(late.status)
        self.clock.advance(0.2)
        self.assertEqual(late.status, 502)
        self.assertIn("retry-after", late.headers)
        self.assertEqual(late.json["error"]["data"], {"reason": "child_cannot_start"})
        self.manual.clear()
        self.check_call(self.session, 3)

    def test_replacement_in_time(self) -> None:
        """Nothing is left of anybody's patience."""
        first = self.call(self.session, 1)
        self.reply(self.living[1], 1, {"protocolVersion": "2025-06-18"})
        self.assertEqual(self.answer(first)["result"], {"params": {"n": 1}})
        self.assertIn("x", self.methods(self.spawner.processes[1]))


class UntoldTests(ListChangedWorld):
    """A client that could not be told yet that its child has other tools."""

    def test_told_after_another_sleep(self) -> None:
        """However soon the memory of a dormant session is used again."""
        self.tools.append("c")
        self.next_call("application/json")
        self.clock.advance(IDLE_SECONDS)
        self.reap()
        # The test's own memory of what ran.
        self.spawner.processes.clear()
        gc.collect()
        wire = self.send(request(3, "x"), self.session)
        self.assertEqual(self.told(wire), ["notifications/tools/list_changed"])
