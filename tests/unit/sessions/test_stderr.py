"""A child's standard error on its way into the log."""

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.task import Clock
from twisted.logger import ILogObserver, LogEvent, Logger, formatEvent
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from fjmcp_broker.sessions.processes.stderr import LineBudget, StderrLines, StderrLog

SECRET = b"abcdefghijklmnop"


class StderrLinesTests(SynchronousTestCase):
    """Bounded, readable, without secrets."""

    def test_escape_sequences_are_removed(self) -> None:
        """Colours, titles and control characters do not reach a terminal."""
        lines = StderrLines(()).receive(
            b"\x1b[1;31mERROR\x1b[0m\tbad\r\n\x1b]0;title\x07ok\x07\n\n\x00\n"
        )
        self.assertEqual(lines, ["ERROR\tbad", "ok"])

    def test_long_lines_are_cut(self) -> None:
        """The rest of a long line is dropped, the next line is whole."""
        lines = StderrLines((), maximum_bytes=10)
        self.assertEqual(lines.receive(b"x" * 100), [])
        self.assertEqual(lines.receive(b"x" * 100 + b"\nnext\n"), ["x" * 10, "next"])

    def test_unfinished_line_comes_at_the_end(self) -> None:
        """What a crash cut off is still shown."""
        lines = StderrLines(())
        self.assertEqual(lines.receive(b"a\nb"), ["a"])
        self.assertEqual(lines.finish(), ["b"])
        self.assertEqual(lines.finish(), [])

    @given(
        before=st.binary(max_size=60),
        after=st.binary(max_size=60),
        cuts=st.lists(st.integers(0, 140), max_size=5),
        coloured=st.booleans(),
    )
    def test_secret_never_appears(
        self, before: bytes, after: bytes, cuts: list[int], coloured: bool
    ) -> None:
        """However the bytes were cut, and wherever the limit falls."""
        data = before + (b"\x1b[31m" * 9 if coloured else b"") + SECRET + after
        lines = StderrLines((SECRET,), maximum_bytes=40)
        seen = []
        start = 0
        for cut in sorted(cuts):
            seen += lines.receive(data[start:cut])
            start = max(start, cut)
        seen += lines.receive(data[start:]) + lines.finish()
        for line in seen:
            self.assertNotIn(SECRET[:9].decode(), line)
            self.assertLessEqual(len(line.encode()), 3 * 40)

    @given(st.binary(max_size=300), st.lists(st.integers(0, 300), max_size=6))
    def test_any_split_gives_the_same_lines(self, data: bytes, cuts: list[int]) -> None:
        """The lines do not depend on how the bytes were cut."""
        whole = StderrLines((), maximum_bytes=20)
        expected = whole.receive(data) + whole.finish()
        pieces = StderrLines((), maximum_bytes=20)
        seen = []
        start = 0
        for cut in sorted(cuts):
            seen += pieces.receive(data[start:cut])
            start = max(start, cut)
        seen += pieces.receive(data[start:]) + pieces.finish()
        self.assertEqual(seen, expected)


class LineBudgetTests(SynchronousTestCase):
    """Bursts pass, floods do not."""

    def test_flood_is_counted(self) -> None:
        """What was refused is known afterwards."""
        clock = Clock()
        budget = LineBudget(clock.seconds, burst=3, per_second=1)
        self.assertEqual([budget.allow() for _ in range(5)].count(True), 3)
        clock.advance(1)
        self.assertTrue(budget.allow())
        self.assertEqual(budget.take_suppressed(), 2)
        self.assertEqual(budget.take_suppressed(), 0)

    def test_log_tells_how_many_are_missing(self) -> None:
        """An operator sees that lines were left out, and the last one is kept."""
        events: list[LogEvent] = []
        clock = Clock()
        log = StderrLog("c1", (), clock.seconds)

        @implementer(ILogObserver)
        def keep(event: LogEvent) -> None:
            events.append(event)

        self.patch(log, "log", Logger(namespace="test", observer=keep))
        log.receive(b"".join(b"line %d\n" % n for n in range(100)))
        log.finish()
        texts = [formatEvent(event) for event in events]
        self.assertEqual(len(texts), 51)
        self.assertEqual(texts[-1], "child c1: 50 lines left out")
        self.assertEqual(log.last_line, "line 99")
