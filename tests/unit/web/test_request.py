"""Requests that are judged before their body, and connections that take too long."""

import json
from typing import Any

from twisted.internet.defer import Deferred
from twisted.logger import ILogObserver, LogEvent, formatEvent, globalLogPublisher
from twisted.web.resource import Resource
from zope.interface import implementer

from fjmcp_broker.limits.memory import Memory, MemoryBounds
from fjmcp_broker.web.channel import (
    LINGER_SECONDS,
    RECEIVE_SECONDS,
)
from fjmcp_broker.web.site import IDLE_SECONDS, BodyLimit, BrokerSite
from tests.unit.web.mcp_world import McpWorld, Wire, initialize, request

INITIALIZE = json.dumps(initialize()).encode()


class EarlyAnswerTests(McpWorld):
    """401 and 413 leave without the body."""

    def begin(self, body: bytes, length: int | str, **named: Any) -> Wire:
        """Send headers that promise more than the body that comes."""
        wire = self.connect()
        headers = {"Content-Length": str(length), **named.pop("headers", {})}
        wire.protocol.dataReceived(self.raw(body, headers=headers, **named))
        return wire

    def test_bad_bearer(self) -> None:
        """The answer is complete before a byte of the body was sent."""
        wire = self.begin(b"", 5000, token="mallory")
        self.assertEqual(wire.status, 401)
        self.assertEqual(wire.headers["connection"], "close")
        self.assertEqual(len(wire.body), int(wire.headers["content-length"]))

    def test_too_large_by_its_length(self) -> None:
        """Nothing but the header is needed."""
        wire = self.begin(b"", 10_001)
        self.assertEqual(wire.status, 413)

    def test_bearer_comes_before_size(self) -> None:
        """A stranger does not learn the limit."""
        wire = self.begin(b"", 10_001, token="mallory")
        self.assertEqual(wire.status, 401)

    def test_absurd_length(self) -> None:
        """
        A number of many digits is only a number, however many: Python would refuse
        to read or to divide the longest ones.
        """
        for digits in (20, 300, 400, 5000):
            wire = self.begin(b"", "9" * digits)
            self.assertEqual(wire.status, 413, digits)
            self.assertEqual(self.begin(b"", "9" * digits, token="x").status, 401)

    def test_too_large_by_its_chunks(self) -> None:
        """A body of unknown length is counted."""
        wire = self.begin(
            b"", 0, headers={"Content-Length": None, "Transfer-Encoding": "chunked"}
        )
        for _ in range(10):
            wire.protocol.dataReceived(b"3e8\r\n" + b" " * 1000 + b"\r\n")
            self.assertIsNone(wire.status)
        wire.protocol.dataReceived(b"1\r\n \r\n")
        self.assertEqual(wire.status, 413)
        wire.protocol.dataReceived(b"3e8\r\n" + b" " * 1000 + b"\r\n0\r\n\r\n")
        self.assertEqual(wire.value().count(b"HTTP/1.1"), 1)
        self.assertTrue(wire.disconnecting)

    def test_chunks_within_the_limit(self) -> None:
        """The same request, accepted."""
        wire = self.begin(
            b"", 0, headers={"Content-Length": None, "Transfer-Encoding": "chunked"}
        )
        wire.protocol.dataReceived(b"%x\r\n%s\r\n" % (len(INITIALIZE), INITIALIZE))
        wire.protocol.dataReceived(b"0\r\n\r\n")
        self.assertEqual(wire.status, 200)

    def test_rest_of_the_body_is_thrown_away(self) -> None:
        """It is not taken for another request; then the connection is closed."""
        wire = self.begin(b"GET /mcp HTTP/1.1\r\n", 500, token="mallory")
        wire.protocol.dataReceived(b"x" * 100)
        self.assertFalse(wire.disconnecting)
        wire.protocol.dataReceived(b"x" * (500 - 100 - 19))
        self.assertTrue(wire.disconnecting)
        self.assertEqual(wire.value().count(b"HTTP/1.1"), 1)

    def test_whole_body_at_once(self) -> None:
        """Headers and body in one read: the same answer, no failure."""
        wire = self.begin(INITIALIZE, len(INITIALIZE), token="mallory")
        self.assertEqual(wire.status, 401)
        self.assertTrue(wire.disconnecting)

    def test_client_that_sends_nothing_more(self) -> None:
        """It may read its answer for a while, then the connection is closed."""
        wire = self.begin(b"", 500, token="mallory")
        self.clock.advance(LINGER_SECONDS - 0.1)
        self.assertFalse(wire.disconnecting)
        self.clock.advance(0.2)
        self.assertTrue(wire.disconnecting)

    def test_client_that_leaves(self) -> None:
        """Nothing remains of it."""
        self.begin(b"", 500, token="mallory").depart()

    def test_expect(self) -> None:
        """100 Continue comes to those alone whose body is wanted."""
        expect = {"Expect": "100-continue"}
        wire = self.begin(b"", 500, token="mallory", headers=expect)
        self.assertEqual(wire.status, 401)
        self.assertNotIn(b"100 Continue", wire.value())
        wire = self.begin(b"", 500, headers=expect)
        self.assertEqual(wire.status, 100)

    def test_refusal_without_a_body_keeps_the_connection(self) -> None:
        """The next request on it is served."""
        wire = self.connect()
        wire.protocol.dataReceived(self.raw(b"", token="mallory"))
        wire.protocol.dataReceived(self.raw(INITIALIZE))
        self.assertEqual(wire.value().count(b"HTTP/1.1 401"), 1)
        self.assertEqual(wire.value().count(b"HTTP/1.1 200"), 1)
        self.assertFalse(wire.disconnecting)

    def test_pipelined_requests(self) -> None:
        """Answered one after the other, in order."""
        wire = self.connect()
        ping = json.dumps(request(1, "ping")).encode()
        wire.protocol.dataReceived(
            self.raw(ping) + self.raw(INITIALIZE) + self.raw(b"", method="GET")
        )
        lines = [part.split(b" ")[1] for part in wire.value().split(b"HTTP/1.1")[1:]]
        self.assertEqual(wire.value().count(b"HTTP/1.1 "), 3)
        self.assertEqual(len(lines), 3)


