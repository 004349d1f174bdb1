"""What people read."""

import argparse
import time
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from fjmcp_broker.admin_commands import since
from fjmcp_broker.control.tables import COLUMNS, attempt, moment, table, text


class TableTests(SynchronousTestCase):
    """Tables and traces."""

    def test_columns_are_aligned(self) -> None:
        """The last one is not padded; nothing is a dash."""
        columns = [text("A", "a"), text("LONG", "b")]
        shown = table(columns, [{"a": "xyz", "b": None}, {"a": 0, "b": "w"}])
        self.assertEqual(shown, "A    LONG\nxyz  -\n0    w\n")

    def test_names_cannot_move_the_cursor(self) -> None:
        """Clients and users choose them."""
        shown = table(COLUMNS["clients"], [{"client_name": "\x1b[2J\nx"}])
        self.assertEqual(len(shown.splitlines()), 2)
        self.assertNotIn("\x1b", shown)

    def test_moments(self) -> None:
        """In UTC, and never."""
        self.assertEqual(moment(0), "1970-01-01 00:00Z")
        self.assertEqual(moment(None), "-")

    def test_attempt(self) -> None:
        """With all that is known, and with nearly nothing."""
        row: dict[str, Any] = {
            "trace": "abcdefgh",
            "status": "failed",
            "verdict": "No.",
            "advice": "",
            "client_name": None,
            "client_id": None,
            "login": None,
            "grant_id": None,
            "network": "unknown",
            "steps": [],
            "possibly_related": [],
        }
        self.assertIn("not known", attempt(row))
        step = {
            "at": 0,
            "name": "token",
            "outcome": "no",
            "detail": "why\x07",
            "milliseconds": 3,
            "network": "n",
        }
        full = {
            **row,
            "advice": "Do it.",
            "steps": [step],
            "possibly_related": [{"at": 0, "what": "/mcp: 401"}],
        }
        shown = attempt(full)
        for words in ("Do it.", "(why?), 3 ms, from n", "/mcp: 401"):
            self.assertIn(words, shown)


class SinceTests(SynchronousTestCase):
    """C{--since}."""

    def test_forms(self) -> None:
        """Durations before now, dates, times with and without a zone."""
        self.assertLess(abs(since("1h") - (time.time() - 3600)), 5)
        self.assertEqual(since("1970-01-02"), 86400)
        self.assertEqual(since("1970-01-01T01:00"), 3600)
        self.assertEqual(since("1970-01-01T01:00+01:00"), 0)
        for wrong in ("", "x", "yesterday", "2026-13-01", "-1d"):
            self.assertRaises(argparse.ArgumentTypeError, since, wrong)
