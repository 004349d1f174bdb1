"""
Sessions and their rows: one object at most for each open row, made when somebody asks
for it and kept only while somebody holds it.
"""

from collections.abc import Callable, Collection, Iterable, Iterator
from weakref import WeakValueDictionary

from twisted.internet.interfaces import IReactorTime

from fjmcp_broker.logs import background
from fjmcp_broker.oauth.bearer import Principal
from fjmcp_broker.rights import allows_as_much
from fjmcp_broker.sessions.errors import SessionGone
from fjmcp_broker.sessions.ledger import ISessionLedger, StoredSession
from fjmcp_broker.sessions.session import Session

SessionFactory = Callable[[bytes, StoredSession], Session]
"""Makes a session from its row."""


class Shelf:
    """
    Finds sessions by the digests of their ids.
    """

    def __init__(
        self, ledger: ISessionLedger, clock: IReactorTime, make: SessionFactory
    ) -> None:
        """
        @param ledger: the rows.
        @param clock: tells the time.
        @param make: makes a session from its row.
        """
        self._ledger = ledger
        self._clock = clock
        self._make = make
        self._known: WeakValueDictionary[bytes, Session] = WeakValueDictionary()
        self._closing: dict[bytes, str] = {}
        self._ends = 0

    def __iter__(self) -> Iterator[Session]:
        """
        @return: the sessions that exist as objects, as of now.
        """
        return iter(list(self._known.values()))

    def put(self, session: Session) -> None:
        """
        @param session: its row has just been written.
        """
        self._known[session.digest] = session

    def known(self, digest: bytes) -> Session | None:
        """
        @param digest: SHA-256 of a session id.
        @return: the session, if somebody holds it.
        """
        return self._known.get(digest)

    async def find(self, digest: bytes) -> Session:
        """
        What ended while the row was read makes that worthless, since it may have been
        read before.

        @param digest: SHA-256 of a session id.
        @return: the session.
        @raise SessionGone: there is none, or it is closed.
        @raise StoreError: the row cannot be read.
        """
        while True:
            session = self._known.get(digest)
            if session is not None:
                return session
            if digest in self._closing:
                raise SessionGone("there is no such session")
            ends = self._ends
            stored = await self._ledger.found(digest)
            if ends != self._ends or digest in self._known:
                continue
            if stored is None:
                raise SessionGone("there is no such session")
            session = self._make(digest, stored)
            self._known[digest] = session
            return session

    async def adopt(self, session: Session, principal: Principal) -> None:
        """
        Clients sign in again and keep their session: it moves to the new grant, which
        lives, since its token was accepted.

        @param session: of the same user and another grant.
        @param principal: who presents its id.
        @raise SessionGone: it is one of another client, or of a grant that may do more.
        @raise StoreError: the move could not be written down.
        """
        while session.grant_id != principal.grant_id:
            if session.client_id != principal.client_id or not allows_as_much(
                principal.policy, session.policy
            ):
                raise SessionGone("there is no such session")
            before = session.grant_id
            moved = await self._ledger.moved(
                session.digest, before, principal.grant_id, int(self._clock.seconds())
            )
            if session.has_ended:
                raise SessionGone("there is no such session")
            if moved:
                session.moved(principal.grant_id, principal.policy)
            elif session.grant_id == before:
                raise SessionGone("there is no such session")
            # Else somebody was faster, and may be the next to lose it.

    def grant_ended(self) -> None:
        """Rows have been closed by somebody else."""
        self._ends += 1

    def closed(self, digests: Iterable[bytes], reason: str) -> None:
        """
        @param digests: of sessions whose rows were closed.
        @param reason: why.
        """
        for digest in digests:
            self._ends += 1
            session = self._known.get(digest)
            if session is not None:
                session.end(reason)

    async def close_unused(self, unused_seconds: int) -> None:
        """
        @param unused_seconds: sessions that nobody used for so long are closed.
        @raise StoreError: the store cannot be used.
        """
        now = int(self._clock.seconds())
        digests = await self._ledger.close_unused(now, now - unused_seconds)
        self.closed(digests, "unused")

    async def trim(self, grant_id: str, keep: int, spared: Collection[bytes]) -> None:
        """
        Close the longest unused of a grant's dormant sessions, if they are too many.

        @param grant_id: of the grant.
        @param keep: how many may stay.
        @param spared: digests of those that are not dormant.
        @raise StoreError: the store cannot be used.
        """
        now = int(self._clock.seconds())
        digests = await self._ledger.close_surplus(grant_id, keep, spared, now)
        self.closed(digests, "too_many_dormant")

    async def delete(self, session: Session, reason: str) -> None:
        """
        Close a session after its row.

        @param session: it stays as it is until then.
        @param reason: short.
        @raise StoreError: the row could not be closed.
        """
        now = int(self._clock.seconds())
        await self._ledger.closed(session.digest, now, reason)
        self.closed([session.digest], reason)

    def remove(self, session: Session) -> bool:
        """
        @param session: has ended.
        @return: whether it was here.
        """
        self._ends += 1
        return self._known.pop(session.digest, None) is not None

    def close_row(self, digest: bytes, reason: str) -> None:
        """
        Close a row, off the path of calls. Until that is done its session is unknown
        all the same.

        @param digest: of the session.
        @param reason: short.
        """
        self._closing[digest] = reason
        background(self._close_row(digest), "writing down the end of a session")

    async def close_rows(self) -> None:
        """
        Try again to close the rows that could not be closed.

        @raise StoreError: the store cannot be used.
        """
        for digest in list(self._closing):
            await self._close_row(digest)

    async def _close_row(self, digest: bytes) -> None:
        reason = self._closing.get(digest, "")
        await self._ledger.closed(digest, int(self._clock.seconds()), reason)
        self._closing.pop(digest, None)
