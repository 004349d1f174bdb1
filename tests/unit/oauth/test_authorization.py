"""The authorization request: RFC 6749 section 4.1.1, RFC 7636, RFC 8707, RFC 9207."""

from urllib.parse import parse_qsl, urlsplit

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from fjmcp_broker.oauth.authorization import (
    MAXIMUM_STATE_LENGTH,
    AuthorizationRequest,
    Target,
    client_state,
    error_redirect,
    is_our_resource,
    named_client,
    parse_authorization_request,
    pin_redirect_uri,
    success_redirect,
)
from fjmcp_broker.oauth.clients import Client, validate_registration
from fjmcp_broker.oauth.errors import OAuthError
from fjmcp_broker.oauth.vocabulary import ErrorCode

PUBLIC_URL = "https://mcp.example.org"
CHALLENGE = "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM"
WEB = "https://claude.ai/api/mcp/auth_callback"
GOOD = {
    "response_type": "code",
    "client_id": "c",
    "redirect_uri": WEB,
    "state": "xyz",
    "code_challenge": CHALLENGE,
    "code_challenge_method": "S256",
    "scope": "read write",
    "resource": f"{PUBLIC_URL}/mcp",
}


def client(*redirect_uris: str) -> Client:
    """
    @return: a public client with these redirect URIs.
    """
    metadata = validate_registration(
        {
            "redirect_uris": list(redirect_uris or (WEB,)),
            "token_endpoint_auth_method": "none",
        }
    )
    return Client.from_metadata(
        client_id="c",
        kind="dynamic",
        metadata=metadata.values,
        secret_digest=None,
        created_at=0,
    )


def parse(**changes: str | None) -> AuthorizationRequest:
    """
    Parse a good request with some parameters changed or, with C{None}, left out.
    """
    merged = {**GOOD, **changes}
    pairs = [(name, value) for name, value in merged.items() if value is not None]
    return parse_authorization_request(
        pairs, client(), Target(WEB, given=True), PUBLIC_URL
    )


class TargetTests(SynchronousTestCase):
    """RFC 6749 section 4.1.2.1: errors that must never be redirected."""

    def test_client_must_be_named_once(self) -> None:
        """Without one client there is nobody to answer."""
        self.assertEqual(named_client([("client_id", "c")]), "c")
        for pairs in (
            [],
            [("client_id", "")],
            [("client_id", "c"), ("client_id", "d")],
            [("client_id", "c"), ("client_id", "c")],
        ):
            self.assertRaises(OAuthError, named_client, pairs)

    def test_unregistered_redirect_uri_is_refused(self) -> None:
        """No open redirect (RFC 9700 section 4.11): only a registered URI is used."""
        for uri in (
            "https://evil.test/",
            WEB + "/",
            WEB + "?x=y",
            WEB + "#x",
            WEB.upper(),
            "https://claude.ai@evil.test/api/mcp/auth_callback",
            "javascript:alert(1)",
        ):
            with self.assertRaises(OAuthError):
                pin_redirect_uri([("redirect_uri", uri)], client())

    def test_repeated_redirect_uri_is_refused(self) -> None:
        """Of two values neither is believed, equal or not."""
        for second in (WEB, "https://evil.test/"):
            pairs = [("redirect_uri", WEB), ("redirect_uri", second)]
            with self.assertRaises(OAuthError):
                pin_redirect_uri(pairs, client())

    def test_absent_redirect_uri_needs_a_single_registered_one(self) -> None:
        """RFC 6749 section 3.1.2.3."""
        self.assertEqual(pin_redirect_uri([], client()), Target(WEB, given=False))
        with self.assertRaises(OAuthError):
            pin_redirect_uri([], client(WEB, "http://localhost/cb"))

    def test_loopback_keeps_the_port_of_the_request(self) -> None:
        """RFC 8252 section 7.3: the answer goes to the port that listens."""
        self.assertEqual(
            pin_redirect_uri(
                [("redirect_uri", "http://localhost:5123/cb")],
                client("http://localhost/cb"),
            ),
            Target("http://localhost:5123/cb", given=True),
        )

    def test_ambiguous_state_is_not_given_back(self) -> None:
        """Of two states neither is the client's."""
        self.assertEqual(client_state([("state", "a")]), "a")
        self.assertIsNone(client_state([("state", "a"), ("state", "b")]))
        self.assertIsNone(client_state([]))


