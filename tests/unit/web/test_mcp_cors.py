"""The MCP endpoint as a web page sees it (Fetch standard, CORS protocol)."""

from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fjmcp_broker.store.errors import StoreUnavailable
from tests.unit.web.mcp_world import McpWorld, Wire, initialize, request

PAGE = "https://inspector.example"


def names(wire: Wire, header: str) -> set[str]:
    """The names in a list, in lower case."""
    return {name.strip().lower() for name in wire.headers[header].split(",")}


class ReadingTests(McpWorld):
    """What the script of an allowed origin can read."""

    def from_page(self, *arguments: Any, **named: Any) -> Wire:
        """Send as a browser does, and see that the script gets the answer."""
        headers = {"Origin": PAGE, **named.pop("headers", {})}
        wire = self.send(*arguments, headers=headers, **named)
        self.assertEqual(wire.headers["access-control-allow-origin"], PAGE)
        self.assertEqual(wire.headers["vary"], "Origin")
        self.assertLessEqual(
            {"mcp-session-id", "www-authenticate", "mcp-protocol-version"}
            | {"retry-after"},
            names(wire, "access-control-expose-headers"),
        )
        self.assertNotIn("access-control-allow-credentials", wire.headers)
        return wire

    def test_every_answer(self) -> None:
        """Results, and errors of every kind, early ones among them."""
        opened = self.from_page(initialize())
        session = opened.headers["mcp-session-id"]
        for status, wire in (
            (200, self.from_page(request(1), session)),
            (202, self.from_page(b'{"jsonrpc":"2.0","method":"x"}', session)),
            (400, self.from_page(b"junk", session)),
            (401, self.from_page(request(1), session, None)),
            (401, self.from_page(request(1), session, "mallory")),
            (403, self.from_page(request(1), session, "bob")),
            (404, self.from_page(request(1), "x" * 43)),
            (405, self.from_page(b"", None, method="GET")),
            (406, self.from_page(request(1), session, headers={"Accept": "x/y"})),
            (413, self.from_page(b" " * 10_001, session)),
            (413, self.from_page(b"", session, headers={"Content-Length": "10001"})),
            (415, self.from_page(b"", session, headers={"Content-Type": "x/y"})),
            (204, self.from_page(b"", session, method="DELETE")),
        ):
            self.assertEqual(wire.status, status, wire.value())
        self.authenticator.uncached.add("alice")
        self.authenticator.error = StoreUnavailable("busy")
        self.assertEqual(self.from_page(initialize()).status, 503)

    def test_stream(self) -> None:
        """A stream of a session begins with the same headers."""
        session = self.open()
        wire = self.from_page(b"", session, method="GET")
        self.assertEqual(wire.headers["content-type"], "text/event-stream")

    def test_other_origins(self) -> None:
        """They get an answer that no script can read, and so do programs."""
        for origin in ("https://evil.example", "null", None):
            for method in ("POST", "OPTIONS"):
                wire = self.send(
                    initialize(), headers={"Origin": origin}, method=method
                )
                for name in wire.headers:
                    self.assertFalse(name.startswith("access-control"), name)


class PreflightTests(McpWorld):
    """What a browser asks before it sends anything with a token."""

    def ask(self, *values: str, method: str = "POST") -> Wire:
        """Ask without a token: browsers send none here."""
        return self.send(
            b"",
            token=None,
            method="OPTIONS",
            headers={
                "Origin": PAGE,
                "Access-Control-Request-Method": method,
                "Access-Control-Request-Headers": ",".join(values) or None,
            },
        )

    def test_allowed(self) -> None:
        """Everything that the protocol's clients send."""
        for method in ("POST", "GET", "DELETE"):
            wire = self.ask("authorization", method=method)
            self.assertEqual((wire.status, wire.body), (204, b""))
            self.assertEqual(wire.headers["access-control-allow-origin"], PAGE)
            self.assertIn(method.lower(), names(wire, "access-control-allow-methods"))
            self.assertLessEqual(
                {"authorization", "content-type", "accept", "last-event-id"}
                | {"mcp-session-id", "mcp-protocol-version", "mcp-method", "mcp-name"},
                names(wire, "access-control-allow-headers"),
            )

    def test_parameter_headers(self) -> None:
        """A tool may ask for any of them; nothing else is repeated."""
        wire = self.ask("mcp-param-region", " Mcp-Param-X_y", "x-evil", "mcp-param-")
        allowed = names(wire, "access-control-allow-headers")
        self.assertLessEqual({"mcp-param-region", "mcp-param-x_y"}, allowed)
        self.assertTrue(allowed.isdisjoint({"x-evil", "mcp-param-", "*"}))

    def test_program(self) -> None:
        """OPTIONS of anything but a page: the methods, nothing else."""
        wire = self.send(b"", token=None, method="OPTIONS")
        self.assertEqual(wire.status, 204)
        self.assertIn("POST", wire.headers["allow"])
        self.assertNotIn("access-control-allow-headers", wire.headers)

    @settings(max_examples=100, suppress_health_check=list(HealthCheck), deadline=None)
    @given(st.text(st.characters(min_codepoint=32, max_codepoint=255), max_size=80))
    def test_junk(self, asked: str) -> None:
        """What a page asks for never breaks the answer, nor gets into it."""
        wire = self.ask(asked)
        self.assertEqual(wire.status, 204)
        for name in names(wire, "access-control-allow-headers"):
            self.assertRegex(name, r"\A[!#$%&'*+.^_`|~0-9a-z-]+\Z")
        wire.depart()
        self.wires.remove(wire)
