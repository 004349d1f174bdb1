"""The registration endpoint, RFC 7591 section 3."""

import json
from hashlib import sha256

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from fjmcp_broker.store import clients
from tests.unit.web.signin import WEB_REDIRECT, Answer, Site

JSON = {"Content-Type": "application/json"}


class RegisterTests(SynchronousTestCase):
    """POST /oauth/register."""

    def setUp(self) -> None:
        self.site = Site(self)

    def post(self, body: bytes, headers: dict[str, str] = JSON) -> Answer:
        return self.site.request("POST", "/oauth/register", headers=headers, body=body)

    def test_public_client_gets_its_metadata_back(self) -> None:
        """Section 3.2.1: 201 with all registered metadata, and no secret."""
        document = {
            "redirect_uris": [WEB_REDIRECT],
            "token_endpoint_auth_method": "none",
            "application_type": "web",
            "client_name": "Claude",
            "grant_types": ["authorization_code", "refresh_token"],
            "response_types": ["code"],
        }
        answer = self.post(json.dumps({**document, "unknown": {"a": 1}}).encode())
        self.assertEqual(answer.status, 201)
        self.assertEqual(answer.header("Cache-Control"), "no-store")
        self.assertEqual(answer.header("Content-Type"), "application/json")
        values = json.loads(answer.body)
        client_id = values.pop("client_id")
        self.assertRegex(client_id, r"\Afjmcp_client_[A-Za-z0-9_-]{22}\Z")
        issued_at = values.pop("client_id_issued_at")
        self.assertEqual(issued_at, int(self.site.clock.seconds()))
        self.assertEqual(values, document)
        client = self.site.read(lambda c: clients.find(c, client_id))
        assert client is not None
        self.assertEqual(client.metadata, document)
        self.assertIsNone(client.secret_digest)

    def test_confidential_client_sees_its_secret_once(self) -> None:
        """Section 3.2.1: the secret leaves here; only its digest stays."""
        for method in ("client_secret_basic", "client_secret_post"):
            answer = self.post(
                json.dumps(
                    {
                        "redirect_uris": [WEB_REDIRECT],
                        "token_endpoint_auth_method": method,
                    }
                ).encode()
            )
            values = json.loads(answer.body)
            secret = values["client_secret"]
            self.assertRegex(secret, r"\Afjmcp_cs_[A-Za-z0-9_-]{43}\Z")
            self.assertEqual(values["client_secret_expires_at"], 0)
            client_id = values["client_id"]
            client = self.site.read(
                lambda c, client_id=client_id: clients.find(c, client_id)  # type: ignore[misc]
            )
            assert client is not None
            self.assertEqual(client.secret_digest, sha256(secret.encode()).digest())
            self.assertNotIn(secret, "\n".join(self.site.dump()))

    def test_private_key_jwt_is_refused(self) -> None:
        """Section 2: never downgraded to a weaker method than the client believes."""
        answer = self.post(
            json.dumps(
                {
                    "redirect_uris": [WEB_REDIRECT],
                    "token_endpoint_auth_method": "private_key_jwt",
                }
            ).encode()
        )
        self.assertEqual(answer.status, 400)
        self.assertEqual(json.loads(answer.body)["error"], "invalid_client_metadata")

    def test_dangerous_redirect_uris_are_refused(self) -> None:
        """RFC 9700 section 4.1: nothing a browser would run or leak to."""
        before = self.site.dump()
        for uri in (
            "javascript:alert(1)",
            "data:text/html,x",
            "http://example.com/cb",
            "https://user@example.com/cb",
            "https://example.com/cb#f",
        ):
            answer = self.post(json.dumps({"redirect_uris": [uri]}).encode())
            self.assertEqual(answer.status, 400)
            self.assertEqual(json.loads(answer.body)["error"], "invalid_redirect_uri")
            self.assertNotIn(uri, answer.text)
        self.assertEqual(self.site.dump(), before)

    def test_junk_is_refused_as_json(self) -> None:
        """Wrong types, nesting, duplicate keys, NUL and broken text are 400."""
        good = f'"redirect_uris": ["{WEB_REDIRECT}"]'
        before = self.site.dump()
        for body, headers, status in [
            (b"", JSON, 400),
            (b"not json", JSON, 400),
            (b"[]", JSON, 400),
            (b"[" * 10_000, JSON, 400),
            (b'{"a":' * 10_000, JSON, 400),
            (b'{"redirect_uris": ["\xff"]}', JSON, 400),
            (f"{{{good}, {good}}}".encode(), JSON, 400),
            (f'{{{good}, "Redirect_URIs": []}}'.encode(), JSON, 400),
            (f'{{{good}, "client_name": "\\u0000"}}'.encode(), JSON, 400),
            (f'{{{good}, "client_name": "\\ud800"}}'.encode(), JSON, 400),
            (f'{{{good}, "x": "{"y" * 70_000}"}}'.encode(), JSON, 413),
            (f"{{{good}}}".encode(), {"Content-Type": "text/plain"}, 415),
            (f"{{{good}}}".encode(), {}, 415),
        ]:
            answer = self.post(body, headers)
            self.assertEqual(answer.status, status, body[:60])
            self.assertIn("error", json.loads(answer.body))
            self.assertEqual(answer.header("Cache-Control"), "no-store")
        self.assertEqual(self.site.dump(), before)

    def test_other_methods_are_refused(self) -> None:
        """There is nothing to read at the registration endpoint."""
        for method in ("GET", "PUT", "DELETE"):
            answer = self.site.request(method, "/oauth/register")
            self.assertEqual(answer.status, 405)

    def test_large_registrations_are_refused(self) -> None:
        """Anybody may make them, and they are kept for three days."""
        uris = [f"https://client.example/{number:x}" for number in range(20)]
        self.assertEqual(
            self.post(json.dumps({"redirect_uris": uris}).encode()).status, 201
        )
        before = self.site.dump()
        for large in (
            {"redirect_uris": [uri + "/" + "x" * 500 for uri in uris]},
            {"redirect_uris": uris, "contacts": ["\u00fc" * 256] * 20},
        ):
            answer = self.post(json.dumps(large).encode())
            self.assertEqual(answer.status, 400)
            self.assertEqual(
                json.loads(answer.body)["error"], "invalid_client_metadata"
            )
        self.assertEqual(self.site.dump(), before)

    def test_any_body_is_registered_or_refused(self) -> None:
        """No body gives a 5xx, and a refused one leaves no trace."""
        json_values = st.recursive(
            st.none()
            | st.booleans()
            | st.integers()
            | st.floats()
            | st.text()
            | st.just(WEB_REDIRECT),
            lambda inner: (
                st.lists(inner, max_size=3)
                | st.dictionaries(
                    st.sampled_from(["redirect_uris", "client_name", "x"]), inner
                )
            ),
            max_leaves=8,
        )

        @settings(max_examples=150, deadline=None)
        @given(st.binary(max_size=200) | json_values.map(json.dumps).map(str.encode))
        def check(body: bytes) -> None:
            before = self.site.dump()
            answer = self.post(body)
            if answer.status == 201:
                return
            self.assertEqual(answer.status, 400)
            self.assertIn(
                json.loads(answer.body)["error"],
                ("invalid_client_metadata", "invalid_redirect_uri"),
            )
            self.assertEqual(self.site.dump(), before)

        check()
