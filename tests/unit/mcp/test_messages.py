"""Messages: what is accepted, what is refused, and which bytes pass unchanged."""

import json

from hypothesis import example, given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from fjmcp_broker.mcp.messages import (
    INVALID_PARAMS,
    INVALID_REQUEST,
    MAXIMUM_BATCH_MESSAGES,
    PARSE_ERROR,
    MessageError,
    Notification,
    Request,
    Response,
    encode,
    parse,
)

CALL = (
    b'{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{"name":"a",'
    b'"arguments":{"n":1e400,"big":12345678901234567890,"N":0},'
    b'"_meta":{"progressToken":"p","x.y/z":[1]}}}'
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


def refusal(body: bytes) -> MessageError:
    """The error that a client's body causes."""
    try:
        message = parse(body)
    except MessageError as error:
        return error
    raise AssertionError(f"accepted: {message}")


class ParseTests(SynchronousTestCase):
    """What a client may send."""

    def test_request(self) -> None:
        """A call, and the raw bytes of what routes it."""
        message = parse(CALL)
        assert isinstance(message, Request)
        self.assertEqual((message.id, message.method), (b"7", "tools/call"))
        self.assertEqual(message.members["name"], b'"a"')
        self.assertEqual(
            message.members["arguments"],
            b'{"n":1e400,"big":12345678901234567890,"N":0}',
        )
        self.assertEqual(dict(message.meta), {"progressToken": b'"p"', "x.y/z": b"[1]"})
        self.assertEqual(encode(message), CALL)

    def test_notification(self) -> None:
        """No id, no answer."""
        body = b'{"jsonrpc":"2.0","method":"notifications/initialized"}'
        self.assertEqual(parse(body), Notification("notifications/initialized"))

    def test_answers(self) -> None:
        """An answer to a question of the child: a result or an error."""
        self.assertEqual(
            parse(b'{"jsonrpc":"2.0","id":"q","result":{"a":[]}}'),
            Response(b'"q"', b'{"a":[]}'),
        )
        self.assertEqual(
            parse(b'{"jsonrpc":"2.0","id":1,"error":{"code":1,"message":""}}'),
            Response(b"1", None, b'{"code":1,"message":""}'),
        )

    def test_order_and_white_space_do_not_matter(self) -> None:
        """A pretty-printed message is the same message."""
        body = (
            b' \r{ "params" :\n{ } ,"method":"ping", "id" : "a b",\t"jsonrpc":"2.0"}\n'
        )
        self.assertEqual(parse(body), Request(b'"a b"', "ping", b"{ }"))

    def test_unknown_members_of_the_envelope_are_left_out(self) -> None:
        """The envelope that the child reads is ours."""
        message = parse(b'{"jsonrpc":"2.0","id":1,"method":"ping","x":{"Id":2}}')
        self.assertEqual(encode(message), b'{"jsonrpc":"2.0","id":1,"method":"ping"}')

    def test_null_params_are_absent_params(self) -> None:
        """Some libraries write what they leave out."""
        body = b'{"jsonrpc":"2.0","id":1,"method":"ping","params":null}'
        self.assertEqual(parse(body), Request(b"1", "ping"))
        body = b'{"jsonrpc":"2.0","id":1,"method":"ping","params":{"_meta":null}}'
        message = parse(body)
        assert isinstance(message, Request)
        self.assertEqual(message.meta, {})

    def test_huge_integers_are_kept_as_bytes(self) -> None:
        """A reader with floating-point numbers would change them."""
        digits = b"9" * 1000
        message = parse(b'{"jsonrpc":"2.0","id":' + digits + b',"method":"ping"}')
        assert isinstance(message, Request)
        self.assertEqual(message.id, digits)

    def test_what_is_not_json(self) -> None:
        """-32700, whatever the parser raised for it."""
        for body in (
            *(b"", b" ", b"{", b"nul", b"[", b'"', b"{}x", b'{"a":01}', b'{"a":NaN}'),
            *(b"\xef\xbb\xbf{}", b"\xff", b'{"a":"\xff"}', b'{"\xed\xa0\x80":1}'),
            *(b"{'a':1}", b'{"a":1,}', b'{"a":"\x00"}', b'{"a":"\n"}', b'{"a":"\\x"}'),
            *(b'{"a":"\\ud800"}', b"\x00", b'{"a":1}\x00'),
            *(b"[" * 10_000 + b"]" * 10_000, b'{"a":' * 10_000 + b"1" + b"}" * 10_000),
            b'{"a":' + b"[" * 10_000 + b"]" * 10_000 + b"}",
            CALL[:-1],
            CALL.decode().encode("utf-16"),
        ):
            error = refusal(body)
            self.assertEqual((error.code, error.id), (PARSE_ERROR, b"null"), body[:40])

    def test_what_is_not_a_message(self) -> None:
        """-32600 without an id, as none could be told."""
        for body in (
            *(b"{}", b"1", b"null", b'"a"', b"[]", b"[1]", b"true"),
            *(b'{"jsonrpc":"2.0"}', b'{"jsonrpc":"2.0","result":{}}'),
            *(b'{"jsonrpc":"2.0","id":null,"method":"a"}',),
            *(b'{"jsonrpc":"2.0","id":null,"error":{}}',),
        ):
            error = refusal(body)
            self.assertEqual((error.code, error.id), (INVALID_REQUEST, b"null"), body)

    def test_invalid_request_names_its_id(self) -> None:
        """The client can tell which of its requests was refused."""
        for rest in (
            *(
                b'"method":"a"',
                b'"jsonrpc":"1.0","method":"a"',
                b'"jsonrpc":2,"method":"a"',
            ),
            *(
                b'"jsonrpc":"2.0"',
                b'"jsonrpc":"2.0","method":1',
                b'"jsonrpc":"2.0","method":""',
            ),
            *(b'"jsonrpc":"2.0","method":"a\\u0000"', b'"jsonrpc":"2.0","method":null'),
            *(b'"jsonrpc":"2.0","method":"a","result":{}',),
            *(b'"jsonrpc":"2.0","result":{},"error":{}', b'"jsonrpc":"2.0","error":1'),
            b'"jsonrpc":"2.0","method":"' + b"a" * 300 + b'"',
        ):
            error = refusal(b'{"id":"i",' + rest + b"}")
            self.assertEqual((error.code, error.id), (INVALID_REQUEST, b'"i"'), rest)

    def test_ids_are_strings_or_integers(self) -> None:
        """JSON-RPC 2.0 section 4; MCP forbids null."""
        for id in (b"1.5", b"1.0", b"1e2", b"null", b"true", b"[]", b"{}"):
            error = refusal(b'{"jsonrpc":"2.0","id":' + id + b',"method":"a"}')
            self.assertEqual((error.code, error.id), (INVALID_REQUEST, b"null"), id)
        error = refusal(b'{"jsonrpc":"2.0","id":' + b"9" * 2000 + b',"method":"a"}')
        self.assertEqual(error.code, INVALID_REQUEST)
        for id in (b"0", b"-1", b'""', b'"\\u0000"', b'"1"'):
            message = parse(b'{"jsonrpc":"2.0","id":' + id + b',"method":"a"}')
            assert isinstance(message, Request)
            self.assertEqual(message.id, id)

    def test_unsuitable_params(self) -> None:
        """-32602: MCP's params are objects, and so is _meta."""
        for params in (
            *(b"[]", b"1", b'"a"', b"true", b'{"_meta":1}', b'{"_meta":[]}'),
            *(b'{"_meta":{"progressToken":null}}', b'{"_meta":{"progressToken":[]}}'),
        ):
            error = refusal(
                b'{"jsonrpc":"2.0","id":3,"method":"a","params":' + params + b"}"
            )
            self.assertEqual((error.code, error.id), (INVALID_PARAMS, b"3"), params)

    def test_ambiguous_keys(self) -> None:
        """
        In the message, params and _meta: a policy must read what the child reads
        (MCP says nothing; Go's decoder matches keys without regard to case).
        """
        for body in (
            b'{"jsonrpc":"2.0","id":1,"method":"ping","Method":"tools/call"}',
            b'{"jsonrpc":"2.0","id":1,"ID":1,"method":"ping"}',
            b'{"jsonrpc":"2.0","method":"ping","Id":1}',
            b'{"jsonrpc":"2.0","id":1,"method":"a","Params":{}}',
            b'{"jsonrpc":"2.0","id":1,"method":"a","param\xc5\xbf":{}}',
            b'{"jsonrpc":"2.0","id":1,"method":"a","params":{"Name":1}}',
            b'{"jsonrpc":"2.0","id":1,"method":"a","params":{"name":1,"\\u006eame":2}}',
            b'{"jsonrpc":"2.0","id":1,"method":"a","params":{"_Meta":{}}}',
            b'{"jsonrpc":"2.0","id":1,"method":"a","params":{"_meta":'
            b'{"progre\xc5\xbf\xc5\xbfToken":1}}}',
            b'{"jsonrpc":"2.0","id":1,"method":"a","params":{"_meta":{"a":1,"a":1}}}',
            b'{"jsonrpc":"2.0","id":1,"method":"a","params":{"_meta":'
            b'{"progressTo\xe2\x84\xaaen":1}}}',
        ):
            self.assertEqual(refusal(body).code, INVALID_REQUEST, body)

    @example(b"[1,")
    @given(st.binary(max_size=60))
    def test_junk_never_raises_anything_else(self, body: bytes) -> None:
        """Whatever arrives, the answer is a JSON-RPC error."""
        try:
            parse(body, allow_batch=True)
        except MessageError as error:
            self.assertIn("error", json.loads(error.to_bytes()))

    @given(json_values, st.integers(0, 2))
    def test_any_json_is_a_message_or_refused(self, value: object, place: int) -> None:
        """The same for what is JSON, as a whole, as params and as _meta."""
        params = value if place == 1 else {"_meta": value}
        whole = {"jsonrpc": "2.0", "id": 1, "method": "a", "params": params}
        body = json.dumps(value if place == 0 else whole).encode()
        try:
            message = parse(body)
        except MessageError as error:
            self.assertIn("error", json.loads(error.to_bytes()))
        else:
            if place:
                sent = json.loads(encode(message))
                self.assertEqual(
                    sent, {k: v for k, v in whole.items() if v is not None}
                )

    @given(
        st.dictionaries(st.from_regex(r"[b-y][0-9]{1,3}", fullmatch=True), json_values)
    )
    def test_params_pass_through_unchanged(self, value: dict[str, object]) -> None:
        """Numbers, key order and spelling arrive as they were sent."""
        params = json.dumps(value, indent=1).encode()
        body = b'{"params":' + params + b',"jsonrpc":"2.0","id":"x","method":"m"}'
        message = parse(body)
        assert isinstance(message, Request)
        self.assertEqual(message.params, params)
        self.assertEqual(list(message.members), list(value))
        self.assertIn(params, encode(message))


class BatchTests(SynchronousTestCase):
    """Arrays of messages, where the revision has them."""

    def test_each_message_for_itself(self) -> None:
        """JSON-RPC 2.0 section 6: an invalid one is answered for itself."""
        ping = b'{"jsonrpc":"2.0","id":1,"method":"ping"}'
        messages = parse(
            b" [" + ping + b' , 5, {"id":2},\n' + ping + b"]", allow_batch=True
        )
        assert isinstance(messages, tuple)
        self.assertEqual(messages[0], Request(b"1", "ping"))
        self.assertEqual(messages[3], Request(b"1", "ping"))
        refused = [one for one in messages if isinstance(one, MessageError)]
        self.assertEqual([error.id for error in refused], [b"null", b"2"])

    def test_unacceptable_batches(self) -> None:
        """Empty, too long, not JSON: one error for all."""
        for body, code in (
            (b"[]", INVALID_REQUEST),
            (b"[1" + b",1" * MAXIMUM_BATCH_MESSAGES + b"]", INVALID_REQUEST),
            (b"[1,]", PARSE_ERROR),
            (b"[" * 10_000, PARSE_ERROR),
        ):
            try:
                parse(body, allow_batch=True)
            except MessageError as error:
                self.assertEqual(error.code, code)
            else:
                self.fail("accepted")

    def test_single_message_where_batches_are_allowed(self) -> None:
        """Most messages come alone there, too."""
        self.assertIsInstance(parse(CALL, allow_batch=True), Request)
