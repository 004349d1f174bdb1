"""Authorization codes, access tokens and refresh tokens: digests of them."""

from sqlite3 import Connection
from typing import Any, Final

from fjmcp_broker.oauth.bearer import BearerFacts
from fjmcp_broker.oauth.grants import AccessToken, AuthorizationCode, RefreshToken

from . import grants
from .sealing import row_name

_CODE: Final = (
    "code_digest, grant_id, redirect_uri, code_challenge, expires_at, used_at"
)
_ACCESS: Final = (
    "access_tokens.token_digest, access_tokens.grant_id, access_tokens.expires_at,"
    " access_tokens.scope, access_tokens.first_used_at, access_tokens.revoked_at"
)
_REFRESH: Final = (
    "token_digest, grant_id, expires_at, rotated_at, sealed_derivation_key,"
    " successor_refresh_digest, successor_access_digest, successor_access_number"
)


def derivation_key_row(refresh_digest: bytes) -> str:
    """
    @param refresh_digest: of the refresh token that was rotated.
    @return: where the sealed key is from which its successors are derived.
    """
    return row_name("refresh_tokens", "sealed_derivation_key", refresh_digest)


def insert_code(connection: Connection, code: AuthorizationCode) -> None:
    """
    Store a new authorization code.

    @param connection: in a transaction that may write.
    @param code: of a grant that is stored.
    """
    connection.execute(
        f"INSERT INTO authorization_codes ({_CODE})"  # noqa: S608 - constants
        " VALUES (?, ?, ?, ?, ?, ?)",
        (
            code.code_digest,
            code.grant_id,
            code.redirect_uri,
            code.code_challenge,
            code.expires_at,
            code.used_at,
        ),
    )


def find_code(connection: Connection, digest: bytes) -> AuthorizationCode | None:
    """
    @param connection: to the store.
    @param digest: SHA-256 of the presented code.
    @return: the code, also when used or expired, or C{None}: unknown.
    """
    row = connection.execute(
        f"SELECT {_CODE} FROM authorization_codes"  # noqa: S608 - constants
        " WHERE code_digest = ?",
        (digest,),
    ).fetchone()
    return None if row is None else AuthorizationCode(*row)


def is_code_unused(connection: Connection, digest: bytes, now: int) -> bool:
    """
    @param connection: to the store.
    @param digest: SHA-256 of the code.
    @param now: seconds since the epoch.
    @return: whether it may still be exchanged.
    """
    row = connection.execute(
        "SELECT 1 FROM authorization_codes JOIN grants USING (grant_id)"
        " WHERE code_digest = ? AND used_at IS NULL AND expires_at > ?"
        " AND grants.revoked_at IS NULL",
        (digest, now),
    ).fetchone()
    return row is not None


def use_code(connection: Connection, digest: bytes, now: int) -> bool:
    """
    Spend a code: of any number of callers exactly one gets C{True}.

    @param connection: in a transaction that may write.
    @param digest: SHA-256 of the presented code.
    @param now: seconds since the epoch.
    @return: whether it was unused and had not expired.
    """
    changed = connection.execute(
        "UPDATE authorization_codes SET used_at = ?"
        " WHERE code_digest = ? AND used_at IS NULL AND expires_at > ?",
        (now, digest, now),
    )
    return changed.rowcount == 1


def insert_access(connection: Connection, token: AccessToken) -> None:
    """
    Store a new access token.

    @param connection: in a transaction that may write.
    @param token: of a grant that is stored.
    """
    connection.execute(
        "INSERT INTO access_tokens (token_digest, grant_id, expires_at, scope,"
        " first_used_at, revoked_at) VALUES (?, ?, ?, ?, ?, ?)",
        (
            token.token_digest,
            token.grant_id,
            token.expires_at,
            None if token.scope is None else " ".join(sorted(token.scope)),
            token.first_used_at,
            token.revoked_at,
        ),
    )


def find_access(connection: Connection, digest: bytes) -> AccessToken | None:
    """
    @param connection: to the store.
    @param digest: SHA-256 of the token.
    @return: the token, also when expired or revoked, or C{None}: unknown.
    """
    row = connection.execute(
        f"SELECT {_ACCESS} FROM access_tokens"  # noqa: S608 - constants
        " WHERE token_digest = ?",
        (digest,),
    ).fetchone()
    return None if row is None else _access(row)


def mark_first_use(connection: Connection, digest: bytes, now: int) -> bool:
    """
    Note that an access token was presented. It is committed before the request is
    answered, because from then on its predecessor's reuse means theft.

    @param connection: in a transaction that may write.
    @param digest: SHA-256 of the token.
    @param now: seconds since the epoch.
    @return: whether this was the first use of a token that is still good.
    """
    changed = connection.execute(
        "UPDATE access_tokens SET first_used_at = ? WHERE token_digest = ?"
        " AND first_used_at IS NULL AND revoked_at IS NULL AND expires_at > ?",
        (now, digest, now),
    )
    return changed.rowcount == 1


