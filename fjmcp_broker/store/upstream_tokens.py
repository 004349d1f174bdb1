"""Forgejo's tokens: one set per user, shared by all of the user's grants."""

from collections.abc import Callable
from hashlib import sha256
from sqlite3 import Connection
from typing import Any, Final, Literal

import msgspec

from fjmcp_broker.secret import Secret

from .sealing import Sealer, row_name

State = Literal["usable", "needs_sign_in"]

#: Longer than any sign-in takes from its code exchange to its grant.
SIGN_IN_SECONDS: Final = 300

_TABLE: Final = "upstream_tokens"
_UPSERT: Final = (
    "INSERT INTO upstream_tokens (user_id, sealed_access_token,"
    " sealed_refresh_token, expires_at, scope, state, grant_number, counter,"
    " refresh_digest, updated_at) VALUES (:user_id, :access, :refresh, :expires_at,"
    " :scope, :state, :grant_number, :counter, :refresh_digest, :updated_at)"
    " ON CONFLICT (user_id) DO UPDATE SET"
    " sealed_access_token = excluded.sealed_access_token,"
    " sealed_refresh_token = excluded.sealed_refresh_token,"
    " expires_at = excluded.expires_at, state = excluded.state,"
    # The scope is frozen at the first consent; a refresh does not tell it again.
    " scope = ifnull(excluded.scope, upstream_tokens.scope),"
    " grant_number = excluded.grant_number, counter = excluded.counter,"
    " refresh_digest = excluded.refresh_digest, updated_at = excluded.updated_at"
)
#: A set without numbers cannot be ordered: then the later one wins.
_NOT_OLDER: Final = (
    " WHERE upstream_tokens.grant_number IS NULL OR upstream_tokens.counter IS NULL"
    " OR excluded.grant_number IS NULL OR excluded.counter IS NULL"
    " OR (excluded.grant_number, excluded.counter)"
    " >= (upstream_tokens.grant_number, upstream_tokens.counter)"
)


class UpstreamSet(msgspec.Struct, frozen=True):
    """
    A user's tokens towards Forgejo.

    @ivar user_id: Forgejo's number of the user.
    @ivar access_token: for the API.
    @ivar refresh_token: single use.
    @ivar expires_at: of the access token, seconds since the epoch.
    @ivar scope: as introspected, space separated; C{None}: not known yet.
    @ivar state: C{needs_sign_in} once Forgejo has refused the refresh token.
    @ivar grant_number: C{gnt} of the refresh token, for ordering only.
    @ivar counter: C{cnt} of the refresh token, for ordering only.
    @ivar updated_at: when it was issued or refused, seconds since the epoch.
    """

    user_id: int
    access_token: Secret
    refresh_token: Secret
    expires_at: int
    scope: str | None = None
    state: State = "usable"
    grant_number: int | None = None
    counter: int | None = None
    updated_at: int = 0

    @property
    def refresh_digest(self) -> bytes:
        """
        SHA-256 of the refresh token: tells one set of a user from another.
        """
        return sha256(self.refresh_token.reveal().encode()).digest()


def save(connection: Connection, sealer: Sealer, tokens: UpstreamSet) -> None:
    """
    Store a user's set, whatever was there.

    @param connection: in a transaction that may write.
    @param sealer: seals both tokens.
    @param tokens: of a user that is stored. A scope of C{None} keeps the known one.
    """
    connection.execute(_UPSERT, _values(sealer, tokens))


def save_if_newer(connection: Connection, sealer: Sealer, tokens: UpstreamSet) -> bool:
    """
    Store a user's set unless a newer one is there: the higher grant number and
    counter win; without them, or when they are equal, the later call.

    @param connection: in a transaction that may write.
    @param sealer: seals both tokens.
    @param tokens: of a user that is stored. A scope of C{None} keeps the known one.
    @return: whether it was stored.
    """
    changed = connection.execute(_UPSERT + _NOT_OLDER, _values(sealer, tokens))
    return changed.rowcount == 1


def find(connection: Connection, sealer: Sealer, user_id: int) -> UpstreamSet | None:
    """
    @param connection: to the store.
    @param sealer: opens both tokens.
    @param user_id: Forgejo's number.
    @return: the set, or C{None}: the user has none.
    @raise SealError: a key is missing.
    """
    row: tuple[Any, ...] | None = connection.execute(
        "SELECT sealed_access_token, sealed_refresh_token, expires_at, scope, state,"
        " grant_number, counter, updated_at FROM upstream_tokens WHERE user_id = ?",
        (user_id,),
    ).fetchone()
    if row is None:
        return None
    access, refresh, expires_at, scope, state, grant_number, counter, updated_at = row
    opened = _opener(sealer, user_id)
    return UpstreamSet(
        user_id=user_id,
        access_token=opened("sealed_access_token", access),
        refresh_token=opened("sealed_refresh_token", refresh),
        expires_at=expires_at,
        scope=scope,
        state=state,
        grant_number=grant_number,
        counter=counter,
        updated_at=updated_at,
    )


def state_of(connection: Connection, user_id: int) -> State | None:
    """
    @param connection: to the store.
    @param user_id: Forgejo's number.
    @return: the state of the user's set, or C{None}: there is none.
    """
    row = connection.execute(
        "SELECT state FROM upstream_tokens WHERE user_id = ?", (user_id,)
    ).fetchone()
    state: State | None = None if row is None else row[0]
    return state


