"""
Ending grants and single tokens, with what belongs to it, in one transaction.
"""

from sqlite3 import Connection
from typing import Final

import msgspec

from fjmcp_broker.oauth.errors import OAuthError, invalid_grant
from fjmcp_broker.oauth.grants import Grant
from fjmcp_broker.oauth.token_request import ClientCredentials, authenticate_client
from fjmcp_broker.oauth.tokens import digest

from . import audit, clients, grants, sessions, tokens, upstream_tokens
from .audit import AuditEvent, Kind
from .bearer_check import erase_spent_keys

REVOKED_BY_CLIENT: Final = "revoked_by_client"


class Refused(msgspec.Struct, frozen=True):
    """
    A refusal to be sent to the client. It is returned, not raised: raising would
    roll back, and what a refusal revokes has to be committed with it.

    @ivar error: what the client is told.
    @ivar ended_grant_id: the grant that this ended, or C{None}.
    @ivar reason: why that ended.
    @ivar grant_id: that the request was about, if it is known; not for the client.
    """

    error: OAuthError
    ended_grant_id: str | None = None
    reason: str | None = None
    grant_id: str | None = None


class Revoked(msgspec.Struct, frozen=True):
    """
    A revocation was accepted.

    @ivar ended_grant_id: the grant that this ended, or C{None}.
    @ivar token_digest: the access token that was revoked alone, or C{None}.
    """

    ended_grant_id: str | None = None
    token_digest: bytes | None = None


def end_grant(connection: Connection, grant_id: str, now: int, reason: str) -> bool:
    """
    End a grant with its tokens and sessions and, when it was the user's last one, with
    the user's tokens towards Forgejo. Whoever calls this tells the bearer cache and the
    session registry after the commit.

    @param connection: in a transaction that may write.
    @param grant_id: of the grant.
    @param now: seconds since the epoch.
    @param reason: one of our own words.
    @return: whether it had not ended before.
    """
    if not grants.revoke(connection, grant_id, now, reason):
        return False
    sessions.close_of_grant(connection, grant_id, now, reason)
    upstream_tokens.delete_without_grant(
        connection, grant_of(connection, grant_id).user_id, now
    )
    return True


def grant_of(connection: Connection, grant_id: str) -> Grant:
    """
    @param connection: to the store.
    @param grant_id: named by a stored token, so that it is there.
    @return: the grant.
    """
    grant = grants.find(connection, grant_id)
    if grant is None:
        raise LookupError("a token without its grant")
    return grant


def check_client(
    connection: Connection, credentials: ClientCredentials
) -> Refused | None:
    """
    @param connection: to the store.
    @param credentials: as presented.
    @return: the refusal, or C{None}: the client is who it says.
    """
    try:
        authenticate_client(
            credentials, clients.find(connection, credentials.client_id)
        )
    except OAuthError as error:
        return Refused(error)
    return None


def revoke_token(
    connection: Connection, credentials: ClientCredentials, token: str, now: int
) -> Revoked | Refused:
    """
    Revoke a token of a client (RFC 7009 section 2.1): an access token alone; with a
    refresh token, rotated or not, the grant.

    @param connection: in a transaction that may write.
    @param credentials: of the client.
    @param token: as presented.
    @param now: seconds since the epoch.
    @return: what came of it. An unknown token is as good as revoked.
    """
    refused = check_client(connection, credentials)
    if refused is not None:
        return refused
    token_digest = digest(token)
    access = tokens.find_access(connection, token_digest)
    found = access or tokens.find_refresh(connection, token_digest)
    if found is None:
        return Revoked()
    grant = grant_of(connection, found.grant_id)
    if grant.client_id != credentials.client_id:
        return Refused(invalid_grant("the token was issued to another client"))
    if access is None:
        ended = end_grant(connection, grant.grant_id, now, REVOKED_BY_CLIENT)
        return Revoked(ended_grant_id=grant.grant_id if ended else None)
    if tokens.revoke_access(connection, token_digest, now):
        erase_spent_keys(connection, now, grant.grant_id)
        event = AuditEvent(
            at=now,
            kind=Kind.TOKEN_REVOKED,
            outcome=REVOKED_BY_CLIENT,
            grant_id=grant.grant_id,
        )
        audit.insert_many(connection, [event])
    return Revoked(token_digest=token_digest)
