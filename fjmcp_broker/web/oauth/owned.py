"""
Work that finishes whether or not the client still waits for it.
"""

from collections.abc import Coroutine
from typing import Any, TypeVar

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from fjmcp_broker.errors import BrokerError

T = TypeVar("T")

log = Logger()


def finish(coroutine: Coroutine[Deferred[Any], Any, T], what: str) -> "Deferred[T]":
    """
    Start work in a task of its own. The route that waits for it is cancelled when
    its client disconnects; a store that has committed must be followed by what
    belongs to the commit all the same.

    @param coroutine: the work.
    @param what: names it in the log when it fails after its waiter has gone.
    @return: fires with its result; cancelling it leaves the work alone.
    """
    answer: Deferred[T] = Deferred()

    def done(result: T | Failure) -> None:
        if isinstance(result, Failure):
            if not answer.called:
                answer.errback(result)
            elif result.check(BrokerError):
                log.warn("{what} failed: {why}", what=what, why=str(result.value))
            else:
                log.failure("{what} failed", result, what=what)
        elif not answer.called:
            answer.callback(result)

    Deferred.fromCoroutine(coroutine).addBoth(done)
    return answer
