"""Timers that share one of the reactor's."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.error import AlreadyCalled, AlreadyCancelled
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from fjmcp_broker.deadlines import SharedTimers
from fjmcp_broker.sessions.streams.bounds import JSON_WINDOW_SECONDS
from fjmcp_broker.sessions.streams.stream import ResponseStream
from tests.unit.sessions.stream_case import Connection, Throttle

LENGTHS = (0, 1, 3, 10)

_WHICH = st.integers(0, 20)
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("make"), st.sampled_from(LENGTHS), st.just(0)),
        st.tuples(st.just("maker"), st.sampled_from(LENGTHS), st.just(0)),
        st.tuples(st.just("canceller"), st.sampled_from(LENGTHS), _WHICH),
        st.tuples(st.just("cancel"), st.just(0), _WHICH),
        st.tuples(st.just("reset"), st.sampled_from(LENGTHS), _WHICH),
        st.tuples(st.just("delay"), st.sampled_from(LENGTHS), _WHICH),
        st.tuples(st.just("advance"), st.sampled_from((1, 1, 2, 15)), st.just(0)),
    ),
    max_size=60,
)


class _World:
    """Timers of one clock, made and cancelled as the steps say."""

    def __init__(self, behind: Clock, clock: Any) -> None:
        self.behind = behind
        self.clock = clock
        self.calls: list[IDelayedCall] = []
        self.lengths: list[int] = []
        self.fired: list[tuple[float, int]] = []

    def make(self, length: int, then: str = "", other: int = 0) -> None:
        name = len(self.calls)
        self.lengths.append(length)
        call = self.clock.callLater(length, self.fire, name, then=then, other=other)
        self.calls.append(call)

    def fire(self, name: int, *, then: str, other: int) -> None:
        self.fired.append((self.clock.seconds(), name))
        if then == "make":
            self.make(self.lengths[name])
        elif then == "cancel" and self.calls:
            target = other % len(self.calls)
            # Which of two lengths is first at the same moment is not promised.
            if self.lengths[target] == self.lengths[name]:
                self.change("cancel", 0, target)

    def change(self, what: str, length: int, which: int) -> None:
        if not self.calls:
            return
        which %= len(self.calls)
        call = self.calls[which]
        if not call.active():
            return
        if what == "cancel":
            call.cancel()
        elif what == "reset":
            self.lengths[which] = length
            call.reset(length)
        else:
            self.lengths[which] = -1 - which
            call.delay(length)

    def step(self, what: str, length: int, which: int) -> None:
        if what == "make":
            self.make(length)
        elif what == "maker":
            self.make(length, "make")
        elif what == "canceller":
            self.make(length, "cancel", which)
        elif what == "advance":
            for _ in range(length):
                self.behind.advance(1)
        else:
            self.change(what, length, which)

    def state(self) -> Any:
        """All that can be seen of it."""
        by_length: dict[int, list[tuple[float, int]]] = {}
        for at, name in self.fired:
            by_length.setdefault(self.lengths[name], []).append((at, name))
        active = [call.active() for call in self.calls]
        waiting = sorted(call.getTime() for call in self.clock.getDelayedCalls())
        return by_length, active, waiting


class SharedTimersTests(SynchronousTestCase):
    """A clock with few timers behind many."""

    def setUp(self) -> None:
        """Nothing waits."""
        self.clock = Clock()
        self.timers = SharedTimers(self.clock)
        self.fired: list[str] = []

    def test_interfaces(self) -> None:
        """It can stand where a reactor's clock stands."""
        verifyObject(IReactorTime, self.timers)
        verifyObject(IDelayedCall, self.timers.callLater(1, list))

    @given(STEPS)
    def test_as_the_clock_itself(self, steps: list[tuple[str, int, int]]) -> None:
        """Whatever is made, cancelled and moved, also by the calls themselves: what is
        called, and when, is what a clock without it calls."""
        plain, behind = Clock(), Clock()
        model = _World(plain, plain)
        shared = _World(behind, SharedTimers(behind))
        for step in steps:
            model.step(*step)
            shared.step(*step)
            self.assertEqual(shared.state(), model.state())

    def test_one_behind_all(self) -> None:
        """A thousand timers of one length are one of the clock's, which ends by itself
        when they are all cancelled."""
        calls = []
        for _ in range(1000):
            calls.append(self.timers.callLater(1, list))
            self.clock.advance(0.0001)
        self.assertEqual(len(self.clock.getDelayedCalls()), 1)
        for call in calls:
            call.cancel()
        self.assertEqual(self.timers.getDelayedCalls(), [])
        self.clock.advance(1)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_on_time(self) -> None:
        """One that was made while others waited fires at its own time."""
        first = self.timers.callLater(1, self.fired.append, "first")
        self.clock.advance(0.6)
        self.timers.callLater(1, self.fired.append, "second")
        first.cancel()
        self.clock.advance(0.4)
        self.clock.advance(0.59)
        self.assertEqual(self.fired, [])
        self.clock.advance(0.02)
        self.assertEqual(self.fired, ["second"])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_error(self) -> None:
        """A call that fails is logged, and the next one is made all the same."""
        self.timers.callLater(1, {}.pop, "nothing")
        self.timers.callLater(1, self.fired.append, "next")
        self.clock.advance(1)
        self.assertEqual(self.fired, ["next"])
        self.assertEqual(len(self.flushLoggedErrors(KeyError)), 1)

    def test_over(self) -> None:
        """What was called or cancelled cannot be cancelled again."""
        called = self.timers.callLater(1, list)
        self.clock.advance(1)
        cancelled = self.timers.callLater(1, list)
        cancelled.cancel()
        self.assertRaises(AlreadyCalled, called.cancel)
        self.assertRaises(AlreadyCancelled, cancelled.cancel)
        self.assertRaises(AlreadyCancelled, cancelled.reset, 1)
        self.assertFalse(called.active() or cancelled.active())
        self.clock.advance(1)

    def test_answers(self) -> None:
        """An answer within its window leaves no timer; one that is late becomes a
        stream when its own window is over."""
        connections = [Connection(self.clock) for _ in range(3)]
        streams = []
        for connection in connections:
            stream = ResponseStream(connection.request, self.timers, Throttle())
            streams.append(stream)
            self.clock.advance(JSON_WINDOW_SECONDS / 5)
        self.clock.advance(JSON_WINDOW_SECONDS / 5)
        streams[0].answer(b'{"id":0}')
        self.clock.advance(JSON_WINDOW_SECONDS / 3)
        heads = [each.transport.value() for each in connections]
        self.assertIn(b"application/json", heads[0])
        self.assertEqual(heads[1], b"")
        self.clock.advance(JSON_WINDOW_SECONDS / 7)
        heads = [each.transport.value() for each in connections]
        self.assertIn(b"text/event-stream", heads[1])
        self.assertEqual(heads[2], b"")
        for stream in streams[1:]:
            stream.answer(b'{"id":1}')
        self.assertEqual(self.timers.getDelayedCalls(), [])
