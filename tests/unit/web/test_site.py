"""The site: its other paths, its log, its end."""

import json
import resource
from typing import Any

from twisted.internet.defer import Deferred
from twisted.logger import ILogObserver, LogEvent, formatEvent, globalLogPublisher
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET
from zope.interface import implementer
from zope.interface.verify import verifyObject

from fjmcp_broker.web.interfaces import IAdmission
from fjmcp_broker.web.site import BodyLimit, BrokerSite
from tests.unit.web.mcp_world import McpWorld, request


class DrainTests(McpWorld):
    """The end of the site."""

    def drain(self, seconds: float) -> "Deferred[None]":
        """Begin to end."""
        return Deferred.fromCoroutine(self.site.drain(seconds))

    def test_idle_connections_are_closed(self) -> None:
        """At once; one that comes later too."""
        wire = self.connect()
        self.successResultOf(self.drain(10))
        self.assertTrue(wire.disconnecting)
        self.assertTrue(self.connect().disconnecting)

    def test_answers_are_waited_for(self) -> None:
        """A connection that owes one is closed behind it."""
        self.manual.add("x")
        session = self.open()
        wire = self.send(request(1, "x"), session)
        drained = self.drain(10)
        self.clock.advance(5)
        self.assertNoResult(drained)
        self.reply(self.spawner.processes[0], 2, {})
        self.assertEqual(wire.events[-1]["id"], 1)
        self.successResultOf(drained)

    def test_deadline(self) -> None:
        """In the end nobody is waited for."""
        self.manual.add("x")
        wire = self.send(request(1, "x"), self.open())
        drained = self.drain(10)
        self.clock.advance(10)
        self.successResultOf(drained)
        self.assertTrue(wire.aborted)


class SettleTests(McpWorld):
    """Nothing more is accepted."""

    def settle(self) -> "Deferred[None]":
        """Begin."""
        return Deferred.fromCoroutine(self.site.settle())

    def test_nobody_is_there(self) -> None:
        """Then there is nothing to wait for."""
        self.successResultOf(self.settle())

    def test_accepted_last(self) -> None:
        """Its request is answered, and it ends behind the answer."""
        self.manual.add("x")
        session = self.open()
        wire = self.connect()
        settled = self.settle()
        self.assertNoResult(settled)
        self.clock.advance(0.1)
        body = json.dumps(request(1, "x")).encode()
        wire.protocol.dataReceived(self.raw(body, session))
        self.assertFalse(wire.disconnecting)
        self.reply(self.spawner.processes[0], 2, {})
        self.assertEqual(wire.json["id"], 1)
        self.assertTrue(wire.disconnecting)
        self.clock.advance(0.2)
        self.successResultOf(settled)

    def test_says_nothing(self) -> None:
        """It is closed; not one in the middle of a request, nor of an answer."""
        self.manual.add("x")
        session = self.open()
        idle, half = self.connect(), self.connect()
        half.protocol.dataReceived(self.raw(b"")[:40])
        busy = self.send(request(1, "x"), session)
        settled = self.settle()
        self.clock.advance(0.3)
        self.successResultOf(settled)
        self.assertTrue(idle.disconnecting)
        self.assertFalse(half.disconnecting)
        self.assertFalse(busy.disconnecting)


