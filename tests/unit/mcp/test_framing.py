"""Bytes to lines."""

import json
import sys
import time

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from fjmcp_broker.mcp.framing import FramingError, LineFramer, frame

MIB = 1024 * 1024
PIECE = 8 * 1024


def seconds_for(size: int) -> float:
    """How long a line of a size takes, in pieces as a pipe gives them."""
    piece = b"x" * PIECE
    framer = LineFramer()
    begin = time.perf_counter()
    for _ in range(size // PIECE):
        framer.receive(piece)
    lines = framer.receive(b"\n")
    spent = time.perf_counter() - begin
    assert [len(line) for line in lines] == [size]
    return spent


class LineFramerTests(SynchronousTestCase):
    """The same bytes give the same lines however they were cut."""

    @given(
        st.lists(st.sampled_from([b"a", b"\r", b"\n", b" ", b"\xc3\xa9", b"{}"])),
        st.data(),
    )
    def test_any_split_gives_the_same_lines(
        self, parts: list[bytes], data: st.DataObject
    ) -> None:
        """A message does not depend on how the pipe delivered it."""
        stream = b"".join(parts)
        expected = [
            line.removesuffix(b"\r")
            for line in stream.split(b"\n")[:-1]
            if line.removesuffix(b"\r").strip()
        ]
        cuts = data.draw(st.lists(st.integers(0, len(stream))).map(sorted))
        framer = LineFramer()
        lines: list[bytes] = []
        for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
            lines += framer.receive(stream[start:end])
        self.assertEqual(lines, expected)
        rest = stream[stream.rfind(b"\n") + 1 :]
        self.assertEqual(framer.buffered_bytes, len(rest))

    @given(st.integers(0, 12), st.data())
    def test_limit_does_not_depend_on_the_split(
        self, size: int, data: st.DataObject
    ) -> None:
        """A line of the limit passes, one byte more does not, cut anywhere."""
        for ending in (b"\n", b"\r\n"):
            stream = b"x" * size + ending
            cuts = data.draw(st.lists(st.integers(0, len(stream))).map(sorted))
            framer = LineFramer(8)
            lines: list[bytes] = []
            try:
                for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
                    lines += framer.receive(stream[start:end])
            except FramingError:
                self.assertGreater(size, 8)
            else:
                self.assertLessEqual(size, 8)
                self.assertEqual(lines, [b"x" * size] if size else [])

    def test_several_messages_in_one_piece(self) -> None:
        """Two lines and the begin of a third in one read."""
        framer = LineFramer()
        self.assertEqual(framer.receive(b"{1}\n{2}\r\n\n  \r\n{3"), [b"{1}", b"{2}"])
        self.assertEqual(framer.receive(b"}\n"), [b"{3}"])

    def test_unfinished_line_is_refused_while_it_grows(self) -> None:
        """A peer that never ends its line does not fill the memory."""
        framer = LineFramer(8)
        framer.receive(b"x" * 8)
        self.assertRaises(FramingError, framer.receive, b"xx")
        self.assertEqual(framer.buffered_bytes, 0)

    def test_nothing_is_read_after_an_overlong_line(self) -> None:
        """Where the next message begins is unknown, so the stream is over."""
        framer = LineFramer(8)
        self.assertRaises(FramingError, framer.receive, b"123456789\n{}\n")
        self.assertRaises(FramingError, framer.receive, b"{}\n")

    def test_time_is_linear_in_the_size(self) -> None:
        """
        Twice the bytes take about twice the time: a tool's answer may be 100 MiB.
        Joining at every piece would take four times. Both sizes are below the one
        from which on the system gives memory back at once, which takes time as well.
        """
        best = min(
            seconds_for(24 * MIB) / max(seconds_for(12 * MIB), 1e-6) for _ in range(5)
        )
        self.assertLess(best, 3)

    def test_hundred_mebibytes_in_small_pieces(self) -> None:
        """The largest line that a child may write arrives whole and soon."""
        self.assertLess(seconds_for(100 * MIB), 5)

    def test_single_bytes_are_kept_together(self) -> None:
        """A peer that writes byte by byte costs no more memory than another."""
        framer = LineFramer()
        text = bytes(range(33, 127)) * 500
        for byte in text:
            self.assertEqual(framer.receive(bytes((byte,))), [])
        self.assertEqual(framer.buffered_bytes, len(text))
        self.assertLess(sys.getsizeof(framer._rest), 2 * len(text))
        self.assertEqual(framer.receive(b"\n"), [text])


class FrameTests(SynchronousTestCase):
    """A message becomes one line."""

    def test_line_ends_between_values_become_spaces(self) -> None:
        """A client may pretty-print; the child reads line by line."""
        line = frame(b'{\n "a": 1\r\n}')
        self.assertEqual(line, b'{  "a": 1  }\n')
        self.assertEqual(len(LineFramer().receive(line)), 1)

    def test_nothing_inside_is_a_line(self) -> None:
        """However a program tells lines, one that hides in a message is none."""
        for end in (b"\n", b"\r", b"\r\n", b"\n\r"):
            line = frame(b'{"a":' + end + b'{"method":"x"}' + end + b"}")
            self.assertEqual(len(line.splitlines()), 1)
            self.assertEqual(json.loads(line), {"a": {"method": "x"}})

    def test_one_line_is_kept(self) -> None:
        """Nothing but the ending is added."""
        self.assertEqual(frame(b'{"a":"\\n"}'), b'{"a":"\\n"}\n')