class UncachedBearerTests(McpWorld):
    """The store is asked while the body is on its way."""

    def setUp(self) -> None:
        """Nobody is cached, look-ups wait."""
        super().setUp()
        self.authenticator.uncached = {"alice", "mallory"}
        self.authenticator.holding = []

    def test_connection_is_paused_meanwhile(self) -> None:
        """No more than what was read already comes in."""
        wire = self.connect()
        whole = self.raw(INITIALIZE)
        wire.protocol.dataReceived(whole[:-10])
        self.assertEqual(wire.producerState, "paused")
        self.authenticator.release()
        self.assertEqual(wire.producerState, "producing")
        self.assertEqual(wire.value(), b"")
        wire.protocol.dataReceived(whole[-10:])
        self.assertEqual(wire.status, 200)
        self.assertEqual(self.authenticator.lookups, 1)

    def test_store_that_takes_for_ever(self) -> None:
        """The client hears 408, and nothing behind it."""
        wire = self.connect()
        wire.protocol.dataReceived(self.raw(INITIALIZE)[:-10])
        self.clock.advance(RECEIVE_SECONDS + 1)
        self.assertEqual(wire.status, 408)
        self.authenticator.release()
        self.assertEqual(wire.value().count(b"HTTP/1.1"), 1)
        self.clock.advance(LINGER_SECONDS)
        self.assertTrue(wire.disconnecting)

    def test_whole_request_waits(self) -> None:
        """It is answered once, when it is known whose it is."""
        for token, status in (("alice", 200), ("mallory", 401)):
            self.authenticator.holding = []
            wire = self.send(INITIALIZE, token=token)
            self.assertEqual(wire.value(), b"")
            self.authenticator.release()
            self.assertEqual(wire.status, status)
            self.assertEqual(wire.value().count(b"HTTP/1.1"), 1)

    def test_refused_in_the_middle_of_the_body(self) -> None:
        """The rest is not waited for."""
        wire = self.connect()
        wire.protocol.dataReceived(self.raw(INITIALIZE, token="mallory")[:-10])
        self.authenticator.release()
        self.assertEqual(wire.status, 401)
        self.assertEqual(wire.headers["connection"], "close")

    def test_too_large_meanwhile(self) -> None:
        """The size is judged after the bearer."""
        for token, status in (("alice", 413), ("mallory", 401)):
            self.authenticator.holding = []
            wire = self.connect()
            headers = {"Content-Length": None, "Transfer-Encoding": "chunked"}
            wire.protocol.dataReceived(self.raw(b"", token=token, headers=headers))
            wire.protocol.dataReceived(b"4e20\r\n" + b" " * 20_000 + b"\r\n")
            self.assertEqual(wire.value(), b"")
            self.authenticator.release()
            self.assertEqual(wire.status, status)

    def test_client_leaves_meanwhile(self) -> None:
        """The look-up ends for nobody."""
        wire = self.send(INITIALIZE)
        wire.depart()
        self.authenticator.release()
        self.assertEqual(wire.value(), b"")
        self.assertEqual(len(self.registry), 0)

    def test_get_and_delete_wait_too(self) -> None:
        """Requests without a body are looked up in the same way."""
        for method in ("GET", "DELETE"):
            self.authenticator.holding = []
            wire = self.send(b"", method=method)
            self.assertEqual(wire.value(), b"")
            self.authenticator.release()
            self.assertEqual(wire.status, 405)

    def test_failing_admission(self) -> None:
        """A fault of ours closes the connection and is logged."""
        admission: Any = self.admission

        def broken(*arguments: object) -> "Deferred[None]":
            failed: Deferred[None] = Deferred()
            failed.errback(ZeroDivisionError())
            return failed

        self.patch(admission, "admit", broken)
        wire = self.send(INITIALIZE)
        self.assertTrue(wire.disconnecting)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)


