"""The revocation endpoint (RFC 7009)."""

from base64 import b64encode

from twisted.trial.unittest import SynchronousTestCase

from tests.unit.web.token_fixture import (
    SECRET,
    USER_ID,
    VERIFIER,
    Answer,
    TokenWorld,
)


class RevocationTests(SynchronousTestCase):
    """A client ends what it has no more use for."""

    def setUp(self) -> None:
        self.world = TokenWorld(self)

    def revoke(self, token: str, client_id: str = "public", **form: str) -> Answer:
        """
        @return: the answer to a revocation.
        """
        return self.world.post(
            "/oauth/revoke", {"client_id": client_id, "token": token, **form}
        )

    def test_refresh_token_ends_the_grant(self) -> None:
        """RFC 7009 section 2.1: access tokens of the grant go with it."""
        tokens = self.world.signed_in()
        self.assertTrue(self.world.use(tokens["access_token"]))
        answer = self.revoke(tokens["refresh_token"])
        self.assertEqual((answer.status, answer.body), (200, b""))
        self.assertEqual(answer.headers["cache-control"], "no-store")
        self.assertEqual(len(self.world.ended), 1)
        self.assertFalse(self.world.use(tokens["access_token"]))
        refused = self.world.refresh(tokens["refresh_token"])
        self.assertEqual(refused.error, (400, "invalid_grant"))

    def test_rotated_refresh_token_ends_the_grant_too(self) -> None:
        """A client that lost the answer can still sign out."""
        tokens = self.world.signed_in()
        successor = self.world.refresh(tokens["refresh_token"]).document
        self.assertEqual(self.revoke(tokens["refresh_token"]).status, 200)
        refused = self.world.refresh(successor["refresh_token"])
        self.assertEqual(refused.error, (400, "invalid_grant"))

    def test_access_token_ends_alone(self) -> None:
        """RFC 7009 section 2.1: the refresh token MAY stay; at once in memory."""
        tokens = self.world.signed_in()
        self.assertTrue(self.world.use(tokens["access_token"]))
        self.assertEqual(self.revoke(tokens["access_token"]).status, 200)
        self.assertFalse(self.world.use(tokens["access_token"]))
        self.assertEqual(self.world.ended, [])
        self.assertEqual(self.world.refresh(tokens["refresh_token"]).status, 200)

    def test_access_token_is_audited_once(self) -> None:
        """Who and with which client, not which token; its grant goes on."""
        tokens = self.world.signed_in()
        for _ in range(2):
            self.assertEqual(self.revoke(tokens["access_token"]).status, 200)
        _id, _at, kind, user_id, client_id, grant_id, *rest = self.world.dump()[
            "audit_events"
        ][0]
        self.assertEqual(len(self.world.dump()["audit_events"]), 1)
        self.assertEqual(
            (kind, user_id, client_id), ("token_revoked", USER_ID, "public")
        )
        self.assertEqual(grant_id, self.world.dump()["grants"][0][0])
        self.assertEqual(rest, [None, None, "revoked_by_client", None, None])

    def test_revoked_successor_counts_as_used(self) -> None:
        """Whoever could revoke it had received it."""
        tokens = self.world.signed_in()
        successor = self.world.refresh(tokens["refresh_token"]).document
        self.revoke(successor["access_token"])
        self.world.clock.advance(61)
        refused = self.world.refresh(tokens["refresh_token"])
        self.assertEqual(refused.error, (400, "invalid_grant"))
        self.assertEqual(len(self.world.ended), 1)

    def test_hint_is_a_hint(self) -> None:
        """RFC 7009 section 2.1: a wrong or unknown one changes nothing."""
        for hint in ("access_token", "refresh_token", "saml"):
            tokens = self.world.signed_in()
            self.revoke(tokens["refresh_token"], token_type_hint=hint)
            refused = self.world.refresh(tokens["refresh_token"])
            self.assertEqual(refused.error, (400, "invalid_grant"))

    def test_unknown_token_is_revoked_already(self) -> None:
        """RFC 7009 section 2.2: 200; also the second time."""
        tokens = self.world.signed_in()
        self.revoke(tokens["refresh_token"])
        before = self.world.dump()
        for token in ("nonsense", "é", tokens["refresh_token"], self.world.code()):
            self.assertEqual(self.revoke(token).status, 200)
        self.assertEqual(len(self.world.ended), 1)
        del before["authorization_codes"], before["grants"]
        after = self.world.dump()
        self.assertEqual({name: after[name] for name in before}, before)

    def test_other_clients_token_is_refused(self) -> None:
        """RFC 7009 section 2.1: the request is refused and nothing happens."""
        tokens = self.world.signed_in()
        before = self.world.dump()
        for kind in ("access_token", "refresh_token"):
            refused = self.revoke(tokens[kind], "other")
            self.assertEqual(refused.error, (400, "invalid_grant"))
        self.assertEqual(self.world.dump(), before)
        self.assertTrue(self.world.use(tokens["access_token"]))

    def test_confidential_client_must_authenticate(self) -> None:
        """RFC 7009 section 2.1, RFC 6749 section 2.3."""
        answer = self.world.exchange(
            self.world.code(client_id="secret"),
            client_id="secret",
            client_secret=SECRET,
            code_verifier=VERIFIER,
        )
        token = answer.document["refresh_token"]
        before = self.world.dump()
        self.assertEqual(self.revoke(token, "secret").error, (401, "invalid_client"))
        self.assertEqual(self.revoke(token, "nobody").error, (401, "invalid_client"))
        self.assertEqual(self.world.dump(), before)
        header = "Basic " + b64encode(f"secret:{SECRET}".encode()).decode()
        form = {"token": token}
        answer = self.world.post("/oauth/revoke", form, Authorization=header)
        self.assertEqual(answer.status, 200)
        self.assertEqual(len(self.world.ended), 1)

    def test_token_is_required(self) -> None:
        """RFC 7009 section 2.1."""
        self.assertEqual(self.revoke("").error, (400, "invalid_request"))

    def test_sessions_are_closed_with_the_grant(self) -> None:
        """In the same transaction: a restart must not find them open."""
        tokens = self.world.signed_in()
        self.world.write(
            lambda connection: (
                connection.execute(
                    "INSERT INTO sessions (session_digest, grant_id, protocol_version,"
                    " sealed_initialize, created_at, last_active_at)"
                    " SELECT zeroblob(32), grant_id, '2025-11-25', zeroblob(1), 1, 1"
                    " FROM grants"
                ).rowcount
            )
        )
        self.revoke(tokens["refresh_token"])
        *_, closed_at, reason, _seen = self.world.dump()["sessions"][0]
        self.assertEqual((closed_at, reason), (self.world.now, "revoked_by_client"))
