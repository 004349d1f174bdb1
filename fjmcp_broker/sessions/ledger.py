"""
The sessions' rows in the store, as far as the registry needs them.

Only opening and adopting a session wait for the store. Everything else is written
behind the answer: a lost write costs a row that the next start closes.
"""

# Methods of a zope Interface have no self.
# ruff: noqa: N805

from collections.abc import Mapping

from zope.interface import Interface


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

    async def touched(activity: Mapping[bytes, int]) -> None:
        """
        @param activity: when each session was last used.
        """

    async def close_all_open(now: int, reason: str) -> None:
        """
        @param now: seconds since the epoch.
        @param reason: short.
        """
