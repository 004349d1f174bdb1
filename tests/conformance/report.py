"""What came of the conformance runs: lines as they happen, and a table at the end."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import Final

from tests.conformance.expectations import Verdict

HEADINGS: Final = ("run", "scored", "not scored", "excused", "failed")


class Report:
    """
    Counts, and prints.

    @ivar failed: how many results were failures.
    """

    def __init__(self) -> None:
        self.failed = 0
        self._rows: list[tuple[str, ...]] = []

    def say(self, text: str) -> None:
        """
        Print a line now.
        """
        sys.stdout.write(f"{text}\n")
        sys.stdout.flush()

    def passed(self, name: str) -> None:
        """
        One result is good.
        """
        self.say(f"PASSED {name}")

    def fail(self, name: str, why: str) -> None:
        """
        One result is bad.
        """
        self.failed += 1
        first, *more = why.splitlines() or [""]
        self.say(f"FAILED {name}: {first}")
        for line in more:
            self.say(f"    {line}")

    def skip(self, name: str, why: str) -> None:
        """
        One result is missing.
        """
        self.say(f"SKIPPED {name}: {why}")

    def add(self, run: str, verdicts: Iterable[Verdict]) -> None:
        """
        Print the results of one run of the suite.
        """
        scored, others, excused, failed = [0, 0], [0, 0], 0, 0
        for verdict in verdicts:
            name = f"{run}: {verdict.outcome.scenario}"
            count = scored if verdict.scored else others
            count[1] += 1
            for warning in verdict.outcome.warnings:
                self.say(f"    warning of {name}: {warning}")
            if verdict.kind == "passed":
                count[0] += 1
                self.passed(name)
            elif verdict.kind == "excused":
                excused += 1
                self.skip(name, verdict.why)
            else:
                failed += 1
                self.fail(name, verdict.why)
        self._rows.append(
            (
                run,
                f"{scored[0]} of {scored[1]}",
                f"{others[0]} of {others[1]}",
                str(excused),
                str(failed),
            )
        )

    def text(self) -> str:
        """
        @return: the table.
        """
        rows = [HEADINGS, *self._rows]
        widths = [max(len(row[column]) for row in rows) for column in range(5)]
        lines = [
            "  ".join(row[column].ljust(widths[column]) for column in range(5))
            for row in rows
        ]
        return "".join(f"{line.rstrip()}\n" for line in lines)
