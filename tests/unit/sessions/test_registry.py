"""Sessions: opened, adopted, ended, at awkward moments above all."""

import json
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from zope.interface.verify import verifyClass

from fjmcp_broker.logs import background
from fjmcp_broker.sessions.children.population import Limits
from fjmcp_broker.sessions.ledger import ISessionLedger
from fjmcp_broker.sessions.rows import SessionRows
from fjmcp_broker.store.errors import StoreUnavailable
from tests.fakes import FakeProcess
from tests.relay_stubs import StubLedger, key_of, principal
from tests.unit.web.mcp_world import McpWorld, Wire, initialize, request


class OpeningTests(McpWorld):
    """Everything that can happen between initialize and its answer."""

    def test_ledgers_keep_their_interface(self) -> None:
        """The stub and the real one."""
        verifyClass(ISessionLedger, StubLedger)
        verifyClass(ISessionLedger, SessionRows)

    def test_no_answer_before_the_row_is_written(self) -> None:
        """A client never holds an id that the store does not know."""
        self.ledger.holding = []
        wire = self.send(initialize())
        self.assertEqual(wire.value(), b"")
        self.ledger.holding[0].callback(None)
        self.assertEqual(wire.status, 200)

    def test_row_cannot_be_written(self) -> None:
        """The child is stopped, its place free again."""
        self.ledger.error = StoreUnavailable("busy")
        wire = self.send(initialize())
        self.assertEqual(wire.status, 503)
        self.assertTrue(self.spawner.processes[0].exited)
        self.assertEqual(len(self.registry), 0)

    def test_grant_ends_while_waiting_for_the_token(self) -> None:
        """No child is started."""
        self.tokens.holding = []
        wire = self.send(initialize())
        self.registry.close_grant("g_1")
        self.tokens.holding[0].callback(None)
        self.assertEqual(wire.status, 404)
        self.assertEqual(self.spawner.processes, [])

    def test_grant_ends_while_the_child_starts(self) -> None:
        """The child is killed at once."""
        self.manual.add("initialize")
        wire = self.send(initialize())
        self.registry.close_grant("g_1")
        self.assertEqual(wire.status, 404)
        self.assertTrue(self.spawner.processes[0].exited)

    def test_token_ends_while_the_child_starts(self) -> None:
        """The client learns what it needs, not that a session is gone."""
        self.manual.add("initialize")
        wire = self.send(initialize())
        del self.authenticator.principals["alice"]
        self.registry.close_grant("g_1")
        self.assertEqual(wire.status, 401)
        self.assertIn("invalid_token", wire.headers["www-authenticate"])

    def test_right_ends_while_opening(self) -> None:
        """Whatever the session waits for, the client hears of it on a connection that
        stays: a closed one says nothing."""
        held: Deferred[None]
        for waits_for in ("token", "child", "row"):
            self.tokens.holding = [] if waits_for == "token" else None
            self.ledger.holding = [] if waits_for == "row" else None
            (self.manual.add if waits_for == "child" else self.manual.discard)(
                "initialize"
            )
            wire = self.send(initialize())
            self.assertEqual(wire.value(), b"", waits_for)
            # The store is asked about the token, and does not answer at once.
            self.authenticator.holding = []
            self.registry.close_grant("g_1")
            self.site.end_streams(lambda who: who.grant_id == "g_1", calls=True)
            self.assertEqual(wire.status, 401, waits_for)
            self.assertIn("invalid_token", wire.headers["www-authenticate"])
            self.assertFalse(wire.disconnecting, waits_for)
            for held in [*(self.tokens.holding or ()), *(self.ledger.holding or ())]:
                held.callback(None)
            self.authenticator.release()
            self.assertEqual(len(self.registry), 0, waits_for)
            self.assertTrue(all(each.exited for each in self.spawner.processes))
            self.assertNotIn("open", self.ledger.rows.values())

    def test_right_ends_after_the_answer(self) -> None:
        """It is no answer to anything that comes later on the connection."""
        wire = self.send(initialize())
        before = wire.value()
        self.site.end_streams(lambda who: who.grant_id == "g_1", calls=True)
        self.assertEqual((wire.value(), wire.disconnecting), (before, False))

    def test_grant_ends_while_the_row_is_written(self) -> None:
        """The row is closed behind it."""
        self.ledger.holding = []
        wire = self.send(initialize())
        self.registry.close_grant("g_1")
        self.ledger.holding[0].callback(None)
        self.assertEqual(wire.status, 404)
        self.assertEqual([*self.ledger.rows.values()], ["ended_while_opening"])

    def test_child_ends_while_the_row_is_written(self) -> None:
        """Nothing to a session: the next call gets another one."""
        self.ledger.holding = []
        wire = self.send(initialize())
        self.spawner.processes[0].exit(3)
        self.ledger.holding[0].callback(None)
        self.assertEqual(wire.status, 200)
        self.assertEqual(len(self.registry), 0)
        answer = self.send(request(1, "x"), wire.headers["mcp-session-id"])
        self.assertIn("result", answer.json)

    def test_user_is_suspended_while_the_child_starts(self) -> None:
        """The client is asked to sign in."""
        self.manual.add("initialize")
        wire = self.send(initialize())
        self.registry.suspend_user(1)
        self.assertEqual(wire.status, 401)
        self.assertTrue(self.spawner.processes[0].exited)
        self.assertEqual(len(self.registry), 0)
        self.assertEqual([*self.ledger.rows.values()], ["not_opened"])

    def test_child_that_is_dead_at_once(self) -> None:
        """What it said last reaches the client, although it came after its end."""
        self.spawner.reaped_at_once = True
        wire = self.send(initialize())
        self.assertEqual(wire.value(), b"")
        process = self.spawner.processes[0]
        process.complain(b"no such library\n")
        process.loseConnection()
        self.assertEqual(wire.status, 502)
        self.assertIn("no such library", wire.json["error"]["message"])

    def test_grant_that_has_ended_before(self) -> None:
        """No session is opened for it, whatever the cache of bearers said."""
        self.ledger.dead_grants.add("g_1")
        wire = self.send(initialize())
        self.assertEqual(wire.status, 404)
        self.assertEqual((len(self.registry), self.ledger.rows), (0, {}))
        self.assertTrue(self.spawner.processes[0].exited)

    def test_token_that_has_expired_already(self) -> None:
        """The child ends at once, and nothing goes wrong."""
        self.tokens.life_seconds = -5
        session = self.open()
        self.clock.advance(2)
        self.assertTrue(self.spawner.processes[0].exited)
        self.assertEqual(self.send(request(1, "x"), session).status, 200)
        self.assertEqual(len(self.spawner.processes), 2)

    def test_start_keeps_old_rows(self) -> None:
        """Their sessions go on."""
        self.ledger.rows[b"old"] = "open"
        self.successResultOf(Deferred.fromCoroutine(self.registry.start()))
        self.assertEqual(self.ledger.rows, {b"old": "open"})


