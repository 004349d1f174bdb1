"""
What is written down about sessions behind the answers to their clients, and tried
again for as long as the store cannot be written.
"""

from msgspec.structs import replace

from fjmcp_broker.logs import background
from fjmcp_broker.sessions.handshake import Told
from fjmcp_broker.sessions.ledger import ISessionLedger, StoredSession
from fjmcp_broker.sessions.list_changed import Sights


class Notes:
    """
    When sessions were used, what their next children are told, and what their clients
    have seen.
    """

    def __init__(self, ledger: ISessionLedger, sights: Sights) -> None:
        """
        @param ledger: the rows.
        @param sights: what clients have seen.
        """
        self._ledger = ledger
        self._sights = sights
        self._used: dict[bytes, int] = {}
        self._told: dict[bytes, Told] = {}

    def used(self, digest: bytes, at: int) -> None:
        """
        @param digest: of a session.
        @param at: when it was used, seconds since the epoch; written in batches.
        """
        self._used[digest] = at

    def told(self, digest: bytes, told: Told) -> None:
        """
        @param digest: of a session.
        @param told: what its next child is told; written at once, behind the answer.
        """
        self._told[digest] = told
        background(
            self._write_told(digest), "writing down what a session's children are told"
        )

    def newest(self, digest: bytes, stored: StoredSession) -> StoredSession:
        """
        @param digest: of a session.
        @param stored: its row.
        @return: the same with what is not written yet.
        """
        told = self._told.get(digest)
        return stored if told is None else replace(stored, told=told)

    def forget(self, digest: bytes) -> None:
        """
        @param digest: of a session that was closed.
        """
        self._used.pop(digest, None)
        self._told.pop(digest, None)

    async def flush(self) -> None:
        """
        Write down what is not written yet.

        @raise StoreError: the store cannot be used; it is kept for the next time.
        """
        for digest in list(self._told):
            await self._write_told(digest)
        used, self._used = self._used, {}
        seen = self._sights.take_changed()
        if used or seen:
            try:
                texts = {digest: sight.text() for digest, sight in seen.items()}
                await self._ledger.touched(used, texts)
            except BaseException:
                self._used = {**used, **self._used}
                self._sights.put_back(seen)
                raise

    async def _write_told(self, digest: bytes) -> None:
        told = self._told.get(digest)
        if told is not None:
            await self._ledger.told(digest, told.log_level, told.subscriptions)
            if self._told.get(digest) is told:
                del self._told[digest]
