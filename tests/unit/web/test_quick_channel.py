"""A channel that takes less time does the same."""

from typing import Any

from hypothesis import example, given, settings
from hypothesis import strategies as st
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IProtocol
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.http import HTTPChannel
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Request, Site

from fjmcp_broker.web.heads import Head
from fjmcp_broker.web.quick_channel import REMEMBERED_BYTES, QuickChannel

IDLE_SECONDS = 75


class Mirror(Resource):
    """Writes down what came, and says it."""

    isLeaf = True

    def __init__(self, *, later: bool = False) -> None:
        """Nothing came yet."""
        super().__init__()
        self.seen: list[Any] = []
        self.later = later
        self.waiting: list[Request] = []

    def render(self, request: Request) -> bytes | int:
        """Everything that a request has."""
        headers = sorted(request.requestHeaders.getAllRawHeaders())
        content: Any = request.content
        body = content.read()
        self.seen.append((request.method, request.uri, headers, body))
        if self.later:
            self.waiting.append(request)
            return NOT_DONE_YET
        return b"%d bytes" % len(body)


class FlushedRequest(Request):
    """As ours, it takes a whole request, and says when its headers are to leave."""

    def got_whole(self, head: Head, length: bytes, body: bytes) -> None:
        """A known head and all of the body, as Twisted would give them."""
        for name, values in head.fields.items():
            self.requestHeaders.setRawHeaders(name, values)
        self.requestHeaders.setRawHeaders(b"Content-Length", [length])
        self.gotLength(len(body))
        if body:
            self.handleContentChunk(body)

    def write(self, data: bytes) -> None:
        """The next bytes of the answer."""
        super().write(data)
        flush = getattr(self.channel, "flush", None)
        if flush is not None:
            flush()


class World:
    """A connection to a site with one kind of channel."""

    def __init__(self, kind: type[HTTPChannel], *, later: bool = False) -> None:
        """Connected."""
        self.clock = Clock()
        self.mirror = Mirror(later=later)
        site = Site(
            self.mirror,
            requestFactory=FlushedRequest,
            timeout=IDLE_SECONDS,
            reactor=self.clock,
        )
        site.protocol = kind  # type: ignore[assignment]
        site.log = lambda request: None  # type: ignore[method-assign]
        self.transport = StringTransport()
        protocol: Any = site.buildProtocol(self.transport.getPeer())
        self.protocol: IProtocol = protocol
        self.channel = protocol
        protocol.makeConnection(self.transport)

    def give(self, data: bytes) -> None:
        """Bytes of the client, unless its connection is being closed."""
        if not self.transport.disconnecting:
            self.protocol.dataReceived(data)

    def do(self, step: bytes) -> None:
        """Something happens: bytes come, are taken, or an answer is ready."""
        if self.transport.disconnecting:
            return
        if step == ANSWER:
            if self.mirror.waiting:
                request = self.mirror.waiting.pop(0)
                request.setHeader(b"Content-Length", b"2")
                request.write(b"ok")
                request.finish()
        elif step == FULL:
            self.channel.pauseProducing()
        elif step == READ:
            self.channel.resumeProducing()
        else:
            self.give(step)

    @property
    def reads(self) -> bool:
        """Whether the transport is asked for more."""
        return self.transport.producerState == "producing"

    def outcome(self) -> Any:
        """What came of it; times aside."""
        lines = [
            line
            for line in self.transport.value().split(b"\r\n")
            if not line.startswith(b"Date:")
        ]
        return self.mirror.seen, lines, self.transport.disconnecting

    def end(self) -> None:
        """The client leaves."""
        self.protocol.connectionLost(Failure(ConnectionDone()))


