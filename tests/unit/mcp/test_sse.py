"""Server-sent events."""

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from fjmcp_broker.mcp.sse import KEEPALIVE, encode_event


def decode(stream: bytes) -> list[tuple[str | None, bytes | None, int | None]]:
    """
    The events of a stream as (id, data, retry), read as WHATWG HTML section 9.2.6
    says; data is None where a client would dispatch nothing.
    """
    events: list[tuple[str | None, bytes | None, int | None]] = []
    id: str | None = None
    retry: int | None = None
    data: list[bytes] = []
    fields = False
    for line in stream.replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")[:-1]:
        if not line:
            if fields:
                text = b"\n".join(data)
                events.append((id, text or None, retry))
            id, retry, data, fields = None, None, [], False
            continue
        name, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if name == b"data":
            data.append(value)
        elif name == b"id":
            id = value.decode()
        elif name == b"retry":
            retry = int(value)
        fields = fields or bool(name)
    return events


class EncodeEventTests(SynchronousTestCase):
    """What a client reads is what was said."""

    @given(st.text(st.characters(blacklist_categories=["Cs"])), st.integers(0, 9999))
    def test_decode_after_encode_is_identity(self, text: str, number: int) -> None:
        """Line ends of any kind arrive as newlines, all else as it was."""
        stream = encode_event(text.encode(), f"s-{number}") + encode_event(b"{}")
        expected = text.encode().replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        self.assertEqual(
            decode(stream),
            [(f"s-{number}", expected or None, None), (None, b"{}", None)],
        )

    def test_message_is_one_data_field(self) -> None:
        """The usual event, byte by byte."""
        self.assertEqual(encode_event(b'{"a":1}', "4-7"), b'id: 4-7\ndata: {"a":1}\n\n')

    def test_priming_event_has_an_id_and_no_data(self) -> None:
        """MCP 2025-11-25: an id to resume from before anything is said."""
        stream = encode_event(b"", "1-0", retry_milliseconds=500)
        self.assertEqual(decode(stream), [("1-0", None, 500)])

    def test_keepalive_is_no_event(self) -> None:
        """Clients ignore it."""
        self.assertEqual(decode(KEEPALIVE), [])

    def test_event_id_cannot_smuggle_a_field(self) -> None:
        """An id with a line end would end the field; NUL makes clients ignore it."""
        for bad in ("", "a\nb", "a\rb", "a\0b"):
            self.assertRaises(ValueError, encode_event, b"{}", bad)
