"""What is logged and how: levels, formats, redaction, detached work."""

from collections.abc import Coroutine
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

log = Logger()


def background(coroutine: Coroutine[Deferred[Any], Any, object], what: str) -> None:
    """
    Start work that nobody waits for; its failure is logged, its result dropped.

    @param coroutine: the work.
    @param what: names it in the log, from our own code alone.
    """

    def failed(failure: Failure) -> None:
        if not failure.check(CancelledError):
            log.failure("{what} failed", failure=failure, what=what)

    Deferred.fromCoroutine(coroutine).addErrback(failed)
