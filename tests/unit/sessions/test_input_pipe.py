"""What is written to a process arrives whole, in its order, and in few pieces."""

import os
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.error import ConnectionDone
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from fjmcp_broker.sessions.processes.input_pipe import TOGETHER_BYTES, InputPipe


class Turns(Clock):
    """A reactor whose turns end when a test says so."""

    def __init__(self) -> None:
        """Nothing is watched."""
        super().__init__()
        self.writers: list[Any] = []

    def addReader(self, reader: Any) -> None:  # noqa: N802 - Twisted's
        """Not needed here."""

    removeReader = addReader  # noqa: N815 - Twisted's

    def addWriter(self, writer: Any) -> None:  # noqa: N802 - Twisted's
        """It waits until the pipe takes more."""
        if writer not in self.writers:
            self.writers.append(writer)

    def removeWriter(self, writer: Any) -> None:  # noqa: N802 - Twisted's
        """It waits no more."""
        if writer in self.writers:
            self.writers.remove(writer)

    def end_turn(self) -> None:
        """As the event loop does."""
        self.advance(0)
        for writer in list(self.writers):
            reason = writer.doWrite()
            if reason is not None:
                self.removeWriter(writer)
                writer.connectionLost(Failure(reason))


class World:
    """A pipe between a reactor and a process that does not exist."""

    def __init__(self) -> None:
        """Open."""
        self.turns = Turns()
        self.end, ours = os.pipe()
        os.set_blocking(self.end, False)
        self.lost: list[int] = []
        self.pipe = InputPipe(self.turns, self, 0, ours)

    def childConnectionLost(self, number: int, reason: Failure) -> None:
        """The pipe is no more."""
        self.lost.append(number)
        os.close(self.pipe.fileno())

    def read(self) -> bytes:
        """What has arrived."""
        try:
            return os.read(self.end, 10 * TOGETHER_BYTES)
        except BlockingIOError:
            return b""

    def close(self) -> None:
        """Both ends."""
        os.close(self.end)
        if not self.lost:
            self.pipe.connectionLost(Failure(ConnectionDone()))


class InputPipeTests(SynchronousTestCase):
    """One process."""

    def setUp(self) -> None:
        """It has nothing to do."""
        self.world = World()
        self.pipe, self.turns = self.world.pipe, self.world.turns

    def tearDown(self) -> None:
        """No timer stays."""
        self.world.close()
        self.assertEqual(self.turns.getDelayedCalls(), [])

    def test_first(self) -> None:
        """It does not wait for anything, and needs no timer."""
        self.pipe.write(b"one")
        self.assertEqual(self.world.read(), b"one")
        self.assertEqual(self.turns.getDelayedCalls(), [])

    def test_more_in_one_turn(self) -> None:
        """They leave together, with one timer."""
        for data in (b"one,", b"two,", b"three,"):
            self.pipe.write(data)
        self.assertEqual(self.world.read(), b"one,")
        self.assertEqual(len(self.turns.getDelayedCalls()), 1)
        self.turns.end_turn()
        self.assertEqual(self.world.read(), b"two,three,")

    def test_busy_in_the_next_turn(self) -> None:
        """It is, until it has said something."""
        self.pipe.write(b"one")
        self.turns.end_turn()
        self.pipe.write(b"two")
        self.assertEqual(self.world.read(), b"one")
        self.turns.end_turn()
        self.assertEqual(self.world.read(), b"two")
        self.pipe.heard()
        self.pipe.write(b"three")
        self.assertEqual(self.world.read(), b"three")

    def test_heard_meanwhile(self) -> None:
        """What waits leaves with what comes next, in its order."""
        self.pipe.write(b"one,")
        self.pipe.write(b"two,")
        self.pipe.heard()
        self.pipe.write(b"three")
        self.assertEqual(self.world.read(), b"one,two,three")
        self.turns.end_turn()
        self.assertEqual(self.world.read(), b"")

    def test_large(self) -> None:
        """What would wait in great amounts does not wait."""
        self.pipe.write(b"one")
        self.pipe.write(b"x" * (TOGETHER_BYTES + 1))
        arrived = self.world.read()
        self.assertGreater(len(arrived), TOGETHER_BYTES // 2)  # all that fits
        self.turns.end_turn()
        arrived += self.world.read()
        self.assertEqual(arrived, b"one" + b"x" * (TOGETHER_BYTES + 1))

    def test_closed(self) -> None:
        """Behind what was written."""
        self.pipe.write(b"one,")
        self.pipe.write(b"two")
        self.pipe.loseConnection()
        self.assertEqual(self.world.read(), b"one,two")
        self.turns.end_turn()
        self.assertEqual(self.world.lost, [0])

    def test_lost(self) -> None:
        """Nothing is written to a process that has closed its end."""
        self.pipe.write(b"one,")
        self.pipe.write(b"two")
        self.pipe.connectionLost(Failure(ConnectionDone()))
        self.assertEqual(self.turns.getDelayedCalls(), [])
        self.assertEqual(self.world.read(), b"one,")

    def test_nobody_reads(self) -> None:
        """The event loop finds out, not the writer."""
        os.close(self.world.end)
        self.world.end = os.open("/dev/null", os.O_RDONLY)
        self.pipe.write(b"one")
        self.assertEqual(self.world.lost, [])
        self.turns.end_turn()
        self.assertEqual(self.world.lost, [0])

    @settings(max_examples=200, deadline=None)
    @given(
        st.lists(
            st.sampled_from(("heard", "turn", "read"))
            | st.integers(1, 2000)
            | st.integers(TOGETHER_BYTES - 2, TOGETHER_BYTES + 2),
            max_size=30,
        )
    )
    def test_any_order(self, steps: list[str | int]) -> None:
        """Every byte arrives, in its order, whatever happens meanwhile."""
        world = World()
        sent = received = b""
        for number, step in enumerate(steps):
            if isinstance(step, int):
                data = bytes([number]) * step
                sent += data
                world.pipe.write(data)
            elif step == "heard":
                world.pipe.heard()
            elif step == "turn":
                world.turns.end_turn()
            else:
                received += world.read()
        while len(received) < len(sent):
            world.turns.end_turn()
            more = world.read()
            self.assertTrue(more)
            received += more
        self.assertEqual(received, sent)
        world.close()
        self.assertEqual(world.turns.getDelayedCalls(), [])
