"""Registration of clients, RFC 7591 section 2."""

import unicodedata

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from fjmcp_broker.oauth.clients import (
    MAXIMUM_NAME_LENGTH,
    MAXIMUM_REDIRECT_URIS,
    MAXIMUM_SHOWN_NAME_LENGTH,
    UNNAMED,
    Client,
    sanitise_name,
    validate_registration,
)
from fjmcp_broker.oauth.errors import OAuthError

WEB = "https://claude.ai/api/mcp/auth_callback"
LOOPBACK = "http://127.0.0.1/callback"


class ValidationTests(SynchronousTestCase):
    """What is registered of what was asked for."""

    def test_defaults_are_those_of_the_specification(self) -> None:
        """A registration of redirect URIs alone gets the defaults of section 2."""
        values = validate_registration({"redirect_uris": [WEB]}).values
        self.assertEqual(
            values,
            {
                "redirect_uris": [WEB],
                "token_endpoint_auth_method": "client_secret_basic",
                "grant_types": ["authorization_code"],
                "response_types": ["code"],
                "application_type": "web",
            },
        )

    def test_everything_known_is_kept(self) -> None:
        """Known members come back as sent; unknown ones are ignored."""
        known = {
            "redirect_uris": [LOOPBACK, "cursor://a/b"],
            "token_endpoint_auth_method": "none",
            "grant_types": ["authorization_code", "refresh_token"],
            "response_types": ["code"],
            "application_type": "native",
            "client_name": "Claude Code (forgejo)",
            "scope": "read write",
            "client_uri": "https://claude.ai",
            "logo_uri": "https://claude.ai/logo.png",
            "policy_uri": "https://claude.ai/privacy",
            "tos_uri": "https://claude.ai/terms",
            "contacts": ["somebody@example.com"],
            "software_id": "abc",
            "software_version": "1.0",
        }
        unknown = {
            "client_name#de": "x",
            "jwks": {"keys": []},
            "software_statement": "x.y.z",
            "x": [1, {"y": None}],
        }
        self.assertEqual(validate_registration({**known, **unknown}).values, known)

    def test_null_and_empty_members_count_as_absent(self) -> None:
        """Clients that serialise their empty fields can register."""
        values = validate_registration(
            {
                "redirect_uris": [WEB],
                "token_endpoint_auth_method": None,
                "client_name": None,
                "client_uri": "",
                "logo_uri": None,
                "scope": "",
                "contacts": [],
                "grant_types": None,
                "response_types": [],
            }
        ).values
        self.assertNotIn("client_name", values)
        self.assertNotIn("client_uri", values)
        self.assertEqual(values["grant_types"], ["authorization_code"])

    def test_values_that_cannot_be_honoured_are_replaced(self) -> None:
        """RFC 7591 section 3.2.1 lets the server replace what it does not have."""
        values = validate_registration(
            {
                "redirect_uris": [LOOPBACK],
                "grant_types": ["client_credentials", "authorization_code"],
                "response_types": ["code", "token"],
                "scope": "openid read offline_access",
                "application_type": "browser",
            }
        ).values
        self.assertEqual(values["grant_types"], ["authorization_code"])
        self.assertEqual(values["response_types"], ["code"])
        self.assertEqual(values["scope"], "read")
        self.assertEqual(values["application_type"], "native")

    def test_only_methods_with_a_secret_want_one(self) -> None:
        """A public client has no secret (RFC 6749 section 2.1)."""
        for method, wanted in [
            ("none", False),
            ("client_secret_basic", True),
            ("client_secret_post", True),
        ]:
            metadata = validate_registration(
                {"redirect_uris": [WEB], "token_endpoint_auth_method": method}
            )
            self.assertEqual(metadata.wants_secret, wanted)

    def test_bad_values_are_refused_with_the_right_code(self) -> None:
        """RFC 7591 section 3.2.2 has two codes, one for redirect URIs alone."""
        cases: list[tuple[str, object, str]] = [
            ("redirect_uris", None, "invalid_redirect_uri"),
            ("redirect_uris", [], "invalid_redirect_uri"),
            ("redirect_uris", WEB, "invalid_redirect_uri"),
            ("redirect_uris", {}, "invalid_redirect_uri"),
            ("redirect_uris", [1], "invalid_redirect_uri"),
            ("redirect_uris", [None], "invalid_redirect_uri"),
            ("redirect_uris", [WEB, "javascript:x"], "invalid_redirect_uri"),
            ("redirect_uris", [WEB] * 21, "invalid_redirect_uri"),
            ("redirect_uris", ["myapp://x"], "invalid_redirect_uri"),
            (
                "token_endpoint_auth_method",
                "private_key_jwt",
                "invalid_client_metadata",
            ),
            (
                "token_endpoint_auth_method",
                "tls_client_auth",
                "invalid_client_metadata",
            ),
            ("token_endpoint_auth_method", "NONE", "invalid_client_metadata"),
            ("token_endpoint_auth_method", ["none"], "invalid_client_metadata"),
            ("token_endpoint_auth_method", {}, "invalid_client_metadata"),
            ("grant_types", ["client_credentials"], "invalid_client_metadata"),
            ("grant_types", "authorization_code", "invalid_client_metadata"),
            ("grant_types", [[]], "invalid_client_metadata"),
            ("grant_types", ["authorization_code"] * 21, "invalid_client_metadata"),
            ("response_types", ["token"], "invalid_client_metadata"),
            ("response_types", 1, "invalid_client_metadata"),
            ("client_name", 1, "invalid_client_metadata"),
            ("client_name", "x" * (MAXIMUM_NAME_LENGTH + 1), "invalid_client_metadata"),
            ("client_uri", "javascript:alert(1)", "invalid_client_metadata"),
            ("logo_uri", "data:image/png;base64,", "invalid_client_metadata"),
            ("tos_uri", ["https://a.test"], "invalid_client_metadata"),
            ("policy_uri", "https://a.test/ x", "invalid_client_metadata"),
            ("contacts", "x@y.test", "invalid_client_metadata"),
            ("contacts", ["x" * 300], "invalid_client_metadata"),
            ("scope", ["read"], "invalid_client_metadata"),
            ("software_id", 7, "invalid_client_metadata"),
            ("application_type", 7, "invalid_client_metadata"),
        ]
        for member, value, code in cases:
            with self.assertRaises(OAuthError) as caught:
                validate_registration({"redirect_uris": [WEB], member: value})
            self.assertEqual(caught.exception.code, code, (member, value))
            self.assertEqual(caught.exception.status, 400)
        self.assertGreaterEqual(MAXIMUM_REDIRECT_URIS, 10)

    def test_configured_application_schemes_replace_the_defaults(self) -> None:
        """The list of application schemes is the operator's."""
        document = {"redirect_uris": ["cursor://a/b"]}
        with self.assertRaises(OAuthError):
            validate_registration(document, application_schemes=("myapp",))
        document = {"redirect_uris": ["myapp://a/b"]}
        validate_registration(document, application_schemes=("myapp",))

    @given(
        st.dictionaries(
            st.sampled_from(
                [
                    "redirect_uris",
                    "token_endpoint_auth_method",
                    "grant_types",
                    "response_types",
                    "client_name",
                    "scope",
                    "client_uri",
                    "contacts",
                    "application_type",
                ]
            ),
            st.recursive(
                st.none()
                | st.booleans()
                | st.floats(allow_nan=False)
                | st.sampled_from(["none", "code", "authorization_code", WEB])
                | st.text(max_size=8),
                lambda inner: (
                    st.lists(inner, max_size=3)
                    | st.dictionaries(st.text(max_size=2), inner, max_size=2)
                ),
                max_leaves=5,
            ),
        )
    )
    def test_any_document_is_accepted_or_refused(
        self, document: dict[str, object]
    ) -> None:
        """No JSON value makes the rules fail otherwise than by a refusal."""
        try:
            metadata = validate_registration(document)
        except OAuthError as error:
            self.assertIn(
                error.code, ("invalid_redirect_uri", "invalid_client_metadata")
            )
            return
        self.assertIn(WEB, str(metadata.values["redirect_uris"]))


