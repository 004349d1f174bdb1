"""
Tests with one line for each result, for whoever counts them::

    python -m tests.deploy.listed MODULE...

C{PASSED NAME}, C{FAILED NAME: WHY} or C{SKIPPED NAME: WHY}, and the tracebacks at the
end. Where there is no trial, only tests that need none can be run.
"""

from __future__ import annotations

import sys
import unittest
from types import TracebackType
from typing import Any, TextIO, TypeAlias

_Error: TypeAlias = (
    tuple[type[BaseException], BaseException, TracebackType] | tuple[None, None, None]
)


def line(kind: str, name: str, why: str = "") -> str:
    """
    @param kind: C{PASSED}, C{FAILED} or C{SKIPPED}.
    @param name: of the test.
    @param why: only the first line that says something is taken.
    @return: the line of a result.
    """
    lines = [text.strip() for text in why.splitlines() if text.strip()]
    return f"{kind} {name}: {lines[0][:300]}\n" if lines else f"{kind} {name}\n"


class ListedResult(unittest.TestResult):
    """
    Writes a line when a test is over.
    """

    def __init__(self, out: TextIO) -> None:
        super().__init__()
        self._out = out

    def _tell(self, kind: str, test: unittest.TestCase, why: str = "") -> None:
        self._out.write(line(kind, test.id(), why))
        self._out.flush()

    def addSuccess(self, test: unittest.TestCase) -> None:
        super().addSuccess(test)
        self._tell("PASSED", test)

    def addFailure(self, test: unittest.TestCase, err: _Error) -> None:
        super().addFailure(test, err)
        self._tell("FAILED", test, str(err[1]) or "an assertion")

    def addError(self, test: unittest.TestCase, err: _Error) -> None:
        super().addError(test, err)
        self._tell("FAILED", test, f"{getattr(err[0], '__name__', '')} {err[1]}")

    def addSkip(self, test: unittest.TestCase, reason: str) -> None:
        super().addSkip(test, reason)
        self._tell("SKIPPED", test, reason)

    def details(self) -> None:
        """
        Write the tracebacks, indented: none of their lines is taken for a result.
        """
        for test, text in self.failures + self.errors:
            indented = "".join(f"    {each}\n" for each in text.splitlines())
            self._out.write(f"-- {test.id()}\n{indented}")


class _Loader(unittest.TestLoader):
    """See L{without_empty_classes}."""

    def loadTestsFromTestCase(
        self, case: type[unittest.TestCase]
    ) -> unittest.TestSuite:
        return self.suiteClass([case(name) for name in self.getTestCaseNames(case)])


def without_empty_classes() -> unittest.TestLoader:
    """
    @return: takes a class without tests for what it is: trial's have C{runTest}.
    """
    return _Loader()


def load(modules: list[str]) -> Any:
    """
    @param modules: with tests.
    @return: their tests, under trial's observation where there is trial.
    """
    tests = without_empty_classes().loadTestsFromNames(modules)
    try:
        from twisted.trial.runner import TrialSuite
    except ImportError:
        return tests
    return TrialSuite([tests])


def main(modules: list[str]) -> int:
    """
    @param modules: with tests.
    @return: the exit status.
    """
    result = ListedResult(sys.stdout)
    load(modules).run(result)
    result.details()
    return 0 if result.wasSuccessful() and result.testsRun else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
