"""
Install the real forgejo-mcp for the tests, by module name with the Go toolchain, into
a cache outside of the checkout::

    python tests/real/install_forgejo_mcp.py

Where that cannot work (no Go 1.25, or no module proxy that has the module) it says
C{SKIPPED real forgejo-mcp VERSION: REASON} and exits 0. When it should have worked
and C{CI=true}, it exits 1.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.real.real_forgejo_mcp import VERSIONS, cache_directory, find

MODULES: Final = {
    "2.18.0": "codeberg.org/goern/forgejo-mcp/v2",
    "2.34.1": "git.b4mad.industries/agentic-forges/forgejo-mcp/v2",
}
OLDEST_GO: Final = (1, 25)
LIST_SECONDS: Final = 60
INSTALL_SECONDS: Final = 180


class CannotInstallError(Exception):
    """The reason why a version is not there."""


def go_version(go: str) -> tuple[int, int]:
    """
    @param go: the program.
    @return: its version, (0, 0) when it does not tell.
    """
    told = run([go, "env", "GOVERSION"], LIST_SECONDS)
    found = re.match(r"go(\d+)\.(\d+)", told.stdout)
    return (int(found[1]), int(found[2])) if found else (0, 0)


def run(
    command: list[str], seconds: int, **environment: str
) -> "subprocess.CompletedProcess[str]":
    """
    @param command: the program and its arguments.
    @param seconds: how long it may take.
    @param environment: further variables.
    @return: how it ended; after the time as a failure with a line that says so.
    """
    with tempfile.TemporaryDirectory() as directory:
        try:
            return subprocess.run(  # noqa: S603 - our own command lines
                command,
                cwd=directory,
                env={**os.environ, "GO111MODULE": "on", **environment},
                capture_output=True,
                text=True,
                timeout=seconds,
                check=False,
            )
        except subprocess.TimeoutExpired:
            reason = f"{command[1]} took longer than {seconds} s"
            return subprocess.CompletedProcess(command, 1, "", reason)


def last_line(text: str) -> str:
    """
    @param text: what a program wrote.
    @return: its last line, short enough for a report.
    """
    lines = text.strip().splitlines()
    return lines[-1].strip()[:200] if lines else "no message"


def install(version: str, go: str) -> Path:
    """
    @param version: one of C{VERSIONS}; the module proxy has it.
    @param go: the program.
    @return: the binary.
    @raise CannotInstallError: when it could not be built.
    """
    target = cache_directory(version)
    target.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target) as directory:
        module = f"{MODULES[version]}@v{version}"
        done = run([go, "install", module], INSTALL_SECONDS, GOBIN=directory)
        built = Path(directory) / "forgejo-mcp"
        if done.returncode or not built.is_file():
            raise CannotInstallError(f"go install: {last_line(done.stderr)}")
        # A rename, so that tests that run meanwhile never see half a file.
        return built.replace(target / "forgejo-mcp")


def reason_to_skip(version: str, go: str | None) -> str | None:
    """
    @param version: one of C{VERSIONS}.
    @param go: the program, or None.
    @return: why it legitimately cannot be installed here; None when it can.
    """
    if go is None:
        return "there is no go"
    if go_version(go) < OLDEST_GO:
        return "go is older than 1.25"
    known = run([go, "list", "-m", f"{MODULES[version]}@v{version}"], LIST_SECONDS)
    if known.returncode:
        return f"the module proxy does not have it: {last_line(known.stderr)}"
    return None


def main() -> int:
    """
    @return: the exit status.
    """
    status = 0
    go = shutil.which("go")
    for version in VERSIONS:
        name = f"real forgejo-mcp {version}"
        found = find(version)
        if found is None:
            reason = reason_to_skip(version, go)
            if reason is None and go is not None:
                try:
                    found = install(version, go)
                except CannotInstallError as error:
                    reason = str(error)
                    if os.environ.get("CI") == "true":
                        status = 1
                        sys.stdout.write(f"FAILED {name}: {reason}\n")
                        continue
            if reason is not None:
                sys.stdout.write(f"SKIPPED {name}: {reason}\n")
                continue
        sys.stdout.write(f"{name}: {found}\n")
    return status


if __name__ == "__main__":
    sys.exit(main())
