"""The sessions' rows in the store."""

from collections.abc import Collection, Mapping
from sqlite3 import Connection

from zope.interface import implementer

from fjmcp_broker.sessions.handshake import Identity, Told
from fjmcp_broker.sessions.ledger import ISessionLedger, StoredSession
from fjmcp_broker.store import grants, sessions
from fjmcp_broker.store.database import Database
from fjmcp_broker.store.sealing import Sealer


@implementer(ISessionLedger)
class SessionRows:
    """
    Writes sessions down in the store.
    """

    def __init__(self, database: Database, sealer: Sealer) -> None:
        """
        @param database: the store.
        @param sealer: seals the clients' C{initialize} params.
        """
        self._database = database
        self._sealer = sealer

    async def opened(
        self, digest: bytes, grant_id: str, revision: str, initialize: bytes, now: int
    ) -> bool:
        """
        @param digest: SHA-256 of the session id.
        @param grant_id: the grant that it belongs to.
        @param revision: the negotiated protocol revision.
        @param initialize: the client's raw C{initialize} params.
        @param now: seconds since the epoch.
        @return: whether it was written; not when the grant has ended meanwhile.
        @raise StoreError: the store cannot be used.
        """
        record = sessions.SessionRecord(
            session_digest=digest,
            grant_id=grant_id,
            protocol_version=revision,
            sealed_initialize=self._sealer.seal(
                initialize, row=sessions.initialize_row(digest)
            ),
            created_at=now,
            last_active_at=now,
        )

        def insert(connection: Connection) -> bool:
            grant = grants.find(connection, grant_id)
            if grant is None or grant.revoked_at is not None:
                return False
            sessions.insert(connection, record)
            return True

        return await self._database.write(insert)

    async def revised(self, digest: bytes, revision: str) -> bool:
        """
        @param digest: of the session.
        @param revision: the negotiated protocol revision, after all.
        @return: whether the session is open.
        @raise StoreError: the store cannot be used.
        """
        return await self._database.write(
            lambda connection: sessions.set_protocol_version(
                connection, digest, revision
            )
        )

    async def closed(self, digest: bytes, now: int, reason: str) -> None:
        """
        @param digest: of the session.
        @param now: seconds since the epoch.
        @param reason: short.
        @raise StoreError: the store cannot be used.
        """
        await self._database.write(
            lambda connection: sessions.close(connection, digest, now, reason)
        )

    async def moved(
        self, digest: bytes, from_grant: str, to_grant: str, now: int
    ) -> bool:
        """
        @param digest: of the session.
        @param from_grant: where it belongs now.
        @param to_grant: where it belongs from now on.
        @param now: seconds since the epoch.
        @return: whether it was there, and the other grant lives.
        @raise StoreError: the store cannot be used.
        """

        def move(connection: Connection) -> bool:
            return grants.is_live(connection, to_grant, now) and sessions.move(
                connection, digest, from_grant, to_grant
            )

        return await self._database.write(move)

    async def touched(
        self, activity: Mapping[bytes, int], seen: Mapping[bytes, str]
    ) -> None:
        """
        @param activity: when each session was last used.
        @param seen: what of their children clients have seen.
        @raise StoreError: the store cannot be used.
        """

        def touch(connection: Connection) -> None:
            sessions.touch_many(connection, list(activity.items()))
            sessions.set_seen_of_many(connection, list(seen.items()))

        await self._database.write(touch)

    async def found(self, digest: bytes) -> StoredSession | None:
        """
        @param digest: SHA-256 of a session id.
        @return: the session, or C{None}: unknown, closed, or its grant has ended.
        @raise StoreError: the store cannot be used.
        """

        def read(connection: Connection) -> StoredSession | None:
            row = sessions.find(connection, digest)
            if row is None or row.closed_at is not None:
                return None
            grant = grants.find(connection, row.grant_id)
            if grant is None or grant.revoked_at is not None:
                return None
            params = self._sealer.open(
                row.sealed_initialize, row=sessions.initialize_row(digest)
            )
            return StoredSession(
                Identity(grant.grant_id, grant.user_id, grant.client_id, grant.policy),
                row.protocol_version,
                Told.stored(params, row.log_level, row.subscriptions),
                row.seen,
            )

        return await self._database.read(read)

    async def told(
        self, digest: bytes, log_level: str | None, subscriptions: Collection[str]
    ) -> None:
        """
        @param digest: of the session.
        @param log_level: as the client set it.
        @param subscriptions: all URIs that it is subscribed to.
        @raise StoreError: the store cannot be used.
        """

        def update(connection: Connection) -> None:
            sessions.set_log_level(connection, digest, log_level)
            sessions.set_subscriptions(connection, digest, list(subscriptions))

        await self._database.write(update)

    async def close_unused(self, now: int, unused_since: int) -> list[bytes]:
        """
        @param now: seconds since the epoch.
        @param unused_since: seconds since the epoch.
        @return: the digests of the sessions that nobody used since and that are
            closed now.
        @raise StoreError: the store cannot be used.
        """
        return await self._database.write(
            lambda connection: sessions.close_idle(
                connection, now, "unused", unused_since=unused_since
            )
        )

    async def close_surplus(
        self, grant_id: str, keep: int, spared: Collection[bytes], now: int
    ) -> list[bytes]:
        """
        @param grant_id: whose sessions.
        @param keep: how many may stay beside those spared.
        @param spared: digests of sessions that stay in any case.
        @param now: seconds since the epoch.
        @return: the digests of the longest unused ones, which are closed now.
        @raise StoreError: the store cannot be used.
        """

        def close(connection: Connection) -> list[bytes]:
            dormant = [
                digest
                for digest in sessions.open_of_grant(connection, grant_id)
                if digest not in spared
            ]
            surplus = dormant[: max(0, len(dormant) - keep)]
            for digest in surplus:
                sessions.close(connection, digest, now, "too_many_dormant")
            return surplus

        return await self._database.write(close)
