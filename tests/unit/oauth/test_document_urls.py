"""Which client ids are URLs that may be fetched."""

from urllib.parse import urlsplit

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from fjmcp_broker.oauth.document_urls import (
    MAXIMUM_DOCUMENT_URL_LENGTH,
    document_host,
    document_url_problem,
    is_document_url,
    is_public_name,
)
from fjmcp_broker.oauth.tokens import CLIENT_ID_PREFIX

GOOD = (
    "https://app.example.com/oauth/client-metadata.json",
    "https://claude.ai/oauth/mcp-oauth-client-metadata",
    "https://vscode.dev/oauth/client-metadata.json",
    "https://Example.COM/x",
    "https://example.com/",
    "https://example.com:443/x",
    "https://example.com/x?version=1",
    "https://xn--bcher-kva.example/client",
    "https://a_b.example.com/x",
    "https://example.xn--p1ai/x",
    "https://example.com/a.b/..c/...",
    "https://example.com/x@y",
)

BAD = {
    "has characters": (
        "https://example.com/x y",
        "https://example.com\\@evil.example/x",
        "https://bücher.example/x",
        "https://example.com/%zz",
        "https://example.com/x\r\nHost: other",
        "https://example.com/\x00",
        'https://example.com/"',
    ),
    "must not have a fragment": ("https://example.com/x#y", "https://example.com/#"),
    "must not have user information": (
        "https://user@example.com/x",
        "https://user:password@example.com/x",
        "https://example.com:443@127.0.0.1/x",
        "https://@example.com/x",
    ),
    "must not have another port": (
        "https://example.com:8443/x",
        "https://example.com:80/x",
        "https://example.com:/x",
        "https://example.com:0443/x",
        "https://[2606:4700::1111]/x",
    ),
    "must name its host by a public DNS name": (
        "https:///x",
        "https://localhost/x",
        "https://intranet/x",
        "https://127.0.0.1/x",
        "https://2130706433/x",
        "https://0x7f.1/x",
        "https://127.1/x",
        "https://0177.0.0.1/x",
        "https://1.1.1.1/x",
        "https://example.com./x",
        "https://.example.com/x",
        "https://a..example.com/x",
        "https://-a.example.com/x",
        "https://a-.example.com/x",
        "https://printer.local/x",
        "https://app.localhost/x",
        "https://metadata.google.internal/x",
        "https://nas.home.arpa/x",
        "https://home.arpa/x",
        "https://abcdefgh.onion/x",
        f"https://{'a' * 64}.example.com/x",
        f"https://{'a.' * 130}example.com/x",
        "https://%65xample.com/x",
    ),
    "must have a path": ("https://example.com", "https://example.com?x=1"),
    "must not have dot segments": (
        "https://example.com/a/../b",
        "https://example.com/./b",
        "https://example.com/a/..",
        "https://example.com/%2e%2E/b",
        "https://example.com/a/.%2e/b",
    ),
    "must have at most": (f"https://example.com/{'x' * MAXIMUM_DOCUMENT_URL_LENGTH}",),
    "must begin with https://": (
        "http://example.com/x",
        "HTTPS://example.com/x",
        "ftp://example.com/x",
        "file:///etc/passwd",
        "fjmcp_client_x",
    ),
}


class UrlTests(SynchronousTestCase):
    """The rules, one by one (draft section 3, and ours)."""

    def test_good_urls(self) -> None:
        """What real clients use, and the corners of what is allowed."""
        found = {url: problem for url in GOOD if (problem := document_url_problem(url))}
        self.assertEqual(found, {})

    def test_bad_urls_say_what_is_wrong(self) -> None:
        """Each with the first thing that is wrong."""
        for problem, urls in BAD.items():
            for url in urls:
                self.assertIn(problem, document_url_problem(url) or "allowed", url)

    def test_our_own_ids_are_no_urls(self) -> None:
        """So the two kinds are never confused."""
        self.assertFalse(is_document_url(CLIENT_ID_PREFIX + "x"))
        self.assertFalse(is_document_url("http://example.com/x"))
        self.assertTrue(is_document_url("https://anything"))

    def test_host_is_shown_as_it_is_asked_for(self) -> None:
        """Lower case, punycode untouched, no port."""
        self.assertEqual(document_host("https://Example.COM:443/x"), "example.com")
        self.assertEqual(
            document_host("https://xn--bcher-kva.example/x"), "xn--bcher-kva.example"
        )

    @given(st.from_regex(r"https://[a-z0-9.:@/?#%\[\]\\_-]{0,40}", fullmatch=True))
    def test_host_is_the_one_that_others_see(self, url: str) -> None:
        """No allowed URL has another host for a different parser."""
        if document_url_problem(url) is None:
            parts = urlsplit(url)
            self.assertEqual(document_host(url), parts.hostname)
            self.assertIn(parts.port, (None, 443))
            self.assertTrue(is_public_name(parts.hostname or ""))

    @given(st.text(max_size=60))
    def test_any_text_is_judged(self, text: str) -> None:
        """Nothing raises, and what is allowed is plain ASCII."""
        if document_url_problem("https://" + text) is None:
            self.assertTrue(text.isascii())
