"""What clients say about themselves is read once, and judged each time."""

from collections.abc import Callable

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from fjmcp_broker.mcp import metas
from fjmcp_broker.mcp.messages import MessageError, Request, parse
from fjmcp_broker.mcp.metas import MAXIMUM_BYTES, META_NAMES, read_meta
from fjmcp_broker.mcp.scanner import read_object

META = b'{"io.modelcontextprotocol/protocolVersion":"2026-07-28","x":[1, 2]}'
PIECES = st.sampled_from(
    (
        b"{",
        b"}",
        b",",
        b" ",
        b"\xff",
        b'"a":1',
        b'"A":1',
        b'"\\u0061":2',
        b'"\\ud800":1',
        b'"progressToken":7',
        b'"io.modelcontextprotocol/logLevel":"x"',
    )
)


def outcome(reader: Callable[[bytes], object], data: bytes) -> object:
    """What it gives, or the kind of its refusal."""
    try:
        return reader(data)
    except Exception as error:
        return type(error), str(error)


class ReadTests(SynchronousTestCase):
    """Once and again."""

    def setUp(self) -> None:
        """Nothing is known."""
        metas._known.cache_clear()

    @given(st.lists(PIECES, max_size=8).map(b"".join))
    def test_same_as_without(self, data: bytes) -> None:
        """Whatever it is, and the second time, too."""
        expected = outcome(lambda each: read_object(each, META_NAMES), data)
        self.assertEqual(outcome(read_meta, data), expected)
        self.assertEqual(outcome(read_meta, data), expected)

    def test_read_once(self) -> None:
        """Also by another client that says the same; and nobody can change it."""
        first, second = read_meta(META), read_meta(bytes(bytearray(META)))
        self.assertIs(first, second)
        self.assertFalse(hasattr(first, "__setitem__"))

    def test_not_remembered(self) -> None:
        """What is long, or of one request only, takes nobody's place."""
        read_meta(b'{"x":"' + b"y" * MAXIMUM_BYTES + b'"}')
        for number in range(10):
            read_meta(b'{"progressToken":%d}' % number)
        self.assertEqual(metas._known.cache_info().currsize, 0)

    def test_refusal_names_its_request(self) -> None:
        """The same mistake in another request is the mistake of that one."""
        meta = b'{"x":1,"X":2}'
        for id in (b"1", b'"two"'):
            body = b'{"jsonrpc":"2.0","id":%b,"method":"m","params":{"_meta":%b}}'
            with self.assertRaises(MessageError) as caught:
                parse(body % (id, meta))
            self.assertEqual(caught.exception.id, id)

    def test_in_a_message(self) -> None:
        """As any other member."""
        body = b'{"jsonrpc":"2.0","id":1,"method":"m","params":{"_meta":%b}}' % META
        for _ in range(2):
            message = parse(body)
            assert isinstance(message, Request)
            self.assertEqual(message.meta, read_object(META, META_NAMES))
