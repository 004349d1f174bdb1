"""
The number of the version, and everything that repeats it.

L{fjmcp_broker.version} names it. What is copied out of a checkout as it is, such as
service definitions and commands of the pages, names an image with the version in the
tag, C{fjmcp-broker:X.Y.Z}; nothing else repeats it.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from release.commands import ReleaseError

SOURCE: Final = Path("fjmcp_broker", "version.py")
COPIES: Final = ("README.md", "CONTRIBUTING.md", "Containerfile", "deploy", "docs")
"""Files and directories that may name an image."""

_ASSIGNED: Final = re.compile(r'^(VERSION: Final = ")([^"]*)(")$', re.MULTILINE)
_TAGGED: Final = re.compile(r"(\bfjmcp-broker:v?)(\d+\.\d+\.\d+)(?![\w.-]*\w)")
_NUMBER: Final = re.compile(r"(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)")
_SUFFIXES: Final = ("", ".container", ".md", ".toml", ".yml", ".service", ".example")
_GENERATED: Final = Path("docs", "api")
RECORD: Final = Path("docs", "validation.md")
"""What was run once, with the numbers that were there then."""


def parsed(number: str) -> tuple[int, int, int]:
    """
    @param number: C{MAJOR.MINOR.PATCH}, as in Semantic Versioning 2.0.0 section 2.
    @return: the three.
    @raise ReleaseError: it is something else.
    """
    found = _NUMBER.fullmatch(number)
    if found is None:
        raise ReleaseError(f"{number!r} is no version: MAJOR.MINOR.PATCH, without a v")
    return int(found[1]), int(found[2]), int(found[3])


def current(top: Path) -> str:
    """
    @param top: of the repository.
    @return: the version of the package.
    @raise ReleaseError: the source does not name one.
    """
    found = _ASSIGNED.findall((top / SOURCE).read_text(encoding="utf-8"))
    if len(found) != 1:
        raise ReleaseError(f"{SOURCE} has {len(found)} lines VERSION: Final = …, not 1")
    return str(found[0][1])


def copies(top: Path) -> Iterator[tuple[Path, str]]:
    """
    @param top: of the repository.
    @return: each file that names an image, relative to the top, once for each version
        in it.
    """
    for path in _files(top):
        text = path.read_text(encoding="utf-8")
        for number in sorted({found[2] for found in _TAGGED.finditer(text)}):
            yield path.relative_to(top), number


def disagreements(top: Path) -> list[str]:
    """
    @param top: of the repository.
    @return: a sentence for each file that names another version than the package.
    """
    number = current(top)
    return [
        f"{path} names version {other}, the package is {number}: make bump"
        for path, other in copies(top)
        if other != number
    ]


def bump(top: Path, number: str) -> list[Path]:
    """
    Give everything another version.

    @param top: of the repository.
    @param number: the next version; greater than the one there is.
    @return: the files that were changed, relative to the top.
    @raise ReleaseError: it is not greater, or no version; nothing was changed.
    """
    before = current(top)
    if parsed(number) <= parsed(before):
        raise ReleaseError(f"{number} is not after {before}: make bump VERSION=…")
    changed = []
    for path in [top / SOURCE, *_files(top)]:
        text = path.read_text(encoding="utf-8")
        pattern = _ASSIGNED if path == top / SOURCE else _TAGGED
        bumped = pattern.sub(
            lambda found: found[1] + number + "".join(found.groups()[2:]), text
        )
        if bumped != text:
            path.write_text(bumped, encoding="utf-8")
            changed.append(path.relative_to(top))
    return changed


def _files(top: Path) -> Iterator[Path]:
    for name in COPIES:
        start = top / name
        inside = sorted(start.rglob("*")) if start.is_dir() else [start]
        for path in inside:
            generated = path.is_relative_to(top / _GENERATED)
            other = generated or path == top / RECORD
            if path.is_file() and path.suffix in _SUFFIXES and not other:
                yield path
