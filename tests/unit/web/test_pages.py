"""The pages: escaping, headers, the front page, error pages."""

import json
import re
from base64 import b64decode, b64encode
from hashlib import sha256
from html import unescape
from html.parser import HTMLParser
from urllib.parse import parse_qs, unquote, urlsplit

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from fjmcp_broker.store.database import Database
from fjmcp_broker.store.errors import StoreUnavailable
from fjmcp_broker.web.pages.html import element
from fjmcp_broker.web.pages.page import render
from tests.unit.web.sign_in_fakes import FORGEJO_URL, FragileDatabase
from tests.unit.web.signin import (
    PUBLIC_URL,
    Browser,
    Site,
    authorize_target,
    callback_target,
)


class _Reader(HTMLParser):
    """
    What a browser would make of a page.
    """

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.values: list[str | None] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.values += [value for _, value in attrs]

    def handle_data(self, data: str) -> None:
        self.text += data


class EscapingTests(SynchronousTestCase):
    """Text of others never becomes markup."""

    @given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r\0")))
    def test_any_text_is_only_text(self, text: str) -> None:
        """Whatever a name contains, a browser sees it as it is and nothing else."""
        markup = element("p", element("b", text), text, title=text, data_x=text).markup
        reader = _Reader()
        reader.feed(markup)
        reader.close()
        self.assertEqual(reader.tags, ["p", "b"])
        self.assertEqual(reader.text, text * 2)
        self.assertEqual(reader.values, [text, text])

    def test_title_is_escaped_in_head_and_heading(self) -> None:
        """A page's title stands in two places, both times as text."""
        document = render("</title><script>", element("p", "x")).decode()
        self.assertNotIn("<script", document)
        self.assertEqual(document.count("&lt;script&gt;"), 2)