_LINES = st.sampled_from(
    (
        b"Host: a",
        b"host: a",
        b"Host:a  ",
        b"Authorization: Bearer x",
        b"Accept: a",
        b"Accept: b",
        b"accept:",
        b" folded",
        b"\tfolded",
        b"X-Empty:",
        b"no colon",
        b"bad name: x",
        b"X: \0",
        b"X: \n",
        b": x",
        b"",
        b"Connection: close",
        b"Connection: keep-alive",
        b"Cookie: a=b",
        b"Content-Length: 3",
        b"Content-Length: 0",
        b"Content-Length: x",
        b"Transfer-Encoding: chunked",
        b"Expect: 100-continue",
        b"X: " + b"y" * 3000,
        b"Z: " + b"y" * 9000,
    )
)
_HEADS = st.tuples(
    st.sampled_from(
        (
            b"POST /mcp HTTP/1.1",
            b"GET / HTTP/1.1",
            b"GET / HTTP/1.0",
            b"",
            b"nonsense",
            b"GET  / HTTP/1.1",
        )
    ),
    st.lists(_LINES, max_size=6),
    st.sampled_from((b"", b"abc", b"3\r\nabc\r\n0\r\n\r\n")),
)


def wire(head: tuple[bytes, list[bytes], bytes]) -> bytes:
    """A request as it is sent."""
    first, lines, body = head
    return b"\r\n".join((first, *lines, b"", body))


WHOLE = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc"
ANSWER, FULL, READ = b"answer", b"full", b"read"
_STEPS = st.sampled_from(
    (
        *[WHOLE, WHOLE.replace(b"Host: a", b"Host: b"), WHOLE * 2, WHOLE * 400],
        *[WHOLE[:10], WHOLE[10:], WHOLE[:-2], WHOLE[-2:], b"\r\n"],
        *[ANSWER, ANSWER, FULL, READ],
    )
)


