"""
The store's side of the bearer check, and the end of derivation keys.

A key lives as long as some answer can need it: for a minute after the rotation, and
then until one of the successors has been used.
"""

from sqlite3 import Connection

from fjmcp_broker.oauth.bearer import BearerFacts, judge_bearer
from fjmcp_broker.oauth.tokens import GRACE_SECONDS

from . import tokens


def first_use(
    connection: Connection, access_digest: bytes, now: int
) -> BearerFacts | None:
    """
    Note the first use of an access token, if it still is valid: what was read
    before may have changed.

    @param connection: in a transaction that may write.
    @param access_digest: SHA-256 of the presented token.
    @param now: seconds since the epoch.
    @return: the facts, not yet judged, or C{None}: unknown.
    """
    facts = tokens.principal(connection, access_digest)
    principal = judge_bearer(facts, now)
    if principal is not None and tokens.mark_first_use(connection, access_digest, now):
        erase_spent_keys(connection, now, principal.grant_id)
    return facts


def erase_spent_keys(
    connection: Connection, now: int, grant_id: str | None = None
) -> int:
    """
    Erase the derivation keys that no answer can need. It runs with each rotation
    and each first use, and for all grants before expired access tokens are
    collected: these say whether they were used.

    @param connection: in a transaction that may write.
    @param now: seconds since the epoch.
    @param grant_id: of one grant, or C{None}: all of them.
    @return: how many there were.
    """
    return connection.execute(
        "UPDATE refresh_tokens AS rotated SET sealed_derivation_key = NULL"
        " WHERE (:grant IS NULL OR grant_id = :grant)"
        " AND sealed_derivation_key IS NOT NULL AND rotated_at < :since"
        " AND (EXISTS (SELECT 1 FROM refresh_tokens AS next"
        " WHERE next.token_digest = rotated.successor_refresh_digest"
        " AND (next.rotated_at IS NOT NULL OR next.expires_at <= :now))"
        " OR EXISTS (SELECT 1 FROM access_tokens AS access"
        " WHERE access.token_digest = rotated.successor_access_digest"
        " AND (access.first_used_at IS NOT NULL OR access.revoked_at IS NOT NULL)))",
        {"grant": grant_id, "since": now - GRACE_SECONDS, "now": now},
    ).rowcount