class NameTests(SynchronousTestCase):
    """A name is shown to people who decide by it."""

    def test_hostile_names_are_made_harmless(self) -> None:
        """No control, bidirectional or invisible character reaches the page."""
        for name, shown in [
            ("Claude", "Claude"),
            ("  two \t\n words ", "two words"),
            ("a\u202egnp.exe", "agnp.exe"),
            ("a\u2066b\u2069\u200fc", "abc"),
            ("zero\u200bwidth\ufeff\u00ad", "zerowidth"),
            ("nul\x00bell\x07", "nul bell"),
            ("esc\x1b[31m", "esc [31m"),
            ("line\u2028para\u2029", "line para"),
            ("private\ue000", "private"),
            ("<script>alert(1)</script>", "<script>alert(1)</script>"),
            ("z" + "\u0301\u0302\u0303\u0304\u0305" * 5, "z\u0301\u0302\u0303"),
            ("\u202e\u200b", ""),
            ("日本語 Клиент", "日本語 Клиент"),
        ]:
            expected = unicodedata.normalize("NFC", shown)
            self.assertEqual(sanitise_name(name)[: len(expected)], expected, repr(name))
        self.assertEqual(sanitise_name("\u202e\u200b"), "")

    def test_blank_names_are_none(self) -> None:
        """A name that shows nothing would leave a gap in the question: letters and
        symbols that are blank count as spaces, marks alone as nothing."""
        for blank in "\u3164\u2800\u115f\u1160\uffa0":
            self.assertEqual(sanitise_name(blank * 3), "")
            self.assertEqual(sanitise_name(f"a{blank}{blank}b"), "a b")
        for mark in "\u0301\u034f\u17b4\ufe0f":
            self.assertEqual(sanitise_name(mark * 2), "")

    def test_long_names_are_cut(self) -> None:
        """A long name does not push the rest off the page."""
        shown = sanitise_name("x" * 200)
        self.assertEqual(len(shown), MAXIMUM_SHOWN_NAME_LENGTH)
        self.assertTrue(shown.endswith("…"))

    @given(st.text(max_size=300))
    def test_any_name_is_safe_and_stable(self, name: str) -> None:
        """Whatever is sent, nothing invisible is left, and twice changes nothing."""
        shown = sanitise_name(name)
        self.assertLessEqual(len(shown), MAXIMUM_SHOWN_NAME_LENGTH)
        for character in shown:
            self.assertNotIn(
                unicodedata.category(character),
                ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"),
            )
        self.assertEqual(shown, shown.strip())
        self.assertEqual(sanitise_name(shown), shown)


