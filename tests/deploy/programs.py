"""
The reverse proxies that the pages name, in the versions that they name, and Prometheus:
programs out of Debian's packages, in a cache outside of the checkout and nowhere else::

    python tests/deploy/programs.py

gets what is missing through apt, without installing anything. Where that cannot work
(no Debian, another processor, no mirror) it says C{SKIPPED NAME VERSION: REASON}.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

import attrs

_SOURCES: Final = Path("/etc/apt/sources.list.d/debian.sources")
_KEYRING: Final = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
_SECONDS: Final = 120


class CannotGetError(Exception):
    """The reason why a program is not there."""


@attrs.frozen
class DebianProgram:
    """
    A program under test.

    @ivar name: of the program.
    @ivar version: how its version begins.
    @ivar suite: of Debian, that has it.
    @ivar path: of the program within the package.
    @ivar flag: makes it say its version.
    @ivar package: its package, where that has another name.
    """

    name: str
    version: str
    suite: str
    path: str
    flag: str
    package: str = ""

    def __str__(self) -> str:
        return f"{self.name} {self.version}"

    def cached(self) -> Path:
        """
        @return: where the program is kept.
        """
        home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
        return Path(home, "fjmcp-broker", self.name, self.version, self.name)

    def find(self) -> str | None:
        """
        @return: the program: kept here, or installed; C{None}: there is none.
        """
        if self.cached().is_file():
            return str(self.cached())
        search = os.environ.get("PATH", "") + os.pathsep + "/usr/sbin"
        installed = shutil.which(self.name, path=search)
        if installed is not None and self._is(installed):
            return installed
        return None

    def _is(self, program: str) -> bool:
        try:
            said = _run([program, self.flag])
        except CannotGetError:
            return False
        return re.search(rf"\b{re.escape(self.version)}\b", said) is not None

    def get(self, apt: list[str], directory: str) -> None:
        """
        Take the program out of its package.

        @param apt: the command, for the suite.
        @param directory: for the package.
        @raise CannotGetError: it cannot be had here.
        """
        package = self.package or self.name
        _run([*apt, "download", package], directory)
        packages = list(Path(directory).glob(f"{package}_*.deb"))
        if len(packages) != 1:
            raise CannotGetError("apt brought no package")
        tree = Path(directory, self.name)
        _run(["dpkg-deb", "-x", str(packages[0]), str(tree)])
        program = tree / self.path
        if not program.is_file() or not self._is(str(program)):
            raise CannotGetError(f"{packages[0].name} does not have it")
        self.cached().parent.mkdir(parents=True, exist_ok=True)
        # A rename, so that tests that run meanwhile never see half a file.
        new = f"{self.cached()}.new-{os.getpid()}"
        shutil.copy2(program, new)
        os.replace(new, self.cached())


CADDY_2_6: Final = DebianProgram("caddy", "2.6", "bookworm", "usr/bin/caddy", "version")
CADDY_2_11: Final = DebianProgram(
    "caddy", "2.11", "trixie-backports", "usr/bin/caddy", "version"
)
NGINX: Final = DebianProgram("nginx", "1.22", "bookworm", "usr/sbin/nginx", "-v")
PROMETHEUS: Final = DebianProgram(
    "prometheus", "2.42", "bookworm", "usr/bin/prometheus", "--version"
)
PROMTOOL: Final = DebianProgram(
    "promtool", "2.42", "bookworm", "usr/bin/promtool", "--version", "prometheus"
)
ALL: Final = (CADDY_2_6, CADDY_2_11, NGINX, PROMETHEUS, PROMTOOL)


def _apt_for(suite: str, directory: str) -> list[str]:
    """
    @return: an apt-get that knows one suite of Debian, and nothing of this machine's.
    @raise CannotGetError: the suite cannot be had here.
    """
    if not _SOURCES.exists() or not _KEYRING.exists():
        raise CannotGetError("this is no Debian with the usual sources")
    mirror = re.search(r"^URIs: *(\S+)", _SOURCES.read_text(), re.MULTILINE)
    if mirror is None:
        raise CannotGetError(f"no mirror in {_SOURCES}")
    sources = Path(directory, "sources.list")
    sources.write_text(f"deb [signed-by={_KEYRING}] {mirror[1]} {suite} main\n")
    for folder in ("lists/partial", "cache/archives/partial"):
        Path(directory, folder).mkdir(parents=True)
    options = {
        "Dir::Etc::sourcelist": str(sources),
        "Dir::Etc::sourceparts": "/dev/null",
        "Dir::State::lists": f"{directory}/lists",
        "Dir::Cache": f"{directory}/cache",
        "APT::Sandbox::User": "root",
        # Packages alone: translations and the rest are most of the time.
        "Acquire::Languages": "none",
    }
    apt = ["apt-get", "-qq"]
    for name, value in options.items():
        apt += ["-o", f"{name}={value}"]
    _run([*apt, "update"], directory)
    return apt


def _run(command: list[str], directory: str | None = None) -> str:
    """
    @return: what a program wrote.
    @raise CannotGetError: it failed.
    """
    try:
        done = subprocess.run(  # noqa: S603 - our own command lines
            command,
            cwd=directory,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            text=True,
            timeout=_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise CannotGetError(str(error)) from error
    if done.returncode:
        lines = done.stdout.strip().splitlines()
        raise CannotGetError(f"{command[0]}: {lines[-1] if lines else 'failed'}")
    return done.stdout


def main() -> int:
    """
    @return: the exit status.
    """
    missing = [program for program in ALL if program.find() is None]
    for suite in sorted({program.suite for program in missing}):
        wanted = [program for program in missing if program.suite == suite]
        with tempfile.TemporaryDirectory() as directory:
            try:
                apt = _apt_for(suite, directory)
            except CannotGetError as error:
                for program in wanted:
                    sys.stdout.write(f"SKIPPED {program}: {error}\n")
                continue
            for program in wanted:
                try:
                    program.get(apt, directory)
                except CannotGetError as error:
                    sys.stdout.write(f"SKIPPED {program}: {error}\n")
    for program in ALL:
        if (found := program.find()) is not None:
            sys.stdout.write(f"{program}: {found}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
