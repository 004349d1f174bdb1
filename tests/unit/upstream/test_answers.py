"""What Forgejo's answers are taken for: facts about its token endpoint as a table."""

import json
from base64 import urlsafe_b64encode

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from fjmcp_broker.upstream.answers import (
    Answer,
    introspection,
    refused_exchange,
    refused_refresh,
    token_answer,
    user_info,
)
from fjmcp_broker.upstream.errors import (
    CodeRefused,
    SignInNeeded,
    UpstreamError,
    UpstreamMisconfigured,
    UpstreamUnavailable,
)

CLIENT_ID = "11111111-2222-4333-8444-555555555555"

UNAVAILABLE = "unavailable"
MISCONFIGURED = "misconfigured"
SIGN_IN = "sign in"
REFUSED = "refused"
RESTART = "restart"

EXCHANGE = [
    ("unsupported_grant_type", "Only refresh_token or …", MISCONFIGURED),
    ("invalid_client", "cannot load client with client id: x", MISCONFIGURED),
    ("unauthorized_client", "invalid client secret", MISCONFIGURED),
    ("unauthorized_client", "invalid empty client secret", MISCONFIGURED),
    ("unauthorized_client", "client is not authorized", REFUSED),
    ("unauthorized_client", "failed PKCE code challenge", REFUSED),
    (
        "unauthorized_client",
        "redirect_uri does not match the authorization request",
        REFUSED,
    ),
    ("invalid_grant", "invalid grant", REFUSED),
    ("invalid_request", "cannot proceed your request", REFUSED),
    ("invalid_grant", "cannot increase the grant counter", RESTART),
    ("invalid_request", "something new", UNAVAILABLE),
    ("server_error", "A server error occurred", UNAVAILABLE),
    ("something_new", "", UNAVAILABLE),
]

REFRESH = [
    ("unsupported_grant_type", "Only refresh_token or …", MISCONFIGURED),
    ("invalid_client", "cannot load client with client id: x", MISCONFIGURED),
    ("invalid_client", "invalid client secret", MISCONFIGURED),
    ("invalid_client", "invalid empty client secret", MISCONFIGURED),
    ("unauthorized_client", "unable to parse refresh token", SIGN_IN),
    ("unauthorized_client", "token is not a refresh token", SIGN_IN),
    ("invalid_grant", "grant does not exist", SIGN_IN),
    ("invalid_grant", "refresh token was not issued to this client", SIGN_IN),
    ("unauthorized_client", "token was already used", SIGN_IN),
    ("invalid_grant", "cannot increase the grant counter", SIGN_IN),
    ("invalid_request", "something new", UNAVAILABLE),
    ("server_error", "A server error occurred", UNAVAILABLE),
    ("something_new", "", UNAVAILABLE),
]


def kind(error: UpstreamError) -> str:
    """The name of the outcome in the tables."""
    if isinstance(error, CodeRefused):
        return RESTART if error.restart else REFUSED
    return {
        SignInNeeded: SIGN_IN,
        UpstreamMisconfigured: MISCONFIGURED,
        UpstreamUnavailable: UNAVAILABLE,
    }[type(error)]


def jwt(**claims: object) -> str:
    """A token of the shape of a JWT, with a signature that nobody checks."""
    payload = urlsafe_b64encode(json.dumps(claims).encode()).decode().rstrip("=")
    return f"eyJhbGciOiJSUzI1NiJ9.{payload}.c2lnbmF0dXJl"


def success(**changes: object) -> Answer:
    """A success of the token endpoint; members that are None are left out."""
    members: dict[str, object] = {
        "access_token": jwt(gnt=7, tt=0),
        "token_type": "bearer",
        "expires_in": 3600,
        "refresh_token": jwt(gnt=7, tt=1, cnt=5),
        "id_token": jwt(
            sub="42", aud=[CLIENT_ID], preferred_username="ada", name="Ada L."
        ),
    }
    members.update(changes)
    kept = {key: value for key, value in members.items() if value is not None}
    return Answer(200, json.dumps(kept).encode())


