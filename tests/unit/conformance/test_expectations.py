"""What may fail, and what the suite's results mean."""

import json
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.conformance.expectations import FILE, judge, not_the_brokers, reasons
from tests.conformance.record import READ, WRITTEN
from tests.conformance.schemas import Line, Violation
from tests.conformance.suite import Outcome, parse_requirements, read_outcomes

YAML = """\
# A comment, with the word server: in it.
server:
  - one
  - two

client:
  - three

not_scored:
  - scenario: four
    leg: client
    reason: extension
  - scenario: five
    leg: server
    reason: pending
    note: >-
      why
"""
REQUIREMENTS = parse_requirements("2026-07-28", YAML)


class RequirementsTests(SynchronousTestCase):
    """The suite's own list."""

    def test_only_the_part_about_servers(self) -> None:
        """Scored and unscored ones, not those of clients."""
        self.assertEqual(REQUIREMENTS.scored, ("one", "two"))
        self.assertEqual(REQUIREMENTS.unscored, ("five",))


class OutcomeTests(SynchronousTestCase):
    """The directory that the suite writes."""

    def test_failures_and_warnings(self) -> None:
        """Each with its id; a scenario without a result has failed."""
        output = Path(self.mktemp())
        checks = [
            {"id": "a", "status": "SUCCESS", "description": "good"},
            {"id": "b", "status": "WARNING", "description": "meant well"},
            {"id": "c", "status": "FAILURE", "description": "", "errorMessage": "bad"},
        ]
        directory = output / "server-one-2026-11-21T08-00-00-000Z"
        directory.mkdir(parents=True)
        (directory / "checks.json").write_text(json.dumps(checks))
        outcomes = read_outcomes(output, REQUIREMENTS)
        self.assertEqual(
            outcomes["one"], Outcome("one", ("c: bad",), ("b: meant well",))
        )
        self.assertEqual(set(outcomes), {"one", "two", "five"})
        self.assertFalse(outcomes["two"].passed)


def kinds(*failing: str, excused: tuple[str, ...] = ()) -> dict[str, str]:
    """
    @param failing: scenarios that fail.
    @param excused: the scenarios of the file.
    @return: the kind of the last verdict on each.
    """
    outcomes = {
        name: Outcome(name, ("bad",) if name in failing else ())
        for name in ("one", "two", "five")
    }
    verdicts = judge(REQUIREMENTS, outcomes, dict.fromkeys(excused, "a reason"))
    return {verdict.outcome.scenario: verdict.kind for verdict in verdicts}


class JudgementTests(SynchronousTestCase):
    """What counts has to pass; the rest has to pass or have a reason."""

    def test_all_pass(self) -> None:
        """Nothing else to say."""
        self.assertEqual(set(kinds().values()), {"passed"})

    def test_failures(self) -> None:
        """One that counts, and one without a reason."""
        found = kinds("one", "five")
        self.assertEqual(found, {"one": "failed", "two": "passed", "five": "failed"})

    def test_an_unscored_failure_with_a_reason(self) -> None:
        """It is excused."""
        self.assertEqual(kinds("five", excused=("five",))["five"], "excused")

    def test_a_scored_failure_has_no_excuse(self) -> None:
        """A reason in the file changes nothing."""
        self.assertEqual(kinds("one", excused=("one",))["one"], "failed")

    def test_an_entry_that_passes(self) -> None:
        """The file has to be kept up to date."""
        self.assertEqual(kinds(excused=("five",))["five"], "failed")

    def test_an_entry_that_is_nothing(self) -> None:
        """A misspelt name, or one that the suite no longer has."""
        self.assertEqual(kinds(excused=("six",))["six"], "failed")

    def test_entries_for_one_kind_of_child(self) -> None:
        """They are added to those of the revision."""
        path = Path(self.mktemp())
        path.write_text(
            '["2026-07-28"]\na = "x"\n["2026-07-28".only.sdk]\nb = "y"\n', "utf-8"
        )
        self.assertEqual(reasons("sdk", "2026-07-28", path), {"a": "x", "b": "y"})
        self.assertEqual(reasons("legacy", "2026-07-28", path), {"a": "x"})
        self.assertEqual(reasons("legacy", "2025-11-25", path), {})

    def test_the_real_file(self) -> None:
        """It can be read, and each reason is a sentence."""
        for revision in ("2025-11-25", "2026-07-28"):
            for child in ("legacy", "dual", "sdk"):
                for reason in reasons(child, revision, FILE).values():
                    self.assertGreater(len(reason.split()), 5)


class SentWrongTests(SynchronousTestCase):
    """The suite sends some messages that are wrong on purpose."""

    def test_only_what_the_child_read_at_that_place(self) -> None:
        """What it wrote, and other places, stay violations."""
        path = Path(self.mktemp())
        path.write_text('[sent-wrong.dual]\n"params/a" = "x"\n"params/b" = "y"\n')
        sent = Violation(Line("p", READ, "{}"), "wrong", "params/a/0")
        elsewhere = Violation(Line("p", READ, "{}"), "wrong", "params/c")
        written = Violation(Line("p", WRITTEN, "{}"), "wrong", "params/a/0")
        violations = [sent, elsewhere, written]
        kept, unused = not_the_brokers("dual", violations, path)
        self.assertEqual(kept, [elsewhere, written])
        self.assertEqual(unused, {"params/b"})
        self.assertEqual(not_the_brokers("legacy", violations, path)[0], violations)
