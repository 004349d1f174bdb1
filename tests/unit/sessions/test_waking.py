"""Sessions that outlive their children, their registry and their user's tokens."""

import gc
import weakref
from collections.abc import Collection
from typing import Any

from twisted.internet.defer import Deferred

from fjmcp_broker.mcp.messages import Request
from fjmcp_broker.secret import Secret
from fjmcp_broker.sessions.children.population import Limits
from fjmcp_broker.sessions.list_changed import Sight, Sights
from fjmcp_broker.sessions.registry import digest_of
from fjmcp_broker.sessions.rotation import Rotation
from fjmcp_broker.store.errors import StoreUnavailable
from fjmcp_broker.upstream.errors import SignInNeeded, UpstreamUnavailable
from fjmcp_broker.upstream.interfaces import UpstreamAccessToken
from tests.fakes import FakeProcess
from tests.relay_stubs import key_of, principal
from tests.unit.web.mcp_world import McpWorld, Wire, initialize, request

IDLE_SECONDS = 900
UNUSED_SECONDS = 30 * 24 * 3600


class WakingWorld(McpWorld):
    """What these tests do again and again."""

    def call(self, session: str, id: Any = 1, token: str = "alice") -> Wire:
        """Call something that the child answers at once, unless it is manual."""
        return self.send(request(id, "x", n=id), session, token=token)

    def check_call(self, session: str, id: Any = 1, token: str = "alice") -> None:
        """A call that works."""
        wire = self.call(session, id, token)
        self.assertEqual(wire.status, 200, wire.value())
        self.assertEqual(self.answer(wire)["result"], {"params": {"n": id}})

    def answer(self, wire: Wire) -> Any:
        """What came last."""
        return wire.events[-1] if wire.events else wire.json

    def methods(self, process: FakeProcess) -> list[str]:
        """What a child was told, in order."""
        return [message.get("method", "answer") for message in self.received(process)]

    def reap(self) -> None:
        """One tick."""
        self.successResultOf(
            Deferred.fromCoroutine(self.registry.reap(IDLE_SECONDS, UNUSED_SECONDS))
        )

    @property
    def living(self) -> list[FakeProcess]:
        """The children that run."""
        return [process for process in self.spawner.processes if not process.exited]


