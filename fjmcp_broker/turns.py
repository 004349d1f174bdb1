"""
Short turns of the event loop, in which answers come before questions.

Twisted reads in one turn from all that is ready. When a thousand clients ask at once,
the thousandth question has been taken, and each costs memory and has its timers,
before the first answer is looked at; and as whoever is answered asks again, it stays
so. Here a turn takes a part of what is ready, and when there is more, what pipes have
is taken first: they come from children, which answer. What is not taken waits where it
costs nothing, in the system's buffers, and each has its turn.
"""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from select import epoll
from typing import Any, Final

from twisted.internet.epollreactor import EPollReactor

MOST: Final = 64
"""So many descriptors are taken in a turn; of pipes twice as many."""


class ShortTurns:
    """
    Stands before the poller of a reactor.
    """

    def __init__(self, poller: Any) -> None:
        """
        @param poller: C{select.epoll}; what is in it already is never taken first.
            It is C{Any} because all that is not here is left to it.
        """
        self._poller = poller
        self._pipes = epoll()
        self._is_pipe: set[int] = set()

    def poll(self, timeout: float, most: int) -> list[tuple[int, int]]:
        """
        @param timeout: in seconds; negative: for as long as it takes.
        @param most: so many descriptors at most.
        @return: descriptors that are ready, each once, with their events.
        """
        ready: list[tuple[int, int]] = self._poller.poll(timeout, min(most, MOST))
        if len(ready) < MOST:
            return ready
        first = dict(self._pipes.poll(0, 2 * MOST))
        return [*first.items(), *(each for each in ready if each[0] not in first)]

    def register(self, descriptor: int, events: int) -> None:
        """
        @param descriptor: to be waited for.
        @param events: of it.
        @raise OSError: it cannot be waited for.
        """
        self._poller.register(descriptor, events)
        # The number may have been that of a pipe that was closed without a word.
        self._is_pipe.discard(descriptor)
        if stat.S_ISFIFO(os.fstat(descriptor).st_mode):
            # The system has room for so many descriptors of a user that are waited
            # for; one too many is waited for all the same, but never taken first.
            with suppress(OSError):
                self._pipes.register(descriptor, events)
                self._is_pipe.add(descriptor)

    def modify(self, descriptor: int, events: int) -> None:
        """
        @param descriptor: was given to L{register}.
        @param events: instead of those before.
        """
        if descriptor in self._is_pipe:
            self._pipes.modify(descriptor, events)
        self._poller.modify(descriptor, events)

    def unregister(self, descriptor: int) -> None:
        """
        @param descriptor: was given to L{register}.
        """
        if descriptor in self._is_pipe:
            self._is_pipe.remove(descriptor)
            self._pipes.unregister(descriptor)
        self._poller.unregister(descriptor)

    def __getattr__(self, name: str) -> Any:
        """
        @return: whatever else the poller has.
        """
        return getattr(self._poller, name)


class Turn:
    """
    One turn: what C{EPollReactor.doPoll} does, but for the names that it puts on what
    is written to Twisted's old log meanwhile, and that nobody reads here.
    """

    def __init__(self, reactor: Any) -> None:
        """
        @param reactor: whose turn it is.
        """
        self._poll = reactor._poller.poll
        self._known = reactor._selectables
        self._serve = reactor._doReadOrWrite

    def __call__(self, timeout: float | None) -> None:
        """
        @param timeout: in seconds; C{None}: for as long as it takes.
        """
        known, serve = self._known, self._serve
        for descriptor, event in self._poll(-1 if timeout is None else timeout, MOST):
            # One that was served before it may have closed it.
            selectable = known.get(descriptor)
            if selectable is not None:
                serve(selectable, descriptor, event)


def keep_turns_short(reactor: Any) -> bool:
    """
    @param reactor: Twisted's, before it runs. C{Any}, because its poller is its own.
    @return: whether its turns are short from here on: only those of Linux's C{epoll}.
    """
    if not isinstance(reactor, EPollReactor):
        return False
    reactor._poller = ShortTurns(reactor._poller)
    anything: Any = reactor
    anything.doIteration = anything.doPoll = Turn(reactor)
    return True