class ClassificationTests(SynchronousTestCase):
    """Errors of the token endpoint, told apart by what has to be done."""

    def test_code_exchange(self) -> None:
        """Each error of a code exchange leads to the right outcome."""
        for error, description, outcome in EXCHANGE:
            body = json.dumps({"error": error, "error_description": description})
            result = refused_exchange(Answer(400, body.encode()))
            self.assertEqual(kind(result), outcome, (error, description))

    def test_refresh(self) -> None:
        """Each error of a refresh leads to the right outcome."""
        for error, description, outcome in REFRESH:
            body = json.dumps({"error": error, "error_description": description})
            result = refused_refresh(Answer(400, body.encode()))
            self.assertEqual(kind(result), outcome, (error, description))

    def test_description_may_be_absent(self) -> None:
        """The description is optional (RFC 6749 section 5.2)."""
        for body in (
            b'{"error":"invalid_grant"}',
            b'{"error":"invalid_grant","error_description":null}',
        ):
            self.assertEqual(kind(refused_refresh(Answer(400, body))), SIGN_IN)

    def test_other_status_is_transient(self) -> None:
        """Only Forgejo's own status can sign a user out, whatever the body says."""
        body = b'{"error":"invalid_grant","error_description":"grant does not exist"}'
        for status in (301, 303, 401, 403, 404, 418, 429, 500, 502, 503, 504):
            for classify in (refused_exchange, refused_refresh):
                self.assertEqual(kind(classify(Answer(status, body))), UNAVAILABLE)

    def test_invalid_client_with_status_of_the_rfc(self) -> None:
        """RFC 6749 section 5.2 allows 401 for invalid_client."""
        answer = Answer(401, b'{"error":"invalid_client"}')
        self.assertEqual(kind(refused_refresh(answer)), MISCONFIGURED)

    def test_body_that_is_no_error_is_transient(self) -> None:
        """HTML, cut JSON and other shapes are not Forgejo's word."""
        for body in (
            b"",
            b"<html><h1>400 Bad Request</h1></html>",
            b"[]",
            b"null",
            b'"invalid_grant"',
            b'{"error":null}',
            b'{"error":["invalid_grant"]}',
            b'{"error":"invalid_grant","error_description":7}',
            b'{"error":"invalid_gra',
            b'{"error":"invalid_grant\xff"}',
            b"[" * 100_000,
        ):
            self.assertEqual(kind(refused_refresh(Answer(400, body))), UNAVAILABLE)

    def test_retry_after_is_kept_within_bounds(self) -> None:
        """A waiting time of the peer is honoured as far as it is sensible."""
        for header, seconds in (
            (b"17", 17),
            (b"0", 1),
            (b"999999", 300),
            (b"9" * 5000, 5),
            (b"soon", 5),
            (b"-3", 5),
            ("٣".encode(), 5),
            (None, 5),
        ):
            error = refused_refresh(Answer(503, b"", header))
            assert isinstance(error, UpstreamUnavailable)
            self.assertEqual(error.retry_after_seconds, seconds)

    def test_redirect_names_the_setting(self) -> None:
        """A redirect usually means a wrong internal URL, and the text says so."""
        self.assertIn("internal_url", str(refused_refresh(Answer(301, b""))))

    @given(st.integers(100, 599), st.binary())
    def test_no_text_of_the_peer_comes_back(self, status: int, noise: bytes) -> None:
        """Version 16 of Forgejo echoes the rejected token, so nothing is repeated."""
        text = f"SECRET{noise.hex()}"
        body = json.dumps({"error": "invalid_grant", "error_description": text})
        for classify in (refused_exchange, refused_refresh):
            self.assertNotIn("SECRET", str(classify(Answer(status, body.encode()))))


class TokenAnswerTests(SynchronousTestCase):
    """Successes of the token endpoint."""

    def test_all_fields(self) -> None:
        """Tokens, life, user and order are read."""
        answer = token_answer(success(), CLIENT_ID)
        self.assertEqual(answer.access_token.reveal(), jwt(gnt=7, tt=0))
        self.assertEqual(answer.expires_in, 3600)
        self.assertEqual((answer.grant_number, answer.counter), (7, 5))
        self.assertEqual(
            (answer.user_id, answer.login, answer.display_name), (42, "ada", "Ada L.")
        )

    def test_id_token_that_cannot_be_trusted_is_ignored(self) -> None:
        """The tokens are not lost over it; userinfo will tell who it is."""
        for id_token in (
            None,
            7,
            "",
            "a.b",
            "a.b.c",
            "a.é.c",
            jwt(sub="42"),
            jwt(sub="42", aud=["another"]),
            jwt(sub="42", aud="another"),
            jwt(sub="0", aud=CLIENT_ID),
            jwt(sub="042", aud=CLIENT_ID),
            jwt(sub="42x", aud=CLIENT_ID),
            jwt(sub="9" * 19, aud=CLIENT_ID),
            jwt(sub=42, aud=CLIENT_ID),
        ):
            answer = token_answer(success(id_token=id_token), CLIENT_ID)
            self.assertIsNone(answer.user_id, id_token)
            self.assertEqual(answer.counter, 5)

    def test_single_audience(self) -> None:
        """The audience may be one text instead of a list (RFC 7519 section 4.1.3)."""
        answer = token_answer(success(id_token=jwt(sub="1", aud=CLIENT_ID)), CLIENT_ID)
        self.assertEqual(answer.user_id, 1)

    def test_opaque_refresh_token_has_no_order(self) -> None:
        """Claims that cannot be read leave the order open."""
        for text in (
            "opaque",
            jwt(gnt=1),
            jwt(gnt="1", cnt=2),
            jwt(gnt=-1, cnt=2),
            jwt(gnt=2**63, cnt=2),
            jwt(gnt=True, cnt=True),
        ):
            answer = token_answer(success(refresh_token=text), CLIENT_ID)
            self.assertEqual((answer.grant_number, answer.counter), (None, None), text)

    def test_unusable_answers_are_transient(self) -> None:
        """Missing and wrong fields are not an answer of Forgejo's."""
        for answer in (
            success(access_token=None),
            success(access_token=""),
            success(access_token=7),
            success(access_token="a b"),
            success(access_token="a\nb"),
            success(access_token="a\n"),
            success(access_token="a\0b"),
            success(access_token="é"),
            success(access_token="a" * 65_537),
            success(refresh_token=None),
            success(refresh_token="a b"),
            success(expires_in=None),
            success(expires_in="3600"),
            success(expires_in=0),
            success(expires_in=-5),
            success(token_type="mac"),
            success(token_type=None),
            Answer(200, b"<html>"),
            Answer(200, b"[]"),
            Answer(200, b""),
        ):
            self.assertRaises(UpstreamUnavailable, token_answer, answer, CLIENT_ID)

    def test_absurd_life_is_cut(self) -> None:
        """A life that no clock can hold does not break the store."""
        answer = token_answer(success(expires_in=10**30), CLIENT_ID)
        self.assertLess(answer.expires_in, 2**31)

    @given(st.binary())
    def test_any_body_is_read_or_refused(self, body: bytes) -> None:
        """No body breaks the reading."""
        for read in (
            lambda answer: token_answer(answer, CLIENT_ID),
            lambda answer: introspection(answer, CLIENT_ID),
            user_info,
        ):
            self.assertRaises(UpstreamUnavailable, read, Answer(200, body))