class RestartTests(WakingWorld):
    """The daemon was stopped and started again."""

    def test_same_session_id_answers(self) -> None:
        """With the handshake of its client replayed, and nothing twice."""
        wire = self.send(
            {
                "jsonrpc": "2.0",
                "id": "one",
                "method": "initialize",
                "params": {
                    "protocolVersion": "2025-06-18",
                    "capabilities": {"roots": {}},
                    "big": 12345678901234567890123,
                },
            }
        )
        session = wire.headers["mcp-session-id"]
        self.restart()
        self.assertEqual(self.living, [])
        self.check_call(session, 7)
        old, new = (self.received(process) for process in self.spawner.processes)
        self.assertEqual(old[0]["params"], new[0]["params"])
        self.assertEqual(
            self.methods(self.spawner.processes[1]),
            ["initialize", "notifications/initialized", "x"],
        )

    def test_log_level_and_subscriptions_are_told_again(self) -> None:
        """Before anything else; the client sees none of the answers."""
        session = self.open()
        self.send(request(1, "logging/setLevel", level="debug"), session)
        for number, uri in enumerate(("a:1", "a:2", "a:1")):
            self.send(request(number, "resources/subscribe", uri=uri), session)
        self.send(request(9, "resources/unsubscribe", uri="a:2"), session)
        self.restart()
        wire = self.call(session, 1)
        self.assertEqual(self.answer(wire)["id"], 1)
        told = self.received(self.spawner.processes[1])
        self.assertEqual(
            [(m["method"], m.get("params")) for m in told[2:]],
            [
                ("logging/setLevel", {"level": "debug"}),
                ("resources/subscribe", {"uri": "a:1"}),
                ("x", {"n": 1}),
            ],
        )

    def test_what_the_child_refused_is_not_told_again(self) -> None:
        """A log level that never was set."""
        session = self.open()
        self.manual.add("logging/setLevel")
        self.send(request(1, "logging/setLevel", level="loud"), session)
        process = self.spawner.processes[0]
        process.say(b'{"jsonrpc":"2.0","id":2,"error":{"code":-32602,"message":"no"}}')
        self.restart()
        self.check_call(session)
        self.assertNotIn("logging/setLevel", self.methods(self.spawner.processes[1]))

    def test_other_people_stay_out(self) -> None:
        """Ownership comes from the row."""
        session = self.open()
        known = self.authenticator.principals
        known["client"] = principal(1, "g_9", "other client")
        for token, status in (("bob", 403), ("client", 404)):
            self.restart()
            self.assertEqual(self.call(session, 1, token).status, status)
        self.assertEqual(len(self.spawner.processes), 1)
        self.check_call(session)

    def test_closed_sessions_stay_closed(self) -> None:
        """404, and no child."""
        session = self.open()
        self.send(b"", session, method="DELETE")
        self.restart()
        self.assertEqual(self.call(session).status, 404)
        self.assertEqual(len(self.spawner.processes), 1)

    def test_row_that_cannot_be_read(self) -> None:
        """503, and nothing is lost."""
        session = self.open()
        self.restart()
        self.ledger.error = StoreUnavailable("busy")
        self.assertEqual(self.call(session).status, 503)
        self.ledger.error = None
        self.check_call(session)

    def test_session_that_ends_while_its_row_cannot_be_written(self) -> None:
        """Is unknown at once, and the reaper closes the row."""
        session = self.open()
        closed = self.ledger.closed

        async def failing(*arguments: Any) -> None:
            raise StoreUnavailable("busy")

        self.patch(self.ledger, "closed", failing)
        self.registry.close_grant("g_1")
        self.assertEqual(self.call(session).status, 404)
        self.assertEqual(self.flushLoggedErrors(), [])
        self.patch(self.ledger, "closed", closed)
        self.reap()
        self.assertEqual(self.ledger.rows[key_of(session)], "grant_ended")

    def test_session_that_is_deleted_while_its_row_is_read(self) -> None:
        """What was read before counts for nothing."""
        session = self.open()
        self.restart()
        held: list[Deferred[None]] = []
        found = self.ledger.found

        async def slowly(digest: bytes) -> Any:
            stored = await found(digest)
            held.append(Deferred())
            await held[-1]
            return stored

        self.patch(self.ledger, "found", slowly)
        deleted = self.send(b"", session, method="DELETE")
        wire = self.call(session)
        held[0].callback(None)
        self.assertEqual(deleted.status, 204)
        held[1].callback(None)
        held[2].callback(None)
        self.assertEqual(wire.status, 404)
        self.assertEqual(len(self.spawner.processes), 1)

    def test_two_requests_read_the_row_at_once(self) -> None:
        """They use one session."""
        session = self.open()
        self.restart()
        held: list[Deferred[None]] = []
        found = self.ledger.found

        async def slowly(digest: bytes) -> Any:
            held.append(Deferred())
            await held[-1]
            return await found(digest)

        self.patch(self.ledger, "found", slowly)
        wires = [self.call(session, number) for number in range(2)]
        for each in held:
            each.callback(None)
        for number, wire in enumerate(wires):
            self.assertEqual(self.answer(wire)["id"], number)
        self.assertEqual(len(self.spawner.processes), 2)

    def test_dormant_session_is_only_a_row(self) -> None:
        """Nothing of it stays in memory but what its client has seen."""
        session = self.open()
        self.check_call(session)
        self.clock.advance(IDLE_SECONDS)
        self.reap()
        # The test's own memory of what ran.
        self.spawner.processes.clear()
        gc.collect()
        self.assertEqual([*self.registry._shelf], [])
        self.check_call(session)

    def test_what_was_closed_is_gone(self) -> None:
        """At once: nothing of it waits for a garbage collection."""
        gc.disable()
        self.addCleanup(gc.enable)
        session = self.open()
        self.check_call(session)
        [resident] = self.registry.population
        parts = weakref.ref(resident), weakref.ref(resident.children)
        del resident
        self.send(b"", session, method="DELETE")
        self.spawner.processes.clear()
        self.assertEqual([part() for part in parts], [None, None])

    def test_many_at_once_start_one_child(self) -> None:
        """And all of them are answered."""
        session = self.open()
        self.restart()
        self.manual.add("initialize")
        wires = [self.call(session, number) for number in range(10)]
        self.assertEqual(len(self.living), 1)
        self.reply(self.living[0], 1, {"protocolVersion": "2025-06-18"})
        for number, wire in enumerate(wires):
            self.assertEqual(self.answer(wire)["id"], number)