class LateBodyTests(McpWorld):
    """A grant may end while a body is on its way."""

    def test_bearer_is_judged_again(self) -> None:
        """A body of more than a second does not outlive its grant."""
        for ends in (False, True):
            wire = self.connect()
            whole = self.raw(INITIALIZE)
            wire.protocol.dataReceived(whole[:-10])
            self.clock.advance(2)
            if ends:
                del self.authenticator.principals["alice"]
            wire.protocol.dataReceived(whole[-10:])
            self.assertEqual(wire.status, 401 if ends else 200)
        self.assertIn("invalid_token", wire.headers["www-authenticate"])


class TimeoutTests(McpWorld):
    """Connections do not stay for ever."""

    def test_idle_connection(self) -> None:
        """It is closed, before its first request and after."""
        wire = self.connect()
        self.clock.advance(IDLE_SECONDS)
        self.assertTrue(wire.disconnecting)

    def test_drip_of_headers(self) -> None:
        """A byte every few seconds does not keep a connection open."""
        wire = self.connect()
        for byte in self.raw(INITIALIZE)[:100]:
            wire.protocol.dataReceived(bytes([byte]))
            self.clock.advance(1)
            if wire.disconnecting:
                break
        self.assertTrue(wire.disconnecting)
        self.assertEqual(wire.status, 408)
        self.assertLessEqual(
            self.clock.seconds() - 1_800_000_000, RECEIVE_SECONDS + LINGER_SECONDS + 1
        )

    def test_drip_of_a_body(self) -> None:
        """The same for a body."""
        wire = self.connect()
        whole = self.raw(INITIALIZE)
        wire.protocol.dataReceived(whole[:-50])
        for byte in whole[-50:]:
            self.clock.advance(1)
            if wire.disconnecting:
                break
            wire.protocol.dataReceived(bytes([byte]))
        self.assertTrue(wire.disconnecting)
        self.assertEqual(wire.status, 408)

    def test_client_that_does_not_let_go(self) -> None:
        """Over TLS a connection ends when both say so: it is aborted then."""
        wire = self.connect()
        closed: list[str] = []
        wire.loseConnection = lambda: closed.append("asked")  # type: ignore[method-assign]
        self.clock.advance(IDLE_SECONDS)
        self.assertEqual((closed, wire.aborted), (["asked"], False))
        self.clock.advance(LINGER_SECONDS)
        self.assertTrue(wire.aborted)
        del wire.loseConnection
        wire.loseConnection()

    def test_slow_answer(self) -> None:
        """A request that is being served has no such limit."""
        self.manual.add("x")
        session = self.open()
        wire = self.send(request(1, "x"), session)
        self.clock.pump([60] * 30)
        self.assertFalse(wire.disconnecting)
        self.reply(self.spawner.processes[0], 2, {})
        self.assertEqual(wire.events[-1]["id"], 1)


