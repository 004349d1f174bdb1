"""Bearer tokens: the header, the judgement, the challenge."""

from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace
from twisted.trial.unittest import SynchronousTestCase

from fjmcp_broker.oauth.bearer import (
    BearerFacts,
    MalformedBearerError,
    Principal,
    challenge,
    judge_bearer,
    parse_authorization,
)
from fjmcp_broker.oauth.grants import AccessToken, Grant
from fjmcp_broker.oauth.vocabulary import ErrorCode, Policy

NOW = 1_800_000_000
GRANT = Grant(
    grant_id="g_1",
    user_id=7,
    client_id="c",
    scope=("read", "write"),
    resource="https://mcp.example.org/mcp",
    policy=Policy.FULL,
    created_at=NOW - 100,
    last_used_at=NOW - 50,
)
FACTS = BearerFacts(
    token=AccessToken(token_digest=b"d" * 32, grant_id="g_1", expires_at=NOW + 10),
    grant=GRANT,
    login="alice",
    upstream_usable=True,
)


class HeaderTests(SynchronousTestCase):
    """RFC 6750 section 2.1."""

    def test_token_is_read(self) -> None:
        """The scheme's name ignores case, the token does not."""
        for header in (
            b"Bearer abc-._~+/=",
            b"bearer abc-._~+/=",
            b"BEARER   abc-._~+/=",
            b"\t Bearer abc-._~+/= ",
        ):
            self.assertEqual(parse_authorization(header), "abc-._~+/=")

    def test_other_schemes_are_no_credentials(self) -> None:
        """RFC 6750 section 3.1: no error is told to who sent no bearer token."""
        for header in (None, b"", b"Basic abc", b"token abc", b"Bearerx abc"):
            self.assertIsNone(parse_authorization(header))

    def test_malformed_bearer_is_told_apart(self) -> None:
        """It says Bearer, and no single token follows."""
        for header in (
            b"Bearer",
            b"Bearer ",
            b"Bearer a b",
            b"Bearer a,b",
            b"Bearer a, Bearer b",
            b"Bearer \xff",
            b"Bearer a\x00",
            b"Bearer ==",
            b"bearer\ta",
            b"Bearer " + b"a" * 600,
        ):
            with self.assertRaises(MalformedBearerError, msg=repr(header)):
                parse_authorization(header)

    @given(st.binary() | st.binary().map(b"Bearer ".__add__))
    def test_any_bytes_are_judged(self, header: bytes) -> None:
        """Junk is nothing, malformed, or a visible ASCII token."""
        try:
            token = parse_authorization(header)
        except MalformedBearerError:
            return
        if token is not None:
            self.assertRegex(token, r"\A[!-~]+\Z")


class JudgementTests(SynchronousTestCase):
    """Who a token speaks for, if anybody."""

    def test_valid_token_speaks_for_its_user(self) -> None:
        """Everything that the relay needs to know is there."""
        self.assertEqual(
            judge_bearer(FACTS, NOW),
            Principal(
                grant_id="g_1",
                user_id=7,
                login="alice",
                client_id="c",
                policy=Policy.FULL,
                expires_at=NOW + 10,
                token_digest=b"d" * 32,
            ),
        )

    def test_token_that_is_no_good(self) -> None:
        """Unknown, expired, revoked, grant revoked, user suspended."""
        token, grant = FACTS.token, FACTS.grant
        for facts in (
            None,
            replace(FACTS, token=replace(token, expires_at=NOW)),
            replace(FACTS, token=replace(token, revoked_at=NOW - 1)),
            replace(FACTS, grant=replace(grant, revoked_at=NOW - 1)),
            replace(FACTS, upstream_usable=False),
        ):
            self.assertIsNone(judge_bearer(facts, NOW), facts)

    def policy(self, policy: Policy, scope: tuple[str, ...] | None) -> Policy:
        """
        @return: what applies to a token of that scope under a grant of that policy.
        """
        principal = judge_bearer(
            replace(
                FACTS,
                grant=replace(GRANT, policy=policy),
                token=replace(FACTS.token, scope=scope),
            ),
            NOW,
        )
        assert principal is not None
        return principal.policy

    def test_narrowed_token_cannot_write(self) -> None:
        """RFC 6749 section 6: the token has the scope that it was issued with."""
        asked = Policy.READ_ONLY_REQUESTED
        self.assertIs(self.policy(Policy.FULL, ("read",)), asked)
        self.assertIs(self.policy(Policy.FULL, ("read", "write")), Policy.FULL)
        self.assertIs(self.policy(Policy.FULL, None), Policy.FULL)

    def test_token_is_never_wider_than_its_grant(self) -> None:
        """What the user chose stays."""
        for policy in (Policy.READ_ONLY, Policy.READ_ONLY_REQUESTED):
            for scope in (None, ("read",), ("read", "write")):
                self.assertIs(self.policy(policy, scope), policy)


class ChallengeTests(SynchronousTestCase):
    """RFC 6750 section 3 and RFC 9728 section 5.1."""

    URL = "https://mcp.example.org/.well-known/oauth-protected-resource/mcp"

    def test_without_credentials_there_is_no_error(self) -> None:
        """RFC 6750 section 3.1."""
        self.assertEqual(
            challenge(self.URL, "read write"),
            f'Bearer resource_metadata="{self.URL}", scope="read write"',
        )

    def test_with_error(self) -> None:
        """The error and why."""
        self.assertEqual(
            challenge(self.URL, "read", ErrorCode.INVALID_TOKEN, "it has expired"),
            f'Bearer resource_metadata="{self.URL}", scope="read", '
            'error="invalid_token", error_description="it has expired"',
        )

    def test_value_that_would_need_an_escape_is_a_bug(self) -> None:
        """Nothing that a peer controls goes into a challenge."""
        for value in ('a"b', "a\\b", "a\nb"):
            with self.assertRaises(ValueError):
                challenge(self.URL, None, ErrorCode.INVALID_TOKEN, value)