class RequestTests(SynchronousTestCase):
    """What is accepted, and which error the client hears otherwise."""

    def test_good_request_is_understood(self) -> None:
        """Every parameter arrives in its place."""
        self.assertEqual(
            parse(unknown="ignored", nonce="n", prompt="login", response_mode="query"),
            AuthorizationRequest(
                client_id="c",
                redirect_uri=WEB,
                redirect_uri_given=True,
                state="xyz",
                scope=("read", "write"),
                code_challenge=CHALLENGE,
                resource=f"{PUBLIC_URL}/mcp",
            ),
        )

    def test_optional_parameters_may_be_absent_or_empty(self) -> None:
        """RFC 6749 section 3.1: a parameter without a value is not there."""
        for nothing in (None, ""):
            request = parse(state=nothing, scope=nothing, resource=nothing)
            self.assertIsNone(request.state)
            self.assertIsNone(request.scope)
            self.assertEqual(request.resource, f"{PUBLIC_URL}/mcp")

    def test_unknown_scopes_are_ignored(self) -> None:
        """Clients that ask for offline_access out of habit get what there is."""
        for scope, known in [
            ("read", ("read",)),
            ("write", ("write",)),
            ("write read", ("read", "write")),
            ("read read", ("read",)),
            ("offline_access openid read", ("read",)),
            ("offline_access openid", None),
            ("READ", None),
            ("read,write", None),
            ("  ", None),
        ]:
            self.assertEqual(parse(scope=scope).scope, known)

    def test_errors_have_the_code_of_their_specification(self) -> None:
        """RFC 6749 section 4.1.2.1, RFC 7636 section 4.4.1, RFC 8707 section 2."""
        cases: list[tuple[dict[str, str | None], str]] = [
            ({"response_type": None}, "invalid_request"),
            ({"response_type": "token"}, "unsupported_response_type"),
            ({"response_type": "code id_token"}, "unsupported_response_type"),
            ({"response_type": "CODE"}, "unsupported_response_type"),
            ({"code_challenge": None}, "invalid_request"),
            ({"code_challenge": ""}, "invalid_request"),
            ({"code_challenge": "x" * 42}, "invalid_request"),
            ({"code_challenge": "x" * 129}, "invalid_request"),
            ({"code_challenge": CHALLENGE[:-1] + "="}, "invalid_request"),
            ({"code_challenge": CHALLENGE + "\n"}, "invalid_request"),
            ({"code_challenge_method": None}, "invalid_request"),
            ({"code_challenge_method": "plain"}, "invalid_request"),
            ({"code_challenge_method": "s256"}, "invalid_request"),
            ({"state": "x" * (MAXIMUM_STATE_LENGTH + 1)}, "invalid_request"),
            ({"resource": "https://other.example.org/mcp"}, "invalid_target"),
            ({"resource": f"{PUBLIC_URL}/mcp#x"}, "invalid_target"),
        ]
        for changes, code in cases:
            with self.assertRaises(OAuthError) as caught:
                parse(**changes)
            self.assertEqual(caught.exception.code, code, changes)

    def test_repeated_parameters_are_refused(self) -> None:
        """RFC 6749 section 3.1: once each, empty or unknown ones included."""
        for name in [*GOOD, "unknown"]:
            for value in (GOOD.get(name, "x"), "", "other"):
                pairs = [*GOOD.items(), ("unknown", "x"), (name, value)]
                if name == "resource" and value != "other":
                    parse_authorization_request(
                        pairs, client(), Target(WEB, given=True), PUBLIC_URL
                    )
                    continue
                with self.assertRaises(OAuthError):
                    parse_authorization_request(
                        pairs, client(), Target(WEB, given=True), PUBLIC_URL
                    )

    def test_every_resource_must_be_ours(self) -> None:
        """RFC 8707 section 2: one foreign value among several is refused."""
        for resource, ours in [
            (f"{PUBLIC_URL}/mcp", True),
            (f"{PUBLIC_URL}/mcp/", True),
            (PUBLIC_URL, True),
            (f"{PUBLIC_URL}/", True),
            ("HTTPS://MCP.Example.ORG/mcp", True),
            (f"{PUBLIC_URL}/MCP", False),
            ("https://mcp.example.or\u212a/mcp", False),
            (f"{PUBLIC_URL}//", False),
            (f"{PUBLIC_URL}/mcp//", False),
            (f"{PUBLIC_URL}/mcp/x", False),
            (f"{PUBLIC_URL}.evil.test/mcp", False),
            ("http://mcp.example.org/mcp", False),
            ("", False),
        ]:
            self.assertEqual(is_our_resource(resource, PUBLIC_URL), ours, resource)

    @given(
        st.lists(
            st.tuples(
                st.sampled_from([*GOOD, "x"]),
                st.sampled_from([*GOOD.values(), ""]) | st.text(max_size=5),
            ),
            max_size=10,
        )
    )
    def test_any_parameters_have_an_answer(self, pairs: list[tuple[str, str]]) -> None:
        """No parameters raise anything but a refusal."""
        try:
            request = parse_authorization_request(
                pairs, client(), Target(WEB, given=True), PUBLIC_URL
            )
        except OAuthError as error:
            self.assertEqual(error.status, 400)
            return
        self.assertEqual(AuthorizationRequest.from_json(request.to_json()), request)
        again = parse_authorization_request(
            request.parameters(),
            client(),
            Target(WEB, given=True),
            PUBLIC_URL,
        )
        self.assertEqual(again, request)


