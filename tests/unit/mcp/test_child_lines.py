"""What a child says, and the bytes that pass through an edit unchanged."""

import json
import time

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from fjmcp_broker.mcp.messages import (
    Message,
    MessageError,
    Notification,
    Request,
    Response,
    encode,
    encode_error,
    id_key,
    parse_child_line,
    text_of,
    with_member,
    with_progress_token,
    with_request_id,
)

json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=8,
)


class ParseChildLineTests(SynchronousTestCase):
    """What a child may say."""

    def test_result_bytes_are_kept(self) -> None:
        """The result reaches the client byte by byte."""
        result = b'{ "content":[ {"x":1e400,"x":2, "\\ud83d\\ude00":"\xc3\xa9"} ]}'
        line = b'{"jsonrpc":"2.0","id":5,"result":' + result + b',"extra":1}'
        self.assertEqual(parse_child_line(line), Response(b"5", result))

    def test_errors(self) -> None:
        """With an id, and without one, as forgejo-mcp 2.34 does after a panic."""
        error = b'{"code":-32603,"message":"x"}'
        self.assertEqual(
            parse_child_line(b'{"id":"a","error":' + error + b',"result":null}'),
            Response(b'"a"', None, error),
        )
        self.assertEqual(
            parse_child_line(b'{"jsonrpc":"2.0","id":null,"error":' + error + b"}"),
            Response(b"null", None, error),
        )

    def test_null_result(self) -> None:
        """Not what MCP asks for, but an answer."""
        self.assertEqual(
            parse_child_line(b'{"jsonrpc":"2.0","id":1,"result":null,"error":null}'),
            Response(b"1", b"null"),
        )

    def test_questions_and_notifications(self) -> None:
        """Repeated and unknown keys are the child's own business."""
        message: Message = parse_child_line(
            b'{"jsonrpc":"2.0","id":1.5,"method":"roots/list","params":{"_meta":'
            b'{"progressToken":3},"Name":1,"name":2}}'
        )
        assert isinstance(message, Request)
        self.assertEqual((message.id, message.method), (b"1.5", "roots/list"))
        self.assertEqual(message.meta, {"progressToken": b"3"})
        self.assertEqual(
            parse_child_line(b'{"id":null,"method":"notifications/x","params":null}'),
            Notification("notifications/x"),
        )

    def test_malformed_lines(self) -> None:
        """An error for the log, and the id of the answer where it can be told."""
        for line, id in (
            (b"log output", b"null"),
            (b"", b"null"),
            (b"[]", b"null"),
            (b"5", b"null"),
            (b"{}", b"null"),
            (b'{"id":3}', b"3"),
            (b'{"id":true,"result":1}', b"null"),
            (b'{"id":[1],"error":{}}', b"null"),
            (b'{"method":5}', b"null"),
            (b'{"id":1,"method":"a","params":[]}', b"null"),
            (b'{"id":3,"result":"\xff"}', b"3"),
            (b'{"id":"a","result":"\\ud800"}', b'"a"'),
            (b'{"id":4,"result":' + b"[" * 900 + b"1" + b"]" * 899 + b"}", b"null"),
            (b'{"id":4,"result":' + b"[" * 20_000, b"null"),
        ):
            try:
                message = parse_child_line(line)
            except MessageError as error:
                self.assertEqual(error.id, id, line[:40])
            else:
                self.fail(f"accepted: {message}")

    def test_broken_answers_fail_their_request(self) -> None:
        """An answer that breaks off still begins with the id of who waits for it."""
        deep = b"[" * 20_000 + b"]" * 20_000
        for line, id in (
            (b'{"jsonrpc":"2.0","id":7,"result":{"text":"abc', b"7"),
            (b'{"jsonrpc":"2.0","id":7,"result":{"text":"a{"jsonrpc":"2.0"}', b"7"),
            (b'{ "jsonrpc": "2.0", "id": 7, "error": {"code": NaN}}', b"7"),
            (b'{"jsonrpc":"2.0","id":7,"result":\xff}', b"7"),
            (b'{"jsonrpc":"2.0","id":7,"result":' + deep + b"}", b"7"),
            (b'{"jsonrpc":"2.0","id":7,"method":"x', b"null"),
            (b'{"jsonrpc":"2.0","id":7', b"null"),
            (b'2026/01/01 {"jsonrpc":"2.0","id":7,"result":', b"null"),
        ):
            with self.assertRaises(MessageError) as raised:
                parse_child_line(line)
            self.assertEqual(raised.exception.id, id, line[:60])

    @given(st.binary(max_size=60) | json_values.map(lambda v: json.dumps(v).encode()))
    def test_junk_never_raises_anything_else(self, line: bytes) -> None:
        """A broken child breaks nothing here."""
        try:
            parse_child_line(line)
        except MessageError as error:
            self.assertIn("error", json.loads(error.to_bytes()))

    def test_large_answers_take_no_time_to_speak_of(self) -> None:
        """100 MiB that are not ASCII: checked and copied, never taken apart."""
        text = "yé".encode() * (100 * 1024 * 1024 // 3)
        line = b'{"jsonrpc":"2.0","id":1,"result":{"text":"' + text + b'"}}'
        begin = time.perf_counter()
        message = parse_child_line(line)
        self.assertLess(time.perf_counter() - begin, 5)
        assert isinstance(message, Response) and message.result is not None
        self.assertEqual(len(message.result), len(text) + 11)


class EditTests(SynchronousTestCase):
    """The few edits change nothing else."""

    def test_progress_token(self) -> None:
        """Only the token; spaces, order and look-alikes stay."""
        params = (
            b'{ "a":{"progressToken":1}, "_meta" : {"x":"_meta", "progressToken"'
            b' : "old" , "y":1.0}, "progressToken":2 }'
        )
        self.assertEqual(
            with_progress_token(params, b"17"), params.replace(b'"old"', b"17")
        )

    def test_request_id(self) -> None:
        """A cancellation names the child's id."""
        params = b'{"reason":"requestId","requestId" :\n"a","n":1e5}'
        self.assertEqual(with_request_id(params, b"9"), params.replace(b'"a"', b"9"))

    def test_missing_member(self) -> None:
        """There is nothing to replace."""
        self.assertRaises(KeyError, with_member, b"{}", "a", b"1")
        self.assertRaises(KeyError, with_progress_token, b'{"_meta":{}}', b"1")

    @given(json_values, json_values, st.text(max_size=4), st.integers(0, 3))
    def test_edit_equals_the_edit_of_the_value(
        self, old: object, new: object, name: str, indent: int
    ) -> None:
        """Parsed again, only that member is another."""
        value = {"first": old, name: old, "last": [old]}
        edited = with_member(
            json.dumps(value, indent=indent or None).encode(),
            name,
            json.dumps(new).encode(),
        )
        self.assertEqual(json.loads(edited), {**value, name: new})


class IdTests(SynchronousTestCase):
    """When two ids are the same."""

    def test_id_keys(self) -> None:
        """Number and string differ; spellings of one string do not."""
        self.assertEqual(id_key(b'"a"'), id_key(b'"\\u0061"'))
        self.assertEqual(id_key(b"0"), id_key(b"-0"))
        different = {
            id_key(id) for id in (b"1", b'"1"', b'"\\"1"', b"10", b'"null"', b"null")
        }
        self.assertEqual(len(different), 6)

    def test_text_of(self) -> None:
        """Only a string is a text."""
        self.assertEqual(text_of(b'"\\u00e9"'), "é")
        for value in (None, b"1", b"null", b"[]", b'"\\ud800"'):
            self.assertIsNone(text_of(value))


class EncodeTests(SynchronousTestCase):
    """Our own envelope."""

    def test_error_with_data(self) -> None:
        """Code, message, data, in the form of JSON-RPC 2.0 section 5.1."""
        self.assertEqual(
            json.loads(encode_error(b'"a"', -32603, "é\n", {"reason": "child_exited"})),
            {
                "jsonrpc": "2.0",
                "id": "a",
                "error": {
                    "code": -32603,
                    "message": "é\n",
                    "data": {"reason": "child_exited"},
                },
            },
        )

    @given(st.text(st.characters(blacklist_categories=["Cs"])), json_values)
    def test_parse_after_encode_is_identity(self, method: str, value: object) -> None:
        """What the child's side writes, it reads; on one line."""
        raw = json.dumps(value).encode()
        params = b'{"x":' + raw + b"}"
        for message in (
            Request(b'"i"', method, params, {"x": raw}),
            Notification(method, params, {"x": raw}),
            Response(b"5", raw),
            Response(b"5", None, params),
        ):
            line = encode(message)
            self.assertNotIn(b"\n", line)
            self.assertEqual(parse_child_line(line), message)