class PageTests(SynchronousTestCase):
    """Every page that the service shows."""

    def setUp(self) -> None:
        self.site = Site(self)

    def test_front_page_tells_how_to_connect(self) -> None:
        """The address, and a line for each of the usual clients."""
        page = self.site.request("GET", "/")
        self.assertEqual(page.status, 200)
        for words in (
            f"{PUBLIC_URL}/mcp",
            f"claude mcp add --transport http forgejo {PUBLIC_URL}/mcp",
            "npx @modelcontextprotocol/inspector --transport http --server-url "
            f"{PUBLIC_URL}/mcp",
            "Add custom connector",
            FORGEJO_URL,
            f"codex mcp add forgejo --url {PUBLIC_URL}/mcp",
            f"gemini mcp add --scope user --transport http forgejo {PUBLIC_URL}/mcp",
            "ChatGPT",
            "Zed",
            "Le Chat",
            "Devin Desktop",
            f"opencode mcp add forgejo --global --url {PUBLIC_URL}/mcp",
            "~/.copilot/mcp-config.json",
            "goose configure",
        ):
            self.assertIn(words, unescape(re.sub("<[^>]*>", "", page.text)))
        self.assertIn("form-action 'none'", page.header("Content-Security-Policy"))

    def test_links_that_install_lead_here(self) -> None:
        """Editors take their settings from a link: name and address, encoded."""
        page = self.site.request("GET", "/").text
        (code,) = re.findall(r'href="vscode:mcp/install\?([^"]+)"', page)
        settings = {"type": "http", "url": f"{PUBLIC_URL}/mcp"}
        self.assertEqual(json.loads(unquote(code)), {"name": "forgejo", **settings})
        (cursor,) = re.findall(r'href="(cursor://[^"]+)"', page)
        query = parse_qs(urlsplit(unescape(cursor)).query)
        self.assertEqual(query["name"], ["forgejo"])
        (config,) = query["config"]
        self.assertEqual(json.loads(b64decode(config)), {"url": f"{PUBLIC_URL}/mcp"})

    def test_hosted_clients_cannot_reach_this_computer(self) -> None:
        """On loopback, those that connect from elsewhere are said not to work."""
        words = "cannot reach this one"
        self.assertNotIn(words, self.site.request("GET", "/").text)
        for url in ("http://127.0.0.1:8080", "http://localhost"):
            page = Site(self, public_url=url).request("GET", "/")
            self.assertEqual(page.text.count(words), 3)

    def test_a_browser_that_got_lost_sees_a_page(self) -> None:
        """Everybody else gets JSON where nothing is."""
        for accept, kind in [
            ("text/html,application/xhtml+xml,*/*;q=0.8", "text/html"),
            ("*/*", "application/json"),
            ("application/json, text/event-stream", "application/json"),
        ]:
            answer = self.site.request("GET", "/none", headers={"Accept": accept})
            self.assertEqual(answer.status, 404)
            self.assertIn(kind, answer.header("Content-Type"))
        html = {"Accept": "text/html"}
        for method, path in [("POST", "/none"), ("GET", "/.well-known/none")]:
            answer = self.site.request(method, path, headers=html)
            self.assertIn("application/json", answer.header("Content-Type"))

    def test_style_is_allowed_by_its_digest(self) -> None:
        """The policy names the style of the page and nothing else."""
        page = self.site.request("GET", "/")
        styles = re.findall("<style>(.*?)</style>", page.text, re.DOTALL)
        (style,) = styles
        digest = b64encode(sha256(style.encode()).digest()).decode()
        self.assertIn(
            f"style-src 'sha256-{digest}';", page.header("Content-Security-Policy")
        )
        self.assertNotIn("style=", page.text)
        self.assertNotIn("<script", page.text)
        self.assertNotIn("http", style)

    def test_errors_on_visited_paths_are_pages(self) -> None:
        """A person sees a page, with the same strict headers, never JSON."""
        for method, target, status in [
            ("GET", "/oauth/authorize", 400),
            ("GET", "/oauth/callback", 400),
            ("DELETE", "/oauth/authorize", 405),
            ("GET", "/oauth/consent", 405),
        ]:
            page = self.site.request(method, target)
            self.assertEqual(page.status, status)
            self.assertIn("text/html", page.header("Content-Type"))
            self.assertIn("connect again", page.text)
            policy = page.header("Content-Security-Policy")
            self.assertIn("frame-ancestors 'none'", policy)
            self.assertEqual(page.header("Cache-Control"), "no-store")
            self.assertIn("prefers-color-scheme:dark", page.text)

    def test_busy_store_is_a_page_that_says_so(self) -> None:
        """503 with Retry-After, in words for the person who waits."""
        site, database = self.fragile()
        client_id = site.register()
        browser = Browser(site)
        consent = browser.get(authorize_target(client_id))
        database.failure = StoreUnavailable("the store is busy")
        for page in (
            browser.get(authorize_target(client_id)),
            browser.submit(consent, "full"),
            browser.submit(consent, "cancel"),
        ):
            self.assertEqual(page.status, 503)
            self.assertEqual(page.header("Retry-After"), "5")
            self.assertIn("This service is busy", page.text)
            self.assertFalse(page.headers.hasHeader("Location"))
            self.assertEqual(page.cookies, [])
            self.assertIn("Wait 5 seconds, then", page.text)
            by_consent = "go back one page and answer again" in page.text
            self.assertEqual(by_consent, "Try again</a>" not in page.text)
        # Nothing was spent.
        database.failure = None
        self.assertEqual(browser.submit(consent, "full").status, 303)

    def test_what_may_be_opened_again(self) -> None:
        """It is offered where it may help and does no harm, and leads nowhere else."""
        site, database = self.fragile()
        browser, client_id = Browser(site), site.register()
        target = authorize_target(client_id)
        leaving = browser.submit(browser.get(target), "full")
        callback = callback_target(leaving, code="x")
        shown = browser.get(target)
        database.failure = StoreUnavailable("the store is busy")
        for query in ("", "&state=%3Cb%3E%22'", '&x=//evil.example/\u00e9"><b>'):
            page = browser.get(target + query)
            self.assertEqual(page.status, 503)
            found = re.findall('<a href="([^"]*)"[^>]*>Try again</a>', page.text)
            self.assertEqual(len(found), 1)
            self.assertTrue(unescape(found[0]).startswith("/oauth/authorize?"))
            self.assertTrue(found[0].isascii())
            self.assertNotIn("<b>", page.text)
            self.assertEqual(browser.get(unescape(found[0])).status, 503)
        self.assertNotIn("Try again</a>", browser.submit(shown, "full").text)
        self.assertIn("Try again</a>", browser.get(callback).text)
        database.failure = LookupError("the cause")
        self.assertIn("Try again</a>", browser.get(target).text)
        self.assertNotIn("Try again</a>", browser.get(callback).text)
        self.assertNotIn("Try again</a>", browser.get("/oauth/authorize").text)
        self.flushLoggedErrors(LookupError)

    def test_incident_of_a_page_stands_in_the_log(self) -> None:
        """An administrator finds the cause by the number on the page."""
        site, database = self.fragile()
        target = authorize_target(site.register())
        database.failure = LookupError("the cause")
        page = Browser(site).get(target)
        self.assertEqual(page.status, 500)
        self.assertNotIn("the cause", page.text)
        self.assertRegex(page.text, "<code>[0-9a-f]{16}</code>")
        self.assertEqual(len(self.flushLoggedErrors(LookupError)), 1)

    def fragile(self) -> tuple[Site, FragileDatabase]:
        """
        @return: a site and its database, which can be told to fail.
        """
        made: list[FragileDatabase] = []

        def wrap(inner: Database) -> Database:
            made.append(FragileDatabase(inner))
            return made[0]

        return Site(self, wrap=wrap), made[0]

    def test_foreign_host_is_refused(self) -> None:
        """A page under another name could be one of a rebound address."""
        page = self.site.request(
            "GET", "/oauth/authorize", headers={"Host": "evil.test"}
        )
        self.assertEqual(page.status, 403)
        self.assertIn("text/html", page.header("Content-Type"))


class LoopbackTests(SynchronousTestCase):
    """A service on http://127.0.0.1, as the demo runs it."""

    def test_whole_sign_in_works_without_tls(self) -> None:
        """Cookies without prefix, Origin without Sec-Fetch-Site."""
        site = Site(self, public_url="http://127.0.0.1:8080")
        browser = Browser(site)
        page = browser.get(authorize_target(site.register(), resource=None))
        self.assertRegex(
            page.header("Content-Security-Policy"), "form-action 'self' http: https:;"
        )
        leaving = browser.submit(page, "full", headers={"Sec-Fetch-Site": ""})
        (cookie,) = leaving.cookies
        self.assertTrue(cookie.startswith("fjmcp_approval_"))
        answer = browser.get(callback_target(leaving, code="gta_x"))
        self.assertEqual(answer.query["iss"], "http://127.0.0.1:8080")
        self.assertEqual(list(browser.cookies), ["fjmcp_consent"])
