"""One answer: its format, its limits, its end."""

import json
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from fjmcp_broker.sessions.streams.bounds import (
    KEEPALIVE_SECONDS,
    PAUSE_SECONDS,
    STALL_SECONDS,
)
from fjmcp_broker.sessions.streams.replay import Replays
from fjmcp_broker.sessions.streams.stream import Formats, ResponseStream
from tests.unit.sessions.stream_case import Connection, Throttle

MEGABYTE = 1024 * 1024


class StreamTests(SynchronousTestCase):
    """A stream on a channel of its own."""

    def setUp(self) -> None:
        """A request that is about to be answered."""
        self.clock = Clock()
        self.throttle = Throttle()

    def stream(self, *, kept: bool = False, **named: Any) -> ResponseStream:
        """A stream for a new request."""
        self.connection = Connection(self.clock)
        self.transport = self.connection.transport
        self.request = self.connection.request
        events = None
        if kept:
            replays = Replays(self.clock, random_bytes=bytes)
            events = replays.begin(b"s", "g", self.throttle, is_call=True)
        return ResponseStream(
            self.request, self.clock, self.throttle, events=events, **named
        )

    def tearDown(self) -> None:
        """Nothing is left running."""
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assertEqual(self.throttle.pausers, [])

    def text(self) -> bytes:
        """The body so far, without the marks of chunks."""
        return self.connection.text()

    def events(self) -> list[Any]:
        """The data of all events so far."""
        return [
            json.loads(line[6:])
            for line in self.text().split(b"\n")
            if line.startswith(b"data: ") and len(line) > 6
        ]

    def depart(self) -> None:
        """The client leaves."""
        self.connection.depart()

    def test_large_events_in_pieces(self) -> None:
        """A message too large to be kept arrives as one event, also when its reader
        stops in the middle of it."""
        large = b'{"text":"%b"}' % (b"x" * 6_000_000)
        for kept in (False, True):
            for pauses in (False, True):
                stream = self.stream(kept=kept)
                stream.send(b"{}")
                if pauses:
                    stream.pauseProducing()
                stream.answer(large)
                if pauses:
                    self.assertLess(len(self.text()), 1000)
                    stream.resumeProducing()
                self.assertEqual(self.events(), [{}, json.loads(large)])
                self.assertTrue(self.text().endswith(b"}\n\n"))
                self.assertTrue(self.request.finished)

    def test_answer_within_the_window(self) -> None:
        """One JSON document with its length."""
        stream = self.stream()
        self.clock.advance(0.2)
        stream.answer(b"{}")
        self.assertIn(b"Content-Length: 2", self.transport.value())
        self.assertEqual(self.text(), b"{}")
        self.assertTrue(self.request.finished)
        self.assertFalse(stream.is_open)

    def test_answer_after_the_window(self) -> None:
        """A stream that has begun by then."""
        stream = self.stream()
        self.clock.advance(0.25)
        self.assertIn(b"text/event-stream", self.transport.value())
        stream.answer(b"{}")
        self.assertEqual(self.text(), b"data: {}\n\n")
        self.assertTrue(self.request.finished)

    def test_message_before_the_answer(self) -> None:
        """Makes it a stream at once."""
        stream = self.stream()
        stream.send(b"1")
        stream.answer(b"2")
        self.assertEqual(self.events(), [1, 2])

    def test_ids(self) -> None:
        """Events that are kept are numbered, the priming one included."""
        for primed in (True, False):
            stream = self.stream(kept=True, primed=primed)
            stream.send(b"1")
            stream.answer(b"2")
            numbered = [b"", b"1", b"2"] if primed else [b"1", b"2"]
            self.assertEqual(
                self.connection.received(),
                [(f"{'0' * 12}-1-{n}", data) for n, data in enumerate(numbered, 1)],
            )

    def test_json_alone(self) -> None:
        """However long it takes; what comes before is dropped."""
        stream = self.stream(formats=Formats.JSON)
        self.clock.advance(100)
        self.assertFalse(stream.takes_messages)
        stream.send(b"1")
        stream.answer(b"2")
        self.assertEqual(self.text(), b"2")

    def test_events_alone(self) -> None:
        """Even when the answer comes at once."""
        stream = self.stream(formats=Formats.EVENTS)
        stream.answer(b"2")
        self.assertEqual(self.events(), [2])

    def test_end_without_an_answer(self) -> None:
        """Both before anything was written and afterwards."""
        for send in (False, True):
            stream = self.stream()
            if send:
                stream.send(b"1")
            stream.end()
            stream.answer(b"2")
            self.assertTrue(self.request.finished)
            self.assertNotIn(2, self.events())

    def test_keepalive(self) -> None:
        """A comment every few seconds while the stream is open."""
        stream = self.stream()
        stream.send(b"1")
        for _ in range(3):
            self.clock.advance(KEEPALIVE_SECONDS)
        self.assertEqual(self.text().count(b": keepalive\n\n"), 3)
        stream.answer(b"2")

    def test_departed_client(self) -> None:
        """Nothing is written and nothing finished any more."""
        stream = self.stream()
        stream.send(b"1")
        self.depart()
        self.assertFalse(stream.is_open)
        stream.send(b"2")
        stream.answer(b"3")
        stream.end()
        self.assertEqual(self.events(), [1])

    def test_departed_before_anything_was_written(self) -> None:
        """The same, in the window."""
        stream = self.stream()
        self.depart()
        stream.answer(b"3")
        self.assertEqual(self.transport.value(), b"")

    def test_slow_reader_within_the_limit(self) -> None:
        """Messages wait, in order, and all arrive."""
        stream = self.stream()
        stream.send(b"0")
        self.transport.slow = True
        for number in range(1, 30):
            stream.send(b"%d" % number + b" " * 100_000)
        self.assertGreater(stream._buffered, 2 * MEGABYTE)
        self.assertEqual(self.throttle.pausers, [])
        stream.answer(b"30")
        while not self.request.finished:
            self.transport.read_all()
        self.assertEqual(self.events(), [*range(31)])
        self.assertLess(self.transport.most_unsent, 400_000)

    def test_full_stream_pauses_the_child(self) -> None:
        """Until the reader has made room."""
        stream = self.stream()
        self.transport.slow = True
        while not self.throttle.pausers:
            stream.send(b"1" * 100_000)
        self.assertLess(stream._buffered, 4.2 * MEGABYTE)
        self.clock.advance(PAUSE_SECONDS - 0.1)
        for _ in range(3):
            self.transport.read_all()
        self.assertEqual(self.throttle.pausers, [])
        self.clock.advance(PAUSE_SECONDS)
        self.assertFalse(self.transport.aborted)
        self.depart()

    def test_full_stream_is_cut(self) -> None:
        """Before others have waited for five seconds, the child goes on without it."""
        stream = self.stream()
        self.transport.slow = True
        while not self.throttle.pausers:
            stream.send(b"1" * 100_000)
        self.assertLess(PAUSE_SECONDS, 5)
        self.clock.advance(PAUSE_SECONDS)
        self.assertTrue(self.transport.aborted)
        self.assertEqual(self.throttle.pausers, [])
        self.assertEqual(stream._buffered, 0)
        stream.answer(b"2")
        self.depart()

    def test_departure_releases_the_child(self) -> None:
        """A client that leaves while it holds the child up does so no longer."""
        stream = self.stream()
        self.transport.slow = True
        while not self.throttle.pausers:
            stream.send(b"1" * 100_000)
        self.depart()
        self.assertEqual(self.throttle.pausers, [])

    def test_huge_answer_is_written_in_pieces(self) -> None:
        """As the reader takes it, without counting towards the limit."""
        stream = self.stream()
        self.transport.slow = True
        stream.answer(b'"' + b"x" * 20 * MEGABYTE + b'"')
        self.assertEqual((self.throttle.pausers, stream._buffered), ([], 0))
        turns = 0
        while not self.request.finished:
            self.transport.read_all()
            self.clock.advance(STALL_SECONDS / 2)
            turns += 1
        self.assertGreater(turns, 50)
        self.assertEqual(len(self.text()), 20 * MEGABYTE + 2)
        self.assertLess(self.transport.most_unsent, MEGABYTE)

    def test_reader_that_takes_nothing_at_all(self) -> None:
        """A finished answer does not wait for ever."""
        stream = self.stream()
        self.transport.slow = True
        stream.answer(b"x" * MEGABYTE)
        self.clock.pump([1.0] * int(STALL_SECONDS + 2 * KEEPALIVE_SECONDS))
        self.assertTrue(self.transport.aborted)
        self.depart()

    @settings(max_examples=60, suppress_health_check=list(HealthCheck), deadline=None)
    @given(
        steps=st.lists(
            st.one_of(
                st.tuples(st.just("send"), st.integers(0, 900_000)),
                st.tuples(st.just("read"), st.just(0)),
                st.tuples(st.just("slow"), st.integers(0, 1)),
                st.tuples(st.just("wait"), st.integers(0, 20)),
            ),
            max_size=40,
        ),
        ids=st.booleans(),
        leaves=st.booleans(),
    )
    def test_any_reader(
        self, steps: list[tuple[str, int]], ids: bool, leaves: bool
    ) -> None:
        """
        Whatever the pace of both sides: what arrives is a prefix of what was sent,
        all of it unless the stream was cut, and memory stays bounded.
        """
        stream = self.stream(formats=Formats.EVENTS, kept=ids, primed=ids)
        sent = 0
        for step, amount in steps:
            if self.transport.aborted:
                break
            if step == "send":
                if not self.throttle.pausers:
                    stream.send(b"%d" % sent + b" " * amount)
                    sent += 1
            elif step == "read":
                self.transport.read_all()
            elif step == "slow":
                self.transport.slow = bool(amount)
            else:
                self.clock.advance(amount)
            self.assertLess(stream._buffered, 5 * MEGABYTE)
        cut = self.transport.aborted
        if leaves or cut:
            self.depart()
            stream.answer(b"-1")
        else:
            stream.answer(b"%d" % sent)
            sent += 1
            while not self.request.finished:
                self.transport.read_all()
            self.assertEqual(self.events(), [*range(sent)])
        self.assertEqual(self.events_prefix(), [*range(len(self.events_prefix()))])
        self.assertEqual(self.throttle.pausers, [])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def events_prefix(self) -> list[Any]:
        """The whole events at the front of a stream that may have been cut."""
        whole = self.text().rpartition(b"\n\n")[0]
        return [
            json.loads(line[6:])
            for line in whole.split(b"\n")
            if line.startswith(b"data: ") and len(line) > 6
        ]
