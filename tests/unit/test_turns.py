"""Short turns, with real descriptors."""

import errno
import os
import socket
from collections.abc import Callable
from functools import partial
from select import EPOLLHUP, EPOLLIN, EPOLLOUT, epoll
from typing import Any

from twisted.internet.base import ReactorBase
from twisted.internet.epollreactor import EPollReactor
from twisted.trial.unittest import SynchronousTestCase

from fjmcp_broker.turns import MOST, ShortTurns, keep_turns_short


class Reader:
    """Reads one byte of a descriptor, and remembers when."""

    def __init__(self, descriptor: int, order: list["Reader"]) -> None:
        """What it reads, and where it says so."""
        self.descriptor = descriptor
        self.order = order
        self.then: Callable[[], object] = list
        self.is_lost = False

    def fileno(self) -> int:
        """What the reactor looks at."""
        return self.descriptor

    def logPrefix(self) -> str:  # noqa: N802 - Twisted's
        """For the log."""
        return "reader"

    def doRead(self) -> None:  # noqa: N802 - Twisted's
        """It is ready."""
        os.read(self.descriptor, 1)
        self.order.append(self)
        self.then()

    def connectionLost(self, reason: object) -> None:
        """The reactor forgets it."""
        self.is_lost = True


class _Reactor(ReactorBase):
    """One that has no C{epoll}."""

    def installWaker(self) -> None:  # noqa: N802 - Twisted's name
        """Nobody wakes it."""


class _Full:
    """Waits for as many as C{max_user_watches} allows."""

    def register(self, descriptor: int, events: int) -> None:
        """One too many."""
        raise OSError(errno.ENOSPC, "no room")


