"""
The collector: removes what nobody can ask for any more.
"""

from sqlite3 import Connection
from typing import Final

import msgspec

from . import audit
from .bearer_check import erase_spent_keys
from .revocation import end_grant

_DAY: Final = 24 * 3600
#: A callback may be at work on a sign-in that expires meanwhile. As long as its consent
#: form can be used, the row says that it was answered.
PENDING_KEPT_SECONDS: Final = 3600
#: As long as Forgejo's refresh tokens live: a parked set may be a user's only one.
PARKED_KEPT_SECONDS: Final = 730 * 3600
#: For the operator, who asks why somebody had to sign in again.
ENDED_GRANT_KEPT_SECONDS: Final = 30 * _DAY
CLOSED_SESSION_KEPT_SECONDS: Final = 7 * _DAY
UNUSED_CLIENT_KEPT_SECONDS: Final = 72 * 3600
#: Can be fetched again, and whoever has a web server can name very many.
UNUSED_DOCUMENT_KEPT_SECONDS: Final = 2 * 3600
#: Clients keep their id and cannot recover from a vanished one.
CLIENT_KEPT_SECONDS: Final = 400 * _DAY
AUDIT_KEPT_SECONDS: Final = 90 * _DAY
#: A sign-in that brought a set writes its grant within a minute, or never.
UPSTREAM_SET_KEPT_SECONDS: Final = 3600

EXPIRED: Final = "expired"


class Collected(msgspec.Struct, frozen=True):
    """
    What one run did.

    @ivar ended_grants: grants that were found to have expired; their sessions are
        closed in the store.
    @ivar erased_keys: derivation keys of rotations.
    @ivar codes: expired ones that were never used.
    @ivar pending: sign-ins that are over, or never came back.
    @ivar access_tokens: expired ones.
    @ivar sessions: closed ones.
    @ivar grants: ended ones, with all that they issued.
    @ivar clients: unused ones.
    @ivar is_complete: whether there is nothing left; else run again.
    @ivar audit_events: old ones.
    @ivar upstream_sets: of users who have no grant.
    """

    ended_grants: tuple[str, ...]
    erased_keys: int
    codes: int
    pending: int
    access_tokens: int
    sessions: int
    grants: int
    clients: int
    is_complete: bool
    audit_events: int = 0
    upstream_sets: int = 0


def collect(
    connection: Connection,
    now: int,
    *,
    limit: int = 1000,
    audit_retention_seconds: int = AUDIT_KEPT_SECONDS,
) -> Collected:
    """
    Remove what is past use. Used codes and rotated refresh tokens stay until their
    grant has gone, else their reuse would look like an unknown token.

    @param connection: in a transaction that may write.
    @param now: seconds since the epoch.
    @param limit: rows of one kind in one run, so that requests need not wait long.
    @param audit_retention_seconds: how old an audit event becomes.
    @return: what was done.
    """
    erased = erase_spent_keys(connection, now)
    ended = _end_expired_grants(connection, now, limit)

    def delete(statement: str, **values: int) -> int:
        return connection.execute(statement, {**values, "limit": limit}).rowcount

    codes = delete(_CODES, now=now)
    pending = delete(
        _PENDING, before=now - PENDING_KEPT_SECONDS, parked=now - PARKED_KEPT_SECONDS
    )
    access_tokens = delete(_ACCESS_TOKENS, now=now)
    closed = delete(_SESSIONS, before=now - CLOSED_SESSION_KEPT_SECONDS)
    sets = delete(_UPSTREAM_SETS, before=now - UPSTREAM_SET_KEPT_SECONDS)
    before = now - ENDED_GRANT_KEPT_SECONDS
    connection.execute(_REMEMBER_USE, {"before": before})
    grants = delete(_GRANTS, before=before)
    clients = delete(
        _CLIENTS,
        never=now - UNUSED_CLIENT_KEPT_SECONDS,
        document=now - UNUSED_DOCUMENT_KEPT_SECONDS,
        before=now - CLIENT_KEPT_SECONDS,
    )
    events = audit.delete_before(connection, now - audit_retention_seconds, limit)
    counts = (
        len(ended),
        codes,
        pending,
        access_tokens,
        closed,
        grants,
        clients,
        events,
        sets,
    )
    return Collected(
        ended_grants=ended,
        erased_keys=erased,
        codes=codes,
        pending=pending,
        access_tokens=access_tokens,
        sessions=closed,
        grants=grants,
        clients=clients,
        is_complete=max(counts) < limit,
        audit_events=events,
        upstream_sets=sets,
    )


