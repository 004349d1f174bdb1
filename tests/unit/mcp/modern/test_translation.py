"""The edits between the eras, and nothing but them."""

import json

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from fjmcp_broker.mcp.envelope import MessageError, Notification, Request, encode
from fjmcp_broker.mcp.messages import parse, parse_child_line
from fjmcp_broker.mcp.modern.errors import status_of_code
from fjmcp_broker.mcp.modern.requests import (
    LOG_LEVELS,
    META_LOG_LEVEL,
    ModernRequest,
    judge,
)
from fjmcp_broker.mcp.modern.translation import (
    LIST_TTL_MILLISECONDS,
    META_SERVER,
    TTL_MILLISECONDS,
    error_to_modern,
    notification_to_modern,
    result_to_modern,
    sorted_by_name,
    to_legacy,
    wants_log,
)
from tests.unit.mcp.test_scanner import keys, spaces, values

from .cases import SERVER, headers_for, meta, modern

NAMES = st.one_of(
    st.text(st.characters(blacklist_categories=["Cs"]), max_size=3),
    st.none(),
    st.integers(),
    st.lists(st.integers(), max_size=1),
)


class RequestTests(SynchronousTestCase):
    """What a child of the older revisions gets."""

    def legacy(self, body: bytes) -> Request:
        """
        @return: the translation of a request.
        """
        asked = parse(body)
        assert isinstance(asked, Request)
        return to_legacy(judge(asked, headers_for(asked)))

    def test_only_the_new_members_leave(self) -> None:
        """Every other byte is the client's."""
        found = self.legacy(
            b'{"jsonrpc":"2.0","id":"a","method":"tools/call","params":'
            b'{ "name":"t", "inputResponses":{}, "arguments":{"n": 1.0e2, "n":2},'
            b' "_meta":{"progressToken": 7,'
            b'"io.modelcontextprotocol/protocolVersion":"2026-07-28",'
            b'"io.modelcontextprotocol/clientCapabilities":{},'
            b'"io.modelcontextprotocol/clientInfo":{"name":"c","version":"1"},'
            b'"io.modelcontextprotocol/logLevel":"info",'
            b'"com.example/x": [1 , 2]}, "requestState":"s", "x":null}}'
        )
        self.assertEqual(
            found.params,
            b'{ "name":"t", "arguments":{"n": 1.0e2, "n":2},'
            b' "_meta":{"progressToken": 7,"com.example/x": [1 , 2]}, "x":null}',
        )
        self.assertEqual(found.id, b'"a"')
        self.assertEqual(set(found.members), {"name", "arguments", "_meta", "x"})
        self.assertEqual(
            found.meta, {"progressToken": b"7", "com.example/x": b"[1 , 2]"}
        )
        raw = b'{"progressToken": 7,"com.example/x": [1 , 2]}'
        self.assertEqual(found.members["_meta"], raw)

    def test_an_empty_meta_leaves(self) -> None:
        """Nothing of it was the client's own."""
        found = to_legacy(modern("tools/list", {"cursor": "c"}))
        self.assertEqual(found.params, b'{"cursor": "c"}')
        self.assertEqual(found.meta, {})
        self.assertEqual(to_legacy(modern("tools/list", {})).params, b"{}")

    def test_nothing_to_leave(self) -> None:
        """A request of the broker's own may have none of it."""
        for params, members in ((None, {}), (b'{"a":1}', {"a": b"1"})):
            bare = Request(b"1", "tools/list", params, members)
            self.assertEqual(to_legacy(ModernRequest(bare, "", b"{}")), bare)

    def test_extensions_keep_their_members(self) -> None:
        """Only the methods that have them lose answers and state."""
        found = to_legacy(modern("tasks/update", {"inputResponses": {"k": 1}}))
        self.assertEqual(found.params, b'{"inputResponses": {"k": 1}}')

    def test_trace_context_passes(self) -> None:
        """It is the client's, and the child may log it."""
        found = to_legacy(modern(more={"traceparent": "00-0af7-1-01"}))
        self.assertEqual(list(found.meta), ["traceparent"])


