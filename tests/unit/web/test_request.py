"""Requests that are judged before their body, and connections that take too long."""

import json
from typing import Any

from twisted.internet.defer import Deferred

from fjmcp_broker.web.request import (
    LINGER_SECONDS,
    RECEIVE_SECONDS,
)
from fjmcp_broker.web.site import IDLE_SECONDS
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
        self.assertLessEqual(self.clock.seconds() - 1_800_000_000, RECEIVE_SECONDS + 1)

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

    def test_slow_answer(self) -> None:
        """A request that is being served has no such limit."""
        self.manual.add("x")
        session = self.open()
        wire = self.send(request(1, "x"), session)
        self.clock.pump([60] * 30)
        self.assertFalse(wire.disconnecting)
        self.reply(self.spawner.processes[0], 2, {})
        self.assertEqual(wire.events[-1]["id"], 1)

    def test_too_many_headers(self) -> None:
        """400 and the end, whatever they are."""
        wire = self.connect()
        many = {f"X-{number}": "y" for number in range(200)}
        wire.protocol.dataReceived(self.raw(INITIALIZE, headers=many))
        self.assertEqual(wire.status, 400)
        wire = self.connect()
        wire.protocol.dataReceived(self.raw(b"", headers={"X": "y" * 17_000}))
        self.assertTrue(wire.disconnecting)
