"""
What the store keeps of a grant and of what it issued, and the decisions on requests
for more. A decision is a value: the store carries it out, in one transaction.
"""

import msgspec

from fjmcp_broker.oauth.errors import OAuthError, invalid_grant
from fjmcp_broker.oauth.token_request import CodeRequest
from fjmcp_broker.oauth.tokens import GRACE_SECONDS, verifier_matches
from fjmcp_broker.oauth.vocabulary import ErrorCode, Policy, Scope


class Grant(msgspec.Struct, frozen=True):
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


class AuthorizationCode(msgspec.Struct, frozen=True):
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


class AccessToken(msgspec.Struct, frozen=True):
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


class RefreshToken(msgspec.Struct, frozen=True):
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


class CodeFacts(msgspec.Struct, frozen=True):
    """
    What the store knows about a presented authorization code.

    @ivar code: the code.
    @ivar grant: its grant.
    @ivar upstream_usable: whether the user's upstream token set is C{usable}.
    """

    code: AuthorizationCode
    grant: Grant
    upstream_usable: bool


class RefreshFacts(msgspec.Struct, frozen=True):
    """
    What the store knows about a presented refresh token.

    @ivar token: the token.
    @ivar grant: its grant.
    @ivar upstream_usable: whether the user's upstream token set is C{usable}.
    @ivar successor_refresh: what it was exchanged for, or C{None}: not rotated, or
        expired and collected since.
    @ivar successor_access: the newest access token that it was exchanged for, or
        C{None} likewise.
    """

    token: RefreshToken
    grant: Grant
    upstream_usable: bool
    successor_refresh: RefreshToken | None = None
    successor_access: AccessToken | None = None


class Refuse(msgspec.Struct, frozen=True):
    """
    Answer an error and change nothing.

    @ivar error: C{invalid_grant} or C{invalid_scope}.
    """

    error: OAuthError


class RevokeGrant(msgspec.Struct, frozen=True):
    """
    End the grant with everything that it issued, and answer an error.

    @ivar reason: for the store and the log.
    @ivar error: C{invalid_grant}.
    """

    reason: str
    error: OAuthError


class IssueTokens(msgspec.Struct, frozen=True):
    """
    Issue a new pair: for a code, or as the successors of a refresh token.

    @ivar scope: of the access token when narrower than the grant's, else C{None}.
    """

    scope: tuple[str, ...] | None = None


class RepeatTokens(msgspec.Struct, frozen=True):
    """
    Answer once more with the pair that the rotation made.

    @ivar access_number: which access token.
    @ivar access_expires_at: when that ends, seconds since the epoch.
    @ivar scope: of that access token when narrower than the grant's, else C{None}.
    """

    access_number: int
    access_expires_at: int
    scope: tuple[str, ...] | None


class RenewAccess(msgspec.Struct, frozen=True):
    """
    Answer with the refresh token that the rotation made and a new access token: the
    one before expired before anybody used it.

    @ivar access_number: of the new access token.
    @ivar scope: of the new access token when narrower than the grant's, else C{None}.
    """

    access_number: int
    scope: tuple[str, ...] | None


CodeDecision = IssueTokens | RevokeGrant | Refuse
RefreshDecision = IssueTokens | RepeatTokens | RenewAccess | RevokeGrant | Refuse