class ShortTurnsTests(SynchronousTestCase):
    """The poller itself."""

    def setUp(self) -> None:
        """Nothing is waited for."""
        inner = epoll()
        self.addCleanup(inner.close)
        self.poller = ShortTurns(inner)

    def pair(self) -> tuple[socket.socket, socket.socket]:
        """Two ends of a connection."""
        ends = socket.socketpair()
        for end in ends:
            self.addCleanup(end.close)
        return ends

    def sockets(self, count: int) -> list[int]:
        """So many that are ready to be read."""
        found = []
        for _ in range(count):
            ours, theirs = self.pair()
            theirs.send(b"?")
            self.poller.register(ours.fileno(), EPOLLIN)
            found.append(ours.fileno())
        return found

    def pipe(self) -> int:
        """One that is ready to be read."""
        reading, writing = os.pipe()
        self.addCleanup(os.close, reading)
        os.write(writing, b"!")
        os.close(writing)
        self.poller.register(reading, EPOLLIN)
        return reading

    def test_few(self) -> None:
        """All of them, in the order in which they became ready."""
        sockets = self.sockets(MOST - 2)
        pipe = self.pipe()
        ready = self.poller.poll(0, 1000)
        expected = [(each, EPOLLIN) for each in sockets]
        self.assertEqual(ready, [*expected, (pipe, EPOLLIN | EPOLLHUP)])

    def test_many(self) -> None:
        """A part of them, each once, behind the pipes; the rest has its turn."""
        sockets = self.sockets(MOST // 2)
        pipes = [self.pipe() for _ in range(MOST)]
        sockets += self.sockets(2 * MOST)
        seen: set[int] = set()
        for _ in range(4):
            ready = [descriptor for descriptor, _ in self.poller.poll(0, 1000)]
            self.assertEqual(len(ready), len(set(ready)))
            self.assertEqual(ready[: len(pipes)], pipes)
            self.assertLessEqual(len(ready) - len(pipes), MOST)
            seen.update(ready)
        self.assertEqual(seen, {*pipes, *sockets})

    def test_pipe_no_more(self) -> None:
        """One that is not waited for any more, or for something else, is not found,
        and its number may be that of another one."""
        changed, gone = self.pipe(), self.pipe()
        self.poller.modify(changed, EPOLLOUT)
        self.poller.unregister(gone)
        self.sockets(MOST)
        ready = dict(self.poller.poll(0, 1000))
        self.assertNotIn(gone, ready)
        self.assertEqual(ready.get(changed, EPOLLHUP), EPOLLHUP)
        ours, theirs = self.pair()
        os.dup2(ours.fileno(), gone)
        theirs.send(b"?")
        self.poller.register(gone, EPOLLIN)
        self.poller.unregister(gone)
        self.poller.unregister(changed)
        self.assertEqual(len(self.poller.poll(0, 1000)), MOST)

    def test_pipe_closed_without_a_word(self) -> None:
        """The next one with its number may be anything."""
        reading, writing = os.pipe()
        os.close(writing)
        self.poller.register(reading, EPOLLIN)
        os.close(reading)
        ours, _ = self.pair()
        if ours.fileno() != reading:
            os.dup2(ours.fileno(), reading)
            self.addCleanup(os.close, reading)
        self.poller.register(reading, EPOLLIN)
        self.poller.modify(reading, EPOLLOUT)
        self.assertIn((reading, EPOLLOUT), self.poller.poll(0, 1000))
        self.poller.unregister(reading)
        self.assertEqual(self.poller.poll(0, 1000), [])

    def test_no_room_to_take_it_first(self) -> None:
        """A pipe is waited for all the same."""
        other: Any = _Full()
        self.poller._pipes.close()
        self.poller._pipes = other
        pipe = self.pipe()
        self.assertEqual(self.poller.poll(0, 1000), [(pipe, EPOLLIN | EPOLLHUP)])
        self.poller.modify(pipe, EPOLLIN)
        self.poller.unregister(pipe)
        self.assertEqual(self.poller.poll(0, 1000), [])

    def test_no_room(self) -> None:
        """Nothing is kept of one that is not waited for."""
        poller = ShortTurns(_Full())
        self.addCleanup(poller._pipes.close)
        reading, writing = os.pipe()
        self.addCleanup(os.close, reading)
        os.close(writing)
        self.assertRaises(OSError, poller.register, reading, EPOLLIN)
        self.assertEqual(poller._pipes.poll(0, 10), [])

    def test_what_cannot_be_waited_for(self) -> None:
        """A file: the poller says so, and Twisted knows what to do."""
        with open(__file__, "rb") as file:
            with self.assertRaises(PermissionError):
                self.poller.register(file.fileno(), EPOLLIN)

    def test_the_rest(self) -> None:
        """Is the poller's own."""
        self.assertGreaterEqual(self.poller.fileno(), 0)


class ReactorTests(SynchronousTestCase):
    """Twisted's reactor."""

    def reactor(self) -> Any:
        """One of its own, that does not run."""
        reactor: Any = EPollReactor()
        for end in ("i", "o"):
            waker = getattr(reactor.waker, end, None)
            if waker is not None:
                self.addCleanup(os.close, waker)
        self.addCleanup(reactor._poller.close)
        self.assertTrue(keep_turns_short(reactor))
        return reactor

    def readable(self) -> int:
        """A descriptor that has something."""
        ours, theirs = socket.socketpair()
        self.addCleanup(ours.close)
        self.addCleanup(theirs.close)
        theirs.send(b"?")
        return ours.fileno()

    def test_forgotten_in_the_same_turn(self) -> None:
        """One that is not to be read any more is not read, though it was ready."""
        reactor = self.reactor()
        order: list[Reader] = []
        first, second = Reader(self.readable(), order), Reader(self.readable(), order)
        for one, other in ((first, second), (second, first)):
            one.then = partial(reactor.removeReader, other)
            reactor.addReader(one)
        reactor.doIteration(0)
        self.assertEqual(len(order), 1)
        reactor.removeAll()

    def test_one_that_fails(self) -> None:
        """Is dropped and logged, and the next one is read."""
        reactor = self.reactor()
        order: list[Reader] = []
        first, second = Reader(self.readable(), order), Reader(self.readable(), order)

        def fail() -> None:
            raise ValueError("as the test wants it")

        first.then = fail
        for each in (first, second):
            reactor.addReader(each)
        reactor.doIteration(None)
        self.assertEqual(order, [first, second])
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 1)
        self.assertTrue(first.is_lost)
        self.assertFalse(second.is_lost)
        reactor.removeAll()

    def test_answers_first(self) -> None:
        """Where more is ready than a turn takes, what a pipe has is read first, though
        it came last; and nothing is left out."""
        reactor = self.reactor()
        order: list[Reader] = []
        for _ in range(2 * MOST):
            reactor.addReader(Reader(self.readable(), order))
        reading, writing = os.pipe()
        self.addCleanup(os.close, reading)
        self.addCleanup(os.close, writing)
        os.write(writing, b"!")
        pipe = Reader(reading, order)
        reactor.addReader(pipe)
        reactor.doIteration(0)
        self.assertIs(order[0], pipe)
        self.assertLessEqual(len(order), MOST + 1)
        while len(order) < 2 * MOST + 1:
            before = len(order)
            reactor.doIteration(0)
            self.assertGreater(len(order), before)
        reactor.removeAll()

    def test_another_reactor(self) -> None:
        """Stays as it is."""
        self.assertFalse(keep_turns_short(_Reactor()))
