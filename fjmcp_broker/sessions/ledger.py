"""
The sessions' rows in the store, as far as the registry needs them.

Opening, adopting and finding a session again wait for the store. Everything else is
written behind the answer.
"""

# Methods of a zope Interface have no self.
# ruff: noqa: N805

from collections.abc import Collection, Mapping

import msgspec
from zope.interface import Interface

from fjmcp_broker.sessions.handshake import Identity, Told


class StoredSession(msgspec.Struct, frozen=True):
    """
    A session as its row has it.

    @ivar identity: whose it is.
    @ivar revision: the negotiated protocol revision.
    @ivar told: what its children are told.
    @ivar seen: what of them its client has seen, as L{Sight.text} gives it.
    """

    identity: Identity
    revision: str
    told: Told
    seen: str | None = None


class ISessionLedger(Interface):
    """
    Where sessions are written down. L{fjmcp_broker.sessions.rows.SessionRows} does it
    in the store.
    """

    async def opened(
        digest: bytes, grant_id: str, revision: str, initialize: bytes, now: int
    ) -> bool:
        """
        @param digest: SHA-256 of the session id.
        @param grant_id: the grant that it belongs to.
        @param revision: the negotiated protocol revision.
        @param initialize: the client's raw C{initialize} params, stored sealed.
        @param now: seconds since the epoch.
        @return: whether it was written; not when the grant has ended meanwhile.
        @raise StoreError: the store cannot be used.
        """

    async def revised(digest: bytes, revision: str) -> bool:
        """
        @param digest: of the session.
        @param revision: the negotiated protocol revision, after all.
        @return: whether the session is open.
        @raise StoreError: the store cannot be used.
        """

    async def closed(digest: bytes, now: int, reason: str) -> None:
        """
        @param digest: of the session.
        @param now: seconds since the epoch.
        @param reason: short.
        """

    async def moved(digest: bytes, from_grant: str, to_grant: str, now: int) -> bool:
        """
        @param digest: of the session.
        @param from_grant: where it belongs now.
        @param to_grant: where it belongs from now on.
        @param now: seconds since the epoch.
        @return: whether it was there, and the other grant lives.
        """

    async def touched(activity: Mapping[bytes, int], seen: Mapping[bytes, str]) -> None:
        """
        @param activity: when each session was last used.
        @param seen: what of their children clients have seen.
        """

    async def found(digest: bytes) -> StoredSession | None:
        """
        @param digest: SHA-256 of a session id.
        @return: the session, or C{None}: unknown, closed, or its grant has ended.
        @raise StoreError: the store cannot be used.
        """

    async def told(
        digest: bytes, log_level: str | None, subscriptions: Collection[str]
    ) -> None:
        """
        @param digest: of the session.
        @param log_level: as the client set it.
        @param subscriptions: all URIs that it is subscribed to.
        """

    async def close_unused(now: int, unused_since: int) -> list[bytes]:
        """
        @param now: seconds since the epoch.
        @param unused_since: seconds since the epoch.
        @return: the digests of the sessions that nobody used since and that are
            closed now.
        """

    async def close_surplus(
        grant_id: str, keep: int, spared: Collection[bytes], now: int
    ) -> list[bytes]:
        """
        @param grant_id: whose sessions.
        @param keep: how many may stay beside those spared.
        @param spared: digests of sessions that stay in any case.
        @param now: seconds since the epoch.
        @return: the digests of the longest unused ones, which are closed now.
        """