class CrashTests(WakingWorld):
    """A child ended by itself."""

    def test_between_calls(self) -> None:
        """The client sees nothing."""
        session = self.open()
        for number in range(2):
            self.check_call(session, number)
            self.clock.advance(60)
            self.living[0].exit(3)
        self.check_call(session, 9)

    def test_during_calls(self) -> None:
        """Those fail with the reason, the next works, and nothing is sent twice."""
        session = self.open()
        self.manual.add("slow")
        waiting = [self.send(request(n, "slow"), session) for n in range(3)]
        self.spawner.processes[0].exit(None, 9)
        for wire in waiting:
            self.assertEqual(
                self.answer(wire)["error"]["data"], {"reason": "child_exited"}
            )
        self.check_call(session, 9)
        self.assertNotIn("slow", self.methods(self.spawner.processes[1]))

    def test_again_and_again(self) -> None:
        """It backs off; calls wait and work, since each child has worked until then."""
        session = self.open()
        for number, seconds in enumerate((0, 1, 2, 4, 4, 4)):
            self.living[0].exit(1)
            wire = self.call(session, number)
            if seconds:
                self.clock.advance(seconds - 0.1)
                self.assertIsNone(wire.status)
                self.clock.advance(0.1)
            self.assertEqual(self.answer(wire)["result"], {"params": {"n": number}})
        self.clock.advance(60)
        self.living[0].exit(1)
        self.check_call(session, 9)

    def test_killed_again_and_again(self) -> None:
        """By somebody else: that says nothing about the next one."""
        session = self.open()
        for number in range(9):
            self.living[0].exit(None, 9)
            self.check_call(session, number)

    def test_deleted_while_it_backs_off(self) -> None:
        """Nobody waits for a child any more."""
        session = self.open()
        for number in range(2):
            self.living[0].exit(1)
            wire = self.call(session, number)
        self.assertIsNone(wire.status)
        self.assertEqual(self.send(b"", session, method="DELETE").status, 204)
        self.assertEqual(wire.status, 404)
        self.assertEqual(self.living, [])

    def test_child_that_never_starts(self) -> None:
        """The longest wait is half a minute."""
        session = self.open()
        self.spawner.processes[0].exit(1)
        self.spawner.refuse = OSError("no")
        for _ in range(20):
            self.assertEqual(self.call(session).status, 502)
            self.clock.advance(30)
        self.spawner.refuse = None
        self.check_call(session)

    def test_child_that_is_going(self) -> None:
        """A request that comes while it closes its pipes goes to the next one."""
        session = self.open()
        process = self.spawner.processes[0]
        process.protocol.outConnectionLost()
        self.check_call(session)
        self.assertNotIn("x", self.methods(process))


