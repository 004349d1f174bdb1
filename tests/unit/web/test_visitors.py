"""A person who opens the MCP endpoint in a browser."""

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from fjmcp_broker.web.pages.visitors import prefers_html
from tests.unit.web.mcp_world import McpWorld, Wire

BROWSERS = (
    "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8",
    "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,"
    "image/apng,*/*;q=0.8,application/signed-exchange;v=b3;q=0.7",
    "Text/HTML; q=0.5, application/json;q=0.4",
    "text/html;level=1;q=1.0, text/*;q=0.9",
)
CLIENTS = (
    None,
    "",
    "*/*",
    "text/*",
    "text/event-stream",
    "application/json, text/event-stream",
    "text/event-stream, text/html",
    "text/html, application/json",
    "text/html, */*",
    "text/html;q=0.5, */*",
    "text/html;q=0",
    "text/html;q=nan",
    "text/html;q=2",
    "text/htmlx",
    "application/json, text/html;q=0.9, */*;q=0.1",
)


class PreferenceTests(SynchronousTestCase):
    """RFC 9110 section 12.5.1."""

    def test_browsers_and_clients(self) -> None:
        """Only who names HTML itself, and before everything else, gets it."""
        for each in BROWSERS:
            self.assertTrue(prefers_html(each.encode()), each)
        for other in CLIENTS:
            header = None if other is None else other.encode()
            self.assertFalse(prefers_html(header), other)

    @given(st.binary())
    def test_any_bytes(self, header: bytes) -> None:
        """Whatever it is, there is an answer, and none for what names no HTML."""
        if prefers_html(header):
            self.assertIn(b"text/html", header.lower())


class VisitorTests(McpWorld):
    """C{/mcp} in a browser."""

    def visit(self, accept: str | None, token: Any = None, **more: Any) -> Wire:
        """GET without a session."""
        more.setdefault("method", "GET")
        return self.send(b"", token=token, headers={"Accept": accept}, **more)

    def test_page(self) -> None:
        """It says what the address is for, and leads to the front page."""
        for accept in BROWSERS:
            wire = self.visit(accept)
            self.assertEqual(wire.status, 401)
            headers = wire.headers
            self.assertEqual(headers["content-type"], "text/html; charset=utf-8")
            self.assertIn("frame-ancestors 'none'", headers["content-security-policy"])
            self.assertEqual(headers["vary"], "Accept")
            self.assertEqual(headers["cache-control"], "no-store")
            page = wire.body.decode()
            self.assertIn("<h1>This address is for applications</h1>", page)
            self.assertIn(">https://mcp.example/mcp<", page)
            self.assertIn('href="/"', page)

    def test_challenge_is_the_same(self) -> None:
        """Status and challenge do not depend on who asks."""
        page, answer = self.visit(BROWSERS[0]), self.visit("*/*")
        self.assertEqual(page.status, answer.status)
        challenge = "www-authenticate"
        self.assertEqual(page.headers[challenge], answer.headers[challenge])

    def test_clients(self) -> None:
        """They get what they can read, whatever they send beside it."""
        for accept in CLIENTS:
            wire = self.visit(accept)
            self.assertEqual(wire.status, 401)
            self.assertEqual(json.loads(wire.body)["error"]["code"], -32000)

    def test_not_a_visit(self) -> None:
        """Who brings a token, or does more than look, is no visitor."""
        for wire in (
            self.visit(BROWSERS[0], token="mallory"),
            self.visit(BROWSERS[0], method="POST"),
            self.visit(BROWSERS[0], method="DELETE"),
        ):
            self.assertEqual(wire.status, 401)
            self.assertEqual(wire.headers["content-type"], "application/json")
