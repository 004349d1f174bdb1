"""What users allowed clients to do."""

from sqlite3 import Connection
from typing import Any, Final

from fjmcp_broker.oauth.grants import Grant
from fjmcp_broker.oauth.vocabulary import Policy

#: In the order in which L{record} reads them.
COLUMNS: Final = (
    "grants.grant_id, grants.user_id, grants.client_id, grants.scope,"
    " grants.resource, grants.policy, grants.created_at, grants.last_used_at,"
    " grants.revoked_at, grants.reason"
)


def record(row: tuple[Any, ...]) -> Grant:
    """
    @param row: the values of L{COLUMNS}.
    @return: the grant.
    """
    grant_id, user_id, client_id, scope, resource, policy, *rest = row
    created_at, last_used_at, revoked_at, reason = rest
    return Grant(
        grant_id=grant_id,
        user_id=user_id,
        client_id=client_id,
        scope=tuple(scope.split()),
        resource=resource,
        policy=Policy(policy),
        created_at=created_at,
        last_used_at=last_used_at,
        revoked_at=revoked_at,
        reason=reason,
    )


def insert(connection: Connection, grant: Grant) -> None:
    """
    Store a new grant.

    @param connection: in a transaction that may write.
    @param grant: of a user and a client that are stored.
    @raise sqlite3.IntegrityError: one of them is not, or the id is in use.
    """
    connection.execute(
        "INSERT INTO grants (grant_id, user_id, client_id, scope, resource, policy,"
        " created_at, last_used_at, revoked_at, reason)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            grant.grant_id,
            grant.user_id,
            grant.client_id,
            " ".join(sorted(grant.scope)),
            grant.resource,
            str(grant.policy),
            grant.created_at,
            grant.last_used_at,
            grant.revoked_at,
            grant.reason,
        ),
    )


def find(connection: Connection, grant_id: str) -> Grant | None:
    """
    @param connection: to the store.
    @param grant_id: of the grant.
    @return: the grant, also one that has ended, or C{None}: unknown.
    """
    row = connection.execute(
        f"SELECT {COLUMNS} FROM grants WHERE grant_id = ?",  # noqa: S608 - constants
        (grant_id,),
    ).fetchone()
    return None if row is None else record(row)


def grants_of_user(connection: Connection, user_id: int) -> list[Grant]:
    """
    @param connection: to the store.
    @param user_id: Forgejo's number.
    @return: all grants of the user, ended ones too, oldest first.
    """
    rows = connection.execute(
        f"SELECT {COLUMNS} FROM grants"  # noqa: S608 - constants
        " WHERE user_id = ? ORDER BY created_at, grant_id",
        (user_id,),
    )
    return [record(row) for row in rows]


def is_live(connection: Connection, grant_id: str, now: int) -> bool:
    """
    @param connection: to the store.
    @param grant_id: of the grant.
    @param now: seconds since the epoch.
    @return: whether it is not revoked and has an unexpired refresh token that has
        not been exchanged for another one.
    """
    row = connection.execute(
        "SELECT 1 FROM grants WHERE grant_id = ? AND revoked_at IS NULL"
        " AND EXISTS (SELECT 1 FROM refresh_tokens"
        " WHERE refresh_tokens.grant_id = grants.grant_id"
        " AND rotated_at IS NULL AND expires_at > ?)",
        (grant_id, now),
    ).fetchone()
    return row is not None


def mark_used(connection: Connection, grant_id: str, now: int) -> None:
    """
    Note a code exchange or refresh.

    @param connection: in a transaction that may write.
    @param grant_id: of the grant.
    @param now: seconds since the epoch.
    """
    connection.execute(
        "UPDATE grants SET last_used_at = max(last_used_at, ?) WHERE grant_id = ?",
        (now, grant_id),
    )


def revoke(connection: Connection, grant_id: str, now: int, reason: str) -> bool:
    """
    End a grant. What it issued stops working with it, since every check joins the
    grant; keys from which an answer could be derived again are erased. Its sessions
    are closed by L{end_grant<revocation.end_grant>}.

    @param connection: in a transaction that may write.
    @param grant_id: of the grant.
    @param now: seconds since the epoch.
    @param reason: one of our own words.
    @return: whether it had not ended before.
    """
    changed = connection.execute(
        "UPDATE grants SET revoked_at = ?, reason = ?"
        " WHERE grant_id = ? AND revoked_at IS NULL",
        (now, reason, grant_id),
    )
    connection.execute(
        "UPDATE refresh_tokens SET sealed_derivation_key = NULL"
        " WHERE grant_id = ? AND sealed_derivation_key IS NOT NULL",
        (grant_id,),
    )
    return changed.rowcount == 1
