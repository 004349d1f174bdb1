"""Requests to the token endpoint: who asks, and for what."""

from base64 import b64encode

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from fjmcp_broker.oauth.clients import Client
from fjmcp_broker.oauth.errors import OAuthError
from fjmcp_broker.oauth.parameters import Parameters
from fjmcp_broker.oauth.token_request import (
    ClientCredentials,
    CodeRequest,
    RefreshRequest,
    authenticate_client,
    parse_client_credentials,
    parse_revocation_request,
    parse_token_request,
)
from fjmcp_broker.oauth.tokens import digest
from fjmcp_broker.oauth.vocabulary import Scope

URL = "https://mcp.example.org"


def basic(text: bytes) -> bytes:
    """
    @return: an C{Authorization} header with that user and password.
    """
    return b"Basic " + b64encode(text)


def client(secret: str | None, method: str = "none") -> Client:
    """
    @return: a registered client.
    """
    return Client(
        client_id="c",
        kind="dynamic",
        redirect_uris=("https://client.example.org/back",),
        name="C",
        token_endpoint_auth_method=method,
        application_type="web",
        metadata={},
        secret_digest=None if secret is None else digest(secret),
        created_at=1,
    )


class CredentialsTests(SynchronousTestCase):
    """RFC 6749 sections 2.3.1 and 3.2.1."""

    def parse(
        self, values: dict[str, str], header: bytes | None = None
    ) -> ClientCredentials | tuple[str, int]:
        """
        @return: the credentials, or code and status of the refusal.
        """
        try:
            return parse_client_credentials(Parameters(values), header)
        except OAuthError as error:
            self.assertEqual(error.status == 401, "WWW-Authenticate" in error.headers)
            return error.code, error.status

    def test_public_client_names_itself(self) -> None:
        """RFC 6749 section 3.2.1."""
        self.assertEqual(self.parse({"client_id": "c"}), ClientCredentials("c"))

    def test_secret_in_the_body(self) -> None:
        """C{client_secret_post}."""
        self.assertEqual(
            self.parse({"client_id": "c", "client_secret": "s"}),
            ClientCredentials("c", "s"),
        )

    def test_secret_in_the_header(self) -> None:
        """C{client_secret_basic}: both parts are form-encoded first."""
        self.assertEqual(
            self.parse({}, basic(b"a%3Ab:s%25+x")), ClientCredentials("a:b", "s% x")
        )
        self.assertEqual(
            self.parse({"client_id": "c"}, basic(b"c:s")), ClientCredentials("c", "s")
        )

    def test_empty_secret_is_none(self) -> None:
        """RFC 6749 section 2.3.1: an empty one may be omitted."""
        self.assertEqual(self.parse({}, basic(b"c:")), ClientCredentials("c"))

    def test_no_client_id_is_refused(self) -> None:
        """RFC 6749 section 3.2.1."""
        self.assertEqual(self.parse({}), ("invalid_request", 400))

    def test_two_methods_at_once_are_refused(self) -> None:
        """RFC 6749 section 2.3: MUST NOT use more than one method."""
        self.assertEqual(
            self.parse({"client_secret": "s"}, basic(b"c:s")), ("invalid_request", 400)
        )

    def test_two_clients_at_once_are_refused(self) -> None:
        """The header and the body must not disagree about who it is."""
        self.assertEqual(
            self.parse({"client_id": "d"}, basic(b"c:s")), ("invalid_request", 400)
        )

    def test_unusable_header_is_refused_with_a_challenge(self) -> None:
        """RFC 6749 section 5.2: 401 with the scheme that is possible."""
        for header in (
            b"",
            b"Bearer fjmcp_at_x",
            b"Basic",
            b"Basic ?",
            b"Basic QQ",
            b"Basic QQ===",
            basic(b"no-colon"),
            basic(b":s"),
            basic(b"c\xff:s"),
            basic(b"c%0a:s"),
            basic(b"c:s") + b", " + basic(b"d:s"),
        ):
            self.assertEqual(
                self.parse({"client_id": "c"}, header), ("invalid_client", 401), header
            )

    @given(st.binary() | st.binary().map(basic))
    def test_any_header_is_judged(self, header: bytes) -> None:
        """Junk is C{invalid_client} or understood."""
        self.parse({}, header)

    def test_secret_is_not_in_the_representation(self) -> None:
        """Credentials may end in a traceback."""
        self.assertNotIn("s3cret", repr(ClientCredentials("c", "s3cret")))