class AdoptionTests(McpWorld):
    """A session moves to another grant of the same user, client and policy."""

    def test_two_grants_at_once(self) -> None:
        """Both were let in; the row belongs to the one that came last."""
        session = self.open()
        moves: list[Deferred[None]] = []
        move = self.ledger.moved

        async def slowly(*arguments: Any) -> bool:
            moves.append(Deferred())
            await moves[-1]
            return await move(*arguments)

        self.patch(self.ledger, "moved", slowly)
        known = self.authenticator.principals
        known["two"], known["three"] = principal(1, "g_two"), principal(1, "g_three")
        second = self.send(request(2, "x"), session, token="two")
        third = self.send(request(3, "x"), session, token="three")
        self.assertEqual((second.value(), third.value()), (b"", b""))
        moves[0].callback(None)
        self.assertEqual(second.status, 200)
        moves[1].callback(None)
        moves[2].callback(None)
        self.assertEqual(third.status, 200)
        self.assertEqual(self.ledger.grants[key_of(session)], "g_three")

    def test_session_ends_meanwhile(self) -> None:
        """Then it is unknown."""
        session = self.open()
        self.authenticator.principals["two"] = principal(1, "g_two")

        async def slowly(*arguments: Any) -> bool:
            self.registry.close_grant("g_1")
            return True

        self.patch(self.ledger, "moved", slowly)
        wire = self.send(request(2, "x"), session, token="two")
        self.assertEqual(wire.status, 404)


