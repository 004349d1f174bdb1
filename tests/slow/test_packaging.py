"""What gets installed, in fresh environments, looked at from another directory."""

import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from functools import cache
from pathlib import Path
from typing import Final

from twisted.trial.unittest import SynchronousTestCase

from fjmcp_broker.version import VERSION

TOP: Final = Path(__file__).parents[2]
REVISION: Final = "0123456789abcdef0123456789abcdef01234567"
BUILD_DATE: Final = "2026-01-02T03:04:05Z"
NEEDED: Final = (
    "fjmcp_broker/py.typed",
    "fjmcp_broker/store/schema/0001_first.sql",
    "fjmcp_broker/mcp/tools.toml",
    "fjmcp_broker/config/records.py",
    "fjmcp_broker/demo/__init__.py",
    "twisted/plugins/fjmcp_broker_plugin.py",
)
SECONDS: Final = 240


def run(*command: str | Path, cwd: Path, **variables: str) -> str:
    """
    @param command: program and arguments.
    @param cwd: where to run it.
    @param variables: added to the environment.
    @return: what it printed on both outputs.
    """
    environment = {
        name: text
        for name, text in os.environ.items()
        if not name.startswith(("PYTHON", "FJMCP_", "FORGEJO_"))
    }
    done = subprocess.run(  # noqa: S603 - commands of this test
        [str(item) for item in command],
        cwd=cwd,
        env=environment | variables,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    if done.returncode:
        raise AssertionError(f"{command} ended with {done.returncode}:\n{done.stdout}")
    return done.stdout


@cache
def build() -> Path:
    """
    Build wheel and sdist once, from a copy: a build leaves files beside the sources.

    @return: the directory with C{source} and C{dist}.
    """
    work = Path("packaging").absolute()
    git = ["git", "-C", str(TOP), "ls-files", "-co", "--exclude-standard"]
    listed = subprocess.run(git, capture_output=True, text=True, check=True)  # noqa: S603 - a fixed command
    for name in listed.stdout.splitlines():
        if (TOP / name).exists():
            (work / "source" / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(TOP / name, work / "source" / name)
    run(
        sys.executable,
        *("-m", "build", "--outdir", work / "dist", work / "source"),
        cwd=work,
        GIT_REVISION=REVISION,
        BUILD_DATE=BUILD_DATE,
    )
    return work


class PackagingTests(SynchronousTestCase):
    """Wheel, sdist and editable installation."""

    takes_long = True
    timeout = 600

    def setUp(self) -> None:
        """Build, the first time."""
        self.work = build()
        self.dist = self.work / "dist"

    def environment(self, name: str, *install: str | Path) -> Path:
        """
        @param name: of the environment.
        @param install: arguments of C{pip install}.
        @return: the directory of its programs.
        """
        run(sys.executable, "-m", "venv", self.work / name, cwd=self.work)
        programs = self.work / name / "bin"
        command = [programs / "python", "-m", "pip", "install", "--quiet", *install]
        run(*command, cwd=self.work, PIP_DISABLE_PIP_VERSION_CHECK="1")
        return programs

    def assert_works(self, programs: Path) -> str:
        """
        Look for the plugin and the command, from an unrelated directory.

        @param programs: the directory of an environment's programs.
        @return: what C{fjmcp-broker --version} prints.
        """
        elsewhere = self.work / "elsewhere"
        elsewhere.mkdir(exist_ok=True)
        for program in ("twist", "twistd"):
            listed = run(programs / program, "--help", cwd=elsewhere)
            self.assertRegex(listed, r"(?m)^ +fjmcp ")
            helped = run(programs / program, "fjmcp", "--help", cwd=elsewhere)
            self.assertIn("FJMCP_BROKER_PUBLIC_URL", helped)
        return run(programs / "fjmcp-broker", "--version", cwd=elsewhere)

    def test_wheel_and_sdist_hold_everything(self) -> None:
        """Schema, tool list, type marker and plugin; no tests, no second Twisted."""
        [wheel] = self.dist.glob("*.whl")
        [sdist] = self.dist.glob("*.tar.gz")
        with zipfile.ZipFile(wheel) as archive:
            in_wheel = set(archive.namelist())
        with tarfile.open(sdist) as archive:
            in_sdist = {name.partition("/")[2] for name in archive.getnames()}
        for name in NEEDED:
            self.assertIn(name, in_wheel)
            self.assertIn(name, in_sdist)
        self.assertIn("LICENSE", in_sdist)
        self.assertIn("setup.py", in_sdist)
        self.assertIn("fjmcp_broker/_build.json", in_wheel)
        for name in in_wheel:
            self.assertFalse(name.startswith("tests/"), name)
        self.assertNotIn("twisted/__init__.py", in_wheel)
        self.assertNotIn("twisted/plugins/__init__.py", in_wheel)

    def test_wheel_in_a_fresh_environment(self) -> None:
        """The plugin is found, the command runs, the build is known."""
        [wheel] = self.dist.glob("*.whl")
        version = self.assert_works(self.environment("wheel", wheel))
        for part in (VERSION, REVISION, BUILD_DATE):
            self.assertIn(part, version)

    def test_editable_in_a_fresh_environment(self) -> None:
        """The same from a checkout, where the plugin lies beside the package."""
        programs = self.environment("editable", "-e", self.work / "source")
        self.assertIn(VERSION, self.assert_works(programs))
