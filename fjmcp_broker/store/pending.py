"""
Sign-ins on their way: from the answer to the consent page until the callback has been
answered, and a while longer, so that the same answer does not count again.
"""

from sqlite3 import Connection
from typing import Any, Final

import msgspec
from msgspec.structs import replace

from fjmcp_broker.oauth.authorization import AuthorizationRequest
from fjmcp_broker.oauth.vocabulary import Policy

from .sealing import row_name

_TABLE: Final = "pending_authorizations"
_COLUMNS: Final = (
    "pending_id, client_id, request, created_at, expires_at, state_digest,"
    " approval_digest, policy, sealed_upstream_verifier, sealed_upstream_tokens,"
    " returned_at"
)
_INSERT: Final = (
    f"INSERT INTO {_TABLE} ({_COLUMNS})"  # noqa: S608 - constants
    " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
)
_DECIDE_AGAIN: Final = (
    " ON CONFLICT (pending_id) DO UPDATE SET state_digest = excluded.state_digest,"
    " approval_digest = excluded.approval_digest, policy = excluded.policy,"
    " sealed_upstream_verifier = excluded.sealed_upstream_verifier,"
    " request = excluded.request, returned_at = excluded.returned_at"
    " WHERE pending_authorizations.returned_at IS NULL"
)


class PendingAuthorization(msgspec.Struct, frozen=True):
    """
    A validated authorization request and how far its sign-in has come.

    @ivar pending_id: C{p_} and 22 characters; named in the consent form.
    @ivar client_id: who asked.
    @ivar request: what it asked, with its pinned redirect URI.
    @ivar created_at: seconds since the epoch.
    @ivar expires_at: when it can no longer be approved or come back.
    @ivar state_digest: SHA-256 of the state sent to Forgejo; C{None}: not approved.
    @ivar approval_digest: SHA-256 of the approval cookie; C{None}: not approved.
    @ivar policy: what the user chose; C{None}: not approved.
    @ivar sealed_upstream_verifier: PKCE verifier towards Forgejo, at
        L{verifier_row}.
    @ivar sealed_upstream_tokens: what was exchanged while the user is not known
        yet, at L{upstream_tokens_row}.
    @ivar returned_at: when the callback took it or the user cancelled, or C{None}.
    """

    pending_id: str
    client_id: str
    request: AuthorizationRequest
    created_at: int
    expires_at: int
    state_digest: bytes | None = None
    approval_digest: bytes | None = None
    policy: Policy | None = None
    sealed_upstream_verifier: bytes | None = None
    sealed_upstream_tokens: bytes | None = None
    returned_at: int | None = None


def verifier_row(pending_id: str) -> str:
    """
    @param pending_id: of the row.
    @return: where its sealed PKCE verifier is.
    """
    return row_name(_TABLE, "sealed_upstream_verifier", pending_id)


def upstream_tokens_row(pending_id: str) -> str:
    """
    @param pending_id: of the row.
    @return: where its sealed upstream tokens are.
    """
    return row_name(_TABLE, "sealed_upstream_tokens", pending_id)


def insert(connection: Connection, pending: PendingAuthorization) -> None:
    """
    Store a sign-in.

    @param connection: in a transaction that may write.
    @param pending: of a client that is stored.
    @raise sqlite3.IntegrityError: the client is not known, or the id is in use.
    """
    connection.execute(_INSERT, _values(pending))


def find(
    connection: Connection, pending_id: str, now: int
) -> PendingAuthorization | None:
    """
    @param connection: to the store.
    @param pending_id: controlled by the browser.
    @param now: seconds since the epoch.
    @return: the sign-in, also one whose callback has come, or C{None}: unknown or
        expired.
    """
    row = connection.execute(
        f"SELECT {_COLUMNS} FROM {_TABLE}"  # noqa: S608 - constants
        " WHERE pending_id = ? AND expires_at > ?",
        (pending_id, now),
    ).fetchone()
    return None if row is None else _record(row)


def decide(connection: Connection, decided: PendingAuthorization, now: int) -> bool:
    """
    Write what the user decided, and how the browser will come back. A second click
    overwrites the first: the browser follows the answer to the last one. A sign-in
    whose callback has come, or that the user cancelled, stays as it is: its row is
    what makes its consent form count once. Of one that is cancelled nothing secret is
    kept.

    @param connection: in a transaction that may write.
    @param decided: approved, or cancelled: returned without having left. Its client
        is stored.
    @param now: seconds since the epoch.
    @return: whether it was written: not when expired or over.
    @raise sqlite3.IntegrityError: the client is not known.
    """
    if decided.expires_at <= now:
        return False
    if decided.returned_at is not None:
        without = replace(decided.request, state=None)
        decided = replace(decided, request=without)
    changed = connection.execute(_INSERT + _DECIDE_AGAIN, _values(decided))
    return changed.rowcount == 1