class RedirectTests(SynchronousTestCase):
    """The answers, RFC 6749 section 4.1.2 and RFC 9207."""

    def test_success_has_code_state_and_issuer(self) -> None:
        """The issuer lets a client detect a mix-up (RFC 9207 section 2.4)."""
        url = success_redirect(parse(), code="fjmcp_code_x", issuer=PUBLIC_URL)
        self.assertEqual(
            url,
            f"{WEB}?code=fjmcp_code_x&state=xyz&iss=https%3A%2F%2Fmcp.example.org",
        )

    def test_absent_state_is_not_sent(self) -> None:
        """RFC 6749 section 4.1.2: state only if the request had it."""
        url = success_redirect(parse(state=None), code="x", issuer=PUBLIC_URL)
        self.assertNotIn("state", url)

    def test_error_has_state_and_issuer(self) -> None:
        """Errors are bound to request and issuer as answers are."""
        error = OAuthError(ErrorCode.ACCESS_DENIED, "no & no")
        url = error_redirect("cursor://a/b?c=d", "s t", error, issuer=PUBLIC_URL)
        self.assertTrue(url.startswith("cursor://a/b?c=d&"))
        self.assertEqual(
            dict(parse_qsl(url.partition("?")[2])),
            {
                "c": "d",
                "error": "access_denied",
                "error_description": "no & no",
                "state": "s t",
                "iss": PUBLIC_URL,
            },
        )

    @given(st.text(min_size=1))
    def test_any_state_comes_back_unchanged(self, state: str) -> None:
        """The state is opaque: no header injection, no lost character."""
        if any("\ud800" <= character <= "\udfff" for character in state):
            return
        error = OAuthError(ErrorCode.ACCESS_DENIED, "no")
        url = error_redirect(WEB, state, error, issuer=PUBLIC_URL)
        self.assertTrue(url.isascii() and url.isprintable() and " " not in url)
        query = dict(parse_qsl(urlsplit(url).query, strict_parsing=True))
        self.assertEqual(query["state"], state)
