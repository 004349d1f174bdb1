"""The MCP endpoint: every status that it answers, and what reaches the child."""

import json
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fjmcp_broker.store.errors import StoreUnavailable
from fjmcp_broker.upstream.errors import SignInNeeded
from tests.relay_stubs import METADATA_URL
from tests.unit.web.mcp_world import McpWorld, initialize, request

NOTE = {"jsonrpc": "2.0", "method": "notifications/x"}
INITIALIZED = {"jsonrpc": "2.0", "method": "notifications/initialized"}


class RefusalTests(McpWorld):
    """What is refused, how, and that the child hears nothing of it."""

    def refused(self, status: int, *arguments: Any, **named: Any) -> dict[str, str]:
        """Check a refusal."""
        wire = self.send(*arguments, **named)
        self.assertEqual(wire.status, status, wire.value())
        self.assertEqual(wire.headers["content-type"], "application/json")
        error = wire.json
        self.assertEqual(error["jsonrpc"], "2.0")
        self.assertIn("id", error)
        self.assertIsInstance(error["error"]["code"], int)
        return wire.headers

    def test_no_credentials(self) -> None:
        """Every method: a challenge without an error (RFC 6750 section 3.1)."""
        for method in ("POST", "GET", "DELETE", "PUT", "TRACE"):
            headers = self.refused(401, b"", token=None, method=method)
            challenge = headers["www-authenticate"]
            self.assertIn(f'resource_metadata="{METADATA_URL}"', challenge)
            self.assertIn('scope="read write"', challenge)
            self.assertNotIn("error", challenge)

    def test_bad_credentials(self) -> None:
        """Unknown, malformed: invalid_token."""
        for token in ("mallory", "a b", "", "é"):
            for method in ("POST", "GET", "DELETE"):
                headers = self.refused(401, b"", token=token, method=method)
                self.assertIn('error="invalid_token"', headers["www-authenticate"])

    def test_host_and_origin(self) -> None:
        """Others' are refused before anything else (DNS rebinding)."""
        for headers in (
            {"Host": "evil.example"},
            {"Host": None},
            {"Host": "mcp.example:81"},
            {"Origin": "https://evil.example"},
            {"Origin": "null"},
            {"Origin": "http://mcp.example"},
        ):
            for token in ("alice", None):
                self.refused(403, NOTE, token=token, headers=headers)

    def test_methods(self) -> None:
        """GET and DELETE need a session's id; others are never used."""
        session = self.open()
        for method in ("PUT", "HEAD", "PATCH"):
            wire = self.send(b"", session, method=method)
            self.assertEqual(wire.status, 405)
            self.assertIn("POST", wire.headers["allow"])
        for method in ("GET", "DELETE"):
            modern = {"MCP-Protocol-Version": "2026-07-28"}
            for id, headers in ((None, {}), (session, modern), (None, modern)):
                refused = self.refused(405, b"", id, method=method, headers=headers)
                self.assertEqual(refused["allow"], "POST")
            self.refused(404, b"", "x" * 43, method=method)
            self.refused(403, b"", session, "bob", method=method)
            unknown = {"MCP-Protocol-Version": "1999-01-01"}
            self.refused(400, b"", session, method=method, headers=unknown)

    def test_accept_of_get(self) -> None:
        """It gives nothing but events."""
        session = self.open()
        for accept in ("application/json", "text/html", "text/event-stream;q=0"):
            self.refused(406, b"", session, method="GET", headers={"Accept": accept})

    def test_content_type(self) -> None:
        """application/json, with or without parameters."""
        for kind in (None, "text/plain", "application/x-www-form-urlencoded", "json"):
            self.refused(415, NOTE, headers={"Content-Type": kind})
        wire = self.send(
            initialize(), headers={"Content-Type": "Application/JSON; charset=utf-8"}
        )
        self.assertEqual(wire.status, 200)

    def test_accept(self) -> None:
        """At least one of the two formats."""
        for accept in ("text/html", "", "application/json;q=0", "image/*"):
            self.refused(406, NOTE, headers={"Accept": accept})
        self.assertEqual(self.send(initialize(), headers={"Accept": None}).status, 200)
        for accept in ("*/*", "application/json", "text/event-stream", "text/*"):
            wire = self.send(initialize(), headers={"Accept": accept})
            self.assertEqual(wire.status, 200, accept)

    def test_too_large(self) -> None:
        """413, with a JSON-RPC body."""
        self.refused(413, b" " * 10_001)

    def test_other_paths(self) -> None:
        """Nothing is below the endpoint, and no other spelling leads to it."""
        for path in ("/mcp/x", "/mcp/", "//mcp", "/%6dcp", "/MCP"):
            self.assertEqual(self.send(NOTE, path=path).status, 404)

    def test_session_id(self) -> None:
        """None: 400; unknown: 404, the signal to initialise anew."""
        self.refused(400, request(1))
        self.refused(400, NOTE)
        self.refused(400, {"jsonrpc": "2.0", "id": 1, "result": {}})
        for session in ("x" * 43, "é", "a, b", " "):
            self.refused(404, request(1), session)
            self.refused(404, b"", session, method="DELETE")

    def test_protocol_version(self) -> None:
        """Any revision with sessions is accepted, others are not."""
        session = self.open()
        for version in ("1.0", "2025-06-17", "", "2026-07-28"):
            self.refused(
                400, request(1), session, headers={"MCP-Protocol-Version": version}
            )
        for version in ("2025-03-26", "2025-11-25", "2024-11-05"):
            wire = self.send(
                request(1, name="x"),
                session,
                headers={"MCP-Protocol-Version": version},
            )
            self.assertEqual(wire.status, 200)

    def test_ambiguous_keys(self) -> None:
        """The child would read another name than the policy."""
        session = self.open("reader")
        before = len(self.spawner.processes[0].written)
        for body in (
            b'{"jsonrpc":"2.0","id":1,"method":"tools/call",'
            b'"params":{"name":"list_my_repos","Name":"create_issue"}}',
            b'{"jsonrpc":"2.0","id":1,"method":"ping","Method":"tools/call"}',
            b'{"jsonrpc":"2.0","id":1,"method":"ping","method":"tools/call"}',
        ):
            self.refused(400, body, session, token="reader")
        self.assertEqual(len(self.spawner.processes[0].written), before)

    def test_unexpected_failure(self) -> None:
        """500 with an incident that the log has; no detail leaves."""
        self.ledger.error = ZeroDivisionError("inner detail")
        wire = self.send(initialize())
        self.assertEqual(wire.status, 500)
        self.assertNotIn(b"inner detail", wire.body)
        [failure] = self.flushLoggedErrors(ZeroDivisionError)
        self.assertTrue(failure)

    def test_store_trouble(self) -> None:
        """503 and when to come back, at the look-up of a bearer too."""
        self.ledger.error = StoreUnavailable("busy")
        self.assertIn("retry-after", self.refused(503, initialize()))
        self.authenticator.uncached.add("alice")
        self.authenticator.error = StoreUnavailable("busy")
        self.assertIn("retry-after", self.refused(503, initialize()))

    def test_sign_in_needed(self) -> None:
        """Forgejo does not know the user any more: the client signs in again."""
        self.tokens.error = SignInNeeded("x")
        headers = self.refused(401, initialize())
        self.assertIn("invalid_token", headers["www-authenticate"])


