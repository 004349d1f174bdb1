"""
Looking up names that strangers chose.

A name server that does not answer holds a thread for as long as the system's resolver
is patient. The threads are the same that look up Forgejo, so strangers get only some.
"""

import socket
from collections.abc import Callable, Sequence
from typing import Any, Final

from twisted.internet.defer import Deferred, fail
from twisted.internet.threads import deferToThreadPool
from twisted.logger import Logger
from twisted.python.failure import Failure

LOOKUPS_AT_ONCE: Final = 4

#: Gives the addresses of a name in numbers, none when there are none.
LookUp = Callable[[str], Deferred[Sequence[str]]]


class TooManyLookups(Exception):  # noqa: N818 - the name says what happened
    """All threads for this are taken."""


# The reactor is Any: no one interface has its pool of threads and what goes with it.
def system_look_up(reactor: Any) -> LookUp:
    """
    @param reactor: Twisted's; its threads are used.
    @return: the system's resolver.
    """

    def look_up(host: str) -> Deferred[Sequence[str]]:
        pool = reactor.getThreadPool()
        # Not through the reactor's own resolver: a lookup that fails in an unexpected
        # way never ends there.
        answer: Deferred[Sequence[str]] = deferToThreadPool(
            reactor, pool, _addresses, host
        )
        return answer

    return look_up


def _addresses(host: str) -> Sequence[str]:
    """
    Blocks.
    """
    try:
        # With its dot a name is not tried in the domains of the local network.
        found = socket.getaddrinfo(f"{host}.", None, type=socket.SOCK_STREAM)
    except socket.gaierror:
        return ()
    return tuple(dict.fromkeys(str(address[0]) for *_, address in found))


class SystemResolver:
    """
    A few lookups at a time. One that nobody waits for any more still counts until it
    has ended: it cannot be cut short.

    @ivar under_way: lookups that have not ended.
    """

    _log = Logger()

    def __init__(self, look_up: LookUp, at_once: int = LOOKUPS_AT_ONCE) -> None:
        """
        @param look_up: see L{system_look_up}.
        @param at_once: how many lookups.
        """
        self._look_up = look_up
        self._at_once = at_once
        self.under_way = 0

    def __call__(self, host: str) -> Deferred[Sequence[str]]:
        """
        @param host: a DNS name, ASCII.
        @return: fires with its addresses in numbers, none when there are none; fails
            with L{TooManyLookups}. Cancelling it stops the waiting only.
        """
        if self.under_way >= self._at_once:
            return fail(TooManyLookups())
        self.under_way += 1
        answer: Deferred[Sequence[str]] = Deferred()
        self._look_up(host).addBoth(self._ended, answer)
        return answer

    def _ended(
        self, outcome: Sequence[str] | Failure, answer: "Deferred[Sequence[str]]"
    ) -> None:
        self.under_way -= 1
        if not answer.called:
            answer.callback(outcome)  # a Failure fails it
        elif isinstance(outcome, Failure):
            self._log.warn(
                "a name could not be looked up, and nobody waits for it: {error}",
                error=outcome.value,
            )
