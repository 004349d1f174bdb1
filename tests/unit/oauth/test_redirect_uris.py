"""Which redirect URIs may be registered, and which ones match."""

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from fjmcp_broker.oauth.redirect_uris import (
    DEFAULT_APPLICATION_SCHEMES,
    FORBIDDEN_SCHEMES,
    csp_source,
    display_host,
    find_registered,
    is_loopback,
    is_private_scheme,
    is_website,
    redirect_uri_matches,
    redirect_uri_problem,
    with_parameters,
)

ALLOWED = [
    "https://claude.ai/api/mcp/auth_callback",
    "https://claude.com/api/mcp/auth_callback?from=mcp",
    "https://example.com",
    "https://example.com:8443/cb?a=b&c=%20d",
    "HTTPS://Example.COM/cb",
    "https://[2001:db8::1]/cb",
    "https://192.0.2.1/cb",
    "https://1.example.com/cb",
    "https://example.com./cb",
    "http://127.0.0.1/callback",
    "http://127.0.0.1:33418/",
    "http://localhost:6274/oauth/callback/debug",
    "http://[::1]:8080/cb",
    "http://LOCALHOST:1234/cb",
    "cursor://anysphere.cursor-retrieval/oauth/user-server/callback",
    "vscode://vscode.github-authentication/did-authenticate",
    "vscode-insiders://x/y",
    "com.example.app:/oauth",
    "com.example.app://callback",
    "com.example.app:callback",
]

REFUSED = [
    "https://[::::::]/cb",
    "https://[192.0.2.1]/cb",
    "https://2130706433/cb",
    "https://0x7f.1/cb",
    "https://127.1/cb",
    "https://192.0.2.1./cb",
    "https://256.0.0.1/cb",
    "https://0177.0.0.1/cb",
    "",
    "/callback",
    "callback",
    "//example.com/cb",
    "https:",
    "https://",
    "https:///cb",
    "https:/example.com/cb",
    "https:example.com/cb",
    "https://example.com/cb#fragment",
    "https://example.com/cb#",
    "https://user@example.com/cb",
    "https://user:pass@example.com/cb",
    "https://example.com@evil.test/cb",
    "https://example.com\\@evil.test/cb",
    "https://example.com:0/cb",
    "https://example.com:65536/cb",
    "https://example.com:port/cb",
    "https://*.example.com/cb",
    "https://exa mple.com/cb",
    "https://example.com/c b",
    "https://example.com/\ncb",
    "https://example.com/%zz",
    "https://example.com/%0",
    "https://exämple.com/cb",
    "https://example.com/ä",
    "https://%65xample.com/",
    "https://example.com/<script>",
    'https://example.com/"',
    "https://example.com/cb?code=x",
    "https://example.com/cb?a=b&state=",
    "https://example.com/cb?i%73s=evil",
    "https://example.com/cb?error=x",
    " https://example.com/cb",
    "http://example.com/cb",
    "http://127.0.0.2/cb",
    "http://127.0.0.1.evil.test/cb",
    "http://localhost.evil.test/cb",
    "http://localhost@evil.test/cb",
    "http://0.0.0.0/cb",
    "http://[::]/cb",
    "http://[::ffff:127.0.0.1]/cb",
    "http://2130706433/cb",
    "javascript:alert(1)",
    "JavaScript://example.com/%0aalert(1)",
    "data:text/html,x",
    "file:///etc/passwd",
    "vbscript:x",
    "blob:https://example.com/x",
    "mailto:somebody@example.com",
    "myapp://callback",
    "urn:ietf:wg:oauth:2.0:oob",
    "com.example.app://user@host/cb",
    "com.:x",
    ".com:x",
    "https://example.com/" + "a" * 2048,
    "https://example.com/\x00",
    "https://example.com/\ud800",
]


class RegistrationTests(SynchronousTestCase):
    """OAuth 2.1 section 2.3, RFC 8252 section 7."""

    def test_ordinary_uris_are_allowed(self) -> None:
        """Web, loopback, reverse-DNS and known application schemes may register."""
        for uri in ALLOWED:
            problem = redirect_uri_problem(uri, DEFAULT_APPLICATION_SCHEMES)
            self.assertIsNone(problem, uri)

    def test_dangerous_and_broken_uris_are_refused(self) -> None:
        """What a browser could run, misread or send elsewhere may not register."""
        for uri in REFUSED:
            problem = redirect_uri_problem(uri, DEFAULT_APPLICATION_SCHEMES)
            self.assertIsNotNone(problem, uri)

    def test_forbidden_schemes_stay_forbidden_when_configured(self) -> None:
        """No list of application schemes opens javascript: or data:."""
        for scheme in FORBIDDEN_SCHEMES:
            problem = redirect_uri_problem(f"{scheme}://x/y", FORBIDDEN_SCHEMES)
            self.assertIsNotNone(problem, scheme)

    def test_configured_scheme_is_allowed(self) -> None:
        """An operator can add the scheme of an application of theirs."""
        self.assertIsNone(redirect_uri_problem("myapp://callback", {"myapp"}))

    @given(st.text(max_size=60))
    def test_any_text_has_an_answer(self, text: str) -> None:
        """No text makes the rules fail, and an allowed one is plain ASCII."""
        for uri in (text, f"https://{text}", f"http://localhost{text}"):
            if redirect_uri_problem(uri, DEFAULT_APPLICATION_SCHEMES) is None:
                self.assertTrue(uri.isascii() and uri.isprintable())
                self.assertNotIn("#", uri)


