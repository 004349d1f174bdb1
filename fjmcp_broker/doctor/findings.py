"""What the doctor says."""

import json
import textwrap
from collections.abc import Iterable, Sequence
from enum import StrEnum, unique
from typing import Final

import msgspec


@unique
class Status(StrEnum):
    """
    How much a finding matters.
    """

    OK = "ok"
    INFO = "info"
    SKIPPED = "skipped"
    WARNING = "warning"
    FAILED = "failed"


class Finding(msgspec.Struct, frozen=True):
    """
    One thing that was looked at.

    @ivar check: a short name that stays the same, for scripts.
    @ivar status: how it is.
    @ivar summary: one sentence; nothing secret.
    @ivar fix: what to do about it; C{None} when there is nothing to do.
    """

    check: str
    status: Status
    summary: str
    fix: str | None = None


def ok(check: str, summary: str) -> Finding:
    """
    @param check: its name.
    @param summary: what is good.
    @return: the finding.
    """
    return Finding(check, Status.OK, summary)


def failed(check: str, summary: str, fix: str) -> Finding:
    """
    @param check: its name.
    @param summary: what is wrong.
    @param fix: what to do.
    @return: the finding.
    """
    return Finding(check, Status.FAILED, summary, fix)


def warning(check: str, summary: str, fix: str) -> Finding:
    """
    @param check: its name.
    @param summary: what could be better.
    @param fix: what to do.
    @return: the finding.
    """
    return Finding(check, Status.WARNING, summary, fix)


def skipped(check: str, summary: str) -> Finding:
    """
    @param check: its name.
    @param summary: why it was not looked at.
    @return: the finding.
    """
    return Finding(check, Status.SKIPPED, summary)


_MARKS: Final = {
    Status.OK: "ok     ",
    Status.INFO: "note   ",
    Status.SKIPPED: "skipped",
    Status.WARNING: "WARNING",
    Status.FAILED: "FAILED ",
}
_WIDTH: Final = 88
_INDENT: Final = " " * 9


def is_well(findings: Iterable[Finding]) -> bool:
    """
    @param findings: all of them.
    @return: whether none of them keeps people from working.
    """
    return all(finding.status is not Status.FAILED for finding in findings)


def as_text(finding: Finding) -> str:
    """
    @param finding: one of them.
    @return: lines for people, with a line end.
    """
    line = f"{_MARKS[finding.status]}  {finding.check}: {finding.summary}"
    lines = _wrap(line)
    if finding.fix is not None:
        lines += _wrap(f"{_INDENT}-> {finding.fix}")
    return "\n".join(lines) + "\n"


def _wrap(line: str) -> list[str]:
    # Links stay whole, so that they can be copied.
    return textwrap.wrap(
        line,
        _WIDTH,
        subsequent_indent=_INDENT,
        break_long_words=False,
        break_on_hyphens=False,
    )


def verdict(findings: Sequence[Finding]) -> str:
    """
    @param findings: all of them.
    @return: the last line for people.
    """
    wrong = sum(finding.status is Status.FAILED for finding in findings)
    doubtful = sum(finding.status is Status.WARNING for finding in findings)
    if wrong:
        return f"\n{wrong} failed, {doubtful} warnings.\n"
    return f"\nAll is well, {doubtful} warnings.\n"


def as_json(findings: Sequence[Finding], version: str) -> str:
    """
    @param findings: all of them.
    @param version: of this software.
    @return: one JSON object: C{ok}, C{version}, C{checks} with C{check}, C{status},
        C{summary} and C{fix}.
    """
    checks = [
        {
            "check": finding.check,
            "status": str(finding.status),
            "summary": finding.summary,
            "fix": finding.fix,
        }
        for finding in findings
    ]
    document = {"ok": is_well(findings), "version": version, "checks": checks}
    return json.dumps(document, indent=2) + "\n"
