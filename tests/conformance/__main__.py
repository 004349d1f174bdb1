"""
The official conformance suite against a real daemon::

    python -m tests.conformance [--child KIND] [--revision R]
        [--scenario NAME] [--keep]

For every kind of child it starts the daemon, a stand-in Forgejo and a proxy that adds
the token of a real sign-in, runs what each revision requires, and checks every line
that the children read and wrote. It prints one line per result, C{PASSED}, C{FAILED}
or C{SKIPPED}, and exits 1 when one has failed.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
import traceback
from collections.abc import Sequence
from typing import Final

from twisted.internet.defer import Deferred
from twisted.internet.task import react

from tests.conformance.authorization import run_authorization
from tests.conformance.expectations import judge, not_the_brokers, reasons
from tests.conformance.report import Report
from tests.conformance.schemas import (
    Checker,
    Violation,
    read_records,
    schema_directory,
)
from tests.conformance.subject import CHILDREN, REVISIONS, Subject
from tests.conformance.suite import CannotInstallError, Suite, install

COUNTS: Final = {"2025-11-25": 30, "2026-07-28": 37}
"""How many scenarios count, so that none gets lost on the way."""
RUN_SECONDS: Final = 150.0


def options(arguments: Sequence[str]) -> argparse.Namespace:
    """
    @return: the options of the command line.
    """
    parser = argparse.ArgumentParser(prog="python -m tests.conformance")
    parser.add_argument("--child", choices=CHILDREN, action="append")
    parser.add_argument("--revision", choices=COUNTS, action="append")
    parser.add_argument("--scenario", help="only this one, and nothing else")
    parser.add_argument("--keep", action="store_true", help="keep results and log")
    parser.add_argument("--install", action="store_true", help="and do no more")
    return parser.parse_args(arguments)


class Runner:
    """All runs, and what came of them."""

    def __init__(self, suite: Suite, chosen: argparse.Namespace) -> None:
        self._suite = suite
        self._chosen = chosen
        self.report = Report()
        directory = schema_directory()
        self._checker = Checker(directory) if directory is not None else None

    async def run(self) -> None:
        """
        Run what was chosen, one kind of child after the other.
        """
        for child in self._chosen.child or CHILDREN:
            subject = Subject(child)
            began = time.monotonic()
            try:
                await self._subject(subject)
            except Exception:
                # The next kind of child is not to blame.
                self.report.fail(child, traceback.format_exc())
            finally:
                await subject.stop()
            self._records(subject)
            name = f"log of the daemon in front of {child}"
            if complaints := subject.complaints():
                self.report.fail(name, "\n".join(complaints))
            else:
                self.report.passed(name)
            if self._chosen.keep:
                log = subject.directory / "daemon.log"
                log.write_text(subject.log, "utf-8")
                self.report.say(f"kept: {subject.directory}")
            else:
                subject.forget()
            self.report.say(f"{child}: {time.monotonic() - began:.0f} s")

    async def _subject(self, subject: Subject) -> None:
        await subject.start()
        for revision in REVISIONS[subject.child]:
            if revision in (self._chosen.revision or COUNTS):
                await self._revision(subject, revision)
        if subject.child == "legacy" and not self._chosen.scenario:
            verdicts = await run_authorization(self._suite, subject)
            self.report.add("authorization server", verdicts)

    async def _revision(self, subject: Subject, revision: str) -> None:
        name = f"{revision} in front of {subject.child}"
        output = subject.directory / revision
        requirements = self._suite.requirements(revision)
        scenario = self._chosen.scenario
        outcomes, text = await self._suite.run(
            subject.proxy.url, revision, output, RUN_SECONDS, scenario
        )
        if self._chosen.keep:
            (subject.directory / f"{revision}.txt").write_text(text, "utf-8")
        excused = reasons(subject.child, revision) if scenario is None else {}
        verdicts = list(judge(requirements, outcomes, excused))
        self.report.add(name, verdicts)
        scored = len([verdict for verdict in verdicts if verdict.scored])
        if scenario is None and scored != COUNTS[revision]:
            self.report.fail(name, f"{scored} scored scenarios: {COUNTS[revision]}")

    def _records(self, subject: Subject) -> None:
        name = f"lines of the {subject.child} children"
        if self._checker is None:
            self.report.skip(name, "the schemas of MCP are not here")
            return
        lines = 0
        violations: list[Violation] = []
        for record in read_records(subject.records):
            lines += len(record)
            violations += self._checker.check(record)
        wrong, unused = not_the_brokers(subject.child, violations)
        texts = [str(violation) for violation in wrong]
        if not (self._chosen.revision or self._chosen.scenario):
            texts += [f"nothing is wrong at {place}" for place in sorted(unused)]
        if texts or not lines:
            self.report.fail(name, "\n".join(texts) or "nothing was recorded")
        else:
            self.report.passed(f"{name}: {lines}")


def main() -> None:
    """The program."""
    chosen = options(sys.argv[1:])
    try:
        suite = install()
    except CannotInstallError as error:
        broken = os.environ.get("CI") == "true" and not error.legitimate
        word = "FAILED" if broken else "SKIPPED"
        sys.stdout.write(f"{word} conformance suite: {error}\n")
        sys.exit(1 if broken else 0)
    if chosen.install:
        sys.stdout.write(f"{suite.package}\n")
        return

    async def everything(reactor: object) -> None:
        runner = Runner(suite, chosen)
        await runner.run()
        sys.stdout.write(runner.report.text())
        if runner.report.failed:
            raise SystemExit(1)

    react(lambda reactor: Deferred.fromCoroutine(everything(reactor)))


if __name__ == "__main__":
    main()
