"""
The records behind tokens: what the store keeps of a grant and of what it issued.
"""

import attrs

from fjmcp_broker.oauth.vocabulary import Policy


@attrs.frozen
class Grant:
    """
    What a user allowed a client to do. It is live while it is not revoked and has
    an unexpired refresh token.

    @ivar grant_id: C{g_} and 22 characters; not a secret.
    @ivar user_id: Forgejo's number of the user.
    @ivar client_id: the client that may act.
    @ivar scope: what was granted, sorted: L{Scope<vocabulary.Scope>} values.
    @ivar resource: the MCP endpoint, in its one spelling.
    @ivar policy: what the relay applies.
    @ivar created_at: seconds since the epoch.
    @ivar last_used_at: of the newest code exchange or refresh.
    @ivar revoked_at: when it ended, or C{None}.
    @ivar reason: why it ended, one of our own words, or C{None}.
    """

    grant_id: str
    user_id: int
    client_id: str
    scope: tuple[str, ...]
    resource: str
    policy: Policy
    created_at: int
    last_used_at: int
    revoked_at: int | None = None
    reason: str | None = None


@attrs.frozen
class AuthorizationCode:
    """
    An issued authorization code (RFC 6749 section 4.1.2).

    @ivar code_digest: SHA-256 of its text.
    @ivar grant_id: the grant that it stands for.
    @ivar redirect_uri: the pinned redirect URI of its authorization request.
    @ivar code_challenge: S256 challenge of the same request.
    @ivar expires_at: seconds since the epoch.
    @ivar used_at: when it was exchanged, or C{None}.
    """

    code_digest: bytes
    grant_id: str
    redirect_uri: str
    code_challenge: str
    expires_at: int
    used_at: int | None = None


@attrs.frozen
class AccessToken:
    """
    An issued access token.

    @ivar token_digest: SHA-256 of its text.
    @ivar grant_id: the grant that it stands for.
    @ivar expires_at: seconds since the epoch.
    @ivar scope: narrower than the grant's, sorted (RFC 6749 section 6), or C{None}:
        the grant's.
    @ivar first_used_at: when it was first presented to the MCP endpoint.
    @ivar revoked_at: when the client revoked it alone (RFC 7009).
    """

    token_digest: bytes
    grant_id: str
    expires_at: int
    scope: tuple[str, ...] | None = None
    first_used_at: int | None = None
    revoked_at: int | None = None


@attrs.frozen
class RefreshToken:
    """
    An issued refresh token.

    @ivar token_digest: SHA-256 of its text.
    @ivar grant_id: the grant that it stands for.
    @ivar expires_at: seconds since the epoch.
    @ivar rotated_at: when it was exchanged for its successors, or C{None}.
    @ivar sealed_derivation_key: what the same answer can be derived from again, or
        C{None}: not rotated, or no answer can need it any more.
    @ivar successor_refresh_digest: the refresh token that followed it.
    @ivar successor_access_digest: the access token that followed it, the newest.
    @ivar successor_access_number: how many of these have expired unused before.
    """

    token_digest: bytes
    grant_id: str
    expires_at: int
    rotated_at: int | None = None
    sealed_derivation_key: bytes | None = None
    successor_refresh_digest: bytes | None = None
    successor_access_digest: bytes | None = None
    successor_access_number: int = 0
