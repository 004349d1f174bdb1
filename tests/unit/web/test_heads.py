"""Heads that come again are known again, and are judged each time all the same."""

import json
from typing import Any

from msgspec.structs import replace
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.http import Request

from fjmcp_broker.oauth.bearer import Principal
from fjmcp_broker.web.heads import REMEMBERED_BYTES, Head, Heads
from fjmcp_broker.web.site import IDLE_SECONDS
from tests.unit.web.mcp_world import McpWorld, Wire, request

LINE = b"POST", b"/mcp", b"HTTP/1.1"


class FakeRequest:
    """What Twisted has read."""

    def __init__(self, fields: dict[bytes, list[bytes]]) -> None:
        """With these headers."""
        self.requestHeaders = self
        self._rawHeaders = fields


def learn(heads: Heads, data: bytes, **fields: bytes) -> Head | None:
    """As the connection does."""
    named = {name.replace("_", "-").encode(): [v] for name, v in fields.items()}
    fake: Any = FakeRequest(named)
    as_request: Request = fake
    return heads.learn(data, data.find(b"\r\n\r\n"), as_request, LINE)


def post(length: object = 2, body: bytes = b"{}", more: bytes = b"") -> bytes:
    """A request as it is sent."""
    head = b"POST /mcp HTTP/1.1\r\nHost: a\r\nContent-Length: %b\r\n%b\r\n"
    return head % (str(length).encode(), more) + body


class HeadsTests(SynchronousTestCase):
    """What is known again."""

    def setUp(self) -> None:
        """One head is known."""
        self.heads = Heads()
        self.head = learn(self.heads, post(), Host=b"a")

    def find(self, data: bytes) -> Any:
        """As the connection does."""
        return self.heads.find(data, 16384)

    def test_other_length(self) -> None:
        """It is the one thing that may differ."""
        body = b"x" * 4711
        self.assertEqual(self.find(post(4711, body)), (self.head, b"4711", body))
        self.assertEqual(self.find(post(0, b"")), (self.head, b"0", b""))

    def test_anything_else(self) -> None:
        """Is for Twisted to read: it may be a new head, or part of a request."""
        for data in (
            post(3),
            post(1),
            post(2, b"{}{"),
            post(2, b""),
            post(2, b"{}" + post()),
            post("+2"),
            post("2 "),
            post("2, 2"),
            post("0x2"),
            post("²"),
            post("2" * 10),
            post(more=b"X: y\r\n"),
            post().replace(b"Host: a", b"Host: b"),
            post().replace(b"Host: a", b"host: a"),
            post().replace(b"/mcp", b"/other"),
            post().replace(b"POST", b"PUT"),
            post().replace(b"\r\nContent", b"\nContent"),
            post().replace(b"Content-Length: ", b"Content-Length:"),
            post()[:-3],
            b"\r\n" + post(),
            b"",
        ):
            self.assertIsNone(self.find(data), data)
        self.assertIsNone(self.heads.find(post(), 20))

    def test_several(self) -> None:
        """Whatever stands on which side of the length, and however often it comes."""
        known = {}
        for more in (b"", b"X: y\r\n", b"X: z\r\n", b"X: y\r\nX: y\r\n"):
            for host in (b"a", b"ab", b"b"):
                data = post(more=more).replace(b"Host: a", b"Host: " + host)
                known[data] = learn(self.heads, data, X=more + host)
                self.assertIsNotNone(known[data])
        for data, head in [*known.items()] * 2:
            self.assertEqual(self.find(data), (head, b"2", b"{}"))

    def test_second_length(self) -> None:
        """Which Twisted refuses: the first is the one that may differ."""
        twice = post(more=b"Content-Length: 2\r\n")
        self.assertIsNotNone(learn(self.heads, twice))
        self.assertIsNotNone(self.find(twice))
        self.assertIsNone(self.find(post(more=b"Content-Length: 3\r\n")))

    def test_length_in_the_body(self) -> None:
        """Only the head says how long the body is."""
        bare = b"POST /mcp HTTP/1.1\r\nHost: a\r\n\r\n"
        self.assertIsNone(learn(self.heads, bare + b"\r\nContent-Length: 2\r\n"))
        self.assertIsNone(self.find(bare + b"\r\nContent-Length: 2\r\n\r\n"))

    def test_where_twisted_does_more(self) -> None:
        """Such a head is not known again."""
        for field in (
            {"Connection": b"close"},
            {"Connection": b"keep-alive, close"},
            {"Connection": b"Upgrade"},
            {"Expect": b"100-continue"},
            {"Cookie": b"a=b"},
            {"Transfer_Encoding": b"identity"},
        ):
            more = b"X: %d\r\n" % len(str(field))
            self.assertIsNone(learn(self.heads, post(more=more), **field), field)
            self.assertIsNone(self.find(post(more=more)), field)
        again = learn(self.heads, post(more=b"Y: y\r\n"), Connection=b"Keep-Alive")
        self.assertIsNotNone(again)

    def test_older_version(self) -> None:
        """HTTP/1.0 closes its connections."""
        fake: Any = FakeRequest({})
        line = b"POST", b"/mcp", b"HTTP/1.0"
        data = post(more=b"X: y\r\n")
        self.assertIsNone(self.heads.learn(data, data.find(b"\r\n\r\n"), fake, line))

    def test_little_is_remembered(self) -> None:
        """However many heads come, and nothing behind the end."""
        for number in range(300):
            learn(self.heads, post(more=b"X: %d\r\n" % number))
            size = sum(len(b"".join(parts)) for parts in self.heads._known)
            self.assertLessEqual(size, REMEMBERED_BYTES)
            self.assertLessEqual(len(self.heads._known), 32)
        long = post(more=b"X: %b\r\n" % (b"y" * REMEMBERED_BYTES))
        self.assertIsNone(learn(self.heads, long))
        many = {f"X{number}": b"" for number in range(128)}
        self.assertIsNone(learn(self.heads, post(more=b"Y: y\r\n"), **many))
        self.assertIsNotNone(self.find(post(more=b"X: 299\r\n")))
        self.heads.clear()
        self.assertIsNone(self.find(post(more=b"X: 299\r\n")))


