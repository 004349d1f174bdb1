"""A request that takes less time is the same."""

import json
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.http_headers import Headers
from twisted.web.resource import Resource
from twisted.web.server import Request
from twisted.web.test.requesthelper import DummyChannel

from fjmcp_broker.limits.memory import Memory, MemoryBounds
from fjmcp_broker.web.heads import Head
from fjmcp_broker.web.quick_request import QuickRequest
from fjmcp_broker.web.request import BrokerRequest
from fjmcp_broker.web.site import BodyLimit, BrokerSite
from tests.unit.web.mcp_world import McpWorld, request


def channel() -> Any:
    """A connection to a site, for requests that go nowhere."""
    made: Any = DummyChannel()
    made.site = BrokerSite(Resource(), Clock(), {})
    made.ends = made.getPeer(), made.getHost()
    return made


class ConstructionTests(SynchronousTestCase):
    """Twisted's constructors are not called."""

    def test_same_attributes(self) -> None:
        """Each of those that Twisted's set is there, and as they set it."""
        ours = QuickRequest(channel())
        for name, value in vars(Request(channel(), False)).items():
            with self.subTest(name):
                made = getattr(ours, name)
                self.assertIs(type(made), type(value))
                self.assertIs(getattr(ours, name), made)
                if not name.endswith("Headers") and not hasattr(value, "__dict__"):
                    self.assertEqual(made, value)

    def test_changed(self) -> None:
        """Whoever changes or replaces headers is heard, also with a known head."""
        made = QuickRequest(channel())
        fields = {b"Origin": [b"https://a.example"], b"Content-Length": [b"1"]}
        made.take_head(Head((b"POST", b"/", b"HTTP/1.1"), fields), b"22")
        self.assertEqual(made.getHeader(b"origin"), b"https://a.example")
        self.assertEqual(made.getHeader(b"content-length"), b"22")
        made.requestHeaders.removeHeader(b"origin")
        self.assertIsNone(made.getHeader(b"origin"))
        self.assertEqual(fields[b"Content-Length"], [b"1"])
        self.assertIn(b"Origin", fields)
        made.requestHeaders = Headers({b"Origin": [b"https://b.example"]})
        self.assertEqual(made.getHeader("origin"), "https://b.example")
        made.responseHeaders = Headers({b"X-Own": [b"1"]})
        self.assertIs(made.own_headers, made.responseHeaders)

    def test_ends_outlive_the_connection(self) -> None:
        """Who the client was can be asked when it is gone."""
        made = QuickRequest(channel())
        expected = made.channel.getPeer()
        del made.channel
        self.assertEqual(made.getClientAddress(), expected)

    def test_nothing_is_shared(self) -> None:
        """What one request is told another one does not hear."""
        one, other = QuickRequest(channel()), QuickRequest(channel())
        one.responseHeaders.setRawHeaders(b"X", [b"y"])
        one.addCookie("a", "b")
        self.assertIsInstance(one.notifyFinish(), Deferred)
        self.assertFalse(other.responseHeaders.hasHeader(b"X"))
        self.assertEqual(other.cookies, [])
        self.assertEqual(other.notifications, [])
        self.assertIsNot(one._adapterCache, other._adapterCache)


class WholeTests(McpWorld):
    """A request with a known head, that comes with all of its body."""

    def test_few_attributes(self) -> None:
        """
        No more than thirty, of the connection as well: CPython would make a
        dictionary for each object, for which a call takes a tenth more time.
        """
        session = self.open()
        wire = self.connect()
        cleanup, counts = BrokerRequest._cleanup, list[int]()

        def counted(request: BrokerRequest) -> None:
            counts.extend((len(vars(request)), len(vars(request.channel))))
            cleanup(request)

        self.patch(BrokerRequest, "_cleanup", counted)
        for number in range(3):
            body = json.dumps(request(number, name="get_me")).encode()
            wire.protocol.dataReceived(self.raw(body, session))
            wire.clear()
        self.assertEqual(len(counts), 6)
        self.assertLessEqual(max(counts), 30, counts)

    def test_counted_once_when_there_is_no_room(self) -> None:
        """Whoever watches the limit hears of one refusal, not of two."""
        full = []
        admission = self.site.admission_for(b"/mcp")
        session = self.open()
        body = json.dumps(request(1, "ping")).encode()
        wire = self.connect()
        for _ in range(2):
            wire.protocol.dataReceived(self.raw(body, session))
        admission.memory = Memory(MemoryBounds(0, 0), on_full=lambda: full.append(1))
        wire.clear()
        wire.protocol.dataReceived(self.raw(body, session))
        self.assertEqual((wire.status, len(full)), (503, 1))
        self.assertEqual(wire.headers["connection"], "close")

    def test_body(self) -> None:
        """It is there in the same way, wherever it is read."""
        for limit, room in ((3, 10), (2, 10), (3, 2)):
            bodies = [
                self.body_of(limit, room, repeated=each) for each in (False, True)
            ]
            self.assertEqual(bodies[0], bodies[1], (limit, room))

    def body_of(self, limit: int, room: int, *, repeated: bool) -> Any:
        """What a resource reads, and what is held of the memory meanwhile."""
        seen: list[Any] = []
        memory = Memory(MemoryBounds(room, room))

        class Reader(Resource):
            isLeaf = True

            def render(self, request: BrokerRequest) -> bytes:
                seen.append((request.content.read(), memory.held_bytes, request.args))
                return b"read"

        self.site = BrokerSite(
            Reader(), self.clock, {}, others=BodyLimit(limit, memory)
        )
        wire = self.connect()
        head = b"POST /x?a=b HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n"
        if repeated:
            wire.protocol.dataReceived(head % 1 + b"a")
            wire.clear()
            seen.clear()
        wire.protocol.dataReceived(head % 3 + b"abc")
        lines = [line for line in wire.value().split(b"\r\n") if b"Date" not in line]
        return seen, lines, memory.held_bytes
