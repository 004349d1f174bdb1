"""The decisions of the token endpoint, as tables against the specifications."""

from msgspec.structs import replace
from twisted.trial.unittest import SynchronousTestCase

from fjmcp_broker.oauth.grants import (
    AccessToken,
    AuthorizationCode,
    CodeDecision,
    CodeFacts,
    Grant,
    IssueTokens,
    RefreshDecision,
    RefreshFacts,
    RefreshToken,
    Refuse,
    RenewAccess,
    RepeatTokens,
    RevokeGrant,
    decide_code_exchange,
    decide_refresh,
)
from fjmcp_broker.oauth.token_request import CodeRequest
from fjmcp_broker.oauth.tokens import code_challenge
from fjmcp_broker.oauth.vocabulary import Policy, Scope

NOW = 1_800_000_000
VERIFIER = "v" * 43
BACK = "https://client.example.org/back"
GRANT = Grant(
    grant_id="g_1",
    user_id=7,
    client_id="client",
    scope=("read", "write"),
    resource="https://mcp.example.org/mcp",
    policy=Policy.FULL,
    created_at=NOW - 1000,
    last_used_at=NOW - 1000,
)
CODE = AuthorizationCode(
    code_digest=b"c" * 32,
    grant_id="g_1",
    redirect_uri=BACK,
    code_challenge=code_challenge(VERIFIER),
    expires_at=NOW + 600,
)
REQUEST = CodeRequest("code", VERIFIER, BACK)


def kind(decision: CodeDecision | RefreshDecision) -> str:
    """
    @return: the decision's name, with the error code when it is a refusal.
    """
    if isinstance(decision, Refuse | RevokeGrant):
        return f"{type(decision).__name__} {decision.error.code}"
    return type(decision).__name__


class CodeExchangeTests(SynchronousTestCase):
    """RFC 6749 section 4.1.3, RFC 7636 section 4.6."""

    def decide(
        self,
        code: AuthorizationCode = CODE,
        request: CodeRequest = REQUEST,
        *,
        client_id: str = "client",
        grant: Grant = GRANT,
        upstream_usable: bool = True,
    ) -> str:
        """
        @return: what is decided, in words.
        """
        facts = CodeFacts(code, grant, upstream_usable)
        return kind(decide_code_exchange(facts, client_id, request, NOW))

    def test_right_request_gets_tokens(self) -> None:
        """The whole scope of the grant."""
        facts = CodeFacts(CODE, GRANT, True)
        decision = decide_code_exchange(facts, "client", REQUEST, NOW)
        self.assertEqual(decision, IssueTokens(None))

    def test_absent_redirect_uri_is_accepted(self) -> None:
        """OAuth 2.1 section 4.1.3: PKCE is always required instead."""
        absent = replace(REQUEST, redirect_uri=None)
        self.assertEqual(self.decide(request=absent), "IssueTokens")

    def test_unknown_code_is_refused(self) -> None:
        """RFC 6749 section 5.2."""
        decision = decide_code_exchange(None, "client", REQUEST, NOW)
        self.assertEqual(kind(decision), "Refuse invalid_grant")

    def test_other_redirect_uri_is_refused(self) -> None:
        """RFC 6749 section 4.1.3: their values MUST be identical."""
        for uri in (f"{BACK}/", f"{BACK}?", BACK.upper(), "https://evil.example"):
            request = replace(REQUEST, redirect_uri=uri)
            self.assertEqual(self.decide(request=request), "Refuse invalid_grant")

    def test_wrong_verifier_is_refused_and_spends_nothing(self) -> None:
        """RFC 7636 section 4.6; an eavesdropper must not be able to burn a code."""
        for verifier in ("w" * 43, "v", code_challenge(VERIFIER), "v" * 44, "é"):
            request = replace(REQUEST, verifier=verifier)
            self.assertEqual(self.decide(request=request), "Refuse invalid_grant")

    def test_other_client_is_refused_and_spends_nothing(self) -> None:
        """RFC 6749 section 4.1.3: issued to the authenticated client."""
        self.assertEqual(self.decide(client_id="other"), "Refuse invalid_grant")

    def test_expired_code_is_refused(self) -> None:
        """RFC 6749 section 4.1.2: the client MUST NOT use it any more."""
        for expires_at, expected in [
            (NOW + 1, "IssueTokens"),
            (NOW, "Refuse invalid_grant"),
            (NOW - 1, "Refuse invalid_grant"),
        ]:
            code = replace(CODE, expires_at=expires_at)
            self.assertEqual(self.decide(code), expected)

    def test_suspended_user_is_refused(self) -> None:
        """The tokens could not be used anyway."""
        self.assertEqual(self.decide(upstream_usable=False), "Refuse invalid_grant")

    def test_ended_grant_is_refused(self) -> None:
        """There is nothing left to revoke, whoever asks."""
        grant = replace(GRANT, revoked_at=NOW - 5)
        self.assertEqual(self.decide(grant=grant), "Refuse invalid_grant")
        used = replace(CODE, used_at=NOW - 500)
        self.assertEqual(self.decide(used, grant=grant), "Refuse invalid_grant")

    def test_used_code(self) -> None:
        """
        RFC 6749 section 4.1.2: tokens of a code used twice SHOULD be revoked. A
        parallel exchange by the client itself is no theft, and whoever lacks the
        verifier cannot log the user out (OAuth 2.1 draft 13 section 7.5.3).
        """
        wrong = replace(REQUEST, verifier="w" * 43)
        other_uri = replace(REQUEST, redirect_uri="https://evil.example")
        for used_before, request, client_id, revokes in [
            (0, REQUEST, "client", False),
            (60, REQUEST, "client", False),
            (61, REQUEST, "client", True),
            (601, REQUEST, "client", True),
            (0, REQUEST, "other", False),
            (61, REQUEST, "other", False),
            (0, wrong, "client", False),
            (61, wrong, "client", False),
            (0, other_uri, "client", False),
        ]:
            code = replace(
                CODE,
                used_at=NOW - used_before,
                expires_at=NOW - used_before + 600,
            )
            expected = "RevokeGrant" if revokes else "Refuse"
            self.assertEqual(
                self.decide(code, request, client_id=client_id),
                f"{expected} invalid_grant",
                (used_before, request.verifier, client_id),
            )