class ResultTests(SynchronousTestCase):
    """What a client of the stateless revisions gets."""

    def test_plain_result(self) -> None:
        """It says that it is complete and who gave it."""
        self.assertEqual(
            result_to_modern("tools/call", b'{"content":[ 1.0 ] }', SERVER),
            b'{"content":[ 1.0 ] ,"resultType":"complete","_meta":{"'
            + META_SERVER.encode()
            + b'":'
            + SERVER
            + b"}}",
        )
        self.assertEqual(
            result_to_modern("tools/call", b"{}"), b'{"resultType":"complete"}'
        )

    def test_caching_hints(self) -> None:
        """For the methods that must have them, and for no other."""
        for method, ttl in TTL_MILLISECONDS.items():
            found = json.loads(result_to_modern(method, b"{}"))
            expected = {
                "resultType": "complete",
                "ttlMs": ttl,
                "cacheScope": "private",
            }
            self.assertEqual(found, expected)
        self.assertEqual(TTL_MILLISECONDS["resources/read"], 0)
        self.assertNotIn(b"ttlMs", result_to_modern("prompts/get", b"{}"))

    def test_what_the_child_says_itself(self) -> None:
        """A lifetime counts if it is one; the scope and the type are the broker's."""
        for given_ttl, ttl in (
            ("7", 7),
            ("0", 0),
            ("-1", LIST_TTL_MILLISECONDS),
            ("1.5", LIST_TTL_MILLISECONDS),
            ('"1"', LIST_TTL_MILLISECONDS),
            ("null", LIST_TTL_MILLISECONDS),
        ):
            raw = b'{"ttlMs":%s,"cacheScope":"public","resultType":"x"}'
            found = json.loads(result_to_modern("tools/list", raw % given_ttl.encode()))
            self.assertEqual(found["ttlMs"], ttl)
            self.assertEqual(found["cacheScope"], "private")
            self.assertEqual(found["resultType"], "complete")

    def test_server_info_of_the_child_stays(self) -> None:
        """So does what else is in its C{_meta}; what is no object gives way."""
        raw = b'{"_meta":{"%s":{"name":"own"},"x":1}}' % META_SERVER.encode()
        found = json.loads(result_to_modern("tools/call", raw, SERVER))
        self.assertEqual(found["_meta"], {META_SERVER: {"name": "own"}, "x": 1})
        found = json.loads(result_to_modern("tools/call", b'{"_meta":{"x":1}}', SERVER))
        self.assertEqual(found["_meta"], {"x": 1, META_SERVER: json.loads(SERVER)})
        found = json.loads(result_to_modern("tools/call", b'{"_meta":null}', SERVER))
        self.assertEqual(found["_meta"], {META_SERVER: json.loads(SERVER)})

    def test_odd_results(self) -> None:
        """Null stands for an empty object; what is none passes; repeated keys end."""
        self.assertEqual(result_to_modern("x", b"null"), b'{"resultType":"complete"}')
        self.assertEqual(result_to_modern("x", b"[1]"), b"[1]")
        self.assertEqual(
            result_to_modern("x", b'{"a":1,"a":2}'), b'{"a":2,"resultType":"complete"}'
        )

    def test_tools_are_sorted(self) -> None:
        """By name, with their own bytes; nothing else of the list moves."""
        raw = b'{"tools": [{"name" : "b", "x":1.0}, {"name":"B"},{"name":"a"} ], "n":1}'
        self.assertEqual(
            result_to_modern("tools/list", raw),
            b'{"tools": [{"name":"B"},{"name":"a"},{"name" : "b", "x":1.0}], "n":1,'
            b'"resultType":"complete","ttlMs":300000,"cacheScope":"private"}',
        )
        self.assertIn(b'{"tools":7', result_to_modern("tools/list", b'{"tools":7}'))

    @given(st.lists(st.tuples(NAMES, st.integers())))
    def test_any_names_are_sorted(self, entries: list[tuple[object, int]]) -> None:
        """Names may be equal, missing or no texts."""
        items = [{"name": name, "i": i} for name, i in entries]
        items += [{"i": -1}] * (len(entries) % 2)
        raw = json.dumps([*items, 5] if len(items) % 3 == 1 else items).encode()
        found = sorted_by_name(raw)
        again = json.loads(found)
        self.assertCountEqual(map(repr, again), map(repr, json.loads(raw)))
        named = [
            entry["name"]
            for entry in again
            if isinstance(entry, dict) and isinstance(entry.get("name"), str)
        ]
        self.assertEqual(named, sorted(named))
        self.assertEqual(again[: len(named)], [e for e in again if _is_named(e)])
        self.assertEqual(sorted_by_name(found), found)


