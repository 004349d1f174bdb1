"""docs/security.md: what it claims is tested is tested."""

import importlib
import re
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase, TestCase

from tests.security_page import (
    FORGEJO_MCP,
    PAGE,
    TOP,
    WITHOUT,
    linked_tests,
    main,
    problems,
    skipped_tests,
)

SKIPPING = """\
    test_works ...                                                         [OK]

===============================================================================
[SKIPPED]
promtool: it is not installed; see
how to get it

tests.real.test_metrics.MetricsTests.test_promtool
tests.real.test_metrics.MetricsTests.test_other
===============================================================================
[FAIL]
Traceback (most recent call last):

tests.real.test_metrics.MetricsTests.test_fails
-------------------------------------------------------------------------------
Ran 3 tests in 0.100s

FAILED (skips=2, failures=1)
"""


class LinkTests(SynchronousTestCase):
    """Links to tests."""

    def setUp(self) -> None:
        self.page = PAGE.read_text(encoding="utf-8")
        self.linked = linked_tests(self.page)

    def test_every_link_leads_to_a_collected_test(self) -> None:
        """The module is in a tier that CI runs; trial finds the test in it."""
        makefile = (TOP / "Makefile").read_text(encoding="utf-8")
        wrong = []
        for test in self.linked:
            tier = test.module.split(".")[1]
            case = getattr(importlib.import_module(test.module), test.case, None)
            if (
                not (isinstance(case, type) and issubclass(case, SynchronousTestCase))
                or not test.method.startswith("test_")
                or not callable(getattr(case, test.method, None))
                or getattr(case, "skip", None) is not None
                or getattr(getattr(case, test.method), "skip", None) is not None
                or not (tier in ("unit", "real") or test.module in makefile)
            ):
                wrong.append(test.name)
        self.assertEqual(wrong, [])
        self.assertGreater(len(self.linked), 150)
        self.assertTrue(issubclass(TestCase, SynchronousTestCase))

    def test_nothing_looks_like_a_link_and_is_none(self) -> None:
        """A link that is not understood would not be checked."""
        written = re.findall(r"\]\(\.\./tests/", self.page)
        self.assertEqual(len(written), len(self.linked))
        self.assertNotIn("{", self.page)

    def test_every_rule_has_a_test(self) -> None:
        """Every row of a table of attacks or requirements, unless it is skipped."""
        rows = 0
        columns = 0
        for line in self.page.splitlines():
            if line.startswith("|") and line.endswith("| tests |"):
                columns = line.count("|")
            elif not line.startswith("|"):
                columns = 0
            elif columns and not line.startswith("|---"):
                rows += 1
                self.assertTrue(linked_tests(line) or "**skipped**" in line, line)
        self.assertGreater(rows, 120)


class SkippedTests(SynchronousTestCase):
    """What a run of trial left out."""

    def test_names(self) -> None:
        """Of skipped tests alone, however long the reason is."""
        case = "tests.real.test_metrics.MetricsTests"
        self.assertEqual(
            skipped_tests(SKIPPING), {f"{case}.test_promtool", f"{case}.test_other"}
        )

    def test_skipped_test_of_the_page(self) -> None:
        """It is named, whatever the run itself said; others may be skipped."""
        self.assertEqual(problems([SKIPPING]), [])
        name = linked_tests(PAGE.read_text(encoding="utf-8"))[0].name
        text = SKIPPING.replace(
            "tests.real.test_metrics.MetricsTests.test_promtool", name
        )
        (problem,) = problems([SKIPPING, text])
        self.assertIn(name, problem)

    def test_skipped_for_the_want_of_forgejo_mcp(self) -> None:
        """That can be let pass, and nothing else."""
        name = linked_tests(PAGE.read_text(encoding="utf-8"))[0].name
        text = SKIPPING.replace(
            "tests.real.test_metrics.MetricsTests.test_promtool", name
        )
        self.assertEqual(len(problems([text], but_for=FORGEJO_MCP)), 1)
        text = text.replace("promtool: it is", f"{FORGEJO_MCP} 2.18.0:")
        self.assertEqual(problems([text], but_for=FORGEJO_MCP), [])
        self.assertEqual(len(problems([text])), 1)

    def test_program(self) -> None:
        """The option stands in front of the files."""
        log = self.mktemp()
        text = SKIPPING.replace("promtool: it is", f"{FORGEJO_MCP} 2.18.0:")
        name = linked_tests(PAGE.read_text(encoding="utf-8"))[0].name
        text = text.replace("tests.real.test_metrics.MetricsTests.test_promtool", name)
        Path(log).write_text(text, encoding="utf-8")
        with redirect_stdout(StringIO()), redirect_stderr(StringIO()) as said:
            self.assertEqual(main([WITHOUT, log]), 0)
            self.assertEqual(main([log]), 1)
            self.assertEqual(main([WITHOUT]), 1)
        self.assertIn(name, said.getvalue())

    def test_nothing_was_run(self) -> None:
        """That proves nothing."""
        for outputs in ([], ["Ran 0 tests in 0.000s\n"], [SKIPPING, ""]):
            self.assertEqual(len(problems(outputs)), 1)