class SameTests(SynchronousTestCase):
    """Against Twisted's own."""

    @settings(max_examples=600, deadline=None)
    @given(st.lists(_HEADS, max_size=4), st.lists(st.integers(1, 200), max_size=3))
    @example([(b"POST / HTTP/1.1", [b"Host: a", b"Content-Length: 3"], b"abc")] * 3, [])
    @example([(b"GET / HTTP/1.1", [b"Accept: a", b"Accept: b"], b"")] * 3, [])
    @example([(b"GET / HTTP/1.1", [b"Accept: a"], b"")] * 2, [1])
    def test_any_requests(
        self, heads: list[tuple[bytes, list[bytes], bytes]], cuts: list[int]
    ) -> None:
        """The same requests and answers, each sent at once or cut anywhere."""
        own, quick = World(HTTPChannel), World(QuickChannel)
        for head in heads:
            data = wire(head)
            start = 0
            for cut in [*sorted(cut for cut in cuts if cut < len(data)), len(data)]:
                for world in (own, quick):
                    world.give(data[start:cut])
                start = cut
        self.assertEqual(quick.outcome(), own.outcome())
        for world in (own, quick):
            world.end()
        self.assertEqual(quick.clock.getDelayedCalls(), [])

    @settings(max_examples=600, deadline=None)
    @given(
        st.lists(_LINES, max_size=4),
        st.sampled_from(
            (
                b"Content-Length: %d",
                b"content-length: %d",
                b"Content-Length:%d",
                b"Content-Length: 00%d",
                b"Content-Length: %d\r\n folded",
                b"X: y\r\n Content-Length: %d",
                b"X: y\nContent-Length: %d",
                b"Content-Length: 3\r\nContent-Length: %d",
            )
        ),
        st.lists(_LINES, max_size=2),
        st.lists(
            st.tuples(st.binary(max_size=12), st.integers(-2, 2) | st.just(0)),
            min_size=2,
            max_size=6,
        ),
    )
    @example([b"Host: a"], b"Content-Length: %d", [], [(b"a", 0), (b"bc" * 5, 0)])
    @example([b"Connection: close"], b"Content-Length: %d", [], [(b"a", 0)] * 3)
    @example([b"Connection: keep-alive"], b"Content-Length: %d", [], [(b"a", 0)] * 3)
    @example([b"Cookie: a=b"], b"Content-Length: %d", [], [(b"a", 0)] * 3)
    @example([b"Host: a"], b"Content-Length: %d", [], [(b"abc", 0), (b"abc", -1)])
    @example([b"Host: a"], b"Content-Length: %d", [], [(b"abc", 0), (b"abc", 1)])
    @example([b"Host: a"], b"Content-Length: %d", [], [(b"", 0)] * 3)
    def test_repeated_heads(
        self,
        before: list[bytes],
        length: bytes,
        behind: list[bytes],
        bodies: list[tuple[bytes, int]],
    ) -> None:
        """
        The same head each time but for the length, which may be wrong: what comes
        behind it is the body or the next request all the same.
        """
        own, quick = World(HTTPChannel), World(QuickChannel)
        for body, wrong in bodies:
            lines = [*before, length % max(0, len(body) + wrong), *behind]
            data = wire((b"POST /mcp?a=b HTTP/1.1", lines, body))
            for world in (own, quick):
                world.give(data)
        self.assertEqual(quick.outcome(), own.outcome())
        for world in (own, quick):
            world.end()
        self.assertEqual(quick.clock.getDelayedCalls(), [])

    @settings(max_examples=600, deadline=None)
    @given(st.lists(_STEPS, max_size=12))
    @example([WHOLE, ANSWER, WHOLE, b"\r\n", ANSWER, WHOLE, ANSWER])
    @example([WHOLE, ANSWER, WHOLE, WHOLE + WHOLE, ANSWER, ANSWER, ANSWER])
    @example([WHOLE, ANSWER, WHOLE, WHOLE * 400, ANSWER, ANSWER, WHOLE, ANSWER])
    @example([WHOLE, ANSWER, b"\r\n", WHOLE, ANSWER, b"\r\n", WHOLE, ANSWER])
    @example([WHOLE, ANSWER, FULL, WHOLE, ANSWER, WHOLE, READ, ANSWER])
    @example([WHOLE, ANSWER, WHOLE, FULL, WHOLE, ANSWER, READ, ANSWER])
    def test_answered_later(self, steps: list[bytes]) -> None:
        """
        What comes before an answer has left waits for it, and no more is read than
        Twisted's own reads.
        """
        own, quick = World(HTTPChannel, later=True), World(QuickChannel, later=True)
        for step in steps:
            for world in (own, quick):
                world.do(step)
            self.assertEqual(quick.outcome(), own.outcome())
            self.assertEqual(quick.reads, own.reads)
        for world in (own, quick):
            world.end()
        self.assertEqual(quick.clock.getDelayedCalls(), [])

    @settings(max_examples=300, deadline=None)
    @given(
        st.lists(_LINES, max_size=4),
        st.lists(st.tuples(st.booleans(), st.integers(0, 5)), min_size=2, max_size=5),
    )
    @example([b"Host: a", b"Accept: a"], [(True, 0), (True, 1)])
    @example([b"Host: a", b"Accept: a"], [(True, 1), (False, 1)])
    @example([b"Host: a", b"Accept: a"], [(True, 2), (True, 2), (False, 2)])
    def test_cut_between_lines(
        self, lines: list[bytes], cuts: list[tuple[bool, int]]
    ) -> None:
        """
        What comes behind a line of a head belongs to that head, whatever it looks
        like; and with the first lines left out it is no request.
        """
        own, quick = World(HTTPChannel), World(QuickChannel)
        head = [b"POST / HTTP/1.1", *lines, b"Content-Length: 3", b"", b"abc"]
        for with_first, cut in cuts:
            parts = [b"".join(line + b"\r\n" for line in head[:cut]), b""]
            parts[1] = b"\r\n".join(head[cut:])
            for world in (own, quick):
                for data in parts if with_first else parts[1:]:
                    if data:
                        world.give(data)
        self.assertEqual(quick.outcome(), own.outcome())
        for world in (own, quick):
            world.end()

    def test_first_lines_of_another(self) -> None:
        """
        A head is known by all of its lines: what came in front of the same ones before
        may have been another client's of the same proxy.
        """
        own, quick = World(HTTPChannel), World(QuickChannel)
        rest = b"Host: a\r\nContent-Length: 3\r\n\r\nabc"
        for name in (b"alice", b"bob"):
            for world in (own, quick):
                world.give(b"POST / HTTP/1.1\r\nAuthorization: Bearer %b\r\n" % name)
                world.give(rest)
        self.assertEqual(quick.outcome(), own.outcome())
        values = [
            dict(headers)[b"Authorization"] for _, _, headers, _ in own.mirror.seen
        ]
        self.assertEqual(values, [[b"Bearer alice"], [b"Bearer bob"]])

    def test_request_within_a_head(self) -> None:
        """It is no request, even if it was one before."""
        own, quick = World(HTTPChannel), World(QuickChannel)
        whole = wire((b"POST / HTTP/1.1", [b"Host: a", b"Content-Length: 3"], b"abc"))
        for data in (whole, whole, b"POST / HTTP/1.1\r\n", whole):
            for world in (own, quick):
                world.give(data)
        self.assertEqual(quick.outcome(), own.outcome())
        self.assertEqual(len(quick.mirror.seen), 2)
        self.assertTrue(quick.transport.disconnecting)

    def test_all_in_one_piece(self) -> None:
        """Requests that do not wait for the answers before."""
        one = wire((b"POST / HTTP/1.1", [b"Host: a", b"Content-Length: 3"], b"abc"))
        own, quick = World(HTTPChannel), World(QuickChannel)
        for world in (own, quick):
            world.give(one * 5)
        self.assertEqual(quick.outcome(), own.outcome())
        self.assertEqual(len(quick.mirror.seen), 5)

    def test_repeated_lines_do_not_share(self) -> None:
        """What a request has of its headers, the next one does not see."""
        world = World(QuickChannel)
        one = wire((b"GET / HTTP/1.1", [b"Accept: a", b"accept: b"], b""))
        for _ in range(3):
            world.give(one)
        values = [headers for _, _, headers, _ in world.mirror.seen]
        self.assertEqual(values, [[(b"Accept", [b"a", b"b"])]] * 3)

    def test_little_is_remembered(self) -> None:
        """However many different lines come."""
        world = World(QuickChannel)
        for number in range(500):
            lines = [b"X-%d: %d" % (number, number)]
            world.give(wire((b"GET / HTTP/1.1", lines, b"")))
        self.assertGreater(len(world.channel._known), 0)
        self.assertLessEqual(len(world.channel._known), 64)
        world.give(wire((b"GET / HTTP/1.1", [b"Y: " + b"y" * REMEMBERED_BYTES], b"")))
        kept = sum(map(len, world.channel._known))
        self.assertLessEqual(kept, REMEMBERED_BYTES)
        self.assertGreater(kept, 0)
        self.assertEqual(len(world.mirror.seen), 501)
        world.end()
        self.assertEqual(world.channel._known, {})