def decide_code_exchange(
    facts: CodeFacts | None, client_id: str, request: CodeRequest, now: int
) -> CodeDecision:
    """
    Decide on an authorization code (RFC 6749 section 4.1.3, RFC 7636 section 4.6).

    A code that was used already revokes what it produced (RFC 6749 section 4.1.2:
    SHOULD), but not within a minute: clients do exchange twice in parallel. Another
    client or a wrong verifier neither spends a code nor ends what it produced (OAuth
    2.1 draft 13 section 7.5.3), else whoever saw it in a log could.

    @param facts: what the store knows, or C{None}: an unknown code.
    @param client_id: of the authenticated client.
    @param request: what it asks.
    @param now: seconds since the epoch.
    @return: what to do.
    """
    if facts is None:
        return Refuse(invalid_grant("the authorization code is not known"))
    code, grant = facts.code, facts.grant
    is_owner = grant.client_id == client_id
    verified = verifier_matches(request.verifier, code.code_challenge)
    if grant.revoked_at is not None:
        return Refuse(invalid_grant("the grant has ended"))
    if code.used_at is not None:
        error = invalid_grant("the authorization code has been used")
        if is_owner and verified and now - code.used_at > GRACE_SECONDS:
            return RevokeGrant("code_reused", error)
        return Refuse(error)
    if not is_owner:
        return Refuse(invalid_grant("the code was issued to another client"))
    if code.expires_at <= now:
        return Refuse(invalid_grant("the authorization code has expired"))
    if request.redirect_uri not in (None, code.redirect_uri):
        return Refuse(invalid_grant("redirect_uri is not that of the request"))
    if not verified:
        return Refuse(invalid_grant("code_verifier does not match"))
    if not facts.upstream_usable:
        return _sign_in_again()
    return IssueTokens()


def decide_refresh(
    facts: RefreshFacts | None,
    client_id: str,
    scope: frozenset[Scope] | None,
    now: int,
) -> RefreshDecision:
    """
    Decide on a refresh token: rotating and idempotent. A rotated token gets the
    same pair again within a minute of the rotation, used or not, and later while
    neither successor has been used: clients refresh from several addresses, and
    lose answers. Any other reuse revokes the grant (RFC 9700 section 4.14.2).

    A rotated token is answered for as long as its successor lives; its own end
    counts only while it has not been rotated.

    @param facts: what the store knows, or C{None}: an unknown token.
    @param client_id: of the authenticated client.
    @param scope: asked for, or C{None}.
    @param now: seconds since the epoch.
    @return: what to do.
    """
    if facts is None:
        return Refuse(invalid_grant("the refresh token is not known"))
    token, grant = facts.token, facts.grant
    if grant.client_id != client_id:
        return Refuse(invalid_grant("the token was issued to another client"))
    if grant.revoked_at is not None:
        return Refuse(invalid_grant("the grant has ended"))
    if not facts.upstream_usable:
        # Nothing is judged and nothing changes until the user has signed in again.
        return _sign_in_again()
    if token.rotated_at is None:
        if token.expires_at <= now:
            return _expired()
        narrowed = _narrow(grant, scope)
        return narrowed if isinstance(narrowed, Refuse) else IssueTokens(narrowed.scope)
    refresh, access = facts.successor_refresh, facts.successor_access
    if refresh is None or (refresh.rotated_at is None and refresh.expires_at <= now):
        # The newest refresh token has expired: the grant is not live any more.
        return _expired()
    # An access token is collected once it has expired and its use is settled.
    used = (
        refresh.rotated_at is not None
        or token.sealed_derivation_key is None
        or access is None
        or access.first_used_at is not None
        or access.revoked_at is not None
    )
    if used and now - token.rotated_at > GRACE_SECONDS:
        return RevokeGrant(
            "refresh_token_reused", invalid_grant("the refresh token has been used")
        )
    if access is None or token.sealed_derivation_key is None:
        return Refuse(invalid_grant("the refresh token has been used"))
    narrowed = _narrow(grant, scope)
    if isinstance(narrowed, Refuse):
        return narrowed
    if not used and access.expires_at <= now:
        return RenewAccess(token.successor_access_number + 1, narrowed.scope)
    return RepeatTokens(token.successor_access_number, access.expires_at, access.scope)


def _sign_in_again() -> Refuse:
    return Refuse(invalid_grant("the user has to sign in again"))


def _expired() -> Refuse:
    return Refuse(invalid_grant("the refresh token has expired"))


def _narrow(grant: Grant, scope: frozenset[Scope] | None) -> IssueTokens | Refuse:
    """
    RFC 6749 section 6: nothing beyond what was granted; absent means all of it. Only
    the access token gets narrower, the refresh token keeps the whole.
    """
    if scope is None or scope == set(grant.scope):
        return IssueTokens()
    if not scope <= set(grant.scope):
        return Refuse(
            OAuthError(ErrorCode.INVALID_SCOPE, "the scope exceeds what was granted")
        )
    return IssueTokens(tuple(sorted(scope)))
