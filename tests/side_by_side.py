"""
Tests in several processes at once, each an ordinary run of trial::

    python -W error -m tests.side_by_side --jobs 2 tests.real

Every process loads the same tests; whichever is free takes the next class. The classes
that take longest go first, so that none is left to one process at the end; those that
measure come last, in one process, when the others are done. What each process wrote
follows when all have ended, one after another; so does what took longest.
"""

from __future__ import annotations

import argparse
import fcntl
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final, TypeAlias
from unittest import TestResult

import attrs
from twisted.trial.reporter import TextReporter
from twisted.trial.runner import TestLoader, TrialRunner
from twisted.trial.unittest import TestSuite

import tests

SLOWEST: Final = 15
"""So many classes are named at the end."""

LONG: Final = "takes_long"
"""A class of tests in which this attribute is true is among the first."""

ALONE: Final = "runs_alone"
"""One in which this is true has the machine for itself: others would be in its way."""


Process: TypeAlias = "subprocess.Popen[bytes]"


@attrs.frozen
class Took:
    """
    A class of tests that was run.

    @ivar name: of the class.
    @ivar seconds: that it took.
    """

    name: str
    seconds: float


def groups(suite: Any) -> Iterator[tuple[str, TestSuite]]:
    """
    @param suite: as the loader of trial makes it, of any depth. C{Any}: a suite and a
        case have nothing in common for a type checker.
    @return: the name of each class of tests and its tests, in order; what is no class,
        such as a module that cannot be imported, is one by itself.
    """
    if not isinstance(suite, TestSuite):
        yield suite.id(), TestSuite([suite])
        return
    members = list(suite)
    classes = {type(member) for member in members}
    if members and len(classes) == 1 and not isinstance(members[0], TestSuite):
        (one,) = classes
        yield f"{one.__module__}.{one.__qualname__}", suite
        return
    for member in members:
        yield from groups(member)


def says(group: tuple[str, TestSuite], attribute: str) -> bool:
    """
    @param group: a class with its tests.
    @param attribute: C{LONG} or C{ALONE}.
    @return: whether it is true in the class.
    """
    return any(getattr(case, attribute, False) for case in group[1])


def in_order(found: Sequence[tuple[str, TestSuite]]) -> list[tuple[str, TestSuite]]:
    """
    @param found: classes with their tests.
    @return: the same, those first that say that they take long, and those last that
        say that they run alone.
    """
    return sorted(found, key=lambda group: (says(group, ALONE), not says(group, LONG)))