class RecordTests(SynchronousTestCase):
    """The record survives the store."""

    def test_restore_gives_an_equal_record(self) -> None:
        """What is read from the store is what was registered."""
        metadata = validate_registration(
            {"redirect_uris": [WEB, LOOPBACK], "client_name": "Ünï"}
        )
        client = Client.from_metadata(
            client_id="fjmcp_client_x",
            kind="dynamic",
            metadata=metadata.values,
            secret_digest=b"\1" * 32,
            created_at=5,
        )
        again = Client.restore(
            client_id=client.client_id,
            kind=client.kind,
            metadata=client.metadata_json(),
            secret_digest=client.secret_digest,
            created_at=client.created_at,
            last_used_at=client.last_used_at,
        )
        self.assertEqual(again, client)
        self.assertTrue(again.is_confidential)
        self.assertEqual(again.redirect_uris, (WEB, LOOPBACK))
        self.assertEqual(again.name, "Ünï")

    def test_nameless_client_has_a_name_to_show(self) -> None:
        """The consent page always has something to call the client."""
        metadata = validate_registration(
            {"redirect_uris": [WEB], "token_endpoint_auth_method": "none"}
        )
        client = Client.from_metadata(
            client_id="x",
            kind="dynamic",
            metadata=metadata.values,
            secret_digest=None,
            created_at=5,
        )
        self.assertEqual(client.name, UNNAMED)
        self.assertFalse(client.is_confidential)