class AuthenticationTests(SynchronousTestCase):
    """RFC 6749 section 5.2, C{invalid_client}."""

    def refused(self, credentials: ClientCredentials, known: Client | None) -> None:
        """
        Require 401 with a challenge.
        """
        error = self.assertRaises(OAuthError, authenticate_client, credentials, known)
        self.assertEqual((error.code, error.status), ("invalid_client", 401))
        self.assertTrue(error.headers["WWW-Authenticate"].startswith("Basic "))

    def test_public_client(self) -> None:
        """Its name is all it has; a secret was never given to it."""
        authenticate_client(ClientCredentials("c"), client(None))
        self.refused(ClientCredentials("c", "s"), client(None))

    def test_confidential_client(self) -> None:
        """It proves itself by header or body, whichever it registered."""
        for method in ("client_secret_basic", "client_secret_post"):
            known = client("s", method)
            authenticate_client(ClientCredentials("c", "s"), known)
            self.refused(ClientCredentials("c"), known)
            self.refused(ClientCredentials("c", "t"), known)

    def test_unknown_client(self) -> None:
        """The answer that makes clients register again."""
        self.refused(ClientCredentials("c"), None)
        self.refused(ClientCredentials("c", "s"), None)


CODE = {"grant_type": "authorization_code", "code": "x", "code_verifier": "v"}
REFRESH = {"grant_type": "refresh_token", "refresh_token": "r"}


class TokenRequestTests(SynchronousTestCase):
    """RFC 6749 sections 4.1.3 and 6, RFC 7636 section 4.5, RFC 8707 section 2."""

    def refused(self, values: dict[str, str], *resources: str) -> str:
        """
        @return: the code of the refusal, which is a 400.
        """
        error = self.assertRaises(
            OAuthError, parse_token_request, Parameters(values, resources), URL
        )
        self.assertEqual(error.status, 400)
        return str(error.code)

    def test_code_request(self) -> None:
        """redirect_uri is optional (OAuth 2.1), because PKCE is not."""
        self.assertEqual(
            parse_token_request(Parameters(CODE), URL), CodeRequest("x", "v", None)
        )
        self.assertEqual(
            parse_token_request(Parameters({**CODE, "redirect_uri": "u"}), URL),
            CodeRequest("x", "v", "u"),
        )

    def test_refresh_request(self) -> None:
        """Without a scope all that was granted is meant (RFC 6749 section 6)."""
        self.assertEqual(
            parse_token_request(Parameters(REFRESH), URL), RefreshRequest("r", None)
        )

    def test_unknown_scopes_are_left_out(self) -> None:
        """Clients repeat C{offline_access} out of habit."""
        for text, scope in [
            ("read", {Scope.READ}),
            ("write read", {Scope.READ, Scope.WRITE}),
            ("offline_access  read", {Scope.READ}),
        ]:
            request = parse_token_request(Parameters({**REFRESH, "scope": text}), URL)
            assert isinstance(request, RefreshRequest)
            self.assertEqual(request.scope, scope)

    def test_scope_that_says_nothing_is_refused(self) -> None:
        """RFC 6749 sections 3.3 and 5.2: unknown or malformed."""
        for text in ("admin", "READ", 'read"', "read\\", " read", "réad", " "):
            self.assertEqual(self.refused({**REFRESH, "scope": text}), "invalid_scope")

    def test_missing_parameters_are_refused(self) -> None:
        """RFC 6749 section 5.2: includes every required one."""
        for values in (CODE, REFRESH):
            for name in values:
                rest = {key: value for key, value in values.items() if key != name}
                self.assertEqual(self.refused(rest), "invalid_request")

    def test_other_grant_types_are_refused(self) -> None:
        """RFC 6749 section 5.2."""
        for grant_type in ("password", "client_credentials", "refresh-token", "X"):
            self.assertEqual(
                self.refused({**CODE, **REFRESH, "grant_type": grant_type}),
                "unsupported_grant_type",
            )

    def test_resource_of_ours_in_every_spelling(self) -> None:
        """The endpoint, with and without slash, the bare origin, several at once."""
        ours = (f"{URL}/mcp", f"{URL}/mcp/", URL, f"{URL}/")
        for resources in [*((one,) for one in ours), ours]:
            parse_token_request(Parameters(CODE, resources), URL)
            parse_token_request(Parameters(REFRESH, resources), URL)

    def test_foreign_resource_is_refused(self) -> None:
        """RFC 8707 section 2: each value must be ours."""
        for values in (CODE, REFRESH):
            self.assertEqual(
                self.refused(values, f"{URL}/mcp", "https://other.example.org/mcp"),
                "invalid_target",
            )

    def test_unknown_parameters_are_ignored(self) -> None:
        """RFC 6749 section 3.2."""
        parse_token_request(Parameters({**CODE, "audience": "x", "é": "y"}), URL)

    def test_secrets_are_not_in_the_representation(self) -> None:
        """Requests may end in a traceback."""
        shown = repr(CodeRequest("s3cret", "s3cret")) + repr(RefreshRequest("s3cret"))
        self.assertNotIn("s3cret", shown)


class RevocationRequestTests(SynchronousTestCase):
    """RFC 7009 section 2.1."""

    def test_token_is_required(self) -> None:
        """The hint alone says nothing."""
        self.assertEqual(parse_revocation_request(Parameters({"token": "t"})), "t")
        hint = Parameters({"token_type_hint": "access_token"})
        error = self.assertRaises(OAuthError, parse_revocation_request, hint)
        self.assertEqual(error.code, "invalid_request")
