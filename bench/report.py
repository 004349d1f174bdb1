"""
Medians of interleaved rounds, and tables of them.
"""

from collections.abc import Callable, Sequence
from statistics import median
from typing import TypeVar

import attrs

from bench.processes import load_average

T = TypeVar("T")


@attrs.frozen
class Effort:
    """
    How long to measure.

    @ivar rounds: of each measurement of each target.
    @ivar seconds: of load in one round.
    """

    rounds: int
    seconds: float


def interleaved(
    names: Sequence[str], rounds: int, measure: Callable[[str], T]
) -> dict[str, list[T]]:
    """
    Measure A B A B, and every other round B A, so that what the machine does beside
    is shared by all.

    @param names: what there is to measure.
    @param rounds: how often.
    @param measure: measures one of them once; what raises is left out from then on,
        with a line that says why.
    @return: for each name what was measured, in order.
    """
    measured: dict[str, list[T]] = {name: [] for name in names}
    failed: set[str] = set()
    for number in range(rounds):
        for name in names if number % 2 == 0 else reversed(names):
            if name in failed:
                continue
            try:
                measured[name].append(measure(name))
            except Exception as error:
                failed.add(name)
                say(f"    {name} failed: {type(error).__name__}: {str(error)[:160]}")
    return {name: each for name, each in measured.items() if each}


def say(text: str) -> None:
    """
    @param text: a line for whoever runs the bench.
    """
    print(text, flush=True)  # noqa: T201 - it is what the program is for


def title(text: str) -> None:
    """
    @param text: what is measured now; the load of the machine is added.
    """
    say(f"\n## {text} (load average {load_average():.1f})\n")


def middle(values: Sequence[float]) -> float:
    """
    @param values: at least one.
    @return: their median.
    """
    return float(median(values))


def table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """
    Print a table in Markdown.

    @param heads: of the columns.
    @param rows: the cells.
    """
    widths = [
        max(len(cell) for cell in column) for column in zip(heads, *rows, strict=True)
    ]
    for row in (heads, ["-" * width for width in widths], *rows):
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        say(f"| {' | '.join(cells)} |")
