"""
The stand-in's token endpoint: every condition with Forgejo's code and text.
"""

import json

from tests.unit.demo.browser import REDIRECT_URI, StandInTestCase, basic

PARSE = "unable to parse refresh token"


class ClientAuthenticationTests(StandInTestCase):
    def test_other_grant_type(self) -> None:
        """Only two grant types exist."""
        answer = self.token(grant_type="password")
        self.assertEqual(answer.status, 400)
        self.assertEqual(answer.json["error"], "unsupported_grant_type")

    def test_unknown_client(self) -> None:
        """An unknown client is invalid_client for both grants."""
        for grant_type in ("authorization_code", "refresh_token"):
            answer = self.token(grant_type=grant_type, client_id="nobody")
            self.assertEqual(answer.json["error"], "invalid_client")
            self.assertIn("cannot load client", answer.json["error_description"])

    def test_bad_secret_depends_on_the_grant(self) -> None:
        """A bad secret is unauthorized_client for a code, invalid_client for a
        refresh."""
        for grant_type, code in (
            ("authorization_code", "unauthorized_client"),
            ("refresh_token", "invalid_client"),
        ):
            for secret, text in (
                ("no", "invalid client secret"),
                ("", "invalid empty client secret"),
            ):
                answer = self.token(grant_type=grant_type, client_secret=secret)
                self.assert_refused(answer, code, text)

    def test_basic_authentication(self) -> None:
        """Credentials may come in the Authorization header."""
        fields = {
            "grant_type": "authorization_code",
            "code": self.code(),
            "redirect_uri": REDIRECT_URI,
            "code_verifier": "v" * 43,
        }
        answer = self.post(
            "/login/oauth/access_token",
            fields,
            Authorization=basic(
                self.application.client_id, self.application.client_secret
            ),
        )
        self.assertEqual(answer.status, 200)

    def test_contradicting_credentials(self) -> None:
        """Body and header must agree."""
        answer = self.post(
            "/login/oauth/access_token",
            {"client_id": self.application.client_id},
            Authorization=basic("other", "x"),
        )
        self.assertEqual(answer.json["error"], "invalid_request")

    def test_garbled_basic(self) -> None:
        """An unreadable header is invalid_request."""
        answer = self.post("/login/oauth/access_token", {}, Authorization="Basic %%%")
        self.assert_refused(answer, "invalid_request", "cannot parse basic auth header")

    def test_json_body(self) -> None:
        """The body may be JSON."""
        fields = {
            "client_id": self.application.client_id,
            "client_secret": self.application.client_secret,
            "grant_type": "authorization_code",
            "code": self.code(),
            "redirect_uri": REDIRECT_URI,
            "code_verifier": "v" * 43,
        }
        answer = self.send(
            "POST",
            "/login/oauth/access_token",
            body=json.dumps(fields).encode(),
            headers={"Content-Type": "application/json"},
        )
        self.assertEqual(answer.status, 200)

    def test_options(self) -> None:
        """OPTIONS is answered."""
        self.assertEqual(self.send("OPTIONS", "/login/oauth/access_token").status, 200)


class CodeExchangeTests(StandInTestCase):
    def test_success(self) -> None:
        """The answer has no scope, and bearer in lower case."""
        answer = self.exchange(self.code(scope="read:user")).json
        self.assertEqual(
            list(answer), ["access_token", "token_type", "expires_in", "refresh_token"]
        )
        self.assertEqual((answer["token_type"], answer["expires_in"]), ("bearer", 3600))
        for name in ("access_token", "refresh_token"):
            self.assertGreaterEqual(len(answer[name]), 800)
            self.assertEqual(answer[name].count("."), 2)

    def test_openid_adds_an_id_token(self) -> None:
        """With the scope openid there is an id_token."""
        self.assertIn("id_token", self.exchange(self.code()).json)

    def test_unknown_code(self) -> None:
        """A code that does not exist."""
        self.assert_refused(
            self.exchange("gta_no"), "unauthorized_client", "client is not authorized"
        )

    def test_used_code(self) -> None:
        """A code works once."""
        code = self.code()
        self.exchange(code)
        self.assert_refused(
            self.exchange(code), "unauthorized_client", "client is not authorized"
        )

    def test_codes_never_expire(self) -> None:
        """A code still works after a year."""
        code = self.code()
        self.clock.advance(365 * 86400)
        self.assertEqual(self.exchange(code).status, 200)

    def test_wrong_verifier_keeps_the_code(self) -> None:
        """A wrong verifier is refused, and the code survives."""
        code = self.code()
        self.assert_refused(
            self.exchange(code, code_verifier="x" * 43),
            "unauthorized_client",
            "failed PKCE code challenge",
        )
        self.assertEqual(self.exchange(code).status, 200)

    def test_other_redirect_uri(self) -> None:
        """A registered redirect URI that is not the one of the authorization."""
        self.application.redirect_uris += ("https://broker.test/other",)
        self.assert_refused(
            self.exchange(self.code(), redirect_uri="https://broker.test/other"),
            "unauthorized_client",
            "redirect_uri does not match the authorization request",
        )

    def test_other_applications_code(self) -> None:
        """A code belongs to one application."""
        other = self.forgejo.add_application(REDIRECT_URI, name="other")
        code = self.controls.issue_code(
            "alice", REDIRECT_URI, client_id=other.client_id
        )
        self.assert_refused(self.exchange(code), "invalid_grant", "invalid grant")

    def test_lost_code_race(self) -> None:
        """Losing the race for a code."""
        self.controls.lose_code_race()
        self.assert_refused(
            self.exchange(self.code()),
            "invalid_request",
            "cannot proceed your request",
        )

    def test_lost_counter_race_burns_the_code(self) -> None:
        """Losing the race for the counter spends the code."""
        self.controls.lose_counter_race()
        code = self.code()
        self.assert_refused(
            self.exchange(code), "invalid_grant", "cannot increase the grant counter"
        )
        self.assert_refused(
            self.exchange(code), "unauthorized_client", "client is not authorized"
        )