class LongLineTests(McpWorld):
    """What cannot become a request is answered, too (RFC 9110, RFC 6585)."""

    def refused(self, data: bytes, status: int) -> Wire:
        """All at once, and in small pieces."""
        for step in (len(data), 1000):
            wire = self.connect()
            for start in range(0, len(data), step):
                wire.protocol.dataReceived(data[start : start + step])
            self.assertEqual(wire.status, status)
            self.assertEqual(wire.headers["connection"], "close")
            self.assertEqual(wire.headers["content-length"], "0")
            self.assertEqual(wire.value().count(b"HTTP/1.1"), 1)
            self.assertFalse(wire.disconnecting)
            wire.protocol.dataReceived(self.raw(INITIALIZE))
            self.assertEqual(wire.value().count(b"HTTP/1.1"), 1)
            self.clock.advance(LINGER_SECONDS)
            self.assertTrue(wire.disconnecting)
        return wire

    def test_request_line(self) -> None:
        """414, with or without its end."""
        path = b"/" + b"a" * 20_000
        self.refused(b"GET %s HTTP/1.1\r\nHost: mcp.example\r\n\r\n" % path, 414)
        self.refused(b"GET " + path, 414)

    def test_header(self) -> None:
        """431 for a long one, for many long ones together, for too many."""
        self.refused(self.raw(b"", headers={"X": "y" * 17_000}), 431)
        self.refused(self.raw(b"")[:-2] + b"X: " + b"y" * 17_000, 431)
        long = {f"X-{number}": "y" * 1000 for number in range(20)}
        self.refused(self.raw(INITIALIZE, headers=long), 431)
        many = {f"X-{number}": "y" for number in range(200)}
        self.refused(self.raw(INITIALIZE, headers=many), 431)

    def test_second_request(self) -> None:
        """The first one on the connection is answered; the counts begin anew."""
        for data, status in (
            (b"GET /" + b"a" * 20_000, b"414"),
            (self.raw(b"", headers={"X": "y" * 17_000}), b"431"),
        ):
            wire = self.connect()
            wire.protocol.dataReceived(self.raw(INITIALIZE))
            self.assertEqual(wire.status, 200)
            wire.protocol.dataReceived(data)
            self.assertEqual(wire.value().count(b"HTTP/1.1"), 2)
            self.assertIn(b"HTTP/1.1 " + status, wire.value())

    def test_what_is_long_enough_for_everybody(self) -> None:
        """A query of 8 KiB, a token, and all that browsers send."""
        headers = {f"Sec-{number}": "z" * 60 for number in range(30)}
        wire = self.connect()
        path = "/nothing?" + "q" * 8192
        wire.protocol.dataReceived(
            self.raw(b"", path=path, method="GET", headers=headers)
        )
        self.assertEqual(wire.status, 404)

    def test_departed_client(self) -> None:
        """Nothing remains of it."""
        wire = self.connect()
        wire.protocol.dataReceived(b"GET /" + b"a" * 20_000)
        wire.depart()

    def test_address_is_not_logged(self) -> None:
        """Twisted would write it down with its port."""
        events: list[LogEvent] = []

        @implementer(ILogObserver)
        def keep(event: LogEvent) -> None:
            events.append(event)

        globalLogPublisher.addObserver(keep)
        self.addCleanup(globalLogPublisher.removeObserver, keep)
        self.connect()
        self.clock.advance(IDLE_SECONDS)
        self.connect().protocol.dataReceived(b"GET /")
        self.clock.advance(RECEIVE_SECONDS)
        self.assertEqual([formatEvent(e) for e in events], ["request refused: 408"])
        self.assertNotIn("127.0.0.1", repr(events))
        self.clock.advance(LINGER_SECONDS)


