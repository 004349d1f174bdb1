"""The workflow of the forge: it does what C{.ci/run} does, on every change."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Final

from ruamel.yaml import YAML
from twisted.trial.unittest import SynchronousTestCase

TOP: Final = Path(__file__).parents[3]
WORKFLOW: Final = TOP / ".forgejo" / "workflows" / "ci.yml"
OPTIONS: Final = ("-qq", "-y", "--no-install-recommends")


def installed(commands: str) -> set[str]:
    """
    @param commands: of a shell.
    @return: the packages that C{apt-get install} is given.
    """
    joined = commands.replace("\\\n", " ")
    found = re.findall(r"apt-get install (.*)", joined)
    return {name for names in found for name in names.split()} - set(OPTIONS)


def packages_of_the_checks() -> set[str]:
    """
    @return: what C{.ci/run} and the scripts of the deployment install by themselves.
    """
    text = (TOP / ".ci" / "run").read_text(encoding="utf-8")
    names = " ".join(re.findall(r"^[A-Z_]*PACKAGES=\((.*?)\)", text, re.M | re.S))
    for script in (TOP / "tests" / "deploy").glob("check*"):
        joined = script.read_text(encoding="utf-8").replace("\\\n", " ")
        names += " " + " ".join(re.findall(r"^ *need (.*)$", joined, re.M))
    return set(names.split())


class WorkflowTests(SynchronousTestCase):
    """C{.forgejo/workflows/ci.yml}."""

    def setUp(self) -> None:
        """Read it."""
        # Any: what a workflow may hold is the forge's business.
        self.workflow: Any = YAML(typ="safe", pure=True).load(WORKFLOW)
        (self.job,) = self.workflow["jobs"].values()

    def commands(self) -> list[str]:
        """
        @return: what its steps run.
        """
        return [step["run"] for step in self.job["steps"] if "run" in step]

    def test_every_push_and_every_pull_request(self) -> None:
        """No branch and no path is left out, else a required check never comes."""
        self.assertEqual(self.workflow["on"], {"push": None, "pull_request": None})

    def test_runs_the_same_checks(self) -> None:
        """The one command that contributors run, after the sources are there."""
        self.assertIn(".ci/run", self.commands())
        order = [step.get("run", step.get("uses", "")) for step in self.job["steps"]]
        checkout = [place for place, text in enumerate(order) if "checkout@" in text]
        self.assertLess(checkout, [order.index(".ci/run")])

    def test_nothing_is_taken_lightly(self) -> None:
        """No step may fail, none is left out, and there is time for all of it."""
        for item in (self.job, *self.job["steps"]):
            self.assertNotIn("continue-on-error", item)
        for step in self.job["steps"]:
            self.assertIn(step.get("if", "always()"), ("always()",))
        self.assertNotIn("if", self.job)
        self.assertGreaterEqual(self.job["timeout-minutes"], 45)

    def test_installs_what_the_checks_need(self) -> None:
        """So that a missing package shows in the step that says so."""
        given = set[str]().union(*map(installed, self.commands()))
        needed = packages_of_the_checks()
        self.assertIn("chromium", needed)
        self.assertIn("podman", needed)
        self.assertEqual(needed - given, set())
        self.assertEqual(given - needed, set())

    def test_actions_have_an_address(self) -> None:
        """A short name means something else on each forge."""
        for step in self.job["steps"]:
            self.assertRegex(step.get("uses", "https://x/y@v1"), r"^https://.+@v\d+$")

    def test_the_context_that_is_required(self) -> None:
        """What CONTRIBUTING.md has people enter is what Forgejo makes of the names."""
        (job,) = self.workflow["jobs"]
        page = (TOP / "CONTRIBUTING.md").read_text(encoding="utf-8")
        name = f"{self.workflow['name']} / {self.job.get('name', job)}"
        self.assertIn(f"`{name} (pull_request)`", page)
        self.assertIn(f"`{self.job['runs-on']}`", page)

    def test_the_badge_is_of_this_workflow(self) -> None:
        """The README shows how the last run on main went."""
        readme = (TOP / "README.md").read_text(encoding="utf-8")
        self.assertIn(f"badges/workflows/{WORKFLOW.name}/badge.svg", readme)