def take(
    connection: Connection, state_digest: bytes, approval_digest: bytes, now: int
) -> PendingAuthorization | None:
    """
    Spend a sign-in: of any number of callbacks exactly one gets it.

    @param connection: in a transaction that may write.
    @param state_digest: SHA-256 of the state that came back.
    @param approval_digest: SHA-256 of the browser's approval cookie.
    @param now: seconds since the epoch.
    @return: the sign-in, or C{None}: unknown, expired, spent, or another browser's.
    """
    row = connection.execute(
        "UPDATE pending_authorizations SET returned_at = ?"  # noqa: S608 - constants
        " WHERE state_digest = ? AND approval_digest = ?"
        f" AND returned_at IS NULL AND expires_at > ? RETURNING {_COLUMNS}",
        (now, state_digest, approval_digest, now),
    ).fetchone()
    return None if row is None else _record(row)


def find_taken(
    connection: Connection, state_digest: bytes, approval_digest: bytes, now: int
) -> PendingAuthorization | None:
    """
    @param connection: to the store.
    @param state_digest: SHA-256 of the state that came back.
    @param approval_digest: SHA-256 of the browser's approval cookie.
    @param now: seconds since the epoch.
    @return: the sign-in, whose callback has come before and has not ended it, or
        C{None}: unknown, expired, over, or another browser's.
    """
    row = connection.execute(
        f"SELECT {_COLUMNS} FROM {_TABLE}"  # noqa: S608 - constants
        " WHERE state_digest = ? AND approval_digest = ?"
        " AND returned_at IS NOT NULL AND expires_at > ?",
        (state_digest, approval_digest, now),
    ).fetchone()
    return None if row is None else _record(row)


def park_upstream_tokens(
    connection: Connection, pending_id: str, sealed_tokens: bytes
) -> bool:
    """
    Keep an exchanged token set while nobody knows yet whose it is.

    @param connection: in a transaction that may write.
    @param pending_id: of the sign-in.
    @param sealed_tokens: sealed at L{upstream_tokens_row}.
    @return: whether the sign-in was there.
    """
    changed = connection.execute(
        "UPDATE pending_authorizations SET sealed_upstream_tokens = ?"
        " WHERE pending_id = ?",
        (sealed_tokens, pending_id),
    )
    return changed.rowcount == 1


def unpark_upstream_tokens(connection: Connection, pending_id: str) -> bool:
    """
    Forget a parked token set: it has been moved to its user, or is of no use.

    @param connection: in a transaction that may write.
    @param pending_id: of the sign-in.
    @return: whether there was one.
    """
    changed = connection.execute(
        "UPDATE pending_authorizations SET sealed_upstream_tokens = NULL"
        " WHERE pending_id = ? AND sealed_upstream_tokens IS NOT NULL",
        (pending_id,),
    )
    return changed.rowcount == 1


def parked(connection: Connection) -> list[PendingAuthorization]:
    """
    @param connection: to the store.
    @return: the sign-ins with a parked token set, expired ones too, oldest first.
    """
    rows = connection.execute(
        f"SELECT {_COLUMNS} FROM {_TABLE}"  # noqa: S608 - constants
        " WHERE sealed_upstream_tokens IS NOT NULL ORDER BY created_at"
    )
    return [_record(row) for row in rows]


def finish(connection: Connection, pending_id: str) -> bool:
    """
    End a sign-in that has come back: of all who want to, one does. What it needed on
    its way is forgotten, and the client's own state. That it was there is remembered
    until its consent form has expired.

    @param connection: in a transaction that may write.
    @param pending_id: of a sign-in whose callback has come.
    @return: whether it was under way until now.
    """
    changed = connection.execute(
        "UPDATE pending_authorizations SET state_digest = NULL, approval_digest = NULL,"
        " policy = NULL, sealed_upstream_verifier = NULL,"
        " request = json_set(request, '$.state', NULL)"
        " WHERE pending_id = ? AND returned_at IS NOT NULL"
        " AND state_digest IS NOT NULL",
        (pending_id,),
    )
    return changed.rowcount == 1


def _values(pending: PendingAuthorization) -> tuple[object, ...]:
    """
    Make the values of L{_COLUMNS}.
    """
    return (
        pending.pending_id,
        pending.client_id,
        pending.request.to_json(),
        pending.created_at,
        pending.expires_at,
        pending.state_digest,
        pending.approval_digest,
        None if pending.policy is None else str(pending.policy),
        pending.sealed_upstream_verifier,
        pending.sealed_upstream_tokens,
        pending.returned_at,
    )


def _record(row: tuple[Any, ...]) -> PendingAuthorization:
    """
    Make the record of a row of L{_COLUMNS}.
    """
    pending_id, client_id, request, created_at, expires_at, *rest = row
    state_digest, approval_digest, policy, verifier, tokens, returned_at = rest
    return PendingAuthorization(
        pending_id=pending_id,
        client_id=client_id,
        request=AuthorizationRequest.from_json(request),
        created_at=created_at,
        expires_at=expires_at,
        state_digest=state_digest,
        approval_digest=approval_digest,
        policy=None if policy is None else Policy(policy),
        sealed_upstream_verifier=verifier,
        sealed_upstream_tokens=tokens,
        returned_at=returned_at,
    )
