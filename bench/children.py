"""
The children behind the targets: a minimal echo server, the real forgejo-mcp, and the
server of MCP's own authors that has a bit of everything.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from functools import lru_cache
from hashlib import sha256
from pathlib import Path
from typing import Final

import attrs

from bench.report import say

CACHE: Final = (
    Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser()
    / "fjmcp-broker"
    / "bench"
)
FORGEJO_MCP: Final = CACHE.parent / "forgejo-mcp" / "2.18.0" / "forgejo-mcp"
EVERYTHING: Final = "@modelcontextprotocol/server-everything"
EVERYTHING_VERSION: Final = "2026.8.31"

_SOURCE: Final = Path(__file__).with_name("echo_child.c")
_INSTALL_SECONDS: Final = 240


class NotThere(Exception):  # noqa: N818 - it says what is so
    """Something to measure with could not be had."""


@attrs.frozen
class Tool:
    """
    A tool that is called.

    @ivar name: of the tool.
    @ivar argument: the name of its only argument, a text; empty for none.
    @ivar says: what it puts before that text in its answer; None when the answer is
        something else.
    """

    name: str
    argument: str
    says: str | None

    def arguments(self, text: str) -> dict[str, str]:
        """
        @param text: of this call.
        @return: the arguments.
        """
        return {self.argument: text} if self.argument else {}


ECHO: Final = Tool("echo", "text", "")
VERSION: Final = Tool("get_forgejo_mcp_server_version", "", None)
EVERYTHING_ECHO: Final = Tool("echo", "message", "Echo: ")


@lru_cache(maxsize=1)
def echo_child() -> tuple[str, ...]:
    """
    @return: the command of the minimal child: in C where a compiler is there, which
        takes a megabyte and a millisecond less for each session, else in Python.
    """
    source = _SOURCE.read_bytes()
    program = CACHE / f"echo-{sha256(source).hexdigest()[:16]}"
    if program.exists():
        return (str(program),)
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is not None:
        CACHE.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=CACHE) as directory:
            made = Path(directory) / "echo"
            done = subprocess.run(  # noqa: S603 - our own source
                [compiler, "-O2", "-o", str(made), str(_SOURCE)],
                capture_output=True,
                check=False,
            )
            if done.returncode == 0:
                made.rename(program)
                return (str(program),)
    say("no C compiler that works: the child is a Python program")
    return (sys.executable, str(_SOURCE.with_suffix(".py")))


def forgejo_mcp() -> tuple[str, ...]:
    """
    @return: the command of the real forgejo-mcp.
    @raise NotThere: it is not in the cache of the tests.
    """
    if not FORGEJO_MCP.exists():
        raise NotThere("forgejo-mcp: run tests/real/install_forgejo_mcp.py first")
    return (str(FORGEJO_MCP), "--transport", "stdio")


def everything() -> tuple[str, ...]:
    """
    @return: the command of server-everything, which is installed if it is not there.
    @raise NotThere: it could not be installed.
    """
    directory = CACHE / f"npm-server-everything-{EVERYTHING_VERSION}"
    npm_install(directory, f"{EVERYTHING}@{EVERYTHING_VERSION}")
    program = directory / "node_modules" / ".bin" / "mcp-server-everything"
    node = shutil.which("node") or "node"
    return (node, str(program.resolve()), "stdio")


def with_environment(
    command: Sequence[str], environment: Mapping[str, str]
) -> tuple[str, ...]:
    """
    @param command: of a child.
    @param environment: that bridges do not hand on by themselves.
    @return: a command that sets it.
    """
    settings = (f"{name}={value}" for name, value in environment.items())
    return (shutil.which("env") or "/usr/bin/env", *settings, *command)


def npm_install(directory: Path, wanted: str) -> None:
    """
    @param directory: for nothing else; it is left alone once it is complete.
    @param wanted: a package and its version.
    @raise NotThere: it could not be installed.
    """
    if shutil.which("npm") is None or shutil.which("node") is None:
        raise NotThere(f"{wanted}: node and npm are not on PATH")
    install(
        directory,
        [["npm", "install", "--silent", "--no-audit", "--no-fund", wanted]],
        wanted,
    )


def install(directory: Path, commands: Sequence[Sequence[str]], wanted: str) -> None:
    """
    @param directory: made anew unless it is complete.
    @param commands: run there.
    @param wanted: what comes of it.
    @raise NotThere: one of them failed, or took too long.
    """
    if (directory / ".installed").exists():
        return
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    (directory / "package.json").write_text("{}\n")
    for command in commands:
        try:
            done = subprocess.run(  # noqa: S603 - fixed commands
                list(command),
                cwd=directory,
                check=False,
                timeout=_INSTALL_SECONDS,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise NotThere(f"{wanted}: {error}") from None
        if done.returncode != 0:
            *_, last = [b"", *done.stderr.strip().splitlines()]
            raise NotThere(f"{wanted}: {last.decode(errors='replace')[:200]}")
    (directory / ".installed").touch()