class SleepTests(WakingWorld):
    """Children that nobody needs."""

    limits = Limits(total=3, per_user=2, dormant_per_grant=3)

    def test_idle_child(self) -> None:
        """Is stopped after the time, and the next call is only slower."""
        session = self.open()
        self.clock.advance(IDLE_SECONDS - 1)
        self.reap()
        self.assertEqual(len(self.living), 1)
        self.clock.advance(1)
        self.reap()
        self.assertEqual((self.living, len(self.registry)), ([], 0))
        self.check_call(session)

    def test_busy_child(self) -> None:
        """Is not idle, however long the call takes."""
        session = self.open()
        self.manual.add("x")
        self.call(session)
        self.clock.advance(3000)
        self.reap()
        self.assertEqual(len(self.living), 1)

    def test_unused_session(self) -> None:
        """Is closed after a month."""
        session = self.open()
        self.reap()
        self.restart()
        self.clock.advance(UNUSED_SECONDS)
        self.reap()
        self.assertEqual(self.ledger.rows[key_of(session)], "unused")
        self.assertEqual(self.call(session).status, 404)

    def test_longest_idle_of_the_same_user_first(self) -> None:
        """Then of anybody; busy ones never."""
        sessions = {}
        for name in ("a1", "b1", "a2"):
            self.clock.advance(1)
            sessions[name] = self.open("alice" if name[0] == "a" else "bob")
        a1, b1, a2 = self.spawner.processes
        self.clock.advance(1)
        self.open("alice")
        self.assertEqual((a1.exited, b1.exited, a2.exited), (True, False, False))
        self.clock.advance(1)
        self.check_call(sessions["a1"])
        self.assertEqual((b1.exited, a2.exited), (False, True))
        self.open("reader")
        self.assertTrue(b1.exited)

    def test_everybody_is_busy(self) -> None:
        """Only then the answer is to come back later."""
        self.manual.add("slow")
        for token in ("alice", "alice", "bob"):
            self.send(request(1, "slow"), self.open(token), token=token)
        for token in ("alice", "bob", "reader"):
            wire = self.send(initialize(), token=token)
            self.assertEqual(wire.status, 503)
            self.assertIn("retry-after", wire.headers)

    def test_too_many_dormant_sessions(self) -> None:
        """The oldest of that grant is closed."""
        sessions = []
        for _ in range(6):
            self.clock.advance(1)
            sessions.append(self.open())
        states = [self.ledger.rows[key_of(session)] for session in sessions]
        self.assertEqual(states, ["too_many_dormant", *["open"] * 5])
        self.assertEqual(self.call(sessions[0]).status, 404)
        self.check_call(sessions[1])

    def test_surplus_is_looked_for_when_there_may_be_some(self) -> None:
        """After a start, and when a session has fallen asleep; else no row is read."""
        asked = []
        close_surplus = self.ledger.close_surplus

        async def counting(
            grant_id: str, keep: int, spared: Collection[bytes], now: int
        ) -> list[bytes]:
            asked.append(grant_id)
            if len(asked) == 3:
                raise StoreUnavailable("as the test wants it")
            return await close_surplus(grant_id, keep, spared, now)

        self.patch(self.ledger, "close_surplus", counting)
        counts = []
        # The third of alice sends her first to sleep, and the store fails just then.
        for token in ("alice", "alice", "bob", "alice", "alice"):
            self.clock.advance(1)
            self.open(token)
            counts.append(len(asked))
        self.assertEqual(counts, [1, 1, 2, 3, 4])
        self.clock.advance(IDLE_SECONDS)
        self.reap()
        self.assertEqual(len(asked), 6)

    def test_surplus_by_adoption(self) -> None:
        """A grant that adopts a session that sleeps may have one too many then."""
        asleep = [self.open() for _ in range(3)]
        self.clock.advance(IDLE_SECONDS)
        self.reap()
        self.authenticator.principals["two"] = principal(1, "g_two")
        self.ledger.grants.update({b"%d" % n: "g_two" for n in range(3)})
        self.ledger.rows.update({b"%d" % n: "open" for n in range(3)})
        opened = self.open("two")
        self.assertNotIn("too_many_dormant", self.ledger.rows.values())
        notification = {"jsonrpc": "2.0", "method": "notifications/x"}
        self.assertEqual(self.send(notification, asleep[0], token="two").status, 202)
        self.open("two")
        closed = [k for k, v in self.ledger.rows.items() if v == "too_many_dormant"]
        self.assertEqual(closed, [key_of(asleep[0])])
        self.check_call(opened)


class ListChangedWorld(WakingWorld):
    """Children whose tools change."""

    def setUp(self) -> None:
        """A session whose client has listed the tools."""
        super().setUp()
        self.tools = ["a", "b"]
        self.capabilities: dict[str, Any] = {"tools": {}}
        self.session = self.open()
        self.send(request(1, "tools/list"), self.session)

    def read(self, process: FakeProcess, message: dict[str, Any]) -> None:
        """Children with tools."""
        if message.get("method") == "tools/list":
            tools = [{"name": name} for name in self.tools]
            self.reply(process, message["id"], {"tools": tools})
        elif message.get("method") == "initialize":
            self.reply(
                process,
                message["id"],
                {"protocolVersion": "2025-06-18", "capabilities": self.capabilities},
            )
        else:
            super().read(process, message)

    def told(self, wire: Wire) -> list[str]:
        """Notifications before an answer."""
        return [event["method"] for event in wire.events if "method" in event]

    def next_call(self, accept: str = "application/json, text/event-stream") -> Wire:
        """After a crash."""
        self.clock.advance(100)
        for process in self.living:
            process.exit(1)
        return self.send(request(2, "x"), self.session, headers={"Accept": accept})