class Ticket:
    """
    Numbers, each given to one process only.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def take(self) -> int:
        """
        @return: 0, 1, 2 and so on.
        """
        with self._path.open("a+b") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            number = file.seek(0, os.SEEK_END)
            file.write(b".")
        return number


class SharedSuite(TestSuite):
    """
    Runs those of its classes that no other process has taken.
    """

    def __init__(
        self, found: Sequence[tuple[str, TestSuite]], place: Path, worker: int
    ) -> None:
        """
        @param found: in the order to run them.
        @param place: where the processes find each other.
        @param worker: number of this one; 0 runs what runs alone.
        """
        super().__init__(group for _name, group in found)
        self._names = [name for name, _group in found]
        self._shared = sum(not says(group, ALONE) for group in found)
        self._place = place
        self._worker = worker
        self.took: list[Took] = []

    def run(self, result: TestResult, debug: bool = False) -> TestResult:
        """
        Run a class, then the next one that is free.
        """
        members = list(self)
        ticket = Ticket(self._place / "ticket")
        # Each holds this lock as long as it shares; it goes with the process.
        with (self._place / "sharing").open("a") as sharing:
            fcntl.flock(sharing, fcntl.LOCK_SH)
            while (number := ticket.take()) < self._shared:
                self._run_one(members[number], number, result)
            fcntl.flock(sharing, fcntl.LOCK_UN)
            if self._worker == 0:
                fcntl.flock(sharing, fcntl.LOCK_EX)
                for number in range(self._shared, len(members)):
                    self._run_one(members[number], number, result)
        self._tell("no class of tests any more")
        return result

    def _run_one(self, member: Any, number: int, result: TestResult) -> None:
        self._tell(self._names[number])
        # The same in whichever process it runs, and after whatever.
        random.seed(tests.SEED)
        began = time.monotonic()
        member(result)
        self.took.append(Took(self._names[number], time.monotonic() - began))

    def _tell(self, where: str) -> None:
        (self._place / f"{self._worker}.diary").write_text(where)


def work(options: argparse.Namespace) -> int:
    """
    Be one of the processes.

    @return: the exit status.
    """
    place = Path(options.place)
    name = str(options.worker)
    loaded = TestLoader().loadByNames(options.names, recurse=True)
    suite = SharedSuite(in_order(list(groups(loaded))), place, options.worker)
    count = suite.countTestCases()
    runner = TrialRunner(
        TextReporter,
        workingDirectory=f"{options.temp_directory}_{name}",
        tracebackFormat="default",
    )
    result = runner.run(suite)
    told = {
        "loaded": count,
        "ran": result.testsRun,
        "took": [attrs.astuple(took) for took in suite.took],
    }
    (place / f"{name}.json").write_text(json.dumps(told))
    return 0 if result.wasSuccessful() else 1


def start(options: argparse.Namespace, place: Path, number: int) -> Process:
    """
    @param options: of the whole run.
    @param place: where the processes find each other.
    @param number: of the process.
    @return: one that works.
    """
    arguments = [
        *("--worker", str(number), "--place", str(place)),
        *("--temp-directory", options.temp_directory),
        *options.names,
    ]
    with (place / f"{number}.out").open("wb") as output:
        return subprocess.Popen(  # noqa: S603 - this program
            [sys.executable, "-W", "error", "-m", "tests.side_by_side", *arguments],
            stdout=output,
            stderr=subprocess.STDOUT,
        )


def share(options: argparse.Namespace) -> int:
    """
    Start the processes, wait for them, and show what they wrote; that also when told
    to end before they have.

    @return: the exit status; not 0 either when a test was run by none.
    """
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    with tempfile.TemporaryDirectory(prefix="side-by-side-") as directory:
        place = Path(directory)
        workers = [start(options, place, number) for number in range(options.jobs)]
        try:
            for worker in workers:
                worker.wait()
        finally:
            for worker in workers:
                worker.kill()
                worker.wait()
            for number, worker in enumerate(workers):
                show(place, number, worker.returncode)
        reports = [
            json.loads(path.read_text()) for path in sorted(place.glob("*.json"))
        ]
    complete = summary(reports)
    return 1 if any(worker.returncode for worker in workers) else complete


def show(place: Path, number: int, status: int) -> None:
    """
    Write what a process wrote.

    @param place: where that is.
    @param number: of the process.
    @param status: with which it ended.
    """
    text = (place / f"{number}.out").read_text(errors="replace")
    sys.stdout.write(f"-- process {number}\n{text}\n")
    if not (place / f"{number}.json").exists():
        diary = place / f"{number}.diary"
        where = diary.read_text() if diary.exists() else "loading"
        sys.stdout.write(f"process {number} ended with {status}, at: {where}\n")


def summary(reports: Sequence[dict[str, Any]]) -> int:
    """
    Tell what took longest, and whether every test was run.

    @param reports: what C{work} has written. C{Any}: JSON.
    @return: the exit status.
    """
    took = sorted(
        (Took(*each) for report in reports for each in report["took"]),
        key=lambda one: -one.seconds,
    )
    for one in took[:SLOWEST]:
        sys.stdout.write(f"{one.seconds:6.1f} s {one.name}\n")
    loaded = {report["loaded"] for report in reports}
    ran = sum(report["ran"] for report in reports)
    if not ran or loaded != {ran}:
        sys.stdout.write(f"{ran} tests were run, of {sorted(loaded)}\n")
        return 1
    return 0


def main() -> int:
    """
    @return: the exit status.
    """
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--temp-directory", default="_trial_temp")
    parser.add_argument("--worker", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--place", help=argparse.SUPPRESS)
    parser.add_argument("names", nargs="+")
    options = parser.parse_args()
    return share(options) if options.worker is None else work(options)


if __name__ == "__main__":
    sys.exit(main())
