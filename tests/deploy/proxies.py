"""
The reverse proxies that the pages name, in the versions that they name: programs out of
Debian's packages, in a cache outside of the checkout and nowhere else::

    python tests/deploy/proxies.py

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
class Proxy:
    """
    A program under test.

    @ivar name: of the package and of the program.
    @ivar version: how its version begins.
    @ivar suite: of Debian, that has it.
    @ivar path: of the program within the package.
    """

    name: str
    version: str
    suite: str
    path: str

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
        flag = "version" if self.name == "caddy" else "-v"
        try:
            said = _run([program, flag])
        except CannotGetError:
            return False
        return re.search(rf"\b{re.escape(self.version)}\b", said) is not None

    def get(self) -> None:
        """
        Take the program out of its package.

        @raise CannotGetError: it cannot be had here.
        """
        if not _SOURCES.exists() or not _KEYRING.exists():
            raise CannotGetError("this is no Debian with the usual sources")
        mirror = re.search(r"^URIs: *(\S+)", _SOURCES.read_text(), re.MULTILINE)
        if mirror is None:
            raise CannotGetError(f"no mirror in {_SOURCES}")
        with tempfile.TemporaryDirectory() as directory:
            sources = Path(directory, "sources.list")
            sources.write_text(
                f"deb [signed-by={_KEYRING}] {mirror[1]} {self.suite} main\n"
            )
            for folder in ("lists/partial", "cache/archives/partial"):
                Path(directory, folder).mkdir(parents=True)
            apt = [
                "apt-get",
                "-qq",
                *_options(
                    {
                        "Dir::Etc::sourcelist": str(sources),
                        "Dir::Etc::sourceparts": "/dev/null",
                        "Dir::State::lists": f"{directory}/lists",
                        "Dir::Cache": f"{directory}/cache",
                        "APT::Sandbox::User": "root",
                    }
                ),
            ]
            _run([*apt, "update"], directory)
            _run([*apt, "download", self.name], directory)
            packages = list(Path(directory).glob("*.deb"))
            if len(packages) != 1:
                raise CannotGetError("apt brought no package")
            _run(["dpkg-deb", "-x", str(packages[0]), f"{directory}/tree"])
            program = Path(directory, "tree", self.path)
            if not program.is_file() or not self._is(str(program)):
                raise CannotGetError(f"{packages[0].name} does not have it")
            self.cached().parent.mkdir(parents=True, exist_ok=True)
            # A rename, so that tests that run meanwhile never see half a file.
            new = f"{self.cached()}.new-{os.getpid()}"
            shutil.copy2(program, new)
            os.replace(new, self.cached())


CADDY_2_6: Final = Proxy("caddy", "2.6", "bookworm", "usr/bin/caddy")
CADDY_2_11: Final = Proxy("caddy", "2.11", "trixie-backports", "usr/bin/caddy")
NGINX: Final = Proxy("nginx", "1.22", "bookworm", "usr/sbin/nginx")
ALL: Final = (CADDY_2_6, CADDY_2_11, NGINX)


def _options(values: dict[str, str]) -> list[str]:
    return [
        part for name, value in values.items() for part in ("-o", f"{name}={value}")
    ]


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
    for proxy in ALL:
        try:
            if proxy.find() is None:
                proxy.get()
        except CannotGetError as error:
            sys.stdout.write(f"SKIPPED {proxy}: {error}\n")
            continue
        sys.stdout.write(f"{proxy}: {proxy.find()}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
