"""The authorization endpoint and its consent page."""

import re
from html import unescape
from typing import Any, Final
from urllib.parse import parse_qsl, urlencode, urlsplit

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from fjmcp_broker.web.oauth.carried import CarriedRequests
from tests.unit.web.signin import (
    CHALLENGE,
    PUBLIC_URL,
    WEB_REDIRECT,
    Answer,
    Browser,
    Site,
    authorize_target,
)

#: What is wrong, and the error code for it.
WRONG_REQUESTS: Final[list[tuple[dict[str, str | None], str]]] = [
    ({"response_type": "token"}, "unsupported_response_type"),
    ({"response_type": None}, "invalid_request"),
    ({"code_challenge": None}, "invalid_request"),
    ({"code_challenge_method": "plain"}, "invalid_request"),
    ({"resource": "https://elsewhere.test/mcp"}, "invalid_target"),
]


class AuthorizeTests(SynchronousTestCase):
    """GET /oauth/authorize."""

    def setUp(self) -> None:
        self.site = Site(self)
        self.client_id = self.site.register()

    def test_good_request_shows_the_consent_page(self) -> None:
        """The user sees who asks and where access would go."""
        browser = Browser(self.site)
        page = browser.get(authorize_target(self.client_id))
        self.assertEqual(page.status, 200)
        self.assertEqual(page.header("Content-Type"), "text/html; charset=utf-8")
        self.assertIn(">Claude<", page.text)
        self.assertEqual(page.target_host, "claude.ai")
        self.assertEqual(page.form.action, "/oauth/consent")
        self.assertEqual(page.form.buttons, ["full", "read-only", "cancel"])

    def test_form_carries_the_request(self) -> None:
        """Who only opens the address leaves nothing in the store; the page has it
        all, and shows none of it."""
        before = self.site.dump()
        page = Browser(self.site).get(authorize_target(self.client_id))
        self.assertEqual(self.site.dump(), before)
        fields = page.form.fields
        carried = CarriedRequests(self.site.sealer)
        asked = carried.open(fields["request"], fields["pending"])
        now = int(self.site.clock.seconds())
        self.assertEqual(asked.pending.expires_at, now + 600)
        self.assertEqual(asked.pending.request.code_challenge, CHALLENGE)
        self.assertEqual(asked.pending.request.state, "client-state")
        self.assertIsNone(asked.document)
        self.assertNotIn("client-state", page.text)
        self.assertNotIn(CHALLENGE, page.text)

    def test_page_has_strict_headers(self) -> None:
        """No script, no frame, no cache, and a policy that lets the form's redirects
        through to Forgejo and to the client."""
        page = Browser(self.site).get(authorize_target(self.client_id))
        policy = page.header("Content-Security-Policy")
        self.assertIn("default-src 'none'", policy)
        self.assertIn("frame-ancestors 'none'", policy)
        self.assertIn("form-action 'self' https:;", policy)
        self.assertNotIn("script-src", policy)
        self.assertNotIn("unsafe", policy)
        self.assertEqual(page.header("Referrer-Policy"), "same-origin")
        self.assertEqual(page.header("X-Frame-Options"), "DENY")
        self.assertEqual(page.header("Cache-Control"), "no-store")
        self.assertNotIn("<script", page.text)

    def test_form_may_end_at_the_clients_scheme(self) -> None:
        """A form-action without the last redirect's scheme would block it."""
        for uri, source in [
            ("cursor://a/b", "cursor:"),
            ("http://127.0.0.1/cb", "http:"),
            ("http://[::1]/cb", "http:"),
        ]:
            client_id = self.site.register(redirect_uris=[uri])
            page = Browser(self.site).get(authorize_target(client_id, redirect_uri=uri))
            self.assertRegex(
                page.header("Content-Security-Policy"),
                rf"form-action 'self'[^;]* {source}",
            )

    def test_cookie_is_bound_to_the_host(self) -> None:
        """RFC 6265bis section 4.1.3.2: nobody else can plant it."""
        (cookie,) = Browser(self.site).get(authorize_target(self.client_id)).cookies
        self.assertRegex(cookie, r"\A__Host-fjmcp_consent=[A-Za-z0-9_-]{43}; ")
        attributes = cookie.split("; ")[1:]
        self.assertEqual(
            attributes,
            ["Path=/", "Max-Age=600", "HttpOnly", "SameSite=Lax", "Secure"],
        )

    def test_plain_http_cookie_has_no_prefix(self) -> None:
        """On loopback without TLS browsers would refuse prefix and Secure."""
        site = Site(self, public_url="http://127.0.0.1:8080")
        target = authorize_target(site.register(), resource=None)
        (cookie,) = Browser(site).get(target).cookies
        self.assertTrue(cookie.startswith("fjmcp_consent="))
        self.assertNotIn("Secure", cookie)

    def test_unknown_client_gets_a_page(self) -> None:
        """RFC 6749 section 4.1.2.1: never a redirect."""
        before = self.site.dump()
        page = Browser(self.site).get(authorize_target("fjmcp_client_nobody"))
        self.assertEqual(page.status, 400)
        self.assertFalse(page.headers.hasHeader("Location"))
        self.assertEqual(page.cookies, [])
        self.assertIn("text/html", page.header("Content-Type"))
        self.assertEqual(self.site.dump(), before)

    def test_unregistered_redirect_uri_gets_a_page(self) -> None:
        """RFC 9700 section 4.11.1: no open redirector, whatever else is wrong too."""
        before = self.site.dump()
        for uri in (
            "https://evil.test/cb",
            WEB_REDIRECT + "/more",
            "//evil.test",
            "javascript:alert(1)",
        ):
            for changes in ({}, {"response_type": "token"}, {"code_challenge": None}):
                page = Browser(self.site).get(
                    authorize_target(self.client_id, redirect_uri=uri, **changes)
                )
                self.assertEqual(page.status, 400)
                self.assertFalse(page.headers.hasHeader("Location"))
                self.assertNotIn("evil.test", page.text)
        self.assertEqual(self.site.dump(), before)

    def test_ambiguous_target_gets_a_page(self) -> None:
        """Of two clients or redirect URIs neither is believed."""
        for extra in (
            [("redirect_uri", "https://evil.test/")],
            [("redirect_uri", WEB_REDIRECT)],
            [("client_id", self.client_id)],
        ):
            target = f"{authorize_target(self.client_id)}&{urlencode(extra)}"
            page = Browser(self.site).get(target)
            self.assertEqual(page.status, 400)
            self.assertFalse(page.headers.hasHeader("Location"))

    def test_errors_go_to_a_program_of_the_users(self) -> None:
        """RFC 6749 section 4.1.2.1 and RFC 9207 section 2: with state and iss."""
        for uri in ("http://127.0.0.1:1234/cb", "cursor://x/y"):
            client_id = self.site.register(redirect_uris=[uri])
            before = self.site.dump()
            for changes, code in WRONG_REQUESTS:
                answer = Browser(self.site).get(
                    authorize_target(client_id, redirect_uri=uri, **changes)
                )
                self.assertEqual(answer.status, 303)
                self.assertTrue(answer.location.startswith(f"{uri}?"))
                self.assert_error(answer.query, code)
                self.assertEqual(answer.cookies, [])
            self.assertEqual(self.site.dump(), before)

    def test_errors_lead_to_a_website_by_a_click_only(self) -> None:
        """RFC 9700 section 4.11.2: anybody can register a website, so a link to this
        service must not end there by itself. The page has what the client would have
        got."""
        before = self.site.dump()
        for changes, code in WRONG_REQUESTS:
            page = Browser(self.site).get(authorize_target(self.client_id, **changes))
            self.assertEqual(page.status, 400)
            self.assertFalse(page.headers.hasHeader("Location"))
            self.assertEqual(page.cookies, [])
            self.assertIn(">claude.ai<", page.text)
            self.assertIn(code, page.text)
            self.assert_error(self.back(page), code)
        self.assertEqual(self.site.dump(), before)

    def test_repeated_parameter_goes_to_the_client(self) -> None:
        """RFC 6749 section 3.1; several resources are legal if all are ours."""
        target = authorize_target(self.client_id)
        answer = Browser(self.site).get(f"{target}&scope=read&scope=write")
        self.assert_error(self.back(answer), "invalid_request")
        answer = Browser(self.site).get(f"{target}&state=other")
        parameters = self.back(answer)
        self.assertEqual(parameters["error"], "invalid_request")
        self.assertNotIn("state", parameters)
        answer = Browser(self.site).get(f"{target}&resource={PUBLIC_URL}/")
        self.assertEqual(answer.status, 200)
        answer = Browser(self.site).get(f"{target}&resource=https://evil.test/")
        self.assert_error(self.back(answer), "invalid_target")

    def assert_error(self, parameters: dict[str, str], code: str) -> None:
        """
        What a client hears of a refused request.
        """
        self.assertEqual(parameters["error"], code)
        self.assertEqual(parameters["state"], "client-state")
        self.assertEqual(parameters["iss"], PUBLIC_URL)
        self.assertNotIn("code", parameters)

    def back(self, page: Answer) -> dict[str, str]:
        """
        @return: parameters of the page's one link, which leads to the client.
        """
        (href,) = re.findall('href="([^"]*)"', page.text)
        url = unescape(href)
        self.assertTrue(url.startswith(f"{WEB_REDIRECT}?"), url)
        return dict(parse_qsl(urlsplit(url).query, strict_parsing=True))

    def test_request_may_be_made_twice(self) -> None:
        """Some clients probe the address without a browser before they open it."""
        target = authorize_target(self.client_id)
        self.assertEqual(self.site.request("HEAD", target).status, 200)
        self.assertEqual(self.site.request("GET", target).status, 200)
        first = Browser(self.site).get(target)
        second = Browser(self.site).get(target)
        self.assertEqual((first.status, second.status), (200, 200))
        self.assertNotEqual(first.form.fields["pending"], second.form.fields["pending"])

    def test_second_tab_keeps_the_cookie(self) -> None:
        """Two sign-ins in one browser do not take each other's cookie away."""
        browser = Browser(self.site)
        browser.get(authorize_target(self.client_id))
        kept = dict(browser.cookies)
        browser.get(authorize_target(self.client_id, state="other"))
        self.assertEqual(browser.cookies, kept)

    def test_request_may_be_posted(self) -> None:
        """RFC 6749 section 3.1: POST is optional, and the same as GET."""
        query = authorize_target(self.client_id).partition("?")[2]
        form = {"Content-Type": "application/x-www-form-urlencoded"}
        page = self.site.request(
            "POST", "/oauth/authorize", headers=form, body=query.encode()
        )
        self.assertEqual(page.status, 200)
        self.assertEqual(page.form.action, "/oauth/consent")
        page = self.site.request("POST", "/oauth/authorize", body=query.encode())
        self.assertEqual(page.status, 415)

    def test_read_alone_offers_read_only_alone(self) -> None:
        """A client that asks for read does not get more by the user's slip."""
        browser = Browser(self.site)
        page = browser.get(authorize_target(self.client_id, scope="read"))
        self.assertEqual(page.form.buttons, ["read-only-requested", "cancel"])
        self.assertNotIn("full access", page.text)
        for scope in ("write", "read write", "openid offline_access", None):
            page = browser.get(authorize_target(self.client_id, scope=scope))
            self.assertEqual(page.form.buttons, ["full", "read-only", "cancel"])

    def test_local_targets_are_pointed_out(self) -> None:
        """RFC 8252 section 8.6: any program on the computer can claim a port."""
        for uri, presented, shown, words in [
            (
                "http://127.0.0.1/cb",
                "http://127.0.0.1:5555/cb",
                "127.0.0.1:5555",
                "a program on the computer in front of you",
            ),
            (
                "cursor://x/y",
                "cursor://x/y",
                "cursor:",
                "an application installed on this device",
            ),
        ]:
            client_id = self.site.register(redirect_uris=[uri])
            page = Browser(self.site).get(
                authorize_target(client_id, redirect_uri=presented)
            )
            self.assertEqual(page.target_host, shown)
            self.assertIn(words, page.text)

    def test_hostile_name_is_only_text(self) -> None:
        """The name is the client's word: it is escaped and cannot turn the text."""
        for name in (
            "<script>alert(1)</script>",
            '"><form action=https://evil.test><button>',
            "</bdi></strong><h1>git.example.org",
            "\u202egnissap\u202c",
            "&lt;b&gt;",
            "a\x00b\nc",
        ):
            try:
                client_id = self.site.register(client_name=name)
            except AssertionError:
                self.assertIn("\x00", name)
                continue
            page = Browser(self.site).get(authorize_target(client_id))
            self.assertEqual(page.text.count("<form"), 1)
            self.assertEqual(page.text.count("<h1"), 1)
            self.assertNotIn("<script", page.text)
            self.assertNotIn("\u202e", page.text)
            self.assertEqual(page.form.action, "/oauth/consent")

    def test_any_query_has_an_answer(self) -> None:
        """No query gives a 5xx, and none changes anything."""
        # An id may be a URL that is at hand here, and has a document then.
        self.site.fetcher.redirect_uris = [WEB_REDIRECT]
        before = self.site.dump()
        names = st.sampled_from(
            [
                "client_id",
                "redirect_uri",
                "response_type",
                "state",
                "scope",
                "code_challenge",
                "code_challenge_method",
                "resource",
                "x",
            ]
        )
        values = st.sampled_from(
            [self.client_id, WEB_REDIRECT, "code", CHALLENGE, "S256", PUBLIC_URL]
        ) | st.text(max_size=8)
        pairs = st.lists(st.tuples(names, values), max_size=10)
        base = authorize_target(self.client_id).partition("?")[2]
        queries: Any = (
            pairs.map(lambda p: urlencode(p, errors="surrogatepass"))
            | pairs.map(lambda p: f"{base}&{urlencode(p, errors='surrogatepass')}")
            | st.text("%&=+abcé\x7f0123456789", max_size=40).map(
                lambda text: f"{base}&{text}"
            )
        )

        @settings(max_examples=150, deadline=None)
        @given(queries)
        def check(query: str) -> None:
            answer = Browser(self.site).get(f"/oauth/authorize?{query}")
            self.assertIn(answer.status, (200, 400))
            if "href=" in answer.text:
                self.assertEqual(self.back(answer)["iss"], PUBLIC_URL)
            self.assertEqual(self.site.dump(), before)

        check()

    def test_raw_bytes_in_the_query_are_refused(self) -> None:
        """NUL, broken escapes and bytes that are not UTF-8 are a page with 400."""
        target = authorize_target(self.client_id)
        for junk in ("x=%00", "x=%ff", "x=%zz", "=&" * 101, "%00=1"):
            page = self.site.request("GET", f"{target}&{junk}")
            self.assertEqual(page.status, 400)
            self.assertIn("text/html", page.header("Content-Type"))
