"""What a client metadata document has to say."""

import json

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from fjmcp_broker.oauth.clients import ClientMetadata
from fjmcp_broker.oauth.documents import read_document
from fjmcp_broker.oauth.errors import OAuthError
from fjmcp_broker.oauth.vocabulary import ErrorCode

URL = "https://app.example.com/oauth/client-metadata.json"

#: The example of MCP 2026-07-28, authorization, client registration.
EXAMPLE: dict[str, object] = {
    "client_id": URL,
    "client_name": "Example MCP Client",
    "client_uri": "https://app.example.com",
    "logo_uri": "https://app.example.com/logo.png",
    "redirect_uris": [
        "http://127.0.0.1:3000/callback",
        "http://localhost:3000/callback",
    ],
    "grant_types": ["authorization_code"],
    "response_types": ["code"],
    "token_endpoint_auth_method": "none",
}


class DocumentTests(SynchronousTestCase):
    """Documents as they come."""

    def read(self, **changes: object) -> ClientMetadata:
        """
        @param changes: members of the example to set, C{None} takes one away.
        @return: what is kept of it.
        """
        document = {**EXAMPLE, **changes}
        given = {name: value for name, value in document.items() if value is not None}
        return read_document(json.dumps(given).encode(), URL)

    def refused(self, body: bytes | None = None, **changes: object) -> str:
        """
        @return: why.
        """
        error = self.assertRaises(
            OAuthError,
            (lambda: self.read(**changes))
            if body is None
            else (lambda: read_document(body, URL)),
        )
        self.assertEqual(error.code, ErrorCode.INVALID_CLIENT_METADATA)
        description: str = error.description
        return description

    def test_example_of_the_specification(self) -> None:
        """It is a public client; the rest as in a registration."""
        values = self.read().values
        self.assertEqual(values["client_name"], "Example MCP Client")
        self.assertEqual(values["redirect_uris"], EXAMPLE["redirect_uris"])
        self.assertEqual(values["token_endpoint_auth_method"], "none")
        self.assertEqual(values["application_type"], "native")
        self.assertNotIn("client_id", values)

    def test_without_an_authentication_method_it_is_public(self) -> None:
        """RFC 7591's default would need a secret that nobody can have."""
        self.assertFalse(self.read(token_endpoint_auth_method=None).wants_secret)

    def test_client_id_is_compared_as_text(self) -> None:
        """Draft section 4: simple string comparison (RFC 3986 section 6.2.1)."""
        for other in (
            URL + "/",
            URL.upper(),
            URL.replace("https://", "https://www."),
            URL.replace(".com/", ".com:443/"),
            7,
            [URL],
        ):
            self.assertIn("client_id", self.refused(client_id=other))
        self.assertIn("client_id", self.refused(client_id=None))

    def test_name_and_redirect_uris_are_required(self) -> None:
        """MCP 2026-07-28: a document MUST include them."""
        self.assertIn("client_name", self.refused(client_name=None))
        self.assertIn("client_name", self.refused(client_name="\u200b "))
        self.assertIn("client_name", self.refused(client_name=["x"]))
        self.assertIn("redirect_uris", self.refused(redirect_uris=None))
        self.assertIn("redirect_uris", self.refused(redirect_uris=[]))
        self.assertIn("redirect_uris", self.refused(redirect_uris="https://a.example"))
        self.assertIn("not a text", self.refused(redirect_uris=[7]))

    def test_secrets_are_refused(self) -> None:
        """Draft section 4.1: they MUST NOT be used."""
        self.assertIn("client_secret", self.refused(client_secret="x"))
        self.assertIn(
            "client_secret_expires_at", self.refused(client_secret_expires_at=0)
        )

    def test_private_keys_are_refused(self) -> None:
        """Draft section 4.1: only public keys are permitted; those are no matter."""
        public = {"kty": "EC", "crv": "P-256", "x": "x", "y": "y"}
        for member in ("d", "k", "p", "priv"):
            keys = [public, {**public, member: "secret"}]
            told = self.refused(jwks={"keys": keys})
            self.assertIn("private keys", told)
            self.assertNotIn("secret", told)
        others: list[object] = [{"keys": [public]}, {"keys": 7}, {"keys": ["d"]}, "d"]
        for harmless in others:
            self.assertFalse(self.read(jwks=harmless).wants_secret)
        self.read(jwks_uri="https://client.example.com/jwks.json")

    def test_authentication_we_do_not_offer_is_refused(self) -> None:
        """Not downgraded: private_key_jwt, and everything with a shared secret."""
        for method in (
            "private_key_jwt",
            "client_secret_basic",
            "client_secret_post",
            "client_secret_jwt",
            "tls_client_auth",
            "",
            7,
        ):
            self.assertIn(
                "token_endpoint_auth_method",
                self.refused(token_endpoint_auth_method=method),
            )

    def test_redirect_uris_for_others_are_passed_over(self) -> None:
        """A document is the same for all servers; what we may not use is left out."""
        good = "https://app.example.com/callback"
        values = self.read(
            redirect_uris=["unknown-app:/x", "http://app.example.com/", good]
        ).values
        self.assertEqual(values["redirect_uris"], [good])
        for bad in ("javascript:alert(1)", "http://app.example.com/", "data:,x"):
            self.assertIn("redirect URI 1", self.refused(redirect_uris=[bad]))

    def test_application_schemes_are_those_configured(self) -> None:
        """As in a registration."""
        body = json.dumps({**EXAMPLE, "redirect_uris": ["ourapp://callback"]}).encode()
        self.assertRaises(OAuthError, read_document, body, URL)
        kept = read_document(body, URL, application_schemes=["ourapp"])
        self.assertEqual(kept.values["redirect_uris"], ["ourapp://callback"])

    def test_other_grants_are_refused(self) -> None:
        """Only the authorization code grant signs anybody in here."""
        self.assertIn("grant_types", self.refused(grant_types=["client_credentials"]))
        self.assertIn("response_types", self.refused(response_types=["token"]))

    def test_what_is_no_document(self) -> None:
        """Other JSON, doubtful JSON, no JSON."""
        for body in (
            b"",
            b"[]",
            b"null",
            b"<html>",
            b"\xff",
            b'{"client_id": NaN}',
            b'{"client_id": "a", "Client_ID": "b"}',
            b"[" * 5000,
        ):
            self.assertTrue(self.refused(body))

    @given(
        st.dictionaries(
            st.sampled_from([*EXAMPLE, "client_secret", "jwks_uri", "scope", "x"]),
            st.recursive(
                st.none() | st.booleans() | st.integers() | st.text(max_size=9),
                lambda inner: st.lists(inner, max_size=3),
                max_leaves=6,
            ),
            max_size=4,
        )
    )
    def test_any_document_is_judged(self, changes: dict[str, object]) -> None:
        """Kept or refused, never an error of ours, and never with a secret."""
        try:
            kept = self.read(**changes)
        except OAuthError as error:
            self.assertEqual(error.code, ErrorCode.INVALID_CLIENT_METADATA)
        else:
            self.assertFalse(kept.wants_secret)