class RefreshTests(StandInTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.tokens = self.controls.issue_tokens("alice", "read:user")

    def test_success_moves_the_counter(self) -> None:
        """Each refresh token works once; the new one works."""
        answer = self.refresh(self.tokens.refresh_token)
        self.assertEqual(answer.status, 200)
        self.assertEqual(self.controls.grant("alice").counter, 3)
        self.assert_refused(
            self.refresh(self.tokens.refresh_token),
            "unauthorized_client",
            "token was already used",
        )
        self.assertEqual(self.refresh(answer.json["refresh_token"]).status, 200)

    def test_code_exchange_kills_the_refresh_token(self) -> None:
        """A second sign-in of the same user ends the first one's refresh token:
        there is one counter per user and application."""
        self.exchange(self.code())
        self.assert_refused(
            self.refresh(self.tokens.refresh_token),
            "unauthorized_client",
            "token was already used",
        )

    def test_users_do_not_disturb_each_other(self) -> None:
        """Bob's sign-in leaves alice's token alone."""
        self.exchange(self.code("bob"))
        self.assertEqual(self.refresh(self.tokens.refresh_token).status, 200)

    def test_access_token_outlives_the_refresh(self) -> None:
        """An access token works until it expires, refreshed or not."""
        self.refresh(self.tokens.refresh_token)
        self.assertEqual(self.api("/user", self.tokens.access_token).status, 200)

    def test_garbage(self) -> None:
        """What is no token at all."""
        for token in ("", "x", "a.b.c", self.tokens.refresh_token[:-4] + "AAAA"):
            self.assert_refused(self.refresh(token), "unauthorized_client", PARSE)

    def test_expired(self) -> None:
        """A refresh token lives 730 hours."""
        self.clock.advance(730 * 3600)
        self.assert_refused(
            self.refresh(self.tokens.refresh_token), "unauthorized_client", PARSE
        )

    def test_access_token_sent(self) -> None:
        """An access token is not a refresh token."""
        self.assert_refused(
            self.refresh(self.tokens.access_token),
            "unauthorized_client",
            "token is not a refresh token",
        )

    def test_revoked_grant(self) -> None:
        """After the user removed the application."""
        self.controls.revoke_grant("alice")
        self.assert_refused(
            self.refresh(self.tokens.refresh_token),
            "invalid_grant",
            "grant does not exist",
        )

    def test_other_applications_token(self) -> None:
        """A refresh token belongs to one application."""
        other = self.forgejo.add_application(REDIRECT_URI, name="other")
        self.assert_refused(
            self.refresh(
                self.tokens.refresh_token,
                client_id=other.client_id,
                client_secret=other.client_secret,
            ),
            "invalid_grant",
            "refresh token was not issued to this client",
        )

    def test_lost_counter_race(self) -> None:
        """Losing the race for the counter."""
        self.controls.lose_counter_race()
        self.assert_refused(
            self.refresh(self.tokens.refresh_token),
            "invalid_grant",
            "cannot increase the grant counter",
        )

    def test_without_invalidation_old_tokens_work(self) -> None:
        """With INVALIDATE_REFRESH_TOKENS off the counter stays at 1."""
        self.controls.invalidate_refresh_tokens(False)
        tokens = self.controls.issue_tokens("bob")
        for _ in range(3):
            self.assertEqual(self.refresh(tokens.refresh_token).status, 200)
        self.assertEqual(self.controls.grant("bob").counter, 1)


class EventTests(StandInTestCase):
    """What happens to old tokens, event by event."""

    def after(self, event: str) -> tuple[int, str]:
        """
        @return: status of the API, and error of a refresh (or C{ok}).
        """
        tokens = self.controls.issue_tokens("alice", "read:user")
        if event == "regenerate_secret":
            old = self.application.client_secret
            self.assertNotEqual(self.controls.regenerate_secret(), old)
            answer = self.refresh(tokens.refresh_token, client_secret=old)
        else:
            if event == "delete_application":
                self.controls.delete_application()
            elif event == "rotate_signing_key":
                self.controls.rotate_signing_key()
            else:
                getattr(self.controls, event)("alice")
            answer = self.refresh(tokens.refresh_token)
        error = answer.json.get("error", "ok")
        return self.api("/user", tokens.access_token).status, error

    def test_events(self) -> None:
        """The table of events, row by row."""
        for event, expected in (
            ("revoke_grant", (401, "invalid_grant")),
            ("delete_application", (401, "invalid_client")),
            ("regenerate_secret", (200, "invalid_client")),
            ("disable_user", (403, "ok")),
            ("delete_user", (401, "invalid_grant")),
            ("rotate_signing_key", (401, "unauthorized_client")),
        ):
            self.setUp()
            self.assertEqual(self.after(event), expected, event)
