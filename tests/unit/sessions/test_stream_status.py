"""Answers whose HTTP status depends on their first message (MCP 2026-07-28)."""

from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from fjmcp_broker.sessions.streams.bounds import (
    KEEPALIVE_SECONDS,
    MAXIMUM_BUFFERED_BYTES,
    PAUSE_SECONDS,
    STALL_SECONDS,
)
from fjmcp_broker.sessions.streams.stream import Formats, ResponseStream
from tests.unit.sessions.stream_case import Connection, Throttle

WINDOW = 5.0


class StatusTests(SynchronousTestCase):
    """A stream that may wait for its status."""

    def setUp(self) -> None:
        """A request that is about to be answered."""
        self.begin()

    def begin(self, formats: Formats = Formats.BOTH) -> None:
        """A new one."""
        self.clock = Clock()
        self.throttle = Throttle()
        self.gone: list[float] = []
        self.connection = Connection(self.clock)
        self.transport = self.connection.transport
        self.stream = ResponseStream(
            self.connection.request,
            self.clock,
            self.throttle,
            formats=formats,
            status_window_seconds=WINDOW,
            on_gone=lambda: self.gone.append(self.clock.seconds()),
        )

    def tearDown(self) -> None:
        """Nothing is left running."""
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assertEqual(self.throttle.pausers, [])

    @property
    def status(self) -> int:
        """What the client was told, 0 before."""
        value: bytes = self.transport.value()
        return int(value.split(b" ", 2)[1]) if value else 0

    def test_status_of_the_answer(self) -> None:
        """Within the window, for whichever formats."""
        for formats in Formats:
            for status in (200, 400, 404):
                self.begin(formats)
                self.clock.advance(WINDOW - 0.1)
                self.assertEqual(self.status, 0)
                self.stream.answer(b"{}", status)
                self.assertEqual(self.status, status)
                is_event = formats is Formats.EVENTS and status == 200
                self.assertEqual(
                    self.connection.text(), b"data: {}\n\n" if is_event else b"{}"
                )
                self.assertEqual(self.gone, [])

    def test_after_the_window(self) -> None:
        """Events, and the answer is one of them; keepalives until then."""
        for formats in (Formats.BOTH, Formats.EVENTS):
            self.begin(formats)
            self.clock.advance(WINDOW)
            self.assertEqual(self.status, 200)
            head = self.transport.value().lower()
            self.assertIn(b"x-accel-buffering: no", head)
            self.assertIn(b"cache-control: no-store", head)
            self.clock.advance(KEEPALIVE_SECONDS)
            self.stream.answer(b"{}", 404)
            self.assertEqual(
                self.connection.text(), b": keepalive\n\ndata: {}\n\n", formats
            )

    def test_json_alone_waits(self) -> None:
        """There is no other way to answer."""
        self.begin(Formats.JSON)
        self.clock.advance(100)
        self.stream.send(b"1")
        self.assertEqual(self.status, 0)
        self.stream.answer(b"{}", 404)
        self.assertEqual((self.status, self.connection.text()), (404, b"{}"))

    def test_message_first(self) -> None:
        """Decides at once, without an id."""
        for formats in (Formats.BOTH, Formats.EVENTS):
            self.begin(formats)
            self.stream.send(b"1")
            self.assertEqual(self.status, 200)
            self.stream.answer(b"2", 404)
            self.assertEqual(self.connection.text(), b"data: 1\n\ndata: 2\n\n")

    def test_client_leaves(self) -> None:
        """Before and after the status: told once, at once."""
        for formats in Formats:
            for seconds in (0.0, WINDOW):
                self.begin(formats)
                self.clock.advance(seconds)
                self.connection.depart()
                self.assertEqual(self.gone, [seconds])
                self.stream.send(b"1")
                self.stream.answer(b"2", 404)
                self.assertEqual(self.gone, [seconds])

    def test_slow_reader(self) -> None:
        """Its child is held back for a while, then it is cut off like one that left."""
        self.transport.slow = True
        self.stream.send(b"x" * 300_000)
        self.stream.send(b"x" * MAXIMUM_BUFFERED_BYTES)
        self.assertEqual(self.throttle.pausers, [self.stream])
        self.assertEqual(self.gone, [])
        self.clock.advance(PAUSE_SECONDS)
        self.assertTrue(self.transport.aborted)
        self.assertEqual(self.gone, [PAUSE_SECONDS])
        self.connection.depart()
        self.assertEqual(self.gone, [PAUSE_SECONDS])

    def test_reader_that_stalls(self) -> None:
        """It takes nothing at all of one message."""
        self.transport.slow = True
        self.stream.send(b"x" * 300_000)
        self.clock.pump([1.0] * int(STALL_SECONDS + KEEPALIVE_SECONDS))
        self.assertTrue(self.transport.aborted)
        self.assertEqual(len(self.gone), 1)

    @settings(max_examples=100, suppress_health_check=list(HealthCheck), deadline=None)
    @given(
        st.sampled_from(Formats),
        st.lists(
            st.sampled_from(["send", "wait", "slow", "read", "depart", "answer"]),
            max_size=12,
        ),
    )
    def test_any_order(self, formats: Formats, steps: list[str]) -> None:
        """Whatever happens: one status, one end, and told at most once."""
        self.begin(formats)
        answered = departed = False
        actions: dict[str, Any] = {
            "send": lambda: self.stream.send(b"x" * 100_000),
            "wait": lambda: self.clock.advance(3),
            "slow": lambda: setattr(self.transport, "slow", True),
            "read": self.transport.read_all,
            "depart": self.connection.depart,
            "answer": lambda: self.stream.answer(b"{}", 404),
        }
        for step in steps:
            if (step == "depart" and departed) or (step == "answer" and answered):
                continue
            answered = answered or step == "answer"
            departed = departed or step == "depart"
            actions[step]()
        self.assertLessEqual(len(self.gone), 1)
        self.assertLessEqual(self.transport.value().count(b"HTTP/1.1 "), 1)
        if not departed:
            self.connection.depart()
        self.assertEqual(self.clock.getDelayedCalls(), [])
