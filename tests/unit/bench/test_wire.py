"""Tests of what the load harness takes for an answer."""

import json

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from bench.echo_child import answer
from bench.wire import (
    Answer,
    Reader,
    Repeated,
    WireError,
    check_call,
    check_large_call,
)

_BODY = b'{"jsonrpc":"2.0","id":7,"result":{"content":[{"type":"text","text":"hi"}]}}'
_EVENTS = b"id: a-1\ndata: \n\nevent: message\nid: a-2\ndata: " + _BODY + b"\n\n"


def _cut(data: bytes, places: list[int]) -> list[bytes]:
    ends = sorted({min(place, len(data)) for place in places} | {len(data)})
    starts = [0, *ends[:-1]]
    return [data[a:b] for a, b in zip(starts, ends, strict=True) if a < b]


def _whole(pieces: list[bytes]) -> list[Answer]:
    reader = Reader()
    answers = [reader.receive(piece) for piece in pieces]
    return [each for each in answers if each is not None]


class ReaderTests(SynchronousTestCase):
    """HTTP answers, however they were cut."""

    @given(st.lists(st.integers(1, 300)))
    def test_length(self, places: list[int]) -> None:
        """A body of a known length."""
        head = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(_BODY)
        (whole,) = _whole(_cut(head + _BODY, places))
        self.assertEqual((whole.status, whole.message()), (200, _BODY))

    @given(st.lists(st.integers(1, 300)), st.lists(st.integers(1, 100)))
    def test_chunks(self, places: list[int], chunks: list[int]) -> None:
        """An event stream in chunks: the last message counts."""
        data = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
        data += b"Transfer-Encoding: chunked\r\n\r\n"
        for chunk in _cut(_EVENTS, chunks):
            data += b"%x\r\n%b\r\n" % (len(chunk), chunk)
        (whole,) = _whole(_cut(data + b"0\r\n\r\n", places))
        self.assertEqual((whole.body, whole.message()), (_EVENTS, _BODY))

    def test_two(self) -> None:
        """One answer after another on a connection; none has a body."""
        reader = Reader()
        for status in (202, 204):
            head = b"HTTP/1.1 %d Fine\r\nContent-Length: 0\r\n\r\n" % status
            whole = reader.receive(head)
            assert whole is not None
            self.assertEqual((whole.status, whole.body), (status, b""))

    def test_too_much(self) -> None:
        """More than was announced is an error."""
        with self.assertRaises(WireError):
            Reader().receive(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nab")


class CheckTests(SynchronousTestCase):
    """Which answers count."""

    def test_own(self) -> None:
        """The answer to the request."""
        check_call(Answer(200, {}, _BODY), 7, "hi")
        check_call(Answer(200, {}, _BODY), 7, None)

    def test_others(self) -> None:
        """Another id, another text, an error, another status."""
        error = b'{"jsonrpc":"2.0","id":7,"error":{"code":-1,"message":"no"}}'
        for status, body, id, text in (
            (200, _BODY, 8, "hi"),
            (200, _BODY, 7, "ho"),
            (200, error, 7, "hi"),
            (500, _BODY, 7, "hi"),
        ):
            with self.assertRaises(WireError):
                check_call(Answer(status, {}, body), id, text)

    def test_large(self) -> None:
        """A large one is not parsed: its id has to be at one of its ends."""
        body = _BODY.replace(b"hi", b"x" * 100_000)
        check_large_call(Answer(200, {}, body), 7, 100_000)
        with self.assertRaises(WireError):
            check_large_call(Answer(200, {}, body), 8, 100_000)
        with self.assertRaises(WireError):
            check_large_call(Answer(200, {}, body), 7, 100_001)


class ChildTests(SynchronousTestCase):
    """The child of the harness."""

    def test_call(self) -> None:
        """A call is answered with its text."""
        for id in (7, "a"):
            params = {"name": "echo", "arguments": {"text": "so"}}
            request = {"id": id, "method": "tools/call", "params": params}
            said = json.loads(answer(json.dumps(request).encode()))
            self.assertEqual(said["id"], id)
            self.assertEqual(said["result"]["content"][0]["text"], "so")

    def test_others(self) -> None:
        """What else a bridge may ask is answered, notifications are not."""
        note = b'{"jsonrpc":"2.0","method":"notifications/initialized"}'
        self.assertEqual(answer(note), b"")
        listed = json.loads(answer(b'{"id":1,"method":"tools/list"}'))
        self.assertEqual(len(listed["result"]["tools"]), 2)
        self.assertIn("error", json.loads(answer(b'{"id":1,"method":"what"}')))


class RepeatedTests(SynchronousTestCase):
    """Bytes that are the same but for a number."""

    @given(
        st.integers(10**11, 10**12 - 1), st.integers(10**11, 10**12 - 1), st.binary()
    )
    def test_number(self, first: int, second: int, ends: bytes) -> None:
        """With another number they are what they would be with that one."""

        def said(id: int, text: int) -> bytes:
            return b'%b{"id":%d,"text":"of %d"}%b' % (ends, id, text, ends)

        repeated = Repeated(said(first, first), b"%d" % first)
        number = b"%d" % second
        self.assertEqual(repeated.with_number(number), said(second, second))
        self.assertTrue(repeated.is_with_number(said(second, second), number))

    def test_difference(self) -> None:
        """Anything else that differs is seen."""
        repeated = Repeated(b'{"id":111,"text":"111"}', b"111")
        for other in (
            b'{"id":222,"text":"111"}',
            b'{"id":111,"text":"222"}',
            b'{"id":222,"text":"222"',
            b'{"id":222,"text":"222"} ',
            b'{"id":333,"text":"333"}',
            b"",
        ):
            self.assertFalse(repeated.is_with_number(other, b"222"), other)

    def test_none(self) -> None:
        """Without the number nothing is it, or any answer would be right."""
        self.assertFalse(Repeated(b"{}", b"111").is_with_number(b"{}", b"222"))
