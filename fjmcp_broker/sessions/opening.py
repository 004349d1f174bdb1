"""
The row of a session that is being opened. It is written while the first child starts,
which takes longer than a commit, so that nobody waits for one after the other. Of the
child's answer it needs the revision: that is taken from the answer to the last client
that asked for the same, and corrected before this one is answered if it is another now.
"""

from collections.abc import Callable

from twisted.internet.defer import Deferred

from fjmcp_broker.logs import background
from fjmcp_broker.mcp.messages import NULL
from fjmcp_broker.mcp.versions import answered_version, revision_of_session
from fjmcp_broker.sessions.ledger import ISessionLedger
from fjmcp_broker.sessions.session import Session


class Revisions:
    """
    Which revision children agree on when they are asked for one.
    """

    def __init__(self) -> None:
        """Nothing is known: the one that is asked for."""
        self._agreed: dict[str, str] = {}

    def expected(self, asked: str) -> str:
        """
        @param asked: of C{revision_of_session}, so that there are few.
        @return: what was agreed on last.
        """
        return self._agreed.get(asked, asked)

    def learn(self, asked: str, agreed: str) -> None:
        """
        @param asked: of C{revision_of_session}.
        @param agreed: what the child said to that.
        """
        self._agreed[asked] = agreed


class OpeningRow:
    """
    One row.
    """

    def __init__(
        self,
        ledger: ISessionLedger,
        session: Session,
        params: bytes | None,
        revisions: Revisions,
        close: Callable[[bytes, str], None],
    ) -> None:
        """
        @param ledger: the rows.
        @param session: is being opened.
        @param params: raw JSON of the params of the client's C{initialize}.
        @param revisions: what to expect.
        @param close: closes a row: digest and reason.
        """
        self._ledger = ledger
        self._session = session
        self._params = params or NULL
        self._asked = revision_of_session(answered_version(self._params))
        self._revisions = revisions
        self._close = close
        self._written = ""
        self._writing: Deferred[bool] | None = None
        self._is_settled = False

    def begin(self, now: int) -> None:
        """
        Have it written, once.

        @param now: seconds since the epoch.
        """
        if self._writing is not None:
            return
        self._written = self._revisions.expected(self._asked)
        self._writing = Deferred.fromCoroutine(
            self._ledger.opened(
                self._session.digest,
                self._session.grant_id,
                self._written,
                self._params,
                now,
            )
        )

    async def settle(self, now: int) -> bool:
        """
        Wait until the row is there, with the revision that the session has now.

        @param now: seconds since the epoch.
        @return: whether it was written; not when the grant has ended meanwhile.
        @raise StoreError: the store cannot be used; then the row is not there, or
            closed as soon as possible.
        """
        self.begin(now)
        assert self._writing is not None  # noqa: S101 - it has just begun
        self._is_settled = True
        if not await self._writing:
            return False
        revision = self._session.revision
        self._revisions.learn(self._asked, revision)
        if revision == self._written:
            return True
        try:
            return await self._ledger.revised(self._session.digest, revision)
        except BaseException:
            self._close(self._session.digest, "not_opened")
            raise

    def drop(self, reason: str) -> None:
        """
        The session was not opened. Nobody knows its id.

        @param reason: short.
        """
        if self._writing is not None and not self._is_settled:
            self._is_settled = True
            background(self._undo(self._writing, reason), "dropping a session's row")

    async def _undo(self, writing: "Deferred[bool]", reason: str) -> None:
        if await writing:
            self._close(self._session.digest, reason)
