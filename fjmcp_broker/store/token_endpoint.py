"""
What the token endpoint does to the store: facts read, decided on and carried out in
one transaction each.
"""

from sqlite3 import Connection

import msgspec

from fjmcp_broker.oauth.errors import invalid_grant
from fjmcp_broker.oauth.grants import (
    AccessToken,
    CodeFacts,
    Grant,
    IssueTokens,
    RefreshFacts,
    RefreshToken,
    Refuse,
    RenewAccess,
    RevokeGrant,
    decide_code_exchange,
    decide_refresh,
)
from fjmcp_broker.oauth.token_request import (
    ClientCredentials,
    CodeRequest,
    RefreshRequest,
)
from fjmcp_broker.oauth.tokens import (
    ACCESS_PREFIX,
    DERIVATION_KEY_BYTES,
    REFRESH_PREFIX,
    RandomBytes,
    Successor,
    derive_successor,
    digest,
    new_token,
)
from fjmcp_broker.secret import Confidential

from . import clients, grants, tokens, upstream_tokens
from .bearer_check import erase_spent_keys
from .revocation import Refused, check_client, end_grant, grant_of
from .sealing import Sealer


class TokenAnswer(Confidential, msgspec.Struct, frozen=True):
    """
    Tokens to be sent to the client.

    @ivar grant_id: the grant that they belong to.
    @ivar access_token: text of the access token.
    @ivar refresh_token: text of the refresh token.
    @ivar expires_in: what remains of the access token's life, seconds.
    @ivar scope: of the access token.
    @ivar what: what happened, for the log.
    """

    grant_id: str
    access_token: str
    refresh_token: str
    expires_in: int
    scope: tuple[str, ...]
    what: str


class TokenTransactions:
    """
    The transactions, with what they need besides the connection.
    """

    def __init__(
        self,
        sealer: Sealer,
        random_bytes: RandomBytes,
        *,
        access_lifetime_seconds: int,
        refresh_lifetime_seconds: int,
        resource: str,
    ) -> None:
        """
        @param sealer: for the derivation keys.
        @param random_bytes: gives tokens and derivation keys.
        @param access_lifetime_seconds: of an access token; never beyond the end of
            its refresh token.
        @param refresh_lifetime_seconds: of a refresh token; each rotation starts
            it anew.
        @param resource: what tokens are issued for (RFC 8707): codes and tokens of a
            grant for another one, from before this service moved or out of a copy of
            somebody else's store, are unknown here.
        """
        self._resource = resource
        self._sealer = sealer
        self._random_bytes = random_bytes
        self._access_lifetime_seconds = access_lifetime_seconds
        self._refresh_lifetime_seconds = refresh_lifetime_seconds

    def answer(
        self,
        connection: Connection,
        credentials: ClientCredentials,
        asked: CodeRequest | RefreshRequest,
        now: int,
    ) -> TokenAnswer | Refused:
        """
        Answer a token request.

        @param connection: inside a transaction.
        @param credentials: of the client.
        @param asked: what it asks for.
        @param now: seconds since the epoch.
        @return: what to send after the commit.
        """
        refused = check_client(connection, credentials)
        if refused is not None:
            return refused
        if isinstance(asked, CodeRequest):
            return self._exchange(connection, credentials.client_id, asked, now)
        return self._refresh(connection, credentials.client_id, asked, now)

    def _exchange(
        self, connection: Connection, client_id: str, asked: CodeRequest, now: int
    ) -> TokenAnswer | Refused:
        facts = _code_facts(connection, digest(asked.code))
        if facts is not None and facts.grant.resource != self._resource:
            facts = None
        decision = decide_code_exchange(facts, client_id, asked, now)
        if isinstance(decision, Refuse | RevokeGrant):
            return _carry_out_refusal(connection, facts, decision, now)
        assert facts is not None  # noqa: S101 - no facts, no tokens
        if not tokens.use_code(connection, facts.code.code_digest, now):
            return Refused(invalid_grant("the authorization code has been used"))
        pair = Successor(
            access_token=new_token(ACCESS_PREFIX, self._random_bytes),
            refresh_token=new_token(REFRESH_PREFIX, self._random_bytes),
        )
        access = self._insert_pair(connection, facts.grant, pair, decision.scope, now)
        return _token_answer(facts.grant, pair, access, now, "issued")

    def _refresh(
        self, connection: Connection, client_id: str, asked: RefreshRequest, now: int
    ) -> TokenAnswer | Refused:
        facts = _refresh_facts(connection, digest(asked.refresh_token))
        if facts is not None and facts.grant.resource != self._resource:
            facts = None
        decision = decide_refresh(facts, client_id, asked.scope, now)
        if isinstance(decision, Refuse | RevokeGrant):
            return _carry_out_refusal(connection, facts, decision, now)
        assert facts is not None  # noqa: S101 - no facts, no tokens
        presented, grant = asked.refresh_token, facts.grant
        if isinstance(decision, IssueTokens):
            return self._rotate(connection, facts, presented, decision, now)
        pair = derive_successor(
            presented, self._open_key(facts.token), decision.access_number
        )
        if isinstance(decision, RenewAccess):
            return self._renew(connection, facts, pair, decision, now)
        access = AccessToken(
            token_digest=digest(pair.access_token),
            grant_id=grant.grant_id,
            expires_at=decision.access_expires_at,
            scope=decision.scope,
        )
        return _token_answer(grant, pair, access, now, "repeated")

    def _rotate(
        self,
        connection: Connection,
        facts: RefreshFacts,
        presented: str,
        decision: IssueTokens,
        now: int,
    ) -> TokenAnswer | Refused:
        token, grant = facts.token, facts.grant
        key = self._random_bytes(DERIVATION_KEY_BYTES)
        pair = derive_successor(presented, key, 0)
        # The rotation first: its row count says whether it is ours to make.
        if not tokens.rotate_refresh(
            connection,
            token.token_digest,
            now,
            sealed_derivation_key=self._sealer.seal(
                key, row=tokens.derivation_key_row(token.token_digest)
            ),
            successor_refresh_digest=digest(pair.refresh_token),
            successor_access_digest=digest(pair.access_token),
        ):
            return Refused(invalid_grant("the refresh token has been used"))
        access = self._insert_pair(connection, grant, pair, decision.scope, now)
        erase_spent_keys(connection, now, grant.grant_id)
        return _token_answer(grant, pair, access, now, "rotated")

    def _renew(
        self,
        connection: Connection,
        facts: RefreshFacts,
        pair: Successor,
        decision: RenewAccess,
        now: int,
    ) -> TokenAnswer:
        successor = facts.successor_refresh
        assert successor is not None  # noqa: S101 - decide_refresh has seen it
        access = self._access_token(
            facts.grant, pair, decision.scope, now, successor.expires_at
        )
        tokens.insert_access(connection, access)
        tokens.replace_successor_access(
            connection,
            facts.token.token_digest,
            access_number=decision.access_number,
            access_digest=access.token_digest,
        )
        return _token_answer(facts.grant, pair, access, now, "renewed")

    def _insert_pair(
        self,
        connection: Connection,
        grant: Grant,
        pair: Successor,
        scope: tuple[str, ...] | None,
        now: int,
    ) -> AccessToken:
        refresh = RefreshToken(
            token_digest=digest(pair.refresh_token),
            grant_id=grant.grant_id,
            expires_at=now + self._refresh_lifetime_seconds,
        )
        access = self._access_token(grant, pair, scope, now, refresh.expires_at)
        tokens.insert_refresh(connection, refresh)
        tokens.insert_access(connection, access)
        grants.mark_used(connection, grant.grant_id, now)
        clients.mark_used(connection, grant.client_id, now)
        return access

    def _access_token(
        self,
        grant: Grant,
        pair: Successor,
        scope: tuple[str, ...] | None,
        now: int,
        refresh_expires_at: int,
    ) -> AccessToken:
        return AccessToken(
            token_digest=digest(pair.access_token),
            grant_id=grant.grant_id,
            expires_at=min(now + self._access_lifetime_seconds, refresh_expires_at),
            scope=scope,
        )

    def _open_key(self, token: RefreshToken) -> bytes:
        sealed = token.sealed_derivation_key
        assert sealed is not None  # noqa: S101 - decide_refresh has seen it
        return self._sealer.open(
            sealed, row=tokens.derivation_key_row(token.token_digest)
        )