class CrowdTests(McpWorld):
    """More connections than descriptors to spare."""

    def setUp(self) -> None:
        """Room for three."""
        super().setUp()
        self.site.maximum_connections = 3

    def test_oldest_that_waits_for_nothing_goes(self) -> None:
        """Neither one with a request in flight nor a new one has to."""
        self.manual.add("x")
        session = self.open()
        self.wires[0].depart()
        busy = self.send(request(1, "x"), session)
        idle, half = self.connect(), self.connect()
        half.protocol.dataReceived(self.raw(b"")[:40])
        last = self.send(request(2, "y"), session)
        self.assertTrue(idle.aborted)
        self.assertEqual([w.aborted for w in (busy, half, last)], [False] * 3)
        self.assertEqual(last.status, 200)
        self.connect()
        self.assertTrue(half.aborted)
        self.reply(self.spawner.processes[0], 2, {})
        self.assertEqual(busy.json["id"], 1)

    def test_everybody_waits(self) -> None:
        """Then the new one is closed."""
        self.manual.add("x")
        session = self.open()
        self.wires[0].depart()
        busy = [self.send(request(number, "x"), session) for number in range(3)]
        self.assertTrue(self.connect().aborted)
        self.assertFalse(any(wire.aborted for wire in busy))

    def test_number_follows_from_the_limit_of_the_process(self) -> None:
        """Half of the descriptors are for children, the store and Forgejo."""
        soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        site = BrokerSite(Resource(), self.clock, {})
        self.assertGreater(site.maximum_connections, 0)
        if soft != resource.RLIM_INFINITY:
            self.assertLessEqual(site.maximum_connections, soft // 2)


class SiteTests(McpWorld):
    """Other paths, and the access log."""

    def setUp(self) -> None:
        """Keep what is logged."""
        super().setUp()
        self.events: list[LogEvent] = []

        @implementer(ILogObserver)
        def keep(event: LogEvent) -> None:
            self.events.append(event)

        globalLogPublisher.addObserver(keep)
        self.addCleanup(globalLogPublisher.removeObserver, keep)

    def access(self) -> list[str]:
        """The lines of the access log."""
        return [
            formatEvent(event)
            for event in self.events
            if event.get("log_namespace", "").endswith("BrokerSite")
        ]

    def test_admissions_keep_their_interface(self) -> None:
        """Both of them."""
        verifyObject(IAdmission, self.admission)
        verifyObject(IAdmission, BodyLimit())

    def test_limits_of_other_paths(self) -> None:
        """64 KiB, as much as their endpoints read."""
        for path, length, status in (
            ("/oauth/token", 64 * 1024 + 1, 413),
            ("/oauth/token", 10, None),
            ("/oauth/register", 64 * 1024 + 1, 413),
            ("/oauth/register", 64 * 1024, None),
        ):
            wire = self.connect()
            headers = {"Content-Length": str(length)}
            wire.protocol.dataReceived(self.raw(b"", path=path, headers=headers))
            self.assertEqual(wire.status, status, path)
            if status is not None:
                self.assertEqual(wire.headers["x-content-type-options"], "nosniff")
                self.assertEqual(wire.headers["cache-control"], "no-store")
                self.assertEqual(wire.headers["access-control-allow-origin"], "*")
        headers = {"Content-Length": str(64 * 1024 + 1)}
        wire = self.connect()
        wire.protocol.dataReceived(
            self.raw(b"", path="/oauth/consent", headers=headers)
        )
        self.assertEqual(wire.status, 413)
        self.assertNotIn("access-control-allow-origin", wire.headers)

    def test_query_is_not_logged(self) -> None:
        """It may hold codes. Each line has the id of its request."""
        self.send(b"", method="GET", path="/oauth/callback?code=s3cret")
        [line] = self.access()
        self.assertIn("GET /oauth/callback 404 ", line)
        self.assertNotIn("s3cret", repr(self.events))
        self.assertTrue(self.events[-1]["request_id"].startswith(self.site.instance))

    def test_successful_calls_are_quiet(self) -> None:
        """The path of every call logs nothing unless asked to."""
        self.open()
        self.assertEqual(self.access(), [])
        self.site.log_every_request = True
        self.open()
        [line] = self.access()
        self.assertIn("POST /mcp 200", line)

    def test_refusals_are_logged(self) -> None:
        """Early ones too."""
        wire = self.connect()
        headers = {"Content-Length": "500"}
        wire.protocol.dataReceived(self.raw(b"", token=None, headers=headers))
        [line] = self.access()
        self.assertIn("POST /mcp 401", line)

    def test_strange_request_lines(self) -> None:
        """Nothing of them breaks a log line or the site."""
        for line in (
            b"GET /\xff\x1b[31m HTTP/1.1\r\n",
            b"\x00\x01\x02\r\n",
            b"POST http://other.example/mcp HTTP/1.1\r\n",
            b"GET * HTTP/1.1\r\n",
            b"GET /mcp HTTP/0.9\r\n",
        ):
            wire = self.connect()
            wire.protocol.dataReceived(line + b"Host: mcp.example\r\n\r\n")
            self.assertGreaterEqual(wire.status or 400, 400)
        for text in self.access():
            self.assertTrue(text.isprintable(), text)

    def test_whole_body_is_in_memory(self) -> None:
        """No temporary file, and forms are not parsed by Twisted."""
        seen: list[Any] = []

        class Reader(Resource):
            isLeaf = True

            def render(self, request: Any) -> int:
                seen.append((type(request.content).__name__, request.take_body()))
                seen.append(request.args)
                request.finish()
                return NOT_DONE_YET

        self.site = BrokerSite(Reader(), self.clock, {b"/x": BodyLimit(10**6)})
        wire = self.connect()
        body = b"a=b&c=" + b"d" * 200_000
        headers = {"Content-Type": "application/x-www-form-urlencoded"}
        wire.protocol.dataReceived(self.raw(body, path="/x", headers=headers))
        self.assertEqual(seen, [("BytesIO", body), {}])