class ListChangedTests(ListChangedWorld):
    """Another child has other tools."""

    def test_same_tools_in_another_order(self) -> None:
        """Nothing to tell."""
        self.tools.reverse()
        wire = self.next_call()
        self.assertEqual(wire.headers["content-type"], "application/json")

    def test_other_tools(self) -> None:
        """The next stream says so, once."""
        self.tools.append("c")
        wire = self.next_call()
        self.assertEqual(self.told(wire), ["notifications/tools/list_changed"])
        self.assertEqual(wire.events[-1]["id"], 2)
        self.assertEqual(self.next_call().headers["content-type"], "application/json")

    def test_client_that_takes_json_alone(self) -> None:
        """It hears of it as soon as it can."""
        self.tools.append("c")
        self.assertIn("result", self.next_call("application/json").json)
        wire = self.send(request(3, "x"), self.session)
        self.assertEqual(self.told(wire), ["notifications/tools/list_changed"])

    def test_other_capabilities(self) -> None:
        """Even when the client has asked for no list."""
        self.capabilities = {"tools": {}, "resources": {"subscribe": True}}
        wire = self.next_call()
        self.assertEqual(self.told(wire), ["notifications/resources/list_changed"])

    def test_open_stream(self) -> None:
        """It is told there, without any call."""
        heard: list[bytes] = []

        class Stream:
            def send(self, message: bytes) -> None:
                heard.append(message)

            def end(self) -> None:
                """Nothing."""

        find = self.registry.find(digest_of(self.session), principal(1))
        session = self.successResultOf(Deferred.fromCoroutine(find))
        stream = Stream()
        session.listen(stream)
        self.tools.append("c")
        wire = self.next_call()
        self.assertEqual(wire.headers["content-type"], "application/json")
        self.assertEqual(len(heard), 1)
        self.assertIn(b"notifications/tools/list_changed", heard[0])
        session.unlisten(stream)

    def restart(self) -> None:
        """With what is written before the end."""
        self.successResultOf(Deferred.fromCoroutine(self.registry.stop(3)))
        self.successResultOf(Deferred.fromCoroutine(self.registry.flush_activity()))
        super().restart()

    def test_later_daemon(self) -> None:
        """It knows what the client has seen, and says what is new, once."""
        self.restart()
        self.assertEqual(self.told(self.next_call()), [])
        self.tools.append("c")
        self.capabilities = {"tools": {}, "resources": {}}
        self.restart()
        self.assertEqual(
            sorted(self.told(self.next_call())),
            [
                "notifications/resources/list_changed",
                "notifications/tools/list_changed",
            ],
        )
        self.restart()
        self.assertEqual(self.told(self.next_call()), [])

    def test_later_daemon_of_a_client_that_could_not_be_told(self) -> None:
        """It is told then."""
        self.tools.append("c")
        self.next_call("application/json")
        self.restart()
        wire = self.send(request(3, "x"), self.session)
        self.assertEqual(self.told(wire), ["notifications/tools/list_changed"])

    def test_what_was_seen_is_written_later_when_it_cannot_be_now(self) -> None:
        """And off the path of calls."""
        touched = self.ledger.touched

        async def failing(*arguments: Any) -> None:
            raise StoreUnavailable("full")

        self.patch(self.ledger, "touched", failing)
        self.failureResultOf(
            Deferred.fromCoroutine(self.registry.flush_activity()), StoreUnavailable
        )
        self.patch(self.ledger, "touched", touched)
        self.assertIsNone(self.ledger.stored[key_of(self.session)].seen)
        self.tools.append("c")
        self.restart()
        self.assertEqual(
            self.told(self.next_call()), ["notifications/tools/list_changed"]
        )

    def test_what_was_seen_before_there_is_a_row(self) -> None:
        """Is written when there is one."""
        self.ledger.holding = []
        wire = self.send(initialize())
        flush = self.registry.flush_activity
        self.successResultOf(Deferred.fromCoroutine(flush()))
        self.ledger.holding.pop().callback(None)
        self.ledger.holding = None
        self.session = wire.headers["mcp-session-id"]
        self.successResultOf(Deferred.fromCoroutine(flush()))
        self.assertIn("tools", self.ledger.stored[key_of(self.session)].seen or "")

    def test_stored_sight_that_cannot_be_read(self) -> None:
        """Counts as none."""
        for text in ("", "{", "7", '{"lists":{"tools/list":"xyz"}}', '{"untold":1}'):
            self.assertEqual(Sight.restored(text).text(), Sight().text())

    def test_lists_that_cannot_be_read(self) -> None:
        """Are no news."""
        sight = Sight()
        self.assertEqual(sight.child_said(b'{"capabilities":7}'), [])
        sight.client_saw(Request(b"1", "tools/list"), b'{"tools":7}')
        self.assertEqual(sight.lists, {})

    def test_memory_has_a_limit(self) -> None:
        """The longest unseen is forgotten."""
        sights = Sights(2)
        first = sights.of(b"1")
        self.assertIs(sights.of(b"1"), first)
        sights.of(b"2")
        sights.of(b"3")
        self.assertIsNot(sights.of(b"1"), first)

    def test_forgotten_ones_are_gone(self) -> None:
        """At once, not with a garbage collection."""
        sights = Sights()
        seen = weakref.ref(sights.of(b"1"))
        sights.forget(b"1")
        self.assertIsNone(seen())


