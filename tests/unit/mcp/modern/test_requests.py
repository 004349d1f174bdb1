"""What a request of the stateless revisions has to bring."""

import base64
import json
from collections.abc import Mapping

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from fjmcp_broker.mcp.envelope import MessageError, Notification, Request
from fjmcp_broker.mcp.messages import parse
from fjmcp_broker.mcp.modern.errors import ModernError
from fjmcp_broker.mcp.modern.requests import (
    META_CAPABILITIES,
    META_CLIENT,
    META_LOG_LEVEL,
    REMOVED,
    ModernRequest,
    RequestHeaders,
    decoded,
    judge,
    judge_notification,
)
from fjmcp_broker.mcp.versions import FIRST_MODERN, META_VERSION, SUPPORTED

from .cases import headers_for, meta, modern, notification, request

LIST = RequestHeaders(FIRST_MODERN, "tools/list")


class RefusalCase(SynchronousTestCase):
    """Expects refusals."""

    def refused(
        self,
        asked: Request | Notification,
        headers: RequestHeaders,
        status: int,
        code: int,
    ) -> Mapping[str, object]:
        """
        @return: C{data} of the refusal.
        """
        with self.assertRaises(ModernError) as caught:
            if isinstance(asked, Request):
                judge(asked, headers)
            else:
                judge_notification(asked, headers)
        error = caught.exception
        self.assertEqual((error.status, error.code), (status, code))
        id = asked.id if isinstance(asked, Request) else b"null"
        self.assertEqual(error.id, id)
        written = json.loads(error.to_bytes())
        self.assertEqual(written["id"], json.loads(id))
        self.assertEqual(written["error"]["code"], code)
        self.assertEqual(written["error"].get("data"), error.data)
        return error.data or {}


class MetaTests(RefusalCase):
    """MCP 2026-07-28, basic, per-request protocol fields."""

    def test_parts_are_read(self) -> None:
        """Everything that the broker itself needs, in the client's bytes."""
        found = modern(
            "tools/call",
            {"name": "t", "inputResponses": {"k": 1}, "requestState": "s"},
            capabilities={"roots": {}},
            more={META_CLIENT: {"name": "c"}, META_LOG_LEVEL: "info"},
        )
        self.assertEqual(found.version, FIRST_MODERN)
        self.assertEqual(json.loads(found.capabilities), {"roots": {}})
        self.assertEqual(json.loads(found.client_info or b""), {"name": "c"})
        self.assertEqual(found.log_level, "info")
        self.assertEqual(found.input_responses, {"k": b"1"})
        self.assertEqual(found.request_state, "s")
        self.assertEqual((found.id, found.method), (b"1", "tools/call"))
        self.assertTrue(found.may_be_asked)
        self.assertFalse(modern("tools/list", {}).may_be_asked)

    def test_required_members(self) -> None:
        """Missing or of another type: -32602 with 400."""
        cases: tuple[Mapping[str, object], ...] = (
            {},
            {META_CAPABILITIES: {}},
            {META_VERSION: FIRST_MODERN},
            {META_VERSION: 20260728, META_CAPABILITIES: {}},
            {META_VERSION: FIRST_MODERN, META_CAPABILITIES: None},
            {META_VERSION: FIRST_MODERN, META_CAPABILITIES: []},
        )
        for damaged in cases:
            asked = request("tools/list", {"_meta": damaged})
            self.refused(asked, LIST, 400, -32602)
        bare = parse(b'{"jsonrpc":"2.0","id":"x","method":"tools/list"}')
        assert isinstance(bare, Request)
        self.refused(bare, LIST, 400, -32602)

    def test_client_info_is_optional(self) -> None:
        """It only serves display, so a malformed one is as good as none."""
        self.assertIsNone(modern().client_info)
        self.assertIsNone(modern(more={META_CLIENT: None}).client_info)
        self.assertIsNone(modern(more={META_CLIENT: "x"}).client_info)

    def test_log_level_is_known(self) -> None:
        """MCP 2026-07-28, logging, error handling."""
        self.assertIsNone(modern(more={META_LOG_LEVEL: None}).log_level)
        for level in ("loud", "INFO", 1):
            asked = request("tools/list", {"_meta": meta(more={META_LOG_LEVEL: level})})
            self.refused(asked, LIST, 400, -32602)

    def test_answers_and_state_have_their_types(self) -> None:
        """A null is no answers; of the state it is as good as none."""
        cases: tuple[Mapping[str, object], ...] = (
            {"inputResponses": None},
            {"inputResponses": [1]},
            {"requestState": 1},
            {"requestState": {}},
        )
        without = modern("tools/call", {"name": "t", "requestState": None})
        self.assertIsNone(without.request_state)
        for extra in cases:
            asked = request("tools/call", {"name": "t", **extra, "_meta": meta()})
            self.refused(asked, headers_for(asked), 400, -32602)

    def test_extensions_keep_their_members(self) -> None:
        """Those names mean nothing to the broker in a method that is not the core's."""
        found = modern("tasks/update", {"inputResponses": [1], "requestState": 2})
        self.assertIsNone(found.input_responses)
        self.assertIsNone(found.request_state)

    def test_case_variants_are_refused_by_the_parser(self) -> None:
        """A child that reads keys without case would see other capabilities."""
        for name in (META_VERSION, META_CAPABILITIES, META_LOG_LEVEL, META_CLIENT):
            with self.assertRaises(MessageError) as caught:
                request("tools/list", {"_meta": {name.upper(): 1}})
            self.assertEqual(caught.exception.code, -32600)