def mark_needs_sign_in(
    connection: Connection,
    user_id: int,
    *,
    unless_changed_since: UpstreamSet,
    now: int,
) -> bool:
    """
    Note that Forgejo refuses a set. A set that has been replaced meanwhile was not
    the one refused.

    @param connection: in a transaction that may write.
    @param user_id: Forgejo's number.
    @param unless_changed_since: the set that was refused.
    @param now: seconds since the epoch.
    @return: whether the stored set was that one and was usable until now.
    """
    changed = connection.execute(
        "UPDATE upstream_tokens SET state = 'needs_sign_in', updated_at = ?"
        " WHERE user_id = ? AND refresh_digest = ? AND state = 'usable'",
        (now, user_id, unless_changed_since.refresh_digest),
    )
    return changed.rowcount == 1


def is_stored(connection: Connection, tokens: UpstreamSet) -> bool:
    """
    @param connection: to the store.
    @param tokens: some set of a user.
    @return: whether it is the one that is stored, in whatever state.
    """
    row = connection.execute(
        "SELECT 1 FROM upstream_tokens WHERE user_id = ? AND refresh_digest = ?",
        (tokens.user_id, tokens.refresh_digest),
    ).fetchone()
    return row is not None


def mark_usable(connection: Connection, user_id: int) -> bool:
    """
    Note that a user may go on.

    @param connection: in a transaction that may write.
    @param user_id: Forgejo's number.
    @return: whether the user was suspended until now.
    """
    changed = connection.execute(
        "UPDATE upstream_tokens SET state = 'usable'"
        " WHERE user_id = ? AND state = 'needs_sign_in'",
        (user_id,),
    )
    return changed.rowcount == 1


def set_scope(connection: Connection, user_id: int, scope: str) -> bool:
    """
    Note what introspection said.

    @param connection: in a transaction that may write.
    @param user_id: Forgejo's number.
    @param scope: space separated.
    @return: whether the user has a set.
    """
    changed = connection.execute(
        "UPDATE upstream_tokens SET scope = ? WHERE user_id = ?", (scope, user_id)
    )
    return changed.rowcount == 1


def delete_without_grant(connection: Connection, user_id: int, now: int) -> bool:
    """
    Forget the set of a user of whom no grant is left: nobody can use it any more, and
    Forgejo, which cannot be told, would take it for as long as it lives. A new sign-in
    brings another one.

    A set may belong to a sign-in whose grant is about to be written. Nobody knows whose
    sign-ins are under way, so one that came while any was stays for the collector.

    @param connection: in a transaction that may write.
    @param user_id: Forgejo's number.
    @param now: seconds since the epoch.
    @return: whether there was one to forget.
    """
    changed = connection.execute(
        "DELETE FROM upstream_tokens WHERE user_id = :user"
        " AND NOT EXISTS (SELECT 1 FROM grants"
        " WHERE user_id = :user AND revoked_at IS NULL)"
        " AND (updated_at <= :before OR NOT EXISTS ("
        "SELECT 1 FROM pending_authorizations AS coming"
        " WHERE coming.expires_at > :now AND returned_at <= updated_at"
        # One that has its grant has forgotten its state.
        " AND state_digest IS NOT NULL))",
        {"user": user_id, "now": now, "before": now - SIGN_IN_SECONDS},
    )
    return changed.rowcount == 1


def dormant(connection: Connection, now: int, updated_before: int) -> list[int]:
    """
    Find sets to refresh for their own sake: Forgejo forgets a refresh token that is
    not used for a month.

    @param connection: to the store.
    @param now: seconds since the epoch.
    @param updated_before: seconds since the epoch.
    @return: the users with a usable set older than that and a live grant, the
        oldest set first.
    """
    rows = connection.execute(
        "SELECT user_id FROM upstream_tokens"
        " WHERE state = 'usable' AND updated_at < ? AND EXISTS ("
        "SELECT 1 FROM grants JOIN refresh_tokens USING (grant_id)"
        " WHERE grants.user_id = upstream_tokens.user_id"
        " AND grants.revoked_at IS NULL AND refresh_tokens.rotated_at IS NULL"
        " AND refresh_tokens.expires_at > ?) ORDER BY updated_at, user_id",
        (updated_before, now),
    )
    return [user_id for (user_id,) in rows]


def _opener(sealer: Sealer, user_id: int) -> Callable[[str, bytes], Secret]:
    """
    Open columns of one user's row.
    """

    def opened(column: str, sealed: bytes) -> Secret:
        row = row_name(_TABLE, column, user_id)
        return Secret(sealer.open(sealed, row=row).decode())

    return opened


def _values(sealer: Sealer, tokens: UpstreamSet) -> dict[str, object]:
    """
    Seal a set for C{_UPSERT}.
    """

    def sealed(column: str, token: Secret) -> bytes:
        row = row_name(_TABLE, column, tokens.user_id)
        return sealer.seal(token.reveal().encode(), row=row)

    return {
        "user_id": tokens.user_id,
        "access": sealed("sealed_access_token", tokens.access_token),
        "refresh": sealed("sealed_refresh_token", tokens.refresh_token),
        "expires_at": tokens.expires_at,
        "scope": tokens.scope,
        "state": tokens.state,
        "grant_number": tokens.grant_number,
        "counter": tokens.counter,
        "refresh_digest": tokens.refresh_digest,
        "updated_at": tokens.updated_at,
    }