def _token_answer(
    grant: Grant, pair: Successor, access: AccessToken, now: int, what: str
) -> TokenAnswer:
    return TokenAnswer(
        grant_id=grant.grant_id,
        access_token=pair.access_token,
        refresh_token=pair.refresh_token,
        expires_in=max(0, access.expires_at - now),
        scope=grant.scope if access.scope is None else access.scope,
        what=what,
    )


def _carry_out_refusal(
    connection: Connection,
    facts: CodeFacts | RefreshFacts | None,
    decision: Refuse | RevokeGrant,
    now: int,
) -> Refused:
    if facts is None:
        return Refused(decision.error)
    grant_id = facts.grant.grant_id
    if isinstance(decision, Refuse):
        return Refused(decision.error, grant_id=grant_id)
    end_grant(connection, grant_id, now, decision.reason)
    return Refused(decision.error, grant_id, decision.reason, grant_id)


def _code_facts(connection: Connection, code_digest: bytes) -> CodeFacts | None:
    code = tokens.find_code(connection, code_digest)
    if code is None:
        return None
    grant = grant_of(connection, code.grant_id)
    return CodeFacts(code, grant, _upstream_usable(connection, grant))


def _refresh_facts(
    connection: Connection, refresh_digest: bytes
) -> RefreshFacts | None:
    token = tokens.find_refresh(connection, refresh_digest)
    if token is None:
        return None
    grant = grant_of(connection, token.grant_id)
    refresh_next = token.successor_refresh_digest
    access_next = token.successor_access_digest
    return RefreshFacts(
        token=token,
        grant=grant,
        upstream_usable=_upstream_usable(connection, grant),
        successor_refresh=None
        if refresh_next is None
        else tokens.find_refresh(connection, refresh_next),
        successor_access=None
        if access_next is None
        else tokens.find_access(connection, access_next),
    )


def _upstream_usable(connection: Connection, grant: Grant) -> bool:
    return upstream_tokens.state_of(connection, grant.user_id) == "usable"