class QuietTests(SynchronousTestCase):
    """Connections that say nothing."""

    def test_from_the_last_word_on(self) -> None:
        """Not from the first one, and not while an answer is owed."""
        world = World(QuickChannel)
        for _ in range(5):
            world.clock.advance(IDLE_SECONDS - 1)
            world.give(wire((b"GET / HTTP/1.1", [b"Host: a"], b"")))
        self.assertFalse(world.transport.disconnecting)
        self.assertEqual(len(world.mirror.seen), 5)
        world.clock.advance(IDLE_SECONDS - 1)
        self.assertFalse(world.transport.disconnecting)
        world.clock.advance(1)
        self.assertTrue(world.transport.disconnecting)
        world.end()

    def test_one_timer(self) -> None:
        """However many requests come."""
        world = World(QuickChannel)
        for _ in range(50):
            world.give(wire((b"GET / HTTP/1.1", [b"Host: a"], b"")))
            self.assertEqual(len(world.clock.getDelayedCalls()), 1)
        world.end()
        self.assertEqual(world.clock.getDelayedCalls(), [])

    def test_owed_for_long(self) -> None:
        """The time begins behind the answer."""
        world = World(QuickChannel)
        world.channel.setTimeout(None)
        world.clock.advance(10 * IDLE_SECONDS)
        self.assertFalse(world.transport.disconnecting)
        world.channel.setTimeout(IDLE_SECONDS)
        world.clock.advance(IDLE_SECONDS - 1)
        self.assertFalse(world.transport.disconnecting)
        world.clock.advance(1)
        self.assertTrue(world.transport.disconnecting)
        world.end()
