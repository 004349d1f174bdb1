"""Programs that a release runs, and how it says what is wrong."""

import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

SECONDS: Final = 900.0
"""How long one program may take; the image is the slowest."""

_SHOWN_LINES: Final = 40
_UMASK: Final = 0o022
"""The modes of what is made go into wheels; they are those of no user in particular."""


class ReleaseError(Exception):
    """
    Nothing was released.

    @ivar problems: what is wrong, one sentence each.
    """

    def __init__(self, *problems: str) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


def run(
    *command: str | Path,
    cwd: Path,
    variables: Mapping[str, str] | None = None,
    seconds: float = SECONDS,
) -> str:
    """
    @param command: a program and its arguments.
    @param cwd: where it runs.
    @param variables: added to the environment.
    @param seconds: how long it may take.
    @return: what it wrote to its standard output.
    @raise ReleaseError: it is not there, failed or took too long; with the end of what
        it wrote.
    """
    words = [str(word) for word in command]
    try:
        done = subprocess.run(  # noqa: S603 - our own command lines, no shell
            words,
            cwd=cwd,
            env={**os.environ, **(variables or {})},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
            umask=_UMASK,
        )
    except FileNotFoundError:
        raise ReleaseError(f"{words[0]} is not installed") from None
    except subprocess.TimeoutExpired:
        raise ReleaseError(f"{_told(words)} took longer than {seconds:g} s") from None
    if done.returncode:
        lines = (done.stdout + done.stderr).splitlines()[-_SHOWN_LINES:]
        status = f"{_told(words)} ended with {done.returncode}:"
        raise ReleaseError("\n    ".join([status, *lines]))
    return done.stdout


def git(top: Path, *arguments: str) -> str:
    """
    @param top: a work tree.
    @param arguments: of git.
    @return: what it printed, without the end of the last line.
    @raise ReleaseError: it failed.
    """
    program = shutil.which("git") or "git"
    return run(program, "-C", top, *arguments, cwd=top).rstrip("\n")


def _told(words: Sequence[str]) -> str:
    return " ".join([Path(words[0]).name, *words[1:]])