class BodyMemoryTests(McpWorld):
    """All bodies on their way together have a bound."""

    def build(self) -> None:
        """Room for 40,000 bytes, a user's half of them, a quarter for short ones."""
        super().build()
        self.memory = Memory(MemoryBounds(40_000, 20_000, 1000, 10_000))
        self.admission.memory = self.memory

    def half(self, length: int, sent: int, **named: Any) -> Wire:
        """A request whose body does not come to its end."""
        wire = self.connect()
        headers = {"Content-Length": str(length), **named.pop("headers", {})}
        wire.protocol.dataReceived(self.raw(b" " * sent, headers=headers, **named))
        return wire

    def test_half_bodies(self) -> None:
        """They are held, and given back when their client goes or is too slow."""
        wires = [self.half(9000, 5000) for _ in range(3)]
        self.assertEqual(self.memory.held_bytes, 15_000)
        wires[0].depart()
        self.assertEqual(self.memory.held_bytes, 10_000)
        self.clock.advance(RECEIVE_SECONDS + 1)
        self.clock.advance(LINGER_SECONDS)
        self.assertEqual([wire.status for wire in wires[1:]], [408, 408])
        self.assertEqual(self.memory.held_bytes, 0)

    def test_one_user(self) -> None:
        """Gets half; other users go on."""
        held = [self.half(9000, 8990) for _ in range(2)]
        wire = self.half(9000, 0)
        self.assertEqual(wire.status, 503)
        self.assertEqual(wire.headers["retry-after"], "2")
        self.assertEqual(wire.json["error"]["data"], {"reason": "busy"})
        self.assertEqual(self.half(9000, 8990, token="bob").status, None)
        self.assertEqual([wire.status for wire in held], [None, None])

    def test_short_ones_always_fit(self) -> None:
        """Calls go on while long bodies fill the rest."""
        for token in ("alice", "bob"):
            for _ in range(2):
                self.half(9000, 7000, token=token)
        self.assertEqual(self.half(9000, 0, token="reader").status, 503)
        for _ in range(50):
            self.assertEqual(self.send(initialize(), token="reader").status, 200)
        self.assertEqual(self.memory.held_bytes, 28_000)

    def test_refused_in_the_middle(self) -> None:
        """A body of unknown length is counted as it comes; it holds nothing then."""
        headers = {"Content-Length": None, "Transfer-Encoding": "chunked"}
        wires = []
        for _ in range(3):
            wire = self.connect()
            wire.protocol.dataReceived(self.raw(b"", headers=headers))
            for _ in range(9):
                wire.protocol.dataReceived(b"3e8\r\n" + b" " * 1000 + b"\r\n")
            wires.append(wire)
        self.assertEqual([wire.status for wire in wires], [None, None, 503])
        self.assertEqual(self.memory.held_bytes, 18_000)
        wires[2].protocol.dataReceived(b"3e8\r\n" + b" " * 1000 + b"\r\n")
        self.assertEqual(wires[2].value().count(b"HTTP/1.1"), 1)

    def test_served_requests_hold_nothing(self) -> None:
        """Neither a call that takes its time nor an error."""
        self.manual.add("x")
        session = self.open()
        self.send(request(1, "x", text="y" * 5000), session)
        self.assertEqual(self.memory.held_bytes, 0)
        self.assertEqual(self.send(b"{" * 5000).status, 400)
        self.assertEqual(self.send(b"x" * 5000, token="mallory").status, 401)
        self.assertEqual(self.half(10_001, 5000).status, 413)
        self.assertEqual(self.memory.held_bytes, 0)

    def test_held_while_a_child_starts(self) -> None:
        """The body is needed until the child has it."""
        self.manual.add("initialize")
        wire = self.send(
            json.dumps({**initialize(), "x": "y" * 5000}).encode(), token="alice"
        )
        self.assertGreater(self.memory.held_bytes, 5000)
        wire.depart()
        self.assertGreater(self.memory.held_bytes, 5000)
        self.spawner.processes[0].exit(1)
        self.spawner.processes[0].loseConnection()
        self.assertEqual(self.memory.held_bytes, 0)

    def test_while_the_bearer_is_looked_up(self) -> None:
        """What was read already counts, for its user as soon as that is known."""
        self.authenticator.uncached = {"alice", "mallory"}
        self.authenticator.holding = []
        wires = [self.half(9000, 8000, token=t) for t in ("alice", "mallory", "bob")]
        self.assertEqual(self.memory.held_bytes, 24_000)
        self.authenticator.release()
        self.assertEqual([wire.status for wire in wires], [None, 401, None])
        self.assertEqual(self.memory.held_bytes, 16_000)
        self.assertEqual(self.half(9000, 8000, token="alice").status, None)
        self.assertEqual(self.half(9000, 0, token="alice").status, 503)

    def test_strangers(self) -> None:
        """The other paths have memory of their own, a network an eighth of it."""
        networks = iter(["a"] * 40 + ["b"] * 40)
        limit = BodyLimit(network=lambda request: next(networks))
        self.site = BrokerSite(Resource(), self.clock, {}, others=limit)
        found = [
            self.half(65_000, 64_000, path="/oauth/token").status for _ in range(40)
        ]
        self.assertEqual(found.count(None), 32)
        self.assertEqual(found.count(503), 8)
        wire = self.half(65_000, 64_000, path="/oauth/register")
        self.assertEqual(wire.status, None)
        self.assertLess(limit.memory.held_bytes, 34 * 65_000)
        for each in self.wires:
            each.depart()
        self.assertEqual(limit.memory.held_bytes, 0)
        networks = iter(["a"] * 40)
        for _ in range(40):
            wire = self.half(65_000, 64_000, path="/oauth/token")
        self.assertEqual(wire.headers["retry-after"], "5")
        self.assertEqual(wire.json["error"], "temporarily_unavailable")


class HeaderTests(McpWorld):
    """Headers of every answer."""

    def test_nosniff(self) -> None:
        """Refusals, errors, answers and streams alike."""
        session = self.open()
        for wire in (
            self.send(b"", token=None),
            self.send(b"{"),
            self.send(request(1, "ping"), session),
            self.send(b"", session, method="GET"),
            self.send(b"", session, method="PUT"),
            self.send(b"", path="/nothing"),
        ):
            self.assertEqual(wire.headers["x-content-type-options"], "nosniff")
