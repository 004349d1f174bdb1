"""
How long the event loop does nothing but one thing: between two waits for events.
"""

import json
import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Final

from bench.load import payload, run
from bench.processes import until
from bench.report import Effort, table, title
from bench.targets import Broker, ModernBroker, Target

_MIB: Final = 1024 * 1024
CONNECTIONS: Final = 16
LOADS: Final = (
    ("16 connections", 0),
    ("and 2 with answers of 100 KiB", 100 * 1024),
    ("and 2 with answers of 1 MiB", _MIB),
    ("and 2 with answers of 10 MiB", 10 * _MIB),
    ("and 2 with answers of 50 MiB", 50 * _MIB),
)
LONGER: Final = 2
"""Than other suites, for the sake of the 99.9th percentile."""

_LARGE_CALLERS: Final = 2


class Stalls:
    """
    Reads the durations that a wrapped broker has noted.
    """

    def __init__(self, directory: Path) -> None:
        """
        @param directory: for the file, empty.
        """
        directory.mkdir(parents=True, exist_ok=True)
        self._path = directory / "stalls.json"
        self.settings = {"BENCH_STALLS": str(self._path)}

    def take(self, pid: int) -> tuple[list[float], list[float]]:
        """
        @param pid: of the broker.
        @return: of the turns since the last time how long they were, and how long the
            thread worked in them: seconds, the shortest first.
        """
        self._path.unlink(missing_ok=True)
        os.kill(pid, signal.SIGUSR2)
        until(self._path.exists, "the durations of the turns", 20)
        turns: list[list[float]] = json.loads(self._path.read_text())
        walls, works = zip(*turns, strict=True) if turns else ((0.0,), (0.0,))
        return sorted(walls), sorted(works)


class _LargeCalls:
    """Calls with large answers, in threads of their own."""

    def __init__(self, target: Target, size: int) -> None:
        self._target = target
        self._size = size
        self._headers = target.open_session()
        self._is_over = threading.Event()
        self.answered = 0
        self.trouble: Exception | None = None
        self._threads = [
            threading.Thread(target=self._call) for _ in range(_LARGE_CALLERS)
        ]
        for thread in self._threads:
            thread.start()

    def _call(self) -> None:
        try:
            while not self._is_over.is_set():
                payload(self._target, self._headers, self._size)
                self.answered += 1
        except Exception as error:
            self.trouble = error

    def stop(self) -> None:
        self._is_over.set()
        for thread in self._threads:
            thread.join(120)
        self._target.close_session(self._headers)
        if self.trouble is not None:
            raise self.trouble


def stalls(make: Callable[..., Broker], directory: Path, effort: Effort) -> None:
    """
    Turns of the event loop under load.

    @param make: makes a broker in a directory, as L{Broker}'s.
    @param directory: for it, empty.
    @param effort: how long.
    """
    title("turns of the event loop")
    watched = Stalls(directory / "turns")
    broker = make(directory / "watched", settings=watched.settings, is_wrapped=True)
    rows = []
    try:
        for target in (broker, ModernBroker(broker)):
            sessions = [target.open_session() for _ in range(CONNECTIONS)]
            for name, size in LOADS:
                large = _LargeCalls(target, size) if size else None
                try:
                    watched.take(broker.process.pid)
                    run(target, sessions, CONNECTIONS, LONGER * effort.seconds)
                    turns, works = watched.take(broker.process.pid)
                finally:
                    if large is not None:
                        large.stop()
                rows.append(
                    [
                        target.name if size == 0 else "",
                        name,
                        str(len(turns)),
                        *(f"{1000 * percentile(turns, p):.2f}" for p in (0.5, 0.99)),
                        f"{1000 * percentile(turns, 0.999):.2f}",
                        f"{1000 * turns[-1]:.2f}",
                        *(f"{1000 * percentile(works, p):.2f}" for p in (0.99, 0.999)),
                        f"{1000 * works[-1]:.2f}",
                        str(large.answered) if large else "-",
                    ]
                )
            for headers in sessions:
                target.close_session(headers)
    finally:
        broker.stop()
    table(
        [
            "target",
            "load",
            "turns",
            "p50 ms",
            "p99",
            "p99.9",
            "longest",
            "CPU ms: p99",
            "p99.9",
            "longest",
            "large",
        ],
        rows,
    )


def percentile(values: list[float], part: float) -> float:
    """
    @param values: at least one, the smallest first.
    @param part: 0.5 for the median.
    @return: one of them.
    """
    return values[min(len(values) - 1, int(len(values) * part))]