class JunkTests(McpWorld):
    """Whatever the body is: a 4xx of the right shape, and the child is untouched."""

    def setUp(self) -> None:
        """A session whose child nobody should hear of."""
        super().setUp()
        self.session = self.open()
        self.before = bytes(self.spawner.processes[0].written)

    def check(self, body: bytes) -> None:
        """Send it, with and without the session."""
        for session in (self.session, None):
            wire = self.send(body, session)
            assert wire.status is not None, body
            self.assertTrue(400 <= wire.status < 500, (wire.status, body))
            error = wire.json
            self.assertEqual(
                (error["jsonrpc"], error.keys()), ("2.0", {"jsonrpc", "id", "error"})
            )
            wire.depart()
            self.wires.remove(wire)
        self.assertEqual(bytes(self.spawner.processes[0].written), self.before)

    @settings(max_examples=150, suppress_health_check=list(HealthCheck), deadline=None)
    @given(st.binary(max_size=200))
    def test_any_bytes(self, body: bytes) -> None:
        """Bytes that are no message."""
        self.check(body)

    @settings(max_examples=150, suppress_health_check=list(HealthCheck), deadline=None)
    @given(
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.text(max_size=10),
            lambda inner: (
                st.lists(inner, max_size=3)
                | st.dictionaries(
                    st.sampled_from(
                        ["jsonrpc", "id", "method", "params", "result", "é"]
                    ),
                    inner,
                    max_size=4,
                )
            ),
            max_leaves=12,
        )
    )
    def test_any_json(self, value: Any) -> None:
        """JSON that is no message: none of it says that it is JSON-RPC 2.0."""
        self.check(json.dumps(value).replace('"2.0"', '"2.1"').encode())

    def test_special_junk(self) -> None:
        """Deep, truncated, not UTF-8, NUL, numbers out of range, many."""
        for body in (
            b"",
            b" ",
            b"[]",
            b"[" * 5000 + b"]" * 5000,
            b'{"jsonrpc":"2.0","id":1,"method":"x","params":' + b"[" * 4000,
            b'{"jsonrpc":"2.0","id":1,"method":"x","params":[]}',
            b'{"jsonrpc":"2.0","id":1.5,"method":"x"}',
            b'{"jsonrpc":"2.0","id":{},"method":"x"}',
            b'{"jsonrpc":"2.0","id":null,"method":"x"}',
            b'{"jsonrpc":"2.0","id":1,"method":"x\\u0000"}',
            b'{"jsonrpc":"2.0","id":1,"method":"\xff"}',
            b'\xef\xbb\xbf{"jsonrpc":"2.0","id":1,"method":"x"}',
            b'{"jsonrpc":"2.0","id":1,"method":"x"} {}',
            b'{"jsonrpc":"2.0","id":1,"method":"x"',
            b'{"jsonrpc":"2.0","id":1,"result":{},"error":{}}',
            b"null",
            b"\x00",
        ):
            self.check(body)
