"""Messages that are plainly written: read faster, and judged no other way."""

import json

from hypothesis import example, given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from fjmcp_broker.mcp import messages
from fjmcp_broker.mcp.messages import MessageError, parse
from fjmcp_broker.mcp.plain import (
    MAXIMUM_METHOD_CHARACTERS,
    plain_names,
    read_plain,
)

_CALL = b'{"jsonrpc":"2.0","id":7,"method":"m","params":{"name":"a"}}'

_NAMES = (
    "jsonrpc",
    "id",
    "method",
    "params",
    "result",
    "error",
    "Method",
    "ID",
    "m\\u0065thod",
    "par\\u0061ms",
    "param\u017f",
    "other",
)
_VALUES = (
    '"2.0"',
    '"2\\u002e0"',
    '"tools/call"',
    '"tools\\/call"',
    '"é"',
    '""',
    '"\\u0000"',
    "1",
    "-0",
    "01",
    "1.0",
    "null",
    "true",
    "{}",
    "[]",
    '{"name":"a"}',
    '{"name":"a","Name":"b"}',
    f'"{"x" * (MAXIMUM_METHOD_CHARACTERS + 1)}"',
    f'"{"i" * 1024}"',
)
_MEMBER = st.tuples(st.sampled_from(_NAMES), st.sampled_from(_VALUES))
_USUAL = st.tuples(
    st.just(("jsonrpc", '"2.0"')),
    st.tuples(st.just("id"), st.sampled_from(_VALUES)),
    st.tuples(st.just("method"), st.sampled_from(_VALUES)),
    st.tuples(st.just("params"), st.sampled_from(_VALUES)),
)
_MEMBERS = st.one_of(
    st.lists(_MEMBER, max_size=6),
    st.tuples(_USUAL, st.lists(_MEMBER, max_size=2)).map(lambda p: [*p[0], *p[1]]),
).flatmap(st.permutations)
_GAPS = st.one_of(
    st.just([""] * 30),
    st.lists(st.sampled_from(("", "", " ", "\n")), min_size=30, max_size=30),
)


def outcome(body: bytes) -> str:
    """What becomes of a body."""
    try:
        return repr(parse(body))
    except MessageError as error:
        return f"{error.code} {error.message} {error.id!r}"


class PlainTests(SynchronousTestCase):
    """Whatever is sent."""

    @settings(max_examples=500)
    @given(_MEMBERS, _GAPS)
    @example([("method", '"a"'), ("jsonrpc", '"2.0"'), ("method", '"b"')], [""] * 30)
    @example([("jsonrpc", '"2.0"'), ("method", '"a"'), ("Method", '"b"')], [""] * 30)
    def test_as_without_it(
        self, members: list[tuple[str, str]], gaps: list[str]
    ) -> None:
        """What is read, and what is refused and why, is the same."""
        gap = iter(gaps)
        text = ",".join(
            f'{next(gap)}"{name}"{next(gap)}:{next(gap)}{value}{next(gap)}'
            for name, value in members
        )
        body = f"{{{text}}}".encode()
        plainly = outcome(body)
        without = self.patch(messages, "read_plain", lambda body: None)
        try:
            self.assertEqual(plainly, outcome(body))
        finally:
            without.restore()

    def test_what_is_plain(self) -> None:
        """Most of what clients send is read at once."""
        self.assertEqual(read_plain(_CALL), (b"7", "m", b'{"name":"a"}'))
        note = b'{"method":"n","jsonrpc":"2.0"}'
        self.assertEqual(read_plain(note), (None, "n", None))
        for other in (
            _CALL + b" ",
            _CALL.replace(b":7", b": 7"),
            _CALL.replace(b'"m"', b'"\\u006d"'),
            _CALL.replace(b'"method"', b'"method":"m","method"'),
            _CALL.replace(b'"id"', b'"Id"'),
            _CALL.replace(b":7", b":null"),
            _CALL.replace(b'"m"', b'""'),
            b'{"jsonrpc":"2.0","id":7,"result":{}}',
            b"[]",
            b"{",
        ):
            self.assertIsNone(read_plain(other), other)

    @given(
        st.dictionaries(st.text(max_size=4), st.integers() | st.text(), max_size=4),
        st.booleans(),
        st.booleans(),
    )
    def test_names(
        self, members: dict[str, object], spaced: bool, repeats: bool
    ) -> None:
        """They are told only of an object that has each of them once."""
        separators = (", ", ": ") if spaced else (",", ":")
        data = json.dumps(members, separators=separators, ensure_ascii=False).encode()
        if repeats and members:
            data = data[:-1] + b"," + data[1:]
        names = plain_names(data)
        if names is not None:
            self.assertFalse((spaced and members) or (repeats and members))
            self.assertEqual(list(names), list(members))
        self.assertIsNone(plain_names(b"[1]"))
        self.assertIsNone(plain_names(b"{"))
        self.assertEqual(list(plain_names(b'{"a":1,"b":{}}') or ()), ["a", "b"])