def _end_expired_grants(
    connection: Connection, now: int, limit: int
) -> tuple[str, ...]:
    """
    Mark grants that cannot be used any more, and close their sessions.
    """
    rows = connection.execute(_EXPIRED_GRANTS, {"now": now, "limit": limit}).fetchall()
    for (grant_id,) in rows:
        end_grant(connection, grant_id, now, EXPIRED)
    return tuple(grant_id for (grant_id,) in rows)


_EXPIRED_GRANTS: Final = """
SELECT grant_id FROM grants WHERE revoked_at IS NULL
AND NOT EXISTS (SELECT 1 FROM refresh_tokens
    WHERE refresh_tokens.grant_id = grants.grant_id
    AND rotated_at IS NULL AND expires_at > :now)
AND NOT EXISTS (SELECT 1 FROM authorization_codes
    WHERE authorization_codes.grant_id = grants.grant_id
    AND used_at IS NULL AND expires_at > :now)
LIMIT :limit
"""

_CODES: Final = """
DELETE FROM authorization_codes WHERE code_digest IN (
    SELECT code_digest FROM authorization_codes
    WHERE used_at IS NULL AND expires_at <= :now LIMIT :limit)
"""

_PENDING: Final = """
DELETE FROM pending_authorizations WHERE pending_id IN (
    SELECT pending_id FROM pending_authorizations WHERE expires_at <= :before
    AND (sealed_upstream_tokens IS NULL OR expires_at <= :parked) LIMIT :limit)
"""

# The access token of a rotation that can still be answered tells whether it was used.
_ACCESS_TOKENS: Final = """
DELETE FROM access_tokens WHERE token_digest IN (
    SELECT token_digest FROM access_tokens AS expired WHERE expires_at <= :now
    AND NOT EXISTS (SELECT 1 FROM refresh_tokens
        WHERE successor_access_digest = expired.token_digest
        AND sealed_derivation_key IS NOT NULL) LIMIT :limit)
"""

_SESSIONS: Final = """
DELETE FROM sessions WHERE session_digest IN (
    SELECT session_digest FROM sessions
    WHERE closed_at IS NOT NULL AND closed_at <= :before LIMIT :limit)
"""

# Refreshing for years without a new sign-in is use too.
_REMEMBER_USE: Final = """
UPDATE clients SET last_used_at = ended.used_at FROM (
    SELECT client_id, max(last_used_at) AS used_at FROM grants
    WHERE revoked_at IS NOT NULL AND revoked_at <= :before GROUP BY client_id) AS ended
WHERE clients.client_id = ended.client_id
AND ifnull(clients.last_used_at, 0) < ended.used_at
"""

# Of sign-ins that came to no grant, and of users whose last grant ended while somebody
# was signing in.
_UPSTREAM_SETS: Final = """
DELETE FROM upstream_tokens WHERE user_id IN (
    SELECT user_id FROM upstream_tokens AS leftover WHERE updated_at <= :before
    AND NOT EXISTS (SELECT 1 FROM grants
        WHERE grants.user_id = leftover.user_id AND revoked_at IS NULL) LIMIT :limit)
"""

_GRANTS: Final = """
DELETE FROM grants WHERE grant_id IN (
    SELECT grant_id FROM grants
    WHERE revoked_at IS NOT NULL AND revoked_at <= :before LIMIT :limit)
"""

_CLIENTS: Final = """
DELETE FROM clients WHERE client_id IN (
    SELECT client_id FROM clients AS unused WHERE kind != 'static'
    AND ((last_used_at IS NULL AND created_at <=
            CASE kind WHEN 'metadata-document' THEN :document ELSE :never END)
        OR last_used_at <= :before)
    AND NOT EXISTS (SELECT 1 FROM pending_authorizations
        WHERE pending_authorizations.client_id = unused.client_id)
    AND NOT EXISTS (SELECT 1 FROM grants WHERE grants.client_id = unused.client_id)
    LIMIT :limit)
"""
