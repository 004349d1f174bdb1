"""One line for each result of the deployment's checks."""

import unittest
from io import StringIO

from twisted.trial.unittest import SynchronousTestCase

from tests.deploy.listed import ListedResult, line, without_empty_classes


class Examples(unittest.TestCase):
    """What there is to tell; only run below."""

    def passes(self) -> None:
        """Fine."""

    def fails(self) -> None:
        """Two lines of reason."""
        self.fail("the first\nthe second")

    def raises(self) -> None:
        """Something unexpected."""
        raise ValueError("no value")

    def skips(self) -> None:
        """With a reason."""
        self.skipTest("not here")


class ListedTests(SynchronousTestCase):
    """What is written, and counted."""

    def told(self, name: str) -> str:
        """
        @return: all that a run of one example writes.
        """
        out = StringIO()
        result = ListedResult(out)
        Examples(name).run(result)
        result.details()
        return out.getvalue()

    def test_passed(self) -> None:
        """The name alone."""
        name = f"{__name__}.Examples.passes"
        self.assertEqual(self.told("passes"), f"PASSED {name}\n")

    def test_failed(self) -> None:
        """The reason in one line; the traceback is no line of a result."""
        for name, why in (("fails", "the first"), ("raises", "ValueError no value")):
            lines = self.told(name).splitlines()
            self.assertEqual(lines[0], f"FAILED {__name__}.Examples.{name}: {why}")
            self.assertEqual(lines[1], f"-- {__name__}.Examples.{name}")
            self.assertTrue(all(each.startswith("    ") for each in lines[2:]))

    def test_skipped(self) -> None:
        """With the reason."""
        name = f"{__name__}.Examples.skips"
        self.assertEqual(self.told("skips"), f"SKIPPED {name}: not here\n")

    def test_long_reasons(self) -> None:
        """They are cut; without a reason there is no colon."""
        self.assertEqual(len(line("FAILED", "x", "y" * 1000)), 311)
        self.assertEqual(line("FAILED", "x", " \n"), "FAILED x\n")

    def test_class_without_tests(self) -> None:
        """Of trial's, which have C{runTest}, nothing is run."""
        loader = without_empty_classes()
        self.assertEqual(
            loader.loadTestsFromTestCase(SynchronousTestCase).countTestCases(), 0
        )
        self.assertEqual(loader.loadTestsFromTestCase(ListedTests).countTestCases(), 5)
