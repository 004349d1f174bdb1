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

from . import audit
from .audit import AuditEvent, Kind
from .database import Database

#: More than a busy minute; a daemon whose disk is full does not grow for longer.
MAXIMUM_WAITING: Final = 10_000
#: In one transaction, so that a refresh that comes behind it need not wait long.
MAXIMUM_BATCH: Final = 1_000


class AuditTrail:
    """
    Collects events and writes them down now and then.

    @ivar lost: how many events could not be kept, ever.
    """

    _log = Logger()

    def __init__(
        self,
        database: Database,
        now: Callable[[], float],
        *,
        maximum_waiting: int = MAXIMUM_WAITING,
    ) -> None:
        """
        @param database: the store.
        @param now: seconds since the epoch.
        @param maximum_waiting: events that are kept until they are written.
        """
        self._database = database
        self._now = now
        self._maximum_waiting = maximum_waiting
        self._waiting: deque[AuditEvent] = deque()
        self._flushing = DeferredLock()
        self._newly_lost = 0
        self.lost = 0

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
        @param event: it has happened. Where too many wait, the oldest stay: the
            beginning of a disturbance says more than its end.
        """
        if len(self._waiting) >= self._maximum_waiting:
            self.lost += 1
            self._newly_lost += 1
        else:
            self._waiting.append(event)

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
        Write down what waits, in one transaction after the other.

        @raise StoreError: the store cannot be used; what waits, waits on.
        """
        await self._flushing.run(lambda: Deferred.fromCoroutine(self._flush()))

    async def _flush(self) -> None:
        while self._waiting or self._newly_lost:
            batch = list(islice(self._waiting, MAXIMUM_BATCH))
            lost = 0 if len(batch) < len(self._waiting) else self._newly_lost
            rows = batch
            if lost:
                told = AuditEvent(at=self.now, kind=Kind.EVENTS_LOST, outcome=str(lost))
                rows = [*batch, told]
            await self._database.write(partial(audit.insert_many, events=rows))
            for _ in batch:
                self._waiting.popleft()
            if lost:
                self._newly_lost -= lost
                self._log.error("{count} audit events were lost", count=lost)
