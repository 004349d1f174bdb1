"""The lines and the table of the conformance runs."""

import io

from twisted.trial.unittest import SynchronousTestCase

from tests.conformance.expectations import Verdict
from tests.conformance.report import Report
from tests.conformance.suite import Outcome


class ReportTests(SynchronousTestCase):
    """What the integration script counts, and what a person reads."""

    def test_lines_and_table(self) -> None:
        """One line per result; those with the same excuse share one."""
        written = io.StringIO()
        report = Report(written)
        report.add(
            "run",
            [
                Verdict(Outcome("a", (), ("hm",)), True, "passed"),
                Verdict(Outcome("b", ("bad",)), True, "failed", "bad\nworse"),
                Verdict(Outcome("c", ("bad",)), False, "excused", "why"),
                Verdict(Outcome("d", ("bad",)), False, "excused", "why"),
            ],
        )
        self.assertEqual(
            written.getvalue().splitlines(),
            [
                "    warning of run: a: hm",
                "PASSED run: a",
                "FAILED run: b: bad",
                "    worse",
                "SKIPPED run: c, d: why",
            ],
        )
        self.assertEqual(report.failed, 1)
        self.assertEqual(
            report.text().splitlines(),
            [
                "run  scored  not scored  excused  failed",
                "run  1 of 2  0 of 2      2        1",
            ],
        )