class VersionTests(RefusalCase):
    """MCP 2026-07-28, versioning; transports, protocol version header."""

    def test_unknown_revision(self) -> None:
        """-32022 says what is spoken here and repeats what was asked for."""
        for version in ("v999.0.0", "2026-07-29", "2025-11-25", "1900-01-01"):
            asked = request("tools/list", {"_meta": {META_VERSION: version}})
            headers = RequestHeaders(version, "tools/list")
            data = self.refused(asked, headers, 400, -32022)
            self.assertEqual(data, {"supported": list(SUPPORTED), "requested": version})

    def test_header_is_missing_or_differs(self) -> None:
        """-32020, also when the body names an unknown revision."""
        asked = request("tools/list", {"_meta": meta()})
        for version in (None, "", "2025-11-25", "2026-07-28x"):
            headers = RequestHeaders(version, "tools/list")
            self.refused(asked, headers, 400, -32020)
        unknown = request("tools/list", {"_meta": meta(more={META_VERSION: "v9"})})
        self.refused(unknown, LIST, 400, -32020)


class MethodTests(RefusalCase):
    """MCP 2026-07-28, transports, server validation."""

    def test_method_header(self) -> None:
        """Missing, different, or of another case: -32020."""
        asked = request("tools/list", {"_meta": meta()})
        for method in (None, "prompts/list", "TOOLS/LIST", ""):
            self.refused(asked, RequestHeaders(FIRST_MODERN, method), 400, -32020)

    def test_name_header(self) -> None:
        """Missing or different: -32020; where there is no name: -32602."""
        for method, member in (
            ("tools/call", "name"),
            ("prompts/get", "name"),
            ("resources/read", "uri"),
        ):
            asked = request(method, {member: "n", "_meta": meta()})
            for name in (None, "", "N", "m", "=?base64?bQ==?="):
                headers = RequestHeaders(FIRST_MODERN, method, name)
                self.refused(asked, headers, 400, -32020)
            for name in ("n", "=?base64?bg==?="):
                judge(asked, RequestHeaders(FIRST_MODERN, method, name))
            for damaged in ({}, {member: 1}, {member: None}):
                asked = request(method, {**damaged, "_meta": meta()})
                headers = RequestHeaders(FIRST_MODERN, method, "n")
                self.refused(asked, headers, 400, -32602)

    def test_removed_methods(self) -> None:
        """404 with -32601."""
        for method in sorted(REMOVED):
            asked = request(method, {"_meta": meta()})
            self.refused(asked, headers_for(asked), 404, -32601)

    def test_unknown_methods_pass(self) -> None:
        """The child says what it knows."""
        self.assertEqual(modern("com.example/x", {}).method, "com.example/x")


