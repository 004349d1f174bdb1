"""Whatever a stateless request says: a clear answer, or a call that is what it says."""

import json
from base64 import b64encode
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fjmcp_broker.mcp.messages import text_of
from tests.unit.web.mcp_world import Wire
from tests.unit.web.modern_case import META, VERSION, ModernCase

VALUES: Any = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(max_size=6), inner, max_size=3)
    ),
    max_leaves=6,
)
METHODS = st.sampled_from(
    (
        *("tools/call", "tools/list", "resources/read", "prompts/get", "x/y"),
        *("server/discover", "subscriptions/listen", "initialize", "ping"),
        "notifications/cancelled",
    )
)
NAMES = st.sampled_from(["a", "é", " a", "=?base64?YQ==?=", ""])
META_MEMBERS = st.fixed_dictionaries(
    {},
    optional={
        "io.modelcontextprotocol/protocolVersion": st.sampled_from(
            [VERSION, "2025-11-25", "2030-01-01", ""]
        )
        | VALUES,
        "io.modelcontextprotocol/clientCapabilities": st.just({}) | VALUES,
        "io.modelcontextprotocol/clientInfo": VALUES,
        "io.modelcontextprotocol/logLevel": st.just("info") | VALUES,
        "progressToken": st.integers() | VALUES,
        "x": VALUES,
    },
)
PARAMS = st.fixed_dictionaries(
    {"_meta": st.just(META) | META_MEMBERS | VALUES},
    optional={
        "name": NAMES | VALUES,
        "uri": NAMES | VALUES,
        "arguments": VALUES,
        "notifications": st.just({"resourceSubscriptions": ["a"]}) | VALUES,
        "inputResponses": st.just({}) | VALUES,
        "requestState": st.just("s") | VALUES,
    },
)
TEXT = st.text(st.characters(min_codepoint=32, max_codepoint=255), max_size=12)
HEADERS = st.fixed_dictionaries(
    {},
    optional={
        "MCP-Protocol-Version": st.just(VERSION) | TEXT,
        "Mcp-Method": METHODS | TEXT,
        "Mcp-Name": NAMES.map(lambda name: name.encode().decode("latin-1"))
        | NAMES.map(lambda name: f"=?base64?{b64encode(name.encode()).decode()}?=")
        | TEXT,
        "Mcp-Param-X": TEXT,
    },
)


class JunkTests(ModernCase):
    """Nothing is ever answered with 5xx, and nothing disagrees with its headers."""

    def forget(self, wire: Wire) -> None:
        """The next example begins anew."""
        wire.depart()
        self.wires.remove(wire)
        self.shared.calls.clear()
        self.shared.leases.clear()

    @settings(max_examples=400, suppress_health_check=list(HealthCheck), deadline=None)
    @given(
        st.integers() | st.text(max_size=4) | st.none() | VALUES,
        METHODS,
        PARAMS | st.none() | VALUES,
        HEADERS,
        st.booleans(),
        st.booleans(),
    )
    def test_any_request(
        self,
        id: Any,
        method: str,
        params: Any,
        headers: dict[str, str],
        has_session: bool,
        matches: bool,
    ) -> None:
        """Members and headers of every kind, in every combination."""
        message = {"jsonrpc": "2.0", "id": id, "method": method, "params": params}
        if matches:
            headers = {"MCP-Protocol-Version": VERSION, "Mcp-Method": method, **headers}
        wire = self.send(
            message, "x" * 43 if has_session else None, headers=dict(headers)
        )
        if self.shared.calls:
            [call] = self.shared.calls
            self.assertIsNone(wire.status)
            request = call.modern.request
            self.assertEqual(json.loads(request.id), id)
            self.assertEqual(headers["Mcp-Method"], request.method)
            self.assertEqual(headers["MCP-Protocol-Version"], VERSION)
            self.assertEqual(call.modern.version, VERSION)
            member = {"resources/read": "uri"}.get(method, "name")
            if method in ("tools/call", "prompts/get", "resources/read"):
                self.assertIsInstance(text_of(request.members[member]), str)
                self.assertIn("Mcp-Name", headers)
            call.result()
            self.assertEqual(wire.json["id"], id)
        elif wire.status == 200:
            if method == "initialize":
                self.assertEqual(wire.json["error"]["message"], "no")
            else:
                self.assertEqual(method, "server/discover")
                self.assertEqual(wire.json["result"]["resultType"], "complete")
        else:
            assert wire.status is not None
            self.assertIn(wire.status, (400, 404))
            error = wire.json
            self.assertEqual(error.keys(), {"jsonrpc", "id", "error"})
            self.assertIn(error["id"], (id, None))
        self.assertNotIn("mcp-session-id", wire.headers)
        self.forget(wire)

    @settings(max_examples=100, suppress_health_check=list(HealthCheck), deadline=None)
    @given(st.binary(max_size=200), HEADERS)
    def test_any_bytes(self, body: bytes, headers: dict[str, str]) -> None:
        """A body that is no message."""
        wire = self.send(body, headers=dict(headers))
        self.assertEqual(wire.status, 400)
        self.assertIn(wire.json["error"]["code"], (-32700, -32600, -32602))
        self.assertEqual(self.shared.calls, [])
        self.forget(wire)

    @settings(max_examples=100, suppress_health_check=list(HealthCheck), deadline=None)
    @given(METHODS, PARAMS, HEADERS)
    def test_any_notification(
        self, method: str, params: Any, headers: dict[str, str]
    ) -> None:
        """Taken or refused; never a call."""
        message = {"jsonrpc": "2.0", "method": method, "params": params}
        wire = self.send(
            message, headers={"MCP-Protocol-Version": VERSION, **dict(headers)}
        )
        self.assertIn(wire.status, (202, 400))
        self.assertEqual(self.shared.calls, [])
        self.forget(wire)