TOKEN = RefreshToken(token_digest=b"0" * 32, grant_id="g_1", expires_at=NOW + 1000)
SUCCESSOR = RefreshToken(token_digest=b"1" * 32, grant_id="g_1", expires_at=NOW + 2000)
ACCESS = AccessToken(token_digest=b"a" * 32, grant_id="g_1", expires_at=NOW + 100)
FRESH = RefreshFacts(TOKEN, GRANT, True)


def rotated(
    seconds_ago: int,
    *,
    access: AccessToken | None = ACCESS,
    refresh: RefreshToken | None = SUCCESSOR,
    key: bytes | None = b"sealed",
    number: int = 0,
    token: RefreshToken = TOKEN,
) -> RefreshFacts:
    """
    @return: facts about a token that was rotated so many seconds ago.
    """
    return replace(
        FRESH,
        token=replace(
            token,
            rotated_at=NOW - seconds_ago,
            sealed_derivation_key=key,
            successor_refresh_digest=b"1" * 32,
            successor_access_digest=b"a" * 32,
            successor_access_number=number,
        ),
        successor_refresh=refresh,
        successor_access=access,
    )


USED_ACCESS = replace(ACCESS, first_used_at=NOW - 1)
REVOKED_ACCESS = replace(ACCESS, revoked_at=NOW - 1)
EXPIRED_ACCESS = replace(ACCESS, expires_at=NOW)
USED_REFRESH = replace(SUCCESSOR, rotated_at=NOW - 1)
EXPIRED_REFRESH = replace(SUCCESSOR, expires_at=NOW)

REUSED = "RevokeGrant invalid_grant"
REFUSED = "Refuse invalid_grant"