class EndingTests(McpWorld):
    """What ends a session, and what its clients get."""

    def test_waiting_requests_get_the_reason(self) -> None:
        """Whatever it is, nobody is left hanging."""
        for reason in ("grant_ended", "token_expired", "child_exited", "deleted"):
            session = self.open()
            process = self.spawner.processes[-1]
            self.manual.add("x")
            wire = self.send(request(1, "x"), session)
            if reason == "grant_ended":
                self.registry.close_grant("g_1")
            elif reason == "token_expired":
                self.clock.advance(3600)
            elif reason == "child_exited":
                process.exit(2)
            else:
                self.send(b"", session, method="DELETE")
                reason = "deleted_by_client"
            answers = wire.events or [wire.json]
            self.assertEqual(answers[-1]["error"]["data"], {"reason": reason})
            self.assertTrue(process.exited)

    def test_deaf_child_of_an_expired_token(self) -> None:
        """It does not use the token any longer than the stop takes."""
        self.open()
        process = self.spawner.processes[0]
        process.ends_with_input = False
        process.dies_of = frozenset({9})
        self.clock.advance(3600)
        self.clock.pump([1] * 7)
        self.assertTrue(process.exited)

    def test_failing_write_of_the_end(self) -> None:
        """Is logged in one line, and the session is gone all the same."""
        session = self.open()

        async def failing(*arguments: Any) -> None:
            raise StoreUnavailable("busy")

        self.patch(self.ledger, "closed", failing)
        self.registry.close_grant("g_1")
        self.assertEqual(self.send(request(1, "x"), session).status, 404)
        self.assertEqual(self.flushLoggedErrors(), [])

    def test_activity_is_written_in_batches(self) -> None:
        """Never on the path of a call."""
        session, opened = self.open(), int(self.clock.seconds())
        for number in range(5):
            self.clock.advance(1)
            self.send(request(number, "x"), session)
        self.assertEqual(self.ledger.activity, {key_of(session): opened})
        self.successResultOf(Deferred.fromCoroutine(self.registry.flush_activity()))
        at = int(self.clock.seconds())
        self.assertEqual(self.ledger.activity, {key_of(session): at})
        self.ledger.activity.clear()
        self.successResultOf(Deferred.fromCoroutine(self.registry.flush_activity()))
        self.assertEqual(self.ledger.activity, {})


class StopTests(McpWorld):
    """All of it within one deadline."""

    def stop(self, seconds: float) -> "Deferred[None]":
        """Begin to stop."""
        return Deferred.fromCoroutine(self.registry.stop(seconds))

    def test_idle(self) -> None:
        """At once; the rows stay open for the next start."""
        self.open()
        self.successResultOf(self.stop(10))
        self.assertTrue(self.spawner.processes[0].exited)
        self.assertEqual([*self.ledger.rows.values()], ["open"])

    def test_nothing_to_stop(self) -> None:
        """At once."""
        self.successResultOf(self.stop(10))

    def test_last_answer_ends_the_wait(self) -> None:
        """As soon as it is there, its child is stopped."""
        self.manual.add("x")
        session = self.open()
        wire = self.send(request(1, "x"), session)
        stopped = self.stop(10)
        self.clock.advance(3)
        self.assertNoResult(stopped)
        self.reply(self.spawner.processes[0], 2, {})
        self.clock.advance(0)
        self.successResultOf(stopped)
        self.assertEqual(wire.events[-1]["result"], {})

    def test_child_that_ends_late_after_the_last_answer(self) -> None:
        """It is waited for, also when nobody reads that answer any more."""
        for departs in (False, True):
            self.setUp()
            self.manual.add("x")
            session = self.open()
            process = self.spawner.processes[0]
            process.ends_with_input = False
            wire = self.send(request(1, "x"), session)
            if departs:
                wire.depart()
            stopped = self.stop(10)
            self.clock.advance(1)
            self.reply(process, 2, {})
            self.assertNoResult(stopped)
            self.clock.pump([0.5] * 20)
            self.successResultOf(stopped)
            self.assertTrue(process.exited)

    def test_deaf_children(self) -> None:
        """Killed before the deadline."""
        self.manual.add("x")
        for _ in range(3):
            session = self.open()
            process = self.spawner.processes[-1]
            process.ends_with_input = False
            process.dies_of = frozenset({9})
            self.send(request(1, "x"), session)
        stopped = self.stop(10)
        self.clock.pump([0.5] * 20)
        self.successResultOf(stopped)
        self.assertTrue(all(process.exited for process in self.spawner.processes))

    def test_children_that_were_stopping_already(self) -> None:
        """Are hurried and waited for."""
        session = self.open()
        process = self.spawner.processes[0]
        process.ends_with_input = False
        process.dies_of = frozenset({9})
        self.send(b"", session, method="DELETE")
        stopped = self.stop(1)
        self.clock.pump([0.1] * 11)
        self.successResultOf(stopped)

    def test_session_being_opened(self) -> None:
        """Its client is sent away, its child is not left behind."""
        self.manual.add("initialize")
        wire = self.send(initialize())
        stopped = self.stop(4)
        self.clock.pump([0.5] * 8)
        self.successResultOf(stopped)
        self.assertEqual(wire.status, 503)
        self.assertTrue(self.spawner.processes[0].exited)

    def test_client_that_leaves_meanwhile(self) -> None:
        """A stop does not wait for an answer that nobody reads longer than others."""
        self.manual.add("x")
        session = self.open()
        self.send(request(1, "x"), session).depart()
        stopped = self.stop(4)
        self.clock.pump([0.5] * 8)
        self.successResultOf(stopped)


