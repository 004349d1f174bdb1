"""What came of the conformance runs: lines as they happen, and a table at the end."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import Final, TextIO

from tests.conformance.expectations import Verdict

HEADINGS: Final = ("run", "scored", "not scored", "excused", "failed")


class Report:
    """
    Counts, and prints.

    @ivar failed: how many results were failures.
    """

    def __init__(self, out: TextIO | None = None) -> None:
        """
        @param out: where to print, standard output by default.
        """
        self.failed = 0
        self._out = out or sys.stdout
        self._rows: list[tuple[str, ...]] = []

    def say(self, text: str) -> None:
        """
        Print a line now.
        """
        self._out.write(f"{text}\n")
        self._out.flush()

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
        scored, others, failed = [0, 0], [0, 0], 0
        excused: dict[str, list[str]] = {}
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
                excused.setdefault(verdict.why, []).append(verdict.outcome.scenario)
            else:
                failed += 1
                self.fail(name, verdict.why)
        for reason, scenarios in excused.items():
            self.skip(f"{run}: {', '.join(scenarios)}", reason)
        self._rows.append(
            (
                run,
                f"{scored[0]} of {scored[1]}",
                f"{others[0]} of {others[1]}",
                str(sum(map(len, excused.values()))),
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