class OddMessagesTests(SynchronousTestCase):
    """Whatever a child or a client writes, the edits are made or nothing is."""

    @settings(max_examples=300)
    @given(values, st.sampled_from(["tools/list", "tools/call", "resources/read"]))
    def test_results(self, text: str, method: str) -> None:
        """Repeated keys, odd spellings, white space anywhere."""
        before = json.loads(text)
        after = json.loads(result_to_modern(method, text.encode(), SERVER))
        if before is None:
            before = {}
        if not isinstance(before, dict):
            self.assertEqual(after, before)
            return
        self.assertEqual(after["resultType"], "complete")
        self.assertEqual(after["_meta"][META_SERVER], json.loads(SERVER))
        self.assertEqual("ttlMs" in after, method != "tools/call")
        for name, value in before.items():
            if name not in ("_meta", "resultType", "tools", "ttlMs", "cacheScope"):
                self.assertEqual(after[name], value)

    @settings(max_examples=300)
    @given(st.lists(st.tuples(keys, values), max_size=4), spaces)
    def test_requests(self, members: list[tuple[str, str]], space: str) -> None:
        """What the parser lets through is translated without loss."""
        pairs = [*members, ('"_meta"', json.dumps(meta(more={"x": [1.0]})))]
        written = ",".join(f"{space}{key}:{value}{space}" for key, value in pairs)
        body = '{"jsonrpc":"2.0","id":1,"method":"x/y","params":{' + written + "}}"
        try:
            asked = parse(body.encode())
        except MessageError:
            return
        assert isinstance(asked, Request)
        found = to_legacy(judge(asked, headers_for(asked)))
        expected = {json.loads(key): json.loads(value) for key, value in pairs}
        expected["_meta"] = {"x": [1.0]}
        self.assertEqual(json.loads(found.params or b""), expected)
        again = parse(encode(found))
        self.assertEqual(again, found)


def _is_named(entry: object) -> bool:
    return isinstance(entry, dict) and isinstance(entry.get("name"), str)


class ErrorTests(SynchronousTestCase):
    """Numbers and statuses."""

    def test_numbers(self) -> None:
        """The old ones are gone, the reserved ones mean nothing, others stay."""
        for code, expected, status in (
            (-32002, -32602, 200),
            (-32042, -32603, 200),
            (-32020, -32603, 200),
            (-32021, -32603, 200),
            (-32099, -32603, 200),
            (-32601, -32601, 404),
            (-32602, -32602, 200),
            (-32000, -32000, 200),
            (-32019, -32019, 200),
            (-32100, -32100, 200),
            (7, 7, 200),
        ):
            raw = b'{ "code": %d, "message":"m", "data":{"uri": "x"} }' % code
            wanted = b'{ "code": %d, "message":"m", "data":{"uri": "x"} }' % expected
            self.assertEqual(error_to_modern(raw, "resources/read"), (wanted, status))

    def test_unreadable_errors(self) -> None:
        """The client still gets one."""
        for raw in (b"7", b'"x"', b"{}", b'{"code":"x"}', b'{"code":1.5}', b"[]"):
            error, status = error_to_modern(raw, "tools/call")
            self.assertEqual((json.loads(error)["code"], status), (-32603, 200))

    def test_statuses(self) -> None:
        """Those that the specification names."""
        found = [status_of_code(code) for code in (-32601, -32020, -32021, -32022)]
        self.assertEqual(found, [404, 400, 400, 400])
        self.assertEqual(status_of_code(-32603), 200)


class NotificationTests(SynchronousTestCase):
    """What the child says on the way."""

    def child(self, method: str, params: bytes = b"{}") -> Notification:
        """
        @return: a notification of a child.
        """
        line = b'{"jsonrpc":"2.0","method":"%s","params":%s}'
        message = parse_child_line(line % (method.encode(), params))
        assert isinstance(message, Notification)
        return message

    def test_removed_ones_are_dropped(self) -> None:
        """A client could do nothing with them."""
        for method in ("cancelled", "elicitation/complete"):
            gone = self.child(f"notifications/{method}")
            self.assertIsNone(notification_to_modern(gone))

    def test_others_pass(self) -> None:
        """With their bytes."""
        params = b'{"progressToken":1, "progress": 0.50}'
        encoded = notification_to_modern(self.child("notifications/progress", params))
        assert encoded is not None
        self.assertIn(params, encoded)

    def test_log_level_of_the_request(self) -> None:
        """At or above it, and nothing without one (MCP 2026-07-28, logging)."""
        for asked in LOG_LEVELS:
            wanting = modern(more={META_LOG_LEVEL: asked})
            for said in LOG_LEVELS:
                raw = b'{"level":"%s","data":1}' % said.encode()
                expected = LOG_LEVELS.index(said) >= LOG_LEVELS.index(asked)
                message = self.child("notifications/message", raw)
                self.assertEqual(wants_log(wanting, message), expected)
                self.assertFalse(wants_log(modern(), message))
        odd = self.child("notifications/message", b'{"level":"loud"}')
        self.assertTrue(wants_log(modern(more={META_LOG_LEVEL: "emergency"}), odd))