class RefreshTests(SynchronousTestCase):
    """RFC 6749 section 6, RFC 9700 section 4.14.2, rotating and idempotent."""

    def decide(
        self,
        facts: RefreshFacts | None,
        scope: set[Scope] | None = None,
        client_id: str = "client",
    ) -> RefreshDecision:
        """
        @return: what is decided.
        """
        asked = None if scope is None else frozenset(scope)
        return decide_refresh(facts, client_id, asked, NOW)

    def check(self, facts: RefreshFacts | None, expected: str) -> None:
        """
        Require a decision of that name.
        """
        self.assertEqual(kind(self.decide(facts)), expected, facts)

    def test_fresh_token_is_rotated(self) -> None:
        """The first presentation makes the pair."""
        self.assertEqual(self.decide(FRESH), IssueTokens(None))

    def test_unknown_token_is_refused(self) -> None:
        """RFC 6749 section 5.2."""
        self.check(None, REFUSED)

    def test_expired_token_is_refused(self) -> None:
        """RFC 6749 section 5.2; nothing is revoked by that."""
        for expires_at, expected in [
            (NOW + 1, "IssueTokens"),
            (NOW, REFUSED),
            (NOW - 1, REFUSED),
        ]:
            token = replace(TOKEN, expires_at=expires_at)
            self.check(replace(FRESH, token=token), expected)

    def test_other_client_is_refused(self) -> None:
        """RFC 6749 section 6: bound to the client it was issued to."""
        for facts in (FRESH, rotated(5), rotated(500, access=USED_ACCESS)):
            decision = self.decide(facts, client_id="other")
            self.assertEqual(kind(decision), REFUSED)

    def test_ended_grant_is_refused(self) -> None:
        """Nothing comes of a grant that was revoked."""
        ended = replace(GRANT, revoked_at=NOW - 1)
        for facts in (FRESH, rotated(5), rotated(500, access=USED_ACCESS)):
            self.check(replace(facts, grant=ended), REFUSED)

    def test_suspended_user_is_refused_and_nothing_revoked(self) -> None:
        """A new sign-in of the user revives the grant as it was."""
        for facts in (FRESH, rotated(5), rotated(500, access=USED_ACCESS)):
            self.check(replace(facts, upstream_usable=False), REFUSED)

    def test_rotated_token(self) -> None:
        """Within a minute whatever happened, later while neither was used."""
        for facts, expected in [
            (rotated(0), "RepeatTokens"),
            (rotated(60), "RepeatTokens"),
            (rotated(61), "RepeatTokens"),
            (rotated(60, access=USED_ACCESS), "RepeatTokens"),
            (rotated(60, refresh=USED_REFRESH), "RepeatTokens"),
            (rotated(60, access=USED_ACCESS, refresh=USED_REFRESH), "RepeatTokens"),
            (rotated(60, access=REVOKED_ACCESS), "RepeatTokens"),
            (rotated(61, access=USED_ACCESS), REUSED),
            (rotated(61, refresh=USED_REFRESH), REUSED),
            (rotated(61, access=REVOKED_ACCESS), REUSED),
            (rotated(61, key=None), REUSED),
            (rotated(61, access=None), REUSED),
            # The clock of the machine went back.
            (rotated(-30, access=USED_ACCESS), "RepeatTokens"),
        ]:
            self.check(facts, expected)

    def test_repetition_says_what_the_access_token_is(self) -> None:
        """Its number, its end and its scope, not those of the request."""
        access = replace(ACCESS, scope=("read",))
        self.assertEqual(
            self.decide(rotated(5, access=access, number=3), {Scope.WRITE}),
            RepeatTokens(3, ACCESS.expires_at, ("read",)),
        )

    def test_successor_that_expired_unused_is_renewed(self) -> None:
        """A client that lost the answer may sleep overnight."""
        self.assertEqual(
            self.decide(rotated(5000, access=EXPIRED_ACCESS, number=1)),
            RenewAccess(2, None),
        )
        self.assertEqual(
            self.decide(rotated(5000, access=EXPIRED_ACCESS), {Scope.READ}),
            RenewAccess(1, ("read",)),
        )

    def test_successor_that_expired_used_is_not_renewed(self) -> None:
        """Used within a minute and expired: the same pair; later it is reuse."""
        gone = replace(EXPIRED_ACCESS, first_used_at=NOW - 40)
        self.check(rotated(50, access=gone), "RepeatTokens")
        self.check(rotated(500, access=gone), REUSED)
        self.check(rotated(500, access=EXPIRED_ACCESS, refresh=USED_REFRESH), REUSED)

    def test_own_end_does_not_count_once_rotated(self) -> None:
        """The answer that was lost had been given in time."""
        token = replace(TOKEN, expires_at=NOW - 10)
        self.check(rotated(20, token=token), "RepeatTokens")
        self.check(rotated(200, token=token), "RepeatTokens")
        self.check(rotated(200, token=token, access=USED_ACCESS), REUSED)

    def test_expired_successor_ends_the_chain(self) -> None:
        """A grant without an unexpired refresh token is not live."""
        self.check(rotated(5000, refresh=EXPIRED_REFRESH), REFUSED)
        self.check(rotated(5000, refresh=None), REFUSED)
        expired_and_rotated = replace(EXPIRED_REFRESH, rotated_at=NOW - 100)
        self.check(rotated(5000, refresh=expired_and_rotated), REUSED)

    def test_answer_that_cannot_be_derived_is_refused(self) -> None:
        """Within the minute nothing is taken for a theft."""
        self.check(rotated(5, key=None), REFUSED)
        self.check(rotated(5, access=None), REFUSED)

    def test_scope_may_shrink(self) -> None:
        """RFC 6749 section 6."""
        for scope, expected in [
            (None, IssueTokens(None)),
            ({Scope.READ, Scope.WRITE}, IssueTokens(None)),
            ({Scope.READ}, IssueTokens(("read",))),
            ({Scope.WRITE}, IssueTokens(("write",))),
        ]:
            self.assertEqual(self.decide(FRESH, scope), expected)

    def test_scope_must_not_grow(self) -> None:
        """RFC 6749 section 6: MUST NOT include any scope not originally granted."""
        narrow = replace(GRANT, scope=("read",))
        for facts in (FRESH, rotated(5), rotated(500)):
            facts = replace(facts, grant=narrow)
            self.assertEqual(
                kind(self.decide(facts, {Scope.READ, Scope.WRITE})),
                "Refuse invalid_scope",
            )
        self.assertEqual(
            self.decide(replace(FRESH, grant=narrow), {Scope.READ}),
            IssueTokens(None),
        )

    def test_reuse_comes_before_the_scope(self) -> None:
        """A thief does not get away with a wrong scope."""
        facts = rotated(500, access=USED_ACCESS)
        facts = replace(facts, grant=replace(GRANT, scope=("read",)))
        self.assertEqual(kind(self.decide(facts, {Scope.WRITE})), REUSED)