class UserInfoTests(SynchronousTestCase):
    """Answers of the userinfo endpoint."""

    def test_user(self) -> None:
        """Number, login and name are read; the name may be empty or absent."""
        for body, name in (
            (b'{"sub":"3","preferred_username":"bob","name":"Bob"}', "Bob"),
            (b'{"sub":"3","preferred_username":"bob","name":""}', ""),
            (b'{"sub":"3","preferred_username":"bob"}', ""),
        ):
            user = user_info(Answer(200, body))
            self.assertEqual((user.user_id, user.login, user.name), (3, "bob", name))

    def test_refused_token(self) -> None:
        """401 is Forgejo's word on the token."""
        self.assertRaises(SignInNeeded, user_info, Answer(401, b"no valid auth"))

    def test_everything_else_is_transient(self) -> None:
        """Other statuses and shapes say nothing about the user."""
        for answer in (
            Answer(403, b"{}"),
            Answer(500, b"{}"),
            Answer(200, b"{}"),
            Answer(200, b'{"sub":"3","preferred_username":""}'),
            Answer(200, b'{"sub":3,"preferred_username":"bob"}'),
            Answer(200, b'{"sub":"-3","preferred_username":"bob"}'),
            Answer(200, b'{"sub":"9999999999999999999","preferred_username":"bob"}'),
        ):
            self.assertRaises(UpstreamUnavailable, user_info, answer)


class IntrospectionTests(SynchronousTestCase):
    """Answers of the introspection endpoint (RFC 7662)."""

    def test_active(self) -> None:
        """Scope and user of a token of ours are read."""
        body = {
            "active": True,
            "scope": "read:user",
            "username": "ada",
            "iss": "https://git.example.org",
            "aud": [CLIENT_ID],
            "sub": "42",
        }
        seen = introspection(Answer(200, json.dumps(body).encode()), CLIENT_ID)
        self.assertTrue(seen.active)
        self.assertEqual((seen.scope, seen.username), ("read:user", "ada"))

    def test_token_of_another_application_is_inactive(self) -> None:
        """Forgejo confirms the tokens of other applications too."""
        for body in (b'{"active":true,"aud":["x"]}', b'{"active":true}'):
            self.assertFalse(introspection(Answer(200, body), CLIENT_ID).active)

    def test_inactive(self) -> None:
        """A dead token has no other members."""
        seen = introspection(Answer(200, b'{"active":false}'), CLIENT_ID)
        self.assertFalse(seen.active)

    def test_refused_client(self) -> None:
        """401 is about our own credentials."""
        self.assertRaises(
            UpstreamMisconfigured, introspection, Answer(401, b""), CLIENT_ID
        )

    def test_everything_else_is_transient(self) -> None:
        """Other statuses and shapes say nothing about the token."""
        for answer in (
            Answer(500, b""),
            Answer(200, b'{"active":"true"}'),
            Answer(200, b'{"active":true,"scope":"%b"}' % (b"x" * 5000)),
        ):
            self.assertRaises(UpstreamUnavailable, introspection, answer, CLIENT_ID)
