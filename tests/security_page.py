"""
The links of C{docs/security.md} to tests.

As a program it is given the output of runs of trial, and fails when a test that the
page relies on was skipped there.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Final

import attrs

TOP: Final = Path(__file__).resolve().parent.parent
PAGE: Final = TOP / "docs" / "security.md"
WITHOUT: Final = "--without-forgejo-mcp"
FORGEJO_MCP: Final = "real forgejo-mcp"
"""How the reason begins for which tests of it are skipped."""

_LINK: Final = re.compile(r"\[([^\]]+)\]\(\.\./tests/([\w/]+)\.py#(\w+)\.(\w+)\)")
_SKIPPED: Final = re.compile(
    r"^\[SKIPPED\]\n(.*?)(?=^\[|^Ran |^={20,}|^-{20,})", re.M | re.S
)
_NAME: Final = re.compile(r"^tests\.[\w.]+$", re.M)
_RAN: Final = re.compile(r"^Ran [1-9][0-9]* tests? in ", re.M)


@attrs.frozen
class LinkedTest:
    """
    A test that the page names.

    @ivar text: of the link.
    @ivar module: full name.
    @ivar case: its class.
    @ivar method: its name.
    """

    text: str
    module: str
    case: str
    method: str

    @property
    def name(self) -> str:
        """
        @return: as trial writes it.
        """
        return f"{self.module}.{self.case}.{self.method}"


def linked_tests(page: str) -> list[LinkedTest]:
    """
    @param page: its text.
    @return: what it links, in order, each as often as it does.
    """
    return [
        LinkedTest(text, f"tests.{path.replace('/', '.')}", case, method)
        for text, path, case, method in _LINK.findall(page)
    ]


def skipped_tests(output: str, but_for: str | None = None) -> set[str]:
    """
    @param output: of runs of trial with its text reporter.
    @param but_for: leave out what was skipped for a reason that begins with this.
    @return: full names of the tests that were skipped.
    """
    return {
        name
        for block in _SKIPPED.findall(output)
        if but_for is None or not block.startswith(but_for)
        for name in _NAME.findall(block)
    }


def problems(outputs: list[str], but_for: str | None = None) -> list[str]:
    """
    @param outputs: of runs of trial, which together ran every test that is linked.
    @param but_for: a reason to skip tests that is no problem.
    @return: one sentence for each thing that is wrong.
    """
    if not outputs or not all(map(_RAN.search, outputs)):
        return ["no run of trial to look at"]
    linked = {test.name for test in linked_tests(PAGE.read_text(encoding="utf-8"))}
    skipped = set().union(*(skipped_tests(each, but_for) for each in outputs))
    return [
        f"docs/security.md relies on a test that was skipped: {name}"
        for name in sorted(linked & skipped)
    ]


def main(arguments: list[str]) -> int:
    """
    @param arguments: files with the output of runs of trial, and in front of them
        C{--without-forgejo-mcp} where that cannot be had.
    @return: the exit status.
    """
    is_without = arguments[:1] == [WITHOUT]
    found = problems(
        [
            Path(log).read_text(encoding="utf-8", errors="replace")
            for log in arguments[is_without:]
        ],
        but_for=FORGEJO_MCP if is_without else None,
    )
    for problem in found:
        sys.stderr.write(f"{problem}\n")
    sys.stdout.write(f"{len(found)} problems with the tests of docs/security.md\n")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
