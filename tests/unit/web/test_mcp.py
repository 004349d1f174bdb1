"""The MCP endpoint: every status that it answers, and what reaches the child."""

import json
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fjmcp_broker.sessions.registry import Limits
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

    def test_allowed_origin(self) -> None:
        """A browser may read the answer, the challenge and the session id."""
        wire = self.send(initialize(), headers={"Origin": "https://inspector.example"})
        self.assertEqual(
            wire.headers["access-control-allow-origin"], "https://inspector.example"
        )
        exposed = wire.headers["access-control-expose-headers"]
        self.assertIn("Mcp-Session-Id", exposed)
        self.assertEqual(wire.headers["vary"], "Origin")

    def test_preflight(self) -> None:
        """OPTIONS needs no token; only allowed origins learn anything."""
        wire = self.send(
            b"",
            token=None,
            method="OPTIONS",
            headers={"Origin": "https://inspector.example"},
        )
        self.assertEqual(wire.status, 204)
        self.assertIn("Authorization", wire.headers["access-control-allow-headers"])
        wire = self.send(b"", token=None, method="OPTIONS")
        self.assertEqual(wire.status, 204)
        self.assertNotIn("access-control-allow-headers", wire.headers)

    def test_methods(self) -> None:
        """GET offers no stream yet; others are never used."""
        session = self.open()
        for method in ("GET", "PUT", "HEAD", "PATCH"):
            wire = self.send(b"", session, method=method)
            self.assertEqual(wire.status, 405)
            self.assertIn("POST", wire.headers["allow"])
        self.assertEqual(self.refused(405, b"", method="GET")["allow"], "POST")
        self.assertEqual(self.refused(405, b"", method="DELETE")["allow"], "POST")
        self.refused(
            405,
            b"",
            session,
            method="DELETE",
            headers={"MCP-Protocol-Version": "2026-07-28"},
        )

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
        """Nothing is below the endpoint."""
        self.refused(404, NOTE, path="/mcp/x")

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

    def test_modern_requests(self) -> None:
        """Refused with the list of revisions that are spoken, session or not."""
        meta = {"io.modelcontextprotocol/protocolVersion": "2026-07-28"}
        session = self.open()
        for wire in (
            self.send(request(1, "tools/list", _meta=meta)),
            self.send(request(1, "tools/list", _meta=meta), session),
            self.send(request(1, "server/discover")),
            self.send(request(1, "x"), headers={"Mcp-Method": "x"}),
            self.send(request(1, "x"), headers={"MCP-Protocol-Version": "2027-01-01"}),
        ):
            self.assertEqual(wire.status, 400)
            self.assertEqual(wire.json["error"]["code"], -32022)
            self.assertIn("2025-11-25", wire.json["error"]["data"]["supported"])
            self.assertEqual(wire.json["id"], 1)

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


