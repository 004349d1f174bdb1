"""An answer that is a document needs no stream, and nobody can tell."""

from collections.abc import Callable
from typing import Any

from hypothesis import example, given, settings
from hypothesis import strategies as st
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from fjmcp_broker.sessions.streams.bounds import SLICE_BYTES
from fjmcp_broker.sessions.streams.prompt import PromptAnswer
from fjmcp_broker.sessions.streams.stream import Formats, ResponseStream
from tests.unit.sessions.stream_case import Connection, Throttle

WINDOW = 5.0
SMALL, LARGE = "small", "large"
MESSAGES = {SMALL: b'{"a":1}', LARGE: b'"' + b"x" * SLICE_BYTES + b'"'}


class Answer(PromptAnswer, eq=False, kw_only=True):
    """One that tells what was asked of it."""

    made: Callable[[], ResponseStream]
    gone: list[float]

    def make_stream(self) -> ResponseStream:
        """As the one that it is compared with."""
        return self.made()

    def left(self) -> None:
        """Remember."""
        self.gone.append(self.clock.seconds())


class World:
    """A request and its answer, with a stream from the beginning or without."""

    def __init__(self, formats: Formats, *, prompt: bool) -> None:
        """Nothing is answered yet."""
        self.clock = Clock()
        self.connection = Connection(self.clock)
        self.gone: list[float] = []
        self.answer: Answer | None = None
        self.streams = 0
        self.departed = False
        if prompt:
            self.answer = Answer(
                request=self.connection.request,
                clock=self.clock,
                formats=formats,
                made=lambda: self.stream(formats),
                gone=self.gone,
            )
            self.answer.wait(WINDOW)
        else:
            self.plain = self.stream(formats)

    def stream(self, formats: Formats) -> ResponseStream:
        """A stream for the answer."""
        self.streams += 1
        return ResponseStream(
            self.connection.request,
            self.clock,
            Throttle(),
            formats=formats,
            status_window_seconds=WINDOW,
            on_gone=lambda: self.gone.append(self.clock.seconds()),
        )

    def do(self, what: str, *arguments: Any) -> None:
        """A step of those whose answer it is, of the client, or of time."""
        answer = self.answer
        arguments = tuple(MESSAGES.get(each, each) for each in arguments)
        if what == "pass":
            self.clock.advance(*arguments)
        elif what == "depart":
            if not self.departed:
                self.departed = True
                self.connection.depart()
        elif what == "answer" and answer is not None:
            answer.give(*arguments)
        elif answer is None:
            getattr(self.plain, what)(*arguments)
        elif not answer.is_over:
            getattr(answer.open(), what)(*arguments)

    @property
    def outcome(self) -> Any:
        """What the client has got, and who was told that it has gone."""
        return self.connection.transport.value(), self.gone


_STEPS = st.one_of(
    st.tuples(st.just("send"), st.sampled_from((SMALL, LARGE))),
    st.tuples(
        st.just("answer"), st.sampled_from((SMALL, LARGE)), st.sampled_from((200, 404))
    ),
    st.tuples(st.just("pass"), st.sampled_from((1.0, WINDOW - 1, WINDOW))),
    st.tuples(st.sampled_from(("end", "depart"))),
)


class PromptAnswerTests(SynchronousTestCase):
    """Against a stream from the beginning."""

    @settings(max_examples=300, deadline=None)
    @given(st.sampled_from(Formats), st.lists(_STEPS, max_size=5))
    @example(Formats.BOTH, [("answer", SMALL, 200)])
    @example(Formats.BOTH, [("pass", WINDOW), ("answer", SMALL, 200)])
    @example(Formats.BOTH, [("depart",), ("answer", SMALL, 200)])
    @example(Formats.BOTH, [("depart",), ("send", SMALL), ("end",)])
    @example(Formats.EVENTS, [("answer", SMALL, 404)])
    @example(Formats.JSON, [("pass", WINDOW), ("send", SMALL), ("answer", LARGE, 200)])
    def test_same(self, formats: Formats, steps: list[Any]) -> None:
        """Whatever happens in whichever order, and nothing is left behind."""
        plain, prompt = World(formats, prompt=False), World(formats, prompt=True)
        for step in steps:
            for world in (plain, prompt):
                world.do(*step)
            self.assertEqual(prompt.outcome, plain.outcome)
        for world in (plain, prompt):
            world.do("depart")
            self.assertEqual(world.clock.getDelayedCalls(), [])

    def test_document(self) -> None:
        """No stream is made, and nobody is told that a client has gone."""
        for formats in (Formats.BOTH, Formats.JSON):
            world = World(formats, prompt=True)
            world.do("answer", SMALL)
            world.do("depart")
            self.assertEqual((world.streams, world.gone), (0, []))
            self.assertTrue(world.outcome[0].endswith(b"\r\n\r\n" + MESSAGES[SMALL]))

    def test_answered_before_the_wait(self) -> None:
        """A child may be that fast: then there is nothing to wait for."""
        clock = Clock()
        connection = Connection(clock)
        answer = Answer(
            request=connection.request,
            clock=clock,
            formats=Formats.BOTH,
            made=self.fail,
            gone=[],
        )
        answer.give(MESSAGES[SMALL])
        answer.wait(WINDOW)
        self.assertEqual(clock.getDelayedCalls(), [])
        self.assertIsNone(connection.request.on_lost)
        connection.depart()
        self.assertEqual(answer.gone, [])

    def test_client_leaves(self) -> None:
        """Who waits for the answer hears of it once, and at once."""
        world = World(Formats.BOTH, prompt=True)
        world.do("pass", 1.0)
        world.do("depart")
        for step in (("pass", WINDOW), ("answer", SMALL)):
            world.do(*step)
        self.assertEqual((world.gone, world.streams), ([1.0], 0))
