"""
The stand-in's userinfo, introspection, keys and discovery.
"""

import json
from base64 import urlsafe_b64decode
from typing import Any

from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.hashes import SHA256

from tests.unit.demo.browser import NOW, Answer, StandInTestCase, basic


def decoded(part: str) -> bytes:
    """
    @return: the bytes of one part of a token.
    """
    return urlsafe_b64decode(part + "=" * (-len(part) % 4))


def claims(token: str) -> Any:
    """
    @return: what a token says, unverified.
    """
    return json.loads(decoded(token.split(".")[1]))


class TokenShapeTests(StandInTestCase):
    def test_claims(self) -> None:
        """Access and refresh tokens say what Forgejo's say, and nothing more."""
        tokens = self.controls.issue_tokens("alice")
        grant = self.controls.grant("alice")
        self.assertEqual(
            claims(tokens.access_token),
            {"gnt": grant.id, "tt": 0, "exp": NOW + 3600, "iat": NOW},
        )
        self.assertEqual(
            claims(tokens.refresh_token),
            {
                "gnt": grant.id,
                "tt": 1,
                "cnt": 2,
                "exp": NOW + 730 * 3600,
                "iat": NOW,
            },
        )

    def test_tokens_of_one_second_are_equal(self) -> None:
        """Two access tokens of one grant and second are the same bytes."""
        first = self.controls.issue_tokens("alice")
        second = self.controls.issue_tokens("alice")
        self.assertEqual(first.access_token, second.access_token)
        self.assertNotEqual(first.refresh_token, second.refresh_token)

    def test_signature_fits_the_published_key(self) -> None:
        """Tokens are really signed, with the key that the keys endpoint shows."""
        token = self.controls.issue_tokens("alice").access_token
        (key,) = self.get("/login/oauth/keys").json["keys"]
        numbers = rsa.RSAPublicNumbers(
            *(int.from_bytes(decoded(key[name]), "big") for name in ("e", "n"))
        )
        signed, _, signature = token.rpartition(".")
        numbers.public_key().verify(
            decoded(signature), signed.encode(), padding.PKCS1v15(), SHA256()
        )

    def test_lifetimes_can_be_set(self) -> None:
        """Shorter lives, for tests."""
        self.controls.set_lifetimes(access_seconds=60, refresh_seconds=90)
        answer = self.exchange(self.code()).json
        self.assertEqual(answer["expires_in"], 60)
        self.clock.advance(60)
        self.assertEqual(self.api("/user", answer["access_token"]).status, 401)
        self.clock.advance(30)
        self.assertEqual(self.refresh(answer["refresh_token"]).status, 400)

    def test_id_token_claims_follow_the_scope(self) -> None:
        """openid alone says who; profile, email and groups add their claims."""
        self.controls.user("bob").groups = ("friends", "friends:owners")
        for login, scope, more in (
            ("alice", "openid", set[str]()),
            (
                "bob",
                "openid profile email groups",
                {"name", "preferred_username", "profile", "picture", "website"}
                | {"locale", "updated_at", "email", "email_verified", "groups"},
            ),
        ):
            said = claims(self.exchange(self.code(login, scope)).json["id_token"])
            basics = {"iss", "sub", "aud", "exp", "iat"}
            self.assertEqual(set(said), basics | more)
            self.assertEqual(said["sub"], str(self.controls.user(login).id))
            self.assertEqual(said["aud"], [self.application.client_id])
            self.assertEqual(said["iss"], "http://forgejo.test")

    def test_nonce_lives_on_the_grant(self) -> None:
        """A second sign-in overwrites the nonce of the first."""
        self.sign_in()
        first = self.press(self.authorize(nonce="one")).parameters["code"]
        self.authorize(nonce="two")
        said = claims(self.exchange(first).json["id_token"])
        self.assertEqual(said["nonce"], "two")


