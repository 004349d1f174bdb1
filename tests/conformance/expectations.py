"""
What may fail, and why: C{expected_failures.toml}.

Only scenarios that do not count may stand there. One that passes must not: then the
file is out of date.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Final

import attrs

from tests.conformance.record import READ
from tests.conformance.schemas import Violation
from tests.conformance.suite import Outcome, Requirements

FILE: Final = Path(__file__).parent / "expected_failures.toml"

Reasons = Mapping[str, str]


@attrs.frozen
class Verdict:
    """
    What one scenario means for the tier.

    @ivar kind: C{passed}, C{failed} or C{excused}.
    @ivar why: of a failure or an excuse.
    """

    outcome: Outcome
    scored: bool
    kind: str
    why: str = ""


def reasons(child: str, revision: str, path: Path = FILE) -> Reasons:
    """
    @param child: the kind of child.
    @return: the reasons by scenario: those of the revision, and those of the revision
        with this child only.
    """
    table = tomllib.loads(path.read_text("utf-8")).get(revision, {})
    own = table.get("only", {}).get(child, {})
    every = {name: text for name, text in table.items() if isinstance(text, str)}
    return {**every, **own}


def not_the_brokers(
    child: str, violations: Iterable[Violation], path: Path = FILE
) -> tuple[list[Violation], set[str]]:
    """
    Leave out what the suite sends wrong on purpose and a child of the same revision
    gets as it came.

    @param child: the kind of child.
    @return: the other violations, and the places of the file that none was at.
    """
    table = tomllib.loads(path.read_text("utf-8")).get("sent-wrong", {})
    places: Reasons = table.get(child, {})
    unused, kept = set(places), []
    for violation in violations:
        place = next((one for one in places if violation.place.startswith(one)), None)
        if violation.line.way == READ and place is not None:
            unused.discard(place)
        else:
            kept.append(violation)
    return kept, unused


def judge(
    requirements: Requirements, outcomes: Mapping[str, Outcome], excused: Reasons
) -> Iterator[Verdict]:
    """
    @param outcomes: by scenario.
    @param excused: why a scenario may fail.
    @return: a verdict per scenario, and a failed one per entry that has no use.
    """
    for scenario, outcome in outcomes.items():
        scored = scenario in requirements.scored
        reason = excused.get(scenario)
        if outcome.passed:
            if reason is None:
                yield Verdict(outcome, scored, "passed")
            else:
                why = "it passes: remove it from the expected failures"
                yield Verdict(outcome, scored, "failed", why)
        elif reason is not None and not scored:
            yield Verdict(outcome, scored, "excused", reason)
        else:
            yield Verdict(outcome, scored, "failed", "; ".join(outcome.failures))
    for scenario in excused:
        if scenario not in outcomes or scenario in requirements.scored:
            why = "an expected failure that is no unscored scenario"
            yield Verdict(Outcome(scenario, (why,)), False, "failed", why)
