"""
The way of audit events to the store: off the path of whoever causes them, many at once.
"""

from collections import deque
from collections.abc import Callable
from functools import partial
from itertools import islice
from typing import Final

from twisted.internet.defer import Deferred, DeferredLock
from twisted.logger import Logger

from fjmcp_broker.oauth.bearer import Principal

from .audit import AuditEvent, Kind, Row, insert_rows, row_of
from .database import Database

#: A daemon whose disk is full does not grow for longer.
MAXIMUM_WAITING: Final = 10_000
#: So many are not left to the next time that they would be written anyway. From here to
#: the maximum there is half a second at 15,000 calls in a second, in which a disk that
#: takes 10 ms for a transaction writes 50,000.
MANY_WAITING: Final = 2_000
#: In one transaction, so that a refresh that comes behind it need not wait long.
MAXIMUM_BATCH: Final = 1_000


class AuditTrail:
    """
    Collects events and writes them down now and then.

    @ivar lost: how many events could not be kept, ever.
    @ivar on_many: called when so many wait that they should be written now. When that
        fails it is not called again before they have become fewer: what is tried
        again now and then anyway need not be tried with each further event.
    """

    _log = Logger()

    def __init__(
        self,
        database: Database,
        now: Callable[[], float],
        *,
        maximum_waiting: int = MAXIMUM_WAITING,
        many_waiting: int = MANY_WAITING,
    ) -> None:
        """
        @param database: the store.
        @param now: seconds since the epoch.
        @param maximum_waiting: events that are kept until they are written.
        @param many_waiting: events at which C{on_many} is called.
        """
        self._database = database
        self._now = now
        self._maximum_waiting = maximum_waiting
        self._many_waiting = many_waiting
        self._waiting: deque[Row] = deque()
        self._flushing = DeferredLock()
        self._newly_lost = 0
        self.lost = 0
        self.on_many: Callable[[], None] = lambda: None

    @property
    def waiting(self) -> int:
        """
        @return: how many events are not written yet.
        """
        return len(self._waiting)

    @property
    def now(self) -> int:
        """
        @return: the time for an event that is over now.
        """
        return int(self._now())

    def note(self, event: AuditEvent) -> None:
        """
        @param event: it has happened.
        """
        self._keep(row_of(event))

    def called(
        self,
        whose: Principal,
        session: str,
        tool: str,
        outcome: str,
        duration_seconds: float,
    ) -> None:
        """
        A call of a tool is over now. Of these there are thousands in a second, so
        that their rows are made at once, of what is there already.

        @param whose: who called.
        @param session: what the log calls the session.
        @param tool: as in L{AuditEvent}.
        @param outcome: likewise.
        @param duration_seconds: from the headers of the request to its answer.
        """
        self._keep(
            (
                int(self._now()),
                whose.user_id,
                whose.client_id,
                whose.grant_id,
                session,
                tool,
                outcome,
                round(duration_seconds * 1000) if duration_seconds > 0 else 0,
            )
        )

    def grant_ended(self, grant_id: str) -> None:
        """
        @param grant_id: it has ended; the store knows why.
        """
        self.note(
            AuditEvent(
                at=self.now, kind=Kind.GRANT_ENDED, outcome="", grant_id=grant_id
            )
        )

    def user_suspended(self, user_id: int) -> None:
        """
        @param user_id: who has to sign in at Forgejo again.
        """
        self.note(
            AuditEvent(
                at=self.now,
                kind=Kind.USER_SUSPENDED,
                outcome="needs_sign_in",
                user_id=user_id,
            )
        )

    async def flush(self) -> None:
        """
        Write down what waits, in one transaction after the other. What comes meanwhile
        is left to the next time unless it is much: else each transaction would be
        followed by one for the few that came during it, and each of them waits for the
        disk.

        @raise StoreError: the store cannot be used; what waits, waits on.
        """
        await self._flushing.run(lambda: Deferred.fromCoroutine(self._flush()))

    async def _flush(self) -> None:
        left = len(self._waiting)
        while left > 0 or self._newly_lost or len(self._waiting) >= self._many_waiting:
            batch: list[Row] = list(islice(self._waiting, MAXIMUM_BATCH))
            left -= len(batch)
            lost = 0 if len(batch) < len(self._waiting) else self._newly_lost
            rows = batch
            if lost:
                told = AuditEvent(at=self.now, kind=Kind.EVENTS_LOST, outcome=str(lost))
                rows = [*batch, row_of(told)]
            await self._database.write(partial(insert_rows, rows=rows))
            for _ in batch:
                self._waiting.popleft()
            if lost:
                self._newly_lost -= lost
                self._log.error("{count} audit events were lost", count=lost)

    def _keep(self, row: Row) -> None:
        """
        Where too many wait, the oldest stay: the beginning of a disturbance says more
        than its end.
        """
        waiting = len(self._waiting)
        if waiting >= self._maximum_waiting:
            self.lost += 1
            self._newly_lost += 1
            return
        self._waiting.append(row)
        if waiting + 1 == self._many_waiting and not self._flushing.locked:
            self.on_many()