class UserinfoTests(StandInTestCase):
    def userinfo(self, authorization: str) -> Answer:
        """Ask who somebody is."""
        return self.get("/login/oauth/userinfo", Authorization=authorization)

    def test_any_scope_will_do(self) -> None:
        """The e-mail address is always there, groups when the user has some."""
        token = self.controls.issue_tokens("alice", "read:issue").access_token
        user = self.controls.user("alice")
        expected = {
            "sub": str(user.id),
            "name": "Alice Example",
            "preferred_username": "alice",
            "email": "alice@example.org",
            "picture": "http://forgejo.test/avatars/alice",
        }
        self.assertEqual(self.userinfo(f"Bearer {token}").json, expected)
        user.groups = ("friends",)
        self.assertEqual(
            self.userinfo(f"Bearer {token}").json, expected | {"groups": ["friends"]}
        )

    def test_private_memberships(self) -> None:
        """
        Hidden only where ENABLE_ADDITIONAL_GRANT_SCOPES is set, and only from a token
        that may not read organizations; write:organization does not count.
        """
        self.controls.set_groups("alice", "club", "club:board", hidden=True)
        for enabled, scope, groups in (
            (False, "read:issue", ["club", "club:board"]),
            (True, "read:issue write:organization", None),
            (True, "read:issue read:organization", ["club", "club:board"]),
        ):
            self.controls.set_additional_grant_scopes(enabled)
            token = self.controls.issue_tokens("alice", scope).access_token
            said = self.userinfo(f"Bearer {token}").json
            self.assertEqual(said.get("groups"), groups, (enabled, scope))
            self.controls.revoke_grant("alice")
        self.controls.set_groups("alice", "club")
        token = self.controls.issue_tokens("alice", "read:issue").access_token
        self.assertEqual(self.userinfo(f"Bearer {token}").json["groups"], ["club"])

    def test_without_a_token(self) -> None:
        """No token, another scheme, a refresh token: 401 with a challenge."""
        tokens = self.controls.issue_tokens("alice")
        for header in (
            "",
            f"Basic {tokens.access_token}",
            f"Bearer {tokens.refresh_token}",
            "Bearer x",
        ):
            answer = self.userinfo(header)
            self.assertEqual(
                (answer.status, answer.text, answer.headers["www-authenticate"]),
                (401, "no valid authorization", 'Bearer realm=""'),
            )


class IntrospectionTests(StandInTestCase):
    def introspect(self, token: str, authorization: str | None = None) -> Answer:
        """Ask about a token."""
        own = basic(self.application.client_id, self.application.client_secret)
        return self.post(
            "/login/oauth/introspect",
            {"token": token},
            Authorization=own if authorization is None else authorization,
        )

    def test_active(self) -> None:
        """Scope, user and audience, but no expiry; for refresh tokens too."""
        tokens = self.controls.issue_tokens("alice", "openid read:user")
        for token in (tokens.access_token, tokens.refresh_token):
            self.assertEqual(
                self.introspect(token).json,
                {
                    "active": True,
                    "scope": "openid read:user",
                    "username": "alice",
                    "iss": "http://forgejo.test",
                    "aud": [self.application.client_id],
                    "sub": str(self.controls.user("alice").id),
                },
            )

    def test_other_applications_token_names_its_audience(self) -> None:
        """Whoever asks must look at aud."""
        other = self.forgejo.add_application("https://other.test/", name="other")
        token = self.controls.issue_tokens("bob", client_id=other.client_id)
        answer = self.introspect(token.access_token).json
        self.assertEqual(answer["aud"], [other.client_id])

    def test_inactive(self) -> None:
        """Garbage, expired and revoked tokens are just inactive."""
        self.assertEqual(self.introspect("x").json, {"active": False})
        revoked = self.controls.issue_tokens("alice").access_token
        self.controls.revoke_grant("alice")
        self.assertEqual(self.introspect(revoked).json, {"active": False})
        expired = self.controls.issue_tokens("bob").access_token
        self.clock.advance(3600)
        self.assertEqual(self.introspect(expired).json, {"active": False})

    def test_needs_client_credentials(self) -> None:
        """Only a client may ask, by Basic authentication."""
        for header in ("", "Basic ?", basic("nobody", "x")):
            answer = self.introspect("x", header)
            self.assertEqual(
                (answer.status, answer.headers["www-authenticate"]),
                (401, 'Basic realm=""'),
            )


class DiscoveryTests(StandInTestCase):
    base_url = "http://forgejo.test/git"

    def test_document(self) -> None:
        """Every URL is below the base; the issuer may end with a slash."""
        path = "/.well-known/openid-configuration"
        document = self.get(path).json
        self.assertEqual(document["issuer"], "http://forgejo.test/git")
        self.assertEqual(
            document["token_endpoint"],
            "http://forgejo.test/git/login/oauth/access_token",
        )
        self.assertNotIn("token_endpoint_auth_methods_supported", document)
        self.controls.set_issuer_slash(True)
        self.assertEqual(self.get(path).json["issuer"], "http://forgejo.test/git/")

    def test_missing_endpoints(self) -> None:
        """Forgejo has neither revocation nor registration."""
        for path in (
            "/.well-known/oauth-authorization-server",
            "/login/oauth/revoke",
            "/login/oauth/register",
        ):
            self.assertEqual(self.get(path).status, 404)