class MatchingTests(SynchronousTestCase):
    """RFC 9700 section 2.1 and RFC 8252 section 7.3."""

    def test_only_the_loopback_port_may_vary(self) -> None:
        """A native application may take any free port, nothing else may differ."""
        for registered, presented, same in [
            ("https://a.test/cb", "https://a.test/cb", True),
            ("https://a.test/cb", "https://a.test/cb/", False),
            ("https://a.test/cb", "https://a.test/CB", False),
            ("https://a.test/cb", "https://a.test:443/cb", False),
            ("https://a.test:1/cb", "https://a.test:2/cb", False),
            ("https://a.test/cb", "https://a.test/cb?x=y", False),
            ("http://127.0.0.1/cb", "http://127.0.0.1:5000/cb", True),
            ("http://127.0.0.1:1/cb", "http://127.0.0.1:5000/cb", True),
            ("http://127.0.0.1:1/cb", "http://127.0.0.1/cb", True),
            ("http://[::1]:1/cb", "http://[::1]:2/cb", True),
            ("http://localhost:1/cb?a=b", "http://localhost:2/cb?a=b", True),
            ("http://localhost:1/cb?a=b", "http://localhost:2/cb?a=c", False),
            ("http://localhost:1/cb", "http://127.0.0.1:1/cb", False),
            ("http://localhost:1/cb", "http://localhost:2/other", False),
            ("http://localhost:1/cb", "http://localhost:99999/cb", False),
            ("http://localhost:1/cb", "http://localhost:2/cb#x", False),
            ("http://localhost:1/cb", "http://localhost:2@evil.test/cb", False),
            ("http://localhost:1", "http://localhost:2.evil.test", False),
            ("http://localhost:1/cb", "https://localhost:2/cb", False),
            ("cursor://a/b", "cursor://a/c", False),
        ]:
            result = redirect_uri_matches(registered, presented)
            self.assertEqual(result, same, (registered, presented))

    def test_any_registered_one_will_do(self) -> None:
        """A client may register several and name any of them."""
        registered = ("https://a.test/1", "http://localhost/cb")
        self.assertEqual(
            find_registered(registered, "http://localhost:7/cb"),
            "http://localhost:7/cb",
        )
        self.assertIsNone(find_registered(registered, "https://a.test/3"))

    @given(st.text(max_size=40))
    def test_nothing_appended_to_a_host_matches(self, text: str) -> None:
        """No suffix turns a registered loopback URI into another host."""
        for base in ("http://localhost", "http://127.0.0.1:80", "http://[::1]"):
            presented = f"{base}{text}"
            if redirect_uri_matches(f"{base}/cb", presented):
                self.assertTrue(is_loopback(presented))
                self.assertTrue(presented.endswith("/cb"))


class PresentationTests(SynchronousTestCase):
    """What the consent page says about a redirect URI."""

    def test_kinds_are_told_apart(self) -> None:
        """Loopback and application schemes are recognised however they are spelt."""
        for uri, host, loopback, private in [
            ("https://Claude.ai/api", "claude.ai", False, False),
            ("https://a.test:8443/x", "a.test:8443", False, False),
            ("HTTP://LocalHost:12/x", "localhost:12", True, False),
            ("http://[::1]:9/x", "[::1]:9", True, False),
            ("Cursor://a/b", "cursor:", False, True),
            ("com.example.app:/x", "com.example.app:", False, True),
        ]:
            self.assertEqual(display_host(uri), host)
            self.assertEqual(is_loopback(uri), loopback)
            self.assertEqual(is_private_scheme(uri), private)
            self.assertEqual(is_website(uri), not loopback and not private)

    def test_csp_source_is_the_scheme(self) -> None:
        """CSP cannot name [::1], so the source is the scheme."""
        self.assertEqual(csp_source("http://[::1]:9/x"), "http:")
        self.assertEqual(csp_source("Cursor://a/b"), "cursor:")


class ParameterTests(SynchronousTestCase):
    """RFC 6749 section 3.1.2: the registered query is kept."""

    def test_parameters_are_added_behind_the_query(self) -> None:
        """Whatever the client registered comes back byte for byte."""
        for uri, expected in [
            ("https://a.test/cb", "https://a.test/cb?code=x%20%26y"),
            ("https://a.test/cb?", "https://a.test/cb?code=x%20%26y"),
            ("https://a.test/cb?a=%7e", "https://a.test/cb?a=%7e&code=x%20%26y"),
            ("https://a.test/cb?a=b&", "https://a.test/cb?a=b&code=x%20%26y"),
            ("cursor://a/b", "cursor://a/b?code=x%20%26y"),
            ("com.example.app:/x", "com.example.app:/x?code=x%20%26y"),
        ]:
            self.assertEqual(with_parameters(uri, [("code", "x &y")]), expected)
