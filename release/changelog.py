"""The changelog: collected from its fragments once, and found again for the release."""

import re
from pathlib import Path
from typing import Final

from release import versions
from release.commands import ReleaseError, run

PAGE: Final = Path("CHANGELOG.md")
FRAGMENTS: Final = Path("changelog.d")

_TITLE: Final = re.compile(r"^## (\S+) \((\d{4}-\d{2}-\d{2})\)$", re.MULTILINE)


def fragments(top: Path) -> list[str]:
    """
    @param top: of the repository.
    @return: the names of what is not collected yet.
    """
    return sorted(path.name for path in (top / FRAGMENTS).glob("*.md"))


def notes(top: Path, number: str) -> str | None:
    """
    @param top: of the repository.
    @param number: of a version.
    @return: what the changelog says of it, with its title, or None.
    """
    text = (top / PAGE).read_text(encoding="utf-8")
    titles = [*_TITLE.finditer(text)]
    ends = [title.start() for title in titles[1:]] + [len(text)]
    for title, end in zip(titles, ends, strict=False):
        if title[1] == number:
            return text[title.start() : end].strip() + "\n"
    return None


def collect(top: Path, towncrier: Path, date: str) -> None:
    """
    Move the fragments into the changelog, below the version of the package.

    @param top: of the repository.
    @param towncrier: the program.
    @param date: of the release, C{YYYY-MM-DD}.
    @raise ReleaseError: there is nothing to collect, or the version is in it already.
    """
    number = versions.current(top)
    problems = []
    if not fragments(top):
        problems.append(f"{FRAGMENTS} has no fragments: nobody would notice {number}")
    if notes(top, number) is not None:
        problems.append(f"{PAGE} has {number} already: make bump VERSION=… first")
    if problems:
        raise ReleaseError(*problems)
    run(
        *(towncrier, "build", "--yes", "--version", number, "--date", date),
        cwd=top,
    )


def problems(top: Path, number: str) -> list[str]:
    """
    @param top: of the repository.
    @param number: of the version that is to be released.
    @return: a sentence for each thing that the changelog lacks.
    """
    found = []
    left = fragments(top)
    if left:
        found.append(
            f"{FRAGMENTS} has {len(left)} fragments that are not collected, the first "
            f"is {left[0]}: make changelog, commit, tag again"
        )
    text = notes(top, number)
    if text is None:
        found.append(f"{PAGE} has no section for {number}: make changelog")
    elif len(text.splitlines()) < 2:
        found.append(f"{PAGE} says nothing of {number}")
    return found
