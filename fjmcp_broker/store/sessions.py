"""MCP sessions: what must survive a restart of the daemon."""

import json
from collections.abc import Sequence
from sqlite3 import Connection
from typing import Any, Final

import msgspec

from .sealing import row_name

_COLUMNS: Final = (
    "session_digest, grant_id, protocol_version, sealed_initialize, created_at,"
    " last_active_at, log_level, subscriptions, closed_at, reason, seen"
)


class SessionRecord(msgspec.Struct, frozen=True):
    """
    A session as the store keeps it.

    @ivar session_digest: SHA-256 of the session id.
    @ivar grant_id: the grant it belongs to.
    @ivar protocol_version: as negotiated.
    @ivar sealed_initialize: the client's C{initialize} params, raw JSON, sealed at
        L{initialize_row}.
    @ivar created_at: seconds since the epoch.
    @ivar last_active_at: of the newest request; written in batches.
    @ivar log_level: as set by the client, or C{None}.
    @ivar subscriptions: resource URIs, controlled by the client.
    @ivar closed_at: when it was closed, or C{None}.
    @ivar reason: why it was closed, one of our own words, or C{None}.
    @ivar seen: what of its children its client has seen, JSON of our own, or C{None};
        written in batches.
    """

    session_digest: bytes
    grant_id: str
    protocol_version: str
    sealed_initialize: bytes
    created_at: int
    last_active_at: int
    log_level: str | None = None
    subscriptions: tuple[str, ...] = ()
    closed_at: int | None = None
    reason: str | None = None
    seen: str | None = None


def initialize_row(session_digest: bytes) -> str:
    """
    @param session_digest: SHA-256 of the session id.
    @return: where its sealed C{initialize} params are.
    """
    return row_name("sessions", "sealed_initialize", session_digest)


def insert(connection: Connection, session: SessionRecord) -> None:
    """
    Store a new session.

    @param connection: in a transaction that may write.
    @param session: of a grant that is stored.
    @raise sqlite3.IntegrityError: the grant is not, or the session is there already.
    """
    connection.execute(
        f"INSERT INTO sessions ({_COLUMNS})"  # noqa: S608 - constants
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            session.session_digest,
            session.grant_id,
            session.protocol_version,
            session.sealed_initialize,
            session.created_at,
            session.last_active_at,
            session.log_level,
            json.dumps(session.subscriptions),
            session.closed_at,
            session.reason,
            session.seen,
        ),
    )


def find(connection: Connection, session_digest: bytes) -> SessionRecord | None:
    """
    @param connection: to the store.
    @param session_digest: SHA-256 of the presented session id.
    @return: the session, also a closed one, or C{None}: unknown.
    """
    row = connection.execute(
        f"SELECT {_COLUMNS} FROM sessions"  # noqa: S608 - constants
        " WHERE session_digest = ?",
        (session_digest,),
    ).fetchone()
    return None if row is None else _record(row)


def open_of_grant(connection: Connection, grant_id: str) -> list[bytes]:
    """
    @param connection: to the store.
    @param grant_id: of the grant.
    @return: the digests of its sessions that are not closed, the longest unused first.
    """
    rows = connection.execute(
        "SELECT session_digest FROM sessions"
        " WHERE grant_id = ? AND closed_at IS NULL"
        " ORDER BY last_active_at, created_at, session_digest",
        (grant_id,),
    )
    return [digest for (digest,) in rows]


def count_open(connection: Connection) -> int:
    """
    @param connection: to the store.
    @return: how many sessions are not closed, of all grants.
    """
    (count,) = connection.execute(
        "SELECT count(*) FROM sessions WHERE closed_at IS NULL"
    ).fetchone()
    return int(count)


def touch_many(connection: Connection, touched: Sequence[tuple[bytes, int]]) -> None:
    """
    Note when sessions were active, many at once: no request waits for this.

    @param connection: in a transaction that may write.
    @param touched: pairs of digest and seconds since the epoch.
    """
    connection.executemany(
        "UPDATE sessions SET last_active_at = max(last_active_at, ?)"
        " WHERE session_digest = ? AND closed_at IS NULL",
        [(at, digest) for digest, at in touched],
    )


def set_seen_of_many(connection: Connection, seen: Sequence[tuple[bytes, str]]) -> None:
    """
    Note what clients have seen of their sessions' children, many at once.

    @param connection: in a transaction that may write.
    @param seen: pairs of digest and JSON.
    """
    connection.executemany(
        "UPDATE sessions SET seen = ? WHERE session_digest = ? AND closed_at IS NULL",
        [(text, digest) for digest, text in seen],
    )


def set_protocol_version(
    connection: Connection, session_digest: bytes, protocol_version: str
) -> bool:
    """
    @param connection: in a transaction that may write.
    @param session_digest: of the session.
    @param protocol_version: as negotiated.
    @return: whether the session is there and open.
    """
    changed = connection.execute(
        "UPDATE sessions SET protocol_version = ?"
        " WHERE session_digest = ? AND closed_at IS NULL",
        (protocol_version, session_digest),
    )
    return changed.rowcount == 1