def revoke_access(connection: Connection, digest: bytes, now: int) -> bool:
    """
    Revoke one access token alone (RFC 7009).

    @param connection: in a transaction that may write.
    @param digest: SHA-256 of the token.
    @param now: seconds since the epoch.
    @return: whether it was not revoked before.
    """
    changed = connection.execute(
        "UPDATE access_tokens SET revoked_at = ?"
        " WHERE token_digest = ? AND revoked_at IS NULL",
        (now, digest),
    )
    return changed.rowcount == 1


def insert_refresh(connection: Connection, token: RefreshToken) -> None:
    """
    Store a new refresh token.

    @param connection: in a transaction that may write.
    @param token: of a grant that is stored.
    """
    connection.execute(
        f"INSERT INTO refresh_tokens ({_REFRESH})"  # noqa: S608 - constants
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        (
            token.token_digest,
            token.grant_id,
            token.expires_at,
            token.rotated_at,
            token.sealed_derivation_key,
            token.successor_refresh_digest,
            token.successor_access_digest,
            token.successor_access_number,
        ),
    )


def find_refresh(connection: Connection, digest: bytes) -> RefreshToken | None:
    """
    @param connection: to the store.
    @param digest: SHA-256 of the token.
    @return: the token, also when rotated or expired, or C{None}: unknown.
    """
    row = connection.execute(
        f"SELECT {_REFRESH} FROM refresh_tokens"  # noqa: S608 - constants
        " WHERE token_digest = ?",
        (digest,),
    ).fetchone()
    return None if row is None else RefreshToken(*row)


def rotate_refresh(
    connection: Connection,
    digest: bytes,
    now: int,
    *,
    sealed_derivation_key: bytes,
    successor_refresh_digest: bytes,
    successor_access_digest: bytes,
) -> bool:
    """
    Exchange a refresh token for its successors: of any number of callers exactly
    one gets C{True}, and inserts them in the same transaction.

    @param connection: in a transaction that may write.
    @param digest: SHA-256 of the presented token.
    @param now: seconds since the epoch.
    @param sealed_derivation_key: sealed at L{derivation_key_row}.
    @param successor_refresh_digest: SHA-256 of the new refresh token.
    @param successor_access_digest: SHA-256 of the new access token.
    @return: whether it had been neither rotated nor expired.
    """
    changed = connection.execute(
        "UPDATE refresh_tokens SET rotated_at = ?, sealed_derivation_key = ?,"
        " successor_refresh_digest = ?, successor_access_digest = ?"
        " WHERE token_digest = ? AND rotated_at IS NULL AND expires_at > ?",
        (
            now,
            sealed_derivation_key,
            successor_refresh_digest,
            successor_access_digest,
            digest,
            now,
        ),
    )
    return changed.rowcount == 1


def replace_successor_access(
    connection: Connection,
    digest: bytes,
    access_digest: bytes,
    access_number: int,
) -> bool:
    """
    Give a rotated refresh token another access token: the one before expired before
    anybody used it.

    @param connection: in a transaction that may write.
    @param digest: SHA-256 of the rotated token.
    @param access_digest: SHA-256 of the new access token.
    @param access_number: of the new access token, one more than before.
    @return: whether it was written: not when somebody else did it first.
    """
    changed = connection.execute(
        "UPDATE refresh_tokens SET successor_access_digest = ?,"
        " successor_access_number = ? WHERE token_digest = ?"
        " AND rotated_at IS NOT NULL AND sealed_derivation_key IS NOT NULL"
        " AND successor_access_number = ?",
        (access_digest, access_number, digest, access_number - 1),
    )
    return changed.rowcount == 1


def principal(connection: Connection, access_digest: bytes) -> BearerFacts | None:
    """
    Everything that the bearer check asks about, in one statement.

    @param connection: to the store.
    @param access_digest: SHA-256 of the presented access token.
    @return: the facts, not yet judged, or C{None}: unknown.
    """
    row = connection.execute(
        f"SELECT users.login, upstream_tokens.state, {_ACCESS},"  # noqa: S608 - constants
        f" {grants.COLUMNS} FROM access_tokens"
        " JOIN grants ON grants.grant_id = access_tokens.grant_id"
        " JOIN users ON users.user_id = grants.user_id"
        " LEFT JOIN upstream_tokens ON upstream_tokens.user_id = grants.user_id"
        " WHERE access_tokens.token_digest = ?",
        (access_digest,),
    ).fetchone()
    if row is None:
        return None
    login, state = row[:2]
    return BearerFacts(
        token=_access(row[2:8]),
        grant=grants.record(row[8:]),
        login=login,
        upstream_usable=state == "usable",
    )


def _access(row: tuple[Any, ...]) -> AccessToken:
    """
    Make the record of a row of L{_ACCESS}.
    """
    digest, grant_id, expires_at, scope, first_used_at, revoked_at = row
    return AccessToken(
        token_digest=digest,
        grant_id=grant_id,
        expires_at=expires_at,
        scope=None if scope is None else tuple(scope.split()),
        first_used_at=first_used_at,
        revoked_at=revoked_at,
    )
