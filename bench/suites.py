"""
What is measured of several targets side by side.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Final

import attrs

from bench.load import Run, payload, run
from bench.report import interleaved, middle, say, table, title
from bench.targets import Broker, Target

Headers = Mapping[str, str]
KIB: Final = 1024
MIB: Final = 1024 * 1024
SIZES: Final = (KIB, 100 * KIB, MIB, 10 * MIB, 50 * MIB)


@attrs.frozen
class Effort:
    """
    How long to measure.

    @ivar rounds: of each measurement of each target.
    @ivar seconds: of load in one round.
    """

    rounds: int
    seconds: float


def _ratio(ours: float, other: float) -> str:
    return f"{other / ours:.2f}" if ours else "-"


def throughput(targets: Sequence[Target], effort: Effort) -> None:
    """
    Calls per second of 16 connections, on one session and on 16. Ratios are to the
    first target, measured in the same run.

    @param targets: they run.
    @param effort: how long.
    """
    by_name = {target.name: target for target in targets}
    for sessions in (1, 16):
        title(f"tools/call, {sessions} session(s), 16 connections")
        opened: dict[str, list[Headers]] = {}

        def measure(
            name: str,
            sessions: int = sessions,
            opened: dict[str, list[Headers]] = opened,
        ) -> Run:
            target = by_name[name]
            if name not in opened:
                opened[name] = [dict(target.open_session()) for _ in range(sessions)]
            return run(target, opened[name], 16, effort.seconds)

        measured = interleaved(list(by_name), effort.rounds, measure)
        _show_runs(measured, next(iter(by_name)))
        _close(by_name, opened)


def latency(targets: Sequence[Target], effort: Effort) -> None:
    """
    One call after another on one connection.

    @param targets: they run.
    @param effort: how long.
    """
    title("tools/call, one after another on one connection")
    by_name = {target.name: target for target in targets}
    sessions = {name: [target.open_session()] for name, target in by_name.items()}
    measured = interleaved(
        list(by_name),
        effort.rounds,
        lambda name: run(by_name[name], sessions[name], 1, effort.seconds),
    )
    _show_runs(measured, next(iter(by_name)))
    _close(by_name, sessions)


def _show_runs(measured: Mapping[str, Sequence[Run]], first: str) -> None:
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


def _close(
    targets: Mapping[str, Target], sessions: Mapping[str, Sequence[Headers]]
) -> None:
    for name, opened in sessions.items():
        for headers in opened:
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
            target.process.forget_peak()
            took = payload(target, sessions[name], size)
            peak = target.process.memory_kib("VmHWM") - before
            return took, peak * KIB / size

        measured = interleaved(list(by_name), effort.rounds, measure)
        for name in list(by_name):
            if name not in measured or len(measured[name]) < effort.rounds:
                del by_name[name]  # it has failed, and may be past all use
                sessions.pop(name, None)
        first = next(iter(measured), None)
        ours = middle([took for took, _ in measured[first]]) if first else 0
        rows = []
        for name, results in measured.items():
            took = middle([took for took, _ in results])
            memory = middle([peak for _, peak in results])
            shown = f"{memory:.1f}" if size >= MIB else "-"
            rows.append([name, f"{1000 * took:.1f}", _ratio(ours, took), shown])
        table(["target", "ms", "ratio", "peak / answer"], rows)
    for name, headers in sessions.items():
        by_name[name].close_session(headers)


def memory(broker: Broker, counts: Sequence[int]) -> None:
    """
    What live sessions take, each with a child that waits.

    @param broker: runs, without sessions; it is started again.
    @param counts: how many sessions, from few to many.
    """
    title("memory of the broker, by live sessions")
    broker.restart()  # what it did before left its traces in the heap
    empty = broker.process.memory_kib()
    opened: list[Headers] = []
    rows = [["0", f"{empty / KIB:.1f}", "-"]]
    try:
        for count in counts:
            while len(opened) < count:
                opened.append(broker.open_session())
            now = broker.process.memory_kib()
            rows.append(
                [str(count), f"{now / KIB:.1f}", f"{(now - empty) / count:.1f}"]
            )
    finally:
        for headers in opened:
            broker.close_session(headers)
    rows.append(["closed again", f"{broker.process.memory_kib() / KIB:.1f}", "-"])
    table(["sessions", "MiB", "KiB for each"], rows)


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
