"""
What is measured of several targets side by side.
"""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Final

from bench.load import Run, payload, run
from bench.report import Effort, interleaved, middle, say, table, title
from bench.targets import Target
from bench.wire import WireError

Headers = Mapping[str, str]
KIB: Final = 1024
MIB: Final = 1024 * 1024
ALONE: Final = 2
"""The broker's targets, with a session and without one."""

SIZES: Final = (KIB, 100 * KIB, MIB, 10 * MIB, 50 * MIB)


def _ratio(ours: float, other: float) -> str:
    return f"{other / ours:.2f}" if ours else "-"


def throughput(targets: Sequence[Target], effort: Effort) -> None:
    """
    Calls per second of 16 connections, on one session and on 16. Ratios are to the
    first target, measured in the same run.

    @param targets: they run.
    @param effort: how long.
    """
    for sessions in (1, 16):
        title(f"tools/call, {sessions} session(s), 16 connections")
        compare(targets, effort, sessions=sessions, connections=16)


def latency(targets: Sequence[Target], effort: Effort) -> None:
    """
    One call after another on one connection.

    @param targets: they run.
    @param effort: how long.
    """
    title("tools/call, one after another on one connection")
    compare(targets, effort, sessions=1, connections=1)


def compare(
    targets: Sequence[Target], effort: Effort, *, sessions: int, connections: int
) -> None:
    """
    The same load on all of them in turns; prints the table.

    @param targets: they run.
    @param effort: how long.
    @param sessions: of each.
    @param connections: shared out among them.
    """
    by_name = {target.name: target for target in targets}
    opened: dict[str, list[Headers]] = {}

    def measure(name: str) -> Run:
        target = by_name[name]
        if name not in opened:
            opened[name] = [dict(target.open_session()) for _ in range(sessions)]
        return run(target, opened[name], connections, effort.seconds)

    measured = interleaved(list(by_name), effort.rounds, measure)
    show_runs(measured, next(iter(by_name)))
    close_all(by_name, opened)


def show_runs(measured: Mapping[str, Sequence[Run]], first: str) -> None:
    ours = middle([each.rate for each in measured[first]]) if first in measured else 0
    rows = []
    for name, runs in measured.items():
        rate = middle([each.rate for each in runs])
        rows.append(
            [
                name,
                f"{rate:.0f}",
                _ratio(ours, rate),
                f"{1000 * middle([each.percentile(0.5) for each in runs]):.2f}",
                f"{1000 * middle([each.percentile(0.99) for each in runs]):.2f}",
                f"{middle([each.cpu_per_thousand for each in runs]):.3f}",
            ]
        )
    heads = ["target", "calls/s", "ratio", "p50 ms", "p99 ms", "CPU s per 1000"]
    table(heads, rows)


def close_all(
    targets: Mapping[str, Target], sessions: Mapping[str, Sequence[Headers]]
) -> None:
    for name, opened in sessions.items():
        for headers in opened:
            # One that has failed may be past all use.
            with suppress(OSError, WireError):
                targets[name].close_session(headers)


def sizes(targets: Sequence[Target], effort: Effort) -> None:
    """
    Answers of all sizes, and the memory that they take: how much more than before
    them the bridge had at most, as a multiple of the answer.

    @param targets: they run.
    @param effort: how long.
    """
    by_name = {target.name: target for target in targets}
    sessions: dict[str, Headers] = {}
    for size in SIZES:
        title(f"an answer of {size // KIB} KiB")

        def measure(name: str, size: int = size) -> tuple[float, float]:
            target = by_name[name]
            if name not in sessions:
                sessions[name] = target.open_session()
            before = target.process.memory_kib()
            is_known = target.process.forget_peak()
            calls = 20 if size < MIB else 5 if size == MIB else 1
            took = middle([payload(target, sessions[name], size) for _ in range(calls)])
            peak = target.process.memory_kib("VmHWM") - before if is_known else 0
            return took, peak * KIB / size

        # Some targets take most of a minute for one of the largest.
        rounds = 1 if size > 10 * MIB and len(targets) > ALONE else effort.rounds
        measured = interleaved(list(by_name), rounds, measure)
        for name in list(by_name):
            if name not in measured or len(measured[name]) < rounds:
                del by_name[name]  # it has failed, and may be past all use
                sessions.pop(name, None)
        first = next(iter(measured), None)
        ours = middle([took for took, _ in measured[first]]) if first else 0
        rows = []
        for name, results in measured.items():
            took = middle([took for took, _ in results])
            memory = middle([peak for _, peak in results])
            shown = f"{memory:.1f}" if size >= MIB and memory else "-"
            rows.append([name, f"{1000 * took:.1f}", _ratio(ours, took), shown])
        table(["target", "ms", "ratio", "peak / answer"], rows)
    close_all(by_name, {name: [headers] for name, headers in sessions.items()})


def side_by_side(
    targets: Sequence[Target], effort: Effort, wanted: Sequence[str]
) -> None:
    """
    Run the suites that compare.

    @param targets: they run; the first one is the broker.
    @param effort: how long.
    @param wanted: names of suites, all if there are none.
    """
    suites = {
        "throughput": partial(throughput, targets, effort),
        "latency": partial(latency, targets, effort),
        "sizes": partial(sizes, targets, effort),
    }
    for name, suite in suites.items():
        if not wanted or name in wanted:
            suite()
    say("")