class NotificationTests(RefusalCase):
    """The revision defines no notification for this transport and asks no header."""

    def test_without_anything(self) -> None:
        """It is accepted."""
        judge_notification(notification("notifications/x"), RequestHeaders())

    def test_what_is_there_has_to_fit(self) -> None:
        """Header against body, and the revision is spoken here."""
        named = notification("notifications/x", {"_meta": meta()})
        judge_notification(named, RequestHeaders())
        judge_notification(named, RequestHeaders(FIRST_MODERN, "notifications/x"))
        self.refused(named, RequestHeaders("2025-11-25"), 400, -32020)
        self.refused(named, RequestHeaders(FIRST_MODERN, "other"), 400, -32020)
        bare = notification("notifications/x")
        self.refused(bare, RequestHeaders("2027-01-01"), 400, -32022)


class HeaderTests(SynchronousTestCase):
    """Values as they come, and what they stand for."""

    def test_from_raw(self) -> None:
        """Names have no case, values no white space around them."""
        found = RequestHeaders.from_raw(
            [
                (b"Mcp-Protocol-Version", [b" 2026-07-28\t"]),
                (b"MCP-METHOD", [b"a", b"b"]),
                (b"mcp-name", [b"x"]),
                (b"Mcp-Param-Region", [b" r "]),
                (b"Accept", [b"*/*"]),
            ]
        )
        expected = RequestHeaders(FIRST_MODERN, "a, b", "x", (("region", "r"),))
        self.assertEqual(found, expected)

    def test_examples_of_the_specification(self) -> None:
        """MCP 2026-07-28, transports, value encoding."""
        for value, text in (
            ("us-west1", "us-west1"),
            ("=?base64?SGVsbG8sIOS4lueVjA==?=", "Hello, 世界"),
            ("=?base64?IHBhZGRlZCA=?=", " padded "),
            ("=?base64?bGluZTEKbGluZTI=?=", "line1\nline2"),
            ("=?base64?PT9iYXNlNjQ/bGl0ZXJhbD89?=", "=?base64?literal?="),
            ("=?base64??=", ""),
        ):
            self.assertEqual(decoded(value), text)

    def test_what_is_no_encoding(self) -> None:
        """It stands for itself."""
        for value in ("=?base64?SGVsbG8=", "SGVsbG8=?=", "=?BASE64?SGVsbG8=?=", "=?="):
            self.assertEqual(decoded(value), value)
        self.assertEqual(decoded("=?base64?="), "=?base64?=")

    def test_damaged_encodings(self) -> None:
        """Bad padding, other characters, no UTF-8, what no header may hold."""
        for value in (
            "=?base64?SGVsbG8?=",
            "=?base64?SGVs!!!bG8=?=",
            "=?base64?/w==?=",
            "h\xe9",
            "a\nb",
            "a\x7f",
        ):
            self.assertIsNone(decoded(value))

    @given(st.text(st.characters(blacklist_categories=["Cs"])))
    def test_every_name_can_be_sent(self, name: str) -> None:
        """The encoding is total, and a name never fits another one's header."""
        value = f"=?base64?{base64.b64encode(name.encode()).decode()}?="
        self.assertEqual(decoded(value), name)
        asked = request("tools/call", {"name": name, "_meta": meta()})
        found = judge(asked, RequestHeaders(FIRST_MODERN, "tools/call", value))
        self.assertIsInstance(found, ModernRequest)