class SuspensionTests(WakingWorld):
    """A user has to sign in again."""

    def test_children_go_and_sessions_stay(self) -> None:
        """After the new sign-in every client goes on, with another grant, too."""
        session = self.open()
        self.manual.add("slow")
        wire = self.send(request(1, "slow"), session)
        self.registry.suspend_user(1)
        self.assertEqual(
            self.answer(wire)["error"]["data"], {"reason": "user_suspended"}
        )
        self.assertEqual(self.living, [])
        self.tokens.error = SignInNeeded("again")
        refused = self.call(session)
        self.assertEqual(refused.status, 401)
        self.assertIn("www-authenticate", refused.headers)
        self.tokens.error = None
        self.check_call(session)
        self.authenticator.principals["two"] = principal(1, "g_two")
        self.registry.suspend_user(1)
        self.check_call(session, 2, "two")

    def test_forgejo_is_down(self) -> None:
        """503 without a child, and recovery without anybody's action."""
        session = self.open()
        self.living[0].exit(1)
        self.tokens.error = UpstreamUnavailable("no answer")
        for _ in range(5):
            self.assertEqual(self.call(session).status, 503)
        self.tokens.error = None
        self.check_call(session)

    def test_grant_that_ended(self) -> None:
        """Its children are killed, its sessions unknown."""
        session = self.open()
        self.registry.close_grant("g_1")
        self.assertEqual(self.living, [])
        self.assertEqual(self.call(session).status, 404)