def principal_of_bob(principal: Principal) -> Principal:
    """The token is another user's."""
    return replace(principal, user_id=2, grant_id="g_2")


class JudgedAgainTests(McpWorld):
    """What may be different the next time is asked the next time."""

    def setUp(self) -> None:
        """A client that has called twice."""
        super().setUp()
        self.session = self.open()
        self.wire = self.connect()
        self.assertEqual(self.call(1, is_known=False).status, 200)
        self.assertEqual(self.call(2).status, 200)

    def call(self, number: int, *, is_known: bool = True, **named: Any) -> Wire:
        """The same head, another message."""
        self.wire.clear()
        body = json.dumps(request(number, "ping")).encode()
        data = self.raw(body, self.session, **named)
        found = self.wire.protocol._heads.find(data, 16384)
        self.assertIs(found is not None, is_known)
        self.wire.protocol.dataReceived(data)
        return self.wire

    def test_revoked(self) -> None:
        """At once."""
        del self.authenticator.principals["alice"]
        self.assertEqual(self.call(3).status, 401)

    def test_revoked_and_signed_in_again(self) -> None:
        """Who it is, is asked each time."""
        principal = self.authenticator.principals.pop("alice")
        self.assertEqual(self.call(3).status, 401)
        self.wire = self.connect()
        self.assertEqual(self.call(4, is_known=False).status, 401)
        self.authenticator.principals["alice"] = principal
        self.wire = self.connect()
        self.assertEqual(self.call(5, is_known=False).status, 200)
        self.authenticator.principals["alice"] = principal_of_bob(principal)
        self.assertEqual(self.call(6).status, 403)

    def test_looked_up_in_the_store(self) -> None:
        """When nothing is remembered of the token any more."""
        self.authenticator.uncached.add("alice")
        before = self.authenticator.lookups
        self.assertEqual(self.call(3).status, 200)
        self.assertEqual(self.authenticator.lookups, before + 1)

    def test_too_large(self) -> None:
        """The body is counted as any other."""
        body = b" " * (self.maximum_body_bytes + 1)
        self.wire.clear()
        data = self.raw(body, self.session)
        self.assertIsNotNone(self.wire.protocol._heads.find(data, 16384))
        self.wire.protocol.dataReceived(data)
        self.assertEqual(self.wire.status, 413)

    def test_closed_while_idle(self) -> None:
        """The connection has its time limits as before."""
        self.clock.advance(IDLE_SECONDS - 1)
        self.assertEqual(self.call(3).status, 200)
        self.clock.advance(IDLE_SECONDS - 1)
        self.assertFalse(self.wire.disconnecting)
        self.clock.advance(1)
        self.assertTrue(self.wire.disconnecting)

    def test_stopping(self) -> None:
        """A daemon that stops closes it behind the answer."""
        self.site.is_settling = True
        self.assertEqual(self.call(3).status, 200)
        self.assertTrue(self.wire.disconnecting)
