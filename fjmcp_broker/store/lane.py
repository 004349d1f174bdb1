"""
A narrow way to the writer, for what anybody may ask for.

The writer does one transaction after the other. Without this a flood of registrations
would stand in its queue before the refreshes of those who are signed in.
"""

import sqlite3
from collections import deque
from collections.abc import Callable
from typing import Final, TypeVar

from twisted.internet.defer import Deferred, TimeoutError
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from .database import Database
from .errors import StoreUnavailable

T = TypeVar("T")

MAXIMUM_WAITING: Final = 64
PATIENCE_SECONDS: Final = 5.0


class Lane:
    """
    At most one transaction of those that come this way is with the writer; a bounded
    number waits here.
    """

    _log = Logger()

    def __init__(
        self,
        database: Database,
        clock: IReactorTime,
        *,
        maximum_waiting: int = MAXIMUM_WAITING,
        patience_seconds: float = PATIENCE_SECONDS,
    ) -> None:
        """
        @param database: the store.
        @param clock: for the wait.
        @param maximum_waiting: transactions that may wait; one more is refused.
        @param patience_seconds: how long one may.
        """
        self._database = database
        self._clock = clock
        self._maximum_waiting = maximum_waiting
        self._patience_seconds = patience_seconds
        self._is_busy = False
        self._waiting: deque[Deferred[None]] = deque()

    @property
    def waiting(self) -> int:
        """
        @return: how many transactions wait.
        """
        return len(self._waiting)

    async def read(self, query: Callable[[sqlite3.Connection], T]) -> T:
        """
        @param query: as for L{Database.read}, where it goes at once.
        @return: what it returned.
        @raise StoreUnavailable: as for L{Database.read}.
        """
        return await self._database.read(query)

    async def write(self, transaction: Callable[[sqlite3.Connection], T]) -> T:
        """
        Run one transaction when it is its turn. Cancelled before, it does not run:
        nobody waits for it any more.

        @param transaction: as for L{Database.write}.
        @return: what it returned, after the commit.
        @raise StoreUnavailable: as for L{Database.write}; or too many wait, or it has
            waited for too long.
        """
        if self._is_busy:
            await self._wait()
        self._is_busy = True
        # Its end counts, not the end of whoever waits for it.
        written = Deferred.fromCoroutine(self._database.write(transaction))
        answer: Deferred[T] = Deferred()
        written.addBoth(self._done, answer)
        return await answer

    async def _wait(self) -> None:
        if len(self._waiting) >= self._maximum_waiting:
            raise StoreUnavailable("the store is not available: too much to do")
        turn: Deferred[None] = Deferred(self._leave)
        self._waiting.append(turn)
        turn.addTimeout(self._patience_seconds, self._clock)
        try:
            await turn
        except TimeoutError:
            raise StoreUnavailable(
                "the store is not available: too much to do"
            ) from None

    def _leave(self, turn: "Deferred[None]") -> None:
        self._waiting.remove(turn)

    def _done(self, result: T | Failure, answer: "Deferred[T]") -> None:
        self._is_busy = False
        if self._waiting:
            # Taken before anybody else can come in between.
            self._is_busy = True
            self._waiting.popleft().callback(None)
        if not answer.called:
            answer.callback(result)  # a Failure fails it
        elif isinstance(result, Failure):
            self._log.warn(
                "a transaction failed after its caller had gone: {error}",
                error=result.value,
            )