class RelayTests(McpWorld):
    """What reaches the child, and what comes back."""

    def test_bytes_of_params_and_result_are_kept(self) -> None:
        """Numbers, order of keys, escapes and unknown members pass through."""
        session = self.open()
        self.manual.add("x/y")
        process = self.spawner.processes[0]
        params = b'{"b":1.10,"a":1e400,"\\u0061b":"\\/","n":12345678901234567890}'
        body = b'{"extra":1,"jsonrpc":"2.0","id":"1","method":"x/y","params":%s}'
        wire = self.send(body % params, session)
        line = bytes(process.written).splitlines()[-1]
        self.assertEqual(
            line, b'{"jsonrpc":"2.0","id":2,"method":"x/y","params":%s}' % params
        )
        process.say(b'{"id":2,"result":{"z":1.0,"a":[1,  2]},"jsonrpc":"2.0","_":0}')
        self.assertEqual(
            wire.body, b'{"jsonrpc":"2.0","id":"1","result":{"z":1.0,"a":[1,  2]}}'
        )

    def test_result_of_a_list_is_untouched_without_annotations(self) -> None:
        """With the overlay off the result is the child's, byte for byte."""
        endpoint: Any = self.site.resource.children[b"mcp"]
        endpoint._annotate = False
        session = self.open()
        self.manual.add("tools/list")
        wire = self.send(request(1, "tools/list"), session)
        result = b'{ "tools": [ {"name":"create_issue" } ], "x":1.0}'
        self.spawner.processes[0].say(
            b'{"jsonrpc":"2.0","id":2,"result":' + result + b"}"
        )
        self.assertEqual(wire.body.partition(b'"result":')[2], result + b"}")

    def test_notification_and_response(self) -> None:
        """202 without a body; the notification goes on, a stray answer does not."""
        session = self.open()
        before = len(self.received(self.spawner.processes[0]))
        for message in (NOTE, {"jsonrpc": "2.0", "id": "q", "result": {}}):
            wire = self.send(message, session)
            self.assertEqual((wire.status, wire.body), (202, b""))
        received = self.received(self.spawner.processes[0])[before:]
        self.assertEqual(received, [NOTE])

    def test_initialized_without_session(self) -> None:
        """Some clients lose the id for this one message; it is not needed."""
        wire = self.send(INITIALIZED)
        self.assertEqual((wire.status, wire.body), (202, b""))

    def test_initialize_with_a_stale_session(self) -> None:
        """A client may begin anew without forgetting its old id."""
        wire = self.send(initialize(), "x" * 43)
        self.assertEqual(wire.status, 200)

    def test_child_refuses_initialize(self) -> None:
        """Its error reaches the client, and nothing stays behind."""
        self.manual.add("initialize")
        wire = self.send(initialize(id="i"))
        self.spawner.processes[0].say(
            b'{"jsonrpc":"2.0","id":1,"error":{"code":-32602,"message":"no"}}'
        )
        self.assertEqual(wire.status, 200)
        self.assertNotIn("mcp-session-id", wire.headers)
        self.assertEqual(wire.json["error"], {"code": -32602, "message": "no"})
        self.assertEqual((len(self.registry), self.ledger.rows), (0, {}))

    def test_initialize_waits_without_beginning_an_answer(self) -> None:
        """Its status depends on the child, however long that takes."""
        self.manual.add("initialize")
        wire = self.send(initialize())
        self.clock.advance(29)
        self.assertEqual(wire.value(), b"")
        self.clock.advance(2)
        self.assertEqual(wire.status, 502)
        self.assertIn("retry-after", wire.headers)

    def test_busy_child(self) -> None:
        """A child that does not read: 503, and the request does not stay in flight."""
        session = self.open()
        process = self.spawner.processes[0]
        process.reads_input = False
        child: Any = process.protocol
        child._stdin._maximum = 10
        self.manual.add("x")
        self.send(request(1, "x", text="y" * 5000), session)
        for number in range(20):
            wire = self.send(request(2 + number, "x", text="y" * 5000), session)
        self.assertEqual(wire.status, 503)
        self.assertIn("retry-after", wire.headers)
        process.read_again()
        wire = self.send(request(21, "y"), session)
        self.assertEqual(wire.status, 200)

    def test_error_without_an_id(self) -> None:
        """forgejo-mcp 2.34 after a panic: the only request in flight fails."""
        session = self.open()
        self.manual.add("x")
        wire = self.send(request(1, "x"), session)
        self.spawner.processes[0].say(
            b'{"jsonrpc":"2.0","id":null,"error":{"code":-32603,"message":"panic"}}'
        )
        self.assertEqual(wire.json["error"]["message"], "panic")
        self.assertEqual(wire.json["id"], 1)

    def test_unreadable_answer(self) -> None:
        """An answer that is no JSON-RPC fails its request, not the session."""
        session = self.open()
        self.manual.add("x")
        wire = self.send(request(1, "x"), session)
        self.spawner.processes[0].say(b'{"jsonrpc":"2.0","id":2,"error":"text"}')
        self.assertEqual(wire.status, 200)
        self.assertIn("error", wire.json)
        self.assertEqual(self.send(request(2, "y"), session).status, 200)

    def test_ping_of_the_child(self) -> None:
        """Is answered by the broker: the connection is ours."""
        self.open()
        process = self.spawner.processes[0]
        process.say(b'{"jsonrpc":"2.0","id":"p","method":"ping"}')
        self.assertEqual(
            self.received(process)[-1], {"jsonrpc": "2.0", "id": "p", "result": {}}
        )

    def test_question_for_a_departed_client(self) -> None:
        """Nobody can be asked: the child hears so at once."""
        session = self.open()
        self.manual.add("x")
        wire = self.send(request(1, "x"), session)
        wire.depart()
        process = self.spawner.processes[0]
        process.say(b'{"jsonrpc":"2.0","id":"p","method":"roots/list"}')
        self.assertEqual(
            self.received(process)[-1]["error"]["data"], {"reason": "no_stream"}
        )

    def test_stray_messages_of_the_child(self) -> None:
        """Late answers and notifications for nobody are dropped."""
        session = self.open()
        process = self.spawner.processes[0]
        for line in (
            b'{"jsonrpc":"2.0","id":99,"result":{}}',
            b'{"jsonrpc":"2.0","method":"notifications/message","params":{}}',
            b'{"jsonrpc":"2.0","method":"notifications/progress","params":{}}',
            b"noise",
        ):
            process.say(line)
        self.assertEqual(self.send(request(1, "y"), session).status, 200)

    def test_revision_of_the_child_counts(self) -> None:
        """The child answered an older one: its rules hold, batches among them."""
        self.child_version = "2025-03-26"
        session = self.open(version="2025-11-25")
        wire = self.send([request(1, "y")], session)
        self.assertEqual([event["id"] for event in wire.events], [1])


class LimitTests(McpWorld):
    """How many sessions there may be."""

    limits = Limits(total=2, per_user=1)

    def test_limit_counts_sessions_being_opened(self) -> None:
        """Two clients that come at once cannot both have the last place."""
        self.manual.add("initialize")
        first = self.send(initialize())
        second = self.send(initialize())
        self.assertEqual(second.status, 503)
        self.assertEqual(second.headers["retry-after"], "10")
        self.reply(self.spawner.processes[0], 1, {"protocolVersion": "2025-06-18"})
        self.assertEqual(first.status, 200)

    def test_place_is_free_again(self) -> None:
        """After the end of a session, whatever ended it."""
        self.open()
        self.spawner.processes[0].exit(1)
        session = self.open()
        wire = self.send(b"", session, method="DELETE")
        self.assertEqual(wire.status, 204)
        self.open()
        self.registry.close_user(1)
        self.open()
        self.clock.advance(3600)
        self.open()