class AnySequenceTests(McpWorld):
    """Whatever happens in whatever order."""

    limits = Limits(total=6, per_user=3)

    @settings(max_examples=120, suppress_health_check=list(HealthCheck), deadline=None)
    @given(
        st.lists(
            st.tuples(
                st.sampled_from(
                    [
                        *("open", "open", "call", "call", "call", "answer", "answer"),
                        *("crash", "delete", "grant", "user", "wait", "depart"),
                        *("cancel", "ready", "progress", "rotate", "reap"),
                    ]
                ),
                st.integers(0, 5),
            ),
            max_size=40,
        )
    )
    def test_every_request_is_answered_once(self, steps: list[tuple[str, int]]) -> None:
        """And no child is left without a session, no timer without a child."""
        self.manual = {"x", "initialize"}
        sessions: list[tuple[str, str]] = []
        wires: list[Wire] = []
        openers: list[tuple[Wire, str]] = []
        number = 0
        for step, pick in steps:
            token, user = (("alice", 1), ("bob", 2))[pick % 2]
            living = [p for p in self.spawner.processes if not p.exited]
            process = living[pick % len(living)] if living else None
            session = sessions[pick % len(sessions)] if sessions else None
            number += 1
            if step == "open":
                wires.append(self.send(initialize(), token=token))
                openers.append((wires[-1], token))
            elif step == "ready" and process is not None:
                self.answer(process, "initialize")
                sessions = [
                    (wire.headers["mcp-session-id"], opener)
                    for wire, opener in openers
                    if "mcp-session-id" in wire.headers
                ]
            elif step == "call" and session is not None:
                wires.append(
                    self.send(request(number, "x"), session[0], token=session[1])
                )
            elif step == "answer" and process is not None:
                self.answer(process, "x")
            elif step == "progress" and process is not None:
                process.say(
                    b'{"jsonrpc":"2.0","id":"q","method":"roots/list","params":{}}'
                )
            elif step == "cancel" and session is not None:
                note = {
                    "jsonrpc": "2.0",
                    "method": "notifications/cancelled",
                    "params": {"requestId": number - pick},
                }
                self.send(note, session[0], token=session[1])
            elif step == "crash" and process is not None:
                process.exit(1)
            elif step == "delete" and session is not None:
                self.send(b"", session[0], token=session[1], method="DELETE")
            elif step == "grant":
                self.registry.close_grant(f"g_{user}")
            elif step == "user":
                self.registry.suspend_user(user)
            elif step == "rotate":
                self.registry.population.rotate_user(user, 2_000_000_000)
            elif step == "reap":
                background(self.registry.reap(pick * 10.0, 10**6), "reaping")
            elif step == "wait":
                self.clock.advance([0.3, 5, 20, 40, 400, 4000][pick])
            elif step == "depart" and wires:
                wires[pick % len(wires)].depart()
            living = [p for p in self.spawner.processes if not p.exited]
            self.assertLessEqual(len(living), 12)
        self.registry.close_grant("g_1")
        self.registry.close_grant("g_2")
        self.clock.pump([1] * 10)
        self.assertTrue(all(process.exited for process in self.spawner.processes))
        self.assertEqual(len(self.registry), 0)
        for wire in wires:
            if not wire.disconnecting:
                self.assertEqual(wire.value().count(b"HTTP/1.1 "), 1)
                self.assertLess(wire.status or 999, 503.5)
                self.assertNotEqual(wire.status, 500)
                if wire.headers.get("content-type") == "text/event-stream":
                    self.assertTrue(wire.value().endswith(b"0\r\n\r\n"))
                    finals = [e for e in wire.events if "method" not in e]
                    self.assertLessEqual(len(finals), 1)
        for wire in self.wires:
            wire.depart()
        self.wires.clear()
        self.spawner.processes.clear()
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def answer(self, process: FakeProcess, method: str) -> None:
        """Answer the oldest request of a kind that has no answer yet."""
        answered = process.__dict__.setdefault("answered", set())
        for message in self.received(process):
            id = message.get("id")
            if message.get("method") == method and id not in answered:
                answered.add(id)
                version = {"protocolVersion": "2025-06-18"}
                process.say(
                    json.dumps({"jsonrpc": "2.0", "id": id, "result": version}).encode()
                )
                return