def set_log_level(
    connection: Connection, session_digest: bytes, log_level: str | None
) -> bool:
    """
    @param connection: in a transaction that may write.
    @param session_digest: of the session.
    @param log_level: as the client set it.
    @return: whether the session is there and open.
    """
    changed = connection.execute(
        "UPDATE sessions SET log_level = ?"
        " WHERE session_digest = ? AND closed_at IS NULL",
        (log_level, session_digest),
    )
    return changed.rowcount == 1


def set_subscriptions(
    connection: Connection, session_digest: bytes, subscriptions: Sequence[str]
) -> bool:
    """
    @param connection: in a transaction that may write.
    @param session_digest: of the session.
    @param subscriptions: all resource URIs that the client is subscribed to.
    @return: whether the session is there and open.
    """
    changed = connection.execute(
        "UPDATE sessions SET subscriptions = ?"
        " WHERE session_digest = ? AND closed_at IS NULL",
        (json.dumps(list(subscriptions)), session_digest),
    )
    return changed.rowcount == 1


def move(
    connection: Connection, session_digest: bytes, from_grant: str, to_grant: str
) -> bool:
    """
    Let another grant adopt a session. That it may (same user and client, a policy
    that allows as much, live) is the caller's to check, in the same transaction.

    @param connection: in a transaction that may write.
    @param session_digest: of the session.
    @param from_grant: whose it is now.
    @param to_grant: whose it will be.
    @return: whether it was open and that grant's.
    """
    changed = connection.execute(
        "UPDATE sessions SET grant_id = ?"
        " WHERE session_digest = ? AND grant_id = ? AND closed_at IS NULL",
        (to_grant, session_digest, from_grant),
    )
    return changed.rowcount == 1


def close(connection: Connection, session_digest: bytes, now: int, reason: str) -> bool:
    """
    Close a session for good.

    @param connection: in a transaction that may write.
    @param session_digest: of the session.
    @param now: seconds since the epoch.
    @param reason: one of our own words.
    @return: whether it was open.
    """
    changed = connection.execute(
        "UPDATE sessions SET closed_at = ?, reason = ?"
        " WHERE session_digest = ? AND closed_at IS NULL",
        (now, reason, session_digest),
    )
    return changed.rowcount == 1


def close_of_grant(
    connection: Connection, grant_id: str, now: int, reason: str
) -> list[bytes]:
    """
    Close what a grant that has ended leaves behind.

    @param connection: in a transaction that may write.
    @param grant_id: of the grant.
    @param now: seconds since the epoch.
    @param reason: one of our own words.
    @return: the digests of the sessions that were open.
    """
    rows = connection.execute(
        "UPDATE sessions SET closed_at = ?, reason = ?"
        " WHERE grant_id = ? AND closed_at IS NULL RETURNING session_digest",
        (now, reason, grant_id),
    ).fetchall()
    return [digest for (digest,) in rows]


def close_all_open(connection: Connection, now: int, reason: str) -> int:
    """
    Close every session.

    @param connection: in a transaction that may write.
    @param now: seconds since the epoch.
    @param reason: one of our own words.
    @return: how many were open.
    """
    changed = connection.execute(
        "UPDATE sessions SET closed_at = ?, reason = ? WHERE closed_at IS NULL",
        (now, reason),
    )
    return changed.rowcount


def close_idle(
    connection: Connection, now: int, reason: str, *, unused_since: int
) -> list[bytes]:
    """
    Close the sessions that nobody has used for long.

    @param connection: in a transaction that may write.
    @param now: seconds since the epoch.
    @param reason: one of our own words.
    @param unused_since: seconds since the epoch; activity at or before this counts
        as none.
    @return: the digests of the sessions that were open.
    """
    rows = connection.execute(
        "UPDATE sessions SET closed_at = ?, reason = ?"
        " WHERE closed_at IS NULL AND last_active_at <= ? RETURNING session_digest",
        (now, reason, unused_since),
    ).fetchall()
    return [digest for (digest,) in rows]


def _record(row: tuple[Any, ...]) -> SessionRecord:
    """
    Make the record of a row of L{_COLUMNS}.
    """
    digest, grant_id, version, initialize, created_at, last_active_at, *rest = row
    log_level, subscriptions, closed_at, reason, seen = rest
    return SessionRecord(
        session_digest=digest,
        grant_id=grant_id,
        protocol_version=version,
        sealed_initialize=initialize,
        created_at=created_at,
        last_active_at=last_active_at,
        log_level=log_level,
        subscriptions=tuple(json.loads(subscriptions)),
        closed_at=closed_at,
        reason=reason,
        seen=seen,
    )