class RotationTests(WakingWorld):
    """The user's token is replaced while calls are under way."""

    def setUp(self) -> None:
        """A session with a call under way."""
        super().setUp()
        self.manual.add("slow")
        self.session = self.open()
        self.old = self.spawner.processes[0]
        self.slow = self.send(request("s", "slow"), self.session)

    def rotate(self) -> None:
        """As the timer does when a newer token is there."""
        later = int(self.clock.seconds()) + 3600
        self.clock.advance(10)
        self.registry.population.rotate_user(1, later + 1)

    def test_old_child_finishes_what_it_has(self) -> None:
        """New calls go to the new one, and the old one goes when it is done."""
        self.rotate()
        self.check_call(self.session, 1)
        self.assertNotIn("x", self.methods(self.old))
        self.assertFalse(self.old.exited)
        self.reply(self.old, 2, {"done": True})
        self.assertEqual(self.answer(self.slow)["result"], {"done": True})
        self.assertTrue(self.old.exited)
        self.assertEqual(len(self.living), 1)

    def test_calls_while_the_new_child_starts(self) -> None:
        """Are answered by the old one."""
        self.manual.add("initialize")
        self.rotate()
        self.check_call(self.session, 1)
        self.assertIn("x", self.methods(self.old))
        self.reply(self.spawner.processes[1], 1, {"protocolVersion": "2025-06-18"})
        self.check_call(self.session, 2)
        self.assertEqual(self.methods(self.old).count("x"), 1)

    def test_new_child_does_not_come_up(self) -> None:
        """The old one goes on."""
        self.spawner.refuse = OSError("no")
        self.rotate()
        self.check_call(self.session, 1)
        self.assertIn("x", self.methods(self.old))

    def test_old_child_ends_while_the_new_one_starts(self) -> None:
        """The next call waits for the new one."""
        self.manual.add("initialize")
        self.rotate()
        self.old.exit(1)
        self.assertEqual(
            self.answer(self.slow)["error"]["data"], {"reason": "child_exited"}
        )
        wire = self.call(self.session, 1)
        self.assertEqual(wire.value(), b"")
        self.reply(self.spawner.processes[1], 1, {"protocolVersion": "2025-06-18"})
        self.assertEqual(self.answer(wire)["id"], 1)

    def test_call_that_takes_too_long(self) -> None:
        """Fails shortly before the old token expires."""
        self.rotate()
        self.clock.advance(3600 - 10 - 10 - 1)
        self.assertFalse(self.old.exited)
        self.clock.advance(1)
        self.assertEqual(
            self.answer(self.slow)["error"]["data"], {"reason": "token_expired"}
        )
        self.assertTrue(self.old.exited)

    def test_old_token_ends_while_the_new_child_starts(self) -> None:
        """That start goes on, and the next call waits for it."""
        self.manual.add("initialize")
        self.clock.advance(3600 - 30)
        self.rotate()
        self.clock.advance(11)
        self.assertEqual(
            self.answer(self.slow)["error"]["data"], {"reason": "token_expired"}
        )
        wire = self.call(self.session, 1)
        self.reply(self.spawner.processes[1], 1, {"protocolVersion": "2025-06-18"})
        self.assertEqual(self.answer(wire)["id"], 1)
        self.assertEqual(len(self.spawner.processes), 2)

    def test_ids_are_the_sessions(self) -> None:
        """A call in flight at the old child cannot be made again, but cancelled."""
        self.rotate()
        self.assertEqual(self.call(self.session, "s").status, 409)
        note = {
            "jsonrpc": "2.0",
            "method": "notifications/cancelled",
            "params": {"requestId": "s"},
        }
        self.assertEqual(self.send(note, self.session).status, 202)
        self.assertIn("notifications/cancelled", self.methods(self.old))
        self.assertTrue(self.old.exited)
        self.check_call(self.session, "s")

    def test_question_of_the_old_child(self) -> None:
        """Its answer goes there."""
        self.rotate()
        self.old.say(b'{"jsonrpc":"2.0","id":"q","method":"roots/list","params":{}}')
        asked = self.slow.events[-1]
        answer = {"jsonrpc": "2.0", "id": asked["id"], "result": {"roots": []}}
        self.assertEqual(self.send(answer, self.session).status, 202)
        self.assertEqual(
            self.received(self.old)[-1],
            {"jsonrpc": "2.0", "id": "q", "result": {"roots": []}},
        )

    def test_token_that_is_about_to_expire(self) -> None:
        """Is replaced before the call, not under it."""
        self.reply(self.old, 2, {})
        self.clock.advance(3600 - 20)
        self.check_call(self.session, 1)
        self.assertNotIn("x", self.methods(self.old))
        self.assertTrue(self.old.exited)

    def test_the_limits_do_not_stop_it(self) -> None:
        """Both children run for a while."""
        limits = {"total": 1, "per_user": 1}
        self.patch(self.registry.population, "_limits", Limits(**limits))
        self.rotate()
        self.assertEqual(len(self.living), 2)

    def test_timer(self) -> None:
        """Refreshes what expires soon, and long unused sign-ins once an hour."""
        asked: list[tuple[list[int], int]] = []

        world = self

        class Tokens:
            async def refresh_due(self, users: Any, minimum: int = 120) -> Any:
                asked.append((sorted(users), minimum))
                later = int(world.clock.seconds()) + 3600
                got = UpstreamAccessToken(Secret("new"), later, 1)
                return {1: got, 2: SignInNeeded("again")} if users else {}

        async def dormant(now: int, before: int) -> list[int]:
            self.assertEqual(now - before, 14 * 24 * 3600)
            return [8, 9]

        rotation = Rotation(self.registry.population, Tokens(), dormant, self.clock)

        def tick() -> None:
            asked.clear()
            self.successResultOf(Deferred.fromCoroutine(rotation.run()))

        tick()
        self.assertEqual(asked[0], ([], 120))
        self.assertEqual(asked[1][0], [8, 9])
        self.assertGreater(asked[1][1], 10**8)
        tick()
        self.assertEqual(asked, [([], 120)])
        self.clock.advance(3600 - 60)
        tick()
        self.assertEqual(asked, [([1], 120)])
        self.assertEqual(len(self.living), 2)
