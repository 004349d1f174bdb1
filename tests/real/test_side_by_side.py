"""Tests in several processes: each is run once, and nothing goes unnoticed."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Final

from twisted.trial.unittest import SynchronousTestCase

TOP: Final = Path(__file__).parents[2]

GOOD: Final = """
import os
import time
from pathlib import Path
from twisted.trial.unittest import SynchronousTestCase

class FirstTests(SynchronousTestCase):
    def test_one(self):
        time.sleep(0.3)
    def test_two(self):
        pass

class SecondTests(SynchronousTestCase):
    takes_long = True
    def test_one(self):
        # The other process has begun, too.
        while len(list(Path(os.environ["PLACES"]).glob("*/*.diary"))) < 2:
            time.sleep(0.01)

class AloneTests(SynchronousTestCase):
    runs_alone = True
    def test_alone(self):
        diaries = Path(os.environ["PLACES"]).glob("*/*.diary")
        names = [path.read_text() for path in diaries]
        self.assertNotIn("sample.test_good.SecondTests", names)
        self.assertEqual(names.count("sample.test_good.AloneTests"), 1)

class ThirdTests(SynchronousTestCase):
    def test_not_here(self):
        self.skipTest("it is not here")
"""
BAD: Final = """
from twisted.trial.unittest import SynchronousTestCase

class BadTests(SynchronousTestCase):
    def test_bad(self):
        self.assertEqual(1, 2)
"""
ENDING: Final = """
import os
from twisted.trial.unittest import SynchronousTestCase

class EndingTests(SynchronousTestCase):
    def test_end(self):
        os._exit(0)
"""


class SideBySideTests(SynchronousTestCase):
    """C{python -m tests.side_by_side}."""

    timeout = 60

    def setUp(self) -> None:
        """A package of tests."""
        self.directory = Path(self.mktemp()).absolute()
        self.package = self.directory / "sample"
        self.package.mkdir(parents=True)
        (self.package / "__init__.py").write_text("")
        self.places = self.directory / "places"
        self.places.mkdir()
        (self.package / "test_good.py").write_text(GOOD)

    def go(self, jobs: int = 2) -> tuple[int, str]:
        """
        @return: the exit status, and the output.
        """
        done = subprocess.run(  # noqa: S603 - this interpreter
            [
                *(sys.executable, "-m", "tests.side_by_side", "--jobs", str(jobs)),
                *("--temp-directory", str(self.directory / "temp"), "sample"),
            ],
            env={
                **os.environ,
                "PYTHONPATH": f"{self.directory}{os.pathsep}{TOP}",
                "PYTHONDONTWRITEBYTECODE": "1",
                "TMPDIR": str(self.places),
                "PLACES": str(self.places),
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        return done.returncode, done.stdout

    def ran(self, output: str) -> int:
        """
        @return: how many tests the processes ran together.
        """
        return sum(map(int, re.findall(r"^Ran (\d+) tests? in ", output, re.M)))

    def test_each_once(self) -> None:
        """Two processes share them; the summaries are trial's."""
        status, output = self.go()
        self.assertEqual(status, 0, output)
        self.assertEqual(self.ran(output), 5)
        self.assertEqual(len(re.findall("^PASSED", output, re.M)), 2, output)
        self.assertRegex(output, r"(?m)^\[SKIPPED\]\nit is not here\n")
        self.assertRegex(output, r"(?m)^ +\d+\.\d s sample\.test_good\.SecondTests$")

    def test_more_processes_than_tests(self) -> None:
        """Those without a test have nothing to say."""
        status, output = self.go(6)
        self.assertEqual((status, self.ran(output)), (0, 5), output)

    def test_a_failure(self) -> None:
        """It is in the output, and the run has failed."""
        (self.package / "test_bad.py").write_text(BAD)
        status, output = self.go()
        self.assertEqual((status, self.ran(output)), (1, 6), output)
        self.assertRegex(output, r"(?m)^sample\.test_bad\.BadTests\.test_bad$")

    def test_a_module_that_cannot_be_imported(self) -> None:
        """The same."""
        (self.package / "test_bad.py").write_text("import nothing_of_that_name\n")
        status, output = self.go()
        self.assertEqual(status, 1, output)
        self.assertIn("nothing_of_that_name", output)

    def test_a_process_that_ends(self) -> None:
        """A test that was begun and has no result is a failure, and is named."""
        (self.package / "test_ending.py").write_text(ENDING)
        status, output = self.go()
        self.assertEqual(status, 1, output)
        self.assertIn("at: sample.test_ending.EndingTests", output)

    def test_no_tests(self) -> None:
        """A run that runs nothing has not passed."""
        (self.package / "test_good.py").write_text("")
        self.assertEqual(self.go()[0], 1)
