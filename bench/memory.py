"""
What the broker has in memory: empty, with live sessions, after them, and at most while
it answers.
"""

import time
from collections.abc import Mapping, Sequence
from typing import Final

from bench.load import payload
from bench.processes import child_count, memory_of, until
from bench.report import say, table, title
from bench.targets import Broker, ModernBroker, Target

Headers = Mapping[str, str]
KIB: Final = 1024
SETTLE_SECONDS: Final = 1.0


def memory(broker: Broker, counts: Sequence[int]) -> None:
    """
    What live sessions take, each with a child that waits. What the first one takes is
    a row of its own: code that runs for the first time stays, however many follow.

    @param broker: runs, without sessions; it is started again.
    @param counts: how many sessions, from few to many.
    """
    title("memory of the broker, by live sessions")
    broker.restart()  # what it did before left its traces in the heap
    time.sleep(SETTLE_SECONDS)
    empty = broker.process.memory_kib()
    rows = [_row("empty", empty, "-", broker)]
    broker.close_session(broker.open_session())
    _settle(broker, 0)
    before = broker.process.memory_kib()
    rows.append(_row("after the first was closed", before, "-", broker))
    opened: list[Headers] = []
    try:
        for count in counts:
            opened += broker.open_sessions(count - len(opened))
            time.sleep(SETTLE_SECONDS)
            now = broker.process.memory_kib()
            each = f"{(now - before) / count:.1f} ({(now - empty) / count:.1f})"
            rows.append(_row(f"{count} live", now, each, broker))
    finally:
        broker.close_sessions(opened)
    _settle(broker, 0)
    closed = broker.process.memory_kib()
    rows.append(_row("after all were closed", closed, "-", broker))
    broker.close_sessions(broker.open_sessions(counts[-1] // 2))
    _settle(broker, 0)
    rows.append(
        _row("after half as many again", broker.process.memory_kib(), "-", broker)
    )
    heads = ["sessions", "MiB", "of it private", "KiB for each (from empty)"]
    table(heads, rows)
    say("")


def _settle(broker: Broker, children: int) -> None:
    until(lambda: child_count(broker.process.pid) <= children, "the children's end", 60)
    time.sleep(SETTLE_SECONDS)


def _row(name: str, resident: int, each: str, broker: Broker) -> list[str]:
    private = memory_of(broker.process.pid, "Private_Dirty")
    return [name, f"{resident / KIB:.1f}", f"{private / KIB:.1f}", each]


def peak(target: Target, size: int, rounds: int) -> float:
    """
    @param target: runs.
    @param size: of an answer, bytes.
    @param rounds: how many answers.
    @return: how much more than before the answer it had at most, as a multiple of it:
        of the worst one.
    @raise PermissionError: the system does not tell.
    """
    headers = target.open_session()
    worst = 0.0
    for _ in range(rounds):
        before = target.process.memory_kib()
        if not target.process.forget_peak():
            raise PermissionError("the peak cannot be set back")
        payload(target, headers, size)
        more = target.process.memory_kib("VmHWM") - before
        worst = max(worst, more * KIB / size)
    target.close_session(headers)
    return worst


def peaks(broker: Broker, sizes: Sequence[int], rounds: int) -> dict[str, float]:
    """
    @param broker: runs.
    @param sizes: of answers, bytes.
    @param rounds: how many of each.
    @return: the worst multiple, with a session and without one.
    """
    return {
        target.name: max(peak(target, size, rounds) for size in sizes)
        for target in (broker, ModernBroker(broker))
    }
