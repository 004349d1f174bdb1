"""The version of this software: the one place that names it."""

import json
import shutil
import subprocess
from functools import cache
from pathlib import Path
from typing import Final

import msgspec

VERSION: Final = "0.1.0"
UNKNOWN: Final = "unknown"

CONTAINER_FILE: Final = Path("/etc/build-info")
"""Written by the container build, same form as the file in the wheel."""

_PACKAGE: Final = Path(__file__).parent
WHEEL_FILE_NAME: Final = "_build.json"
"""Written into the wheel by C{setup.py} from GIT_REVISION and BUILD_DATE."""

_GIT_SECONDS: Final = 5.0


class BuildInformation(msgspec.Struct, frozen=True):
    """Which build this is."""

    version: str
    """The version of the package."""

    revision: str
    """The Git revision, or C{unknown}."""

    build_date: str
    """When the image or wheel was built, or C{unknown}."""

    def __str__(self) -> str:
        return f"{self.version} (revision {self.revision}, built {self.build_date})"


def read_build_information(
    package: Path = _PACKAGE, container_file: Path = CONTAINER_FILE
) -> BuildInformation:
    """
    Find out which build this is.

    @param package: the directory of the package.
    @param container_file: what the container build wrote.
    @return: what is known of it.
    """
    for path in (container_file, package / WHEEL_FILE_NAME):
        try:
            facts = json.loads(path.read_text(encoding="utf-8"))
            revision, date = facts["revision"], facts["build_date"]
        except (OSError, ValueError, LookupError, TypeError):
            continue
        return BuildInformation(VERSION, str(revision) or UNKNOWN, str(date) or UNKNOWN)
    return BuildInformation(VERSION, _checkout_revision(package.parent), UNKNOWN)


@cache
def build_information() -> BuildInformation:
    """
    @return: which build this is; found out once.
    """
    return read_build_information()


def _checkout_revision(directory: Path) -> str:
    # Only a checkout of this software itself: an environment inside the checkout of
    # something else would show that one's revision.
    git = shutil.which("git")
    if git is None or not (directory / ".git").exists():
        return UNKNOWN
    # By name: with a damaged .git, git would look for one further up.
    command = [git, f"--git-dir={directory / '.git'}", "rev-parse", "HEAD"]
    try:
        answer = subprocess.run(  # noqa: S603 - a fixed command, no shell
            command, capture_output=True, text=True, timeout=_GIT_SECONDS, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return UNKNOWN
    return answer.stdout.strip() or UNKNOWN
