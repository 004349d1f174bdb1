"""
A release of this checkout, in a repository of its own, from the number to the sums, and
its bill of materials.
"""

import base64
import io
import json
import os
import subprocess
import sys
import tarfile
from contextlib import redirect_stdout
from functools import cache
from pathlib import Path
from typing import Any, Final

from twisted.trial.unittest import SynchronousTestCase

from fjmcp_broker.version import VERSION
from release import bill, requirements
from release.commands import ReleaseError, git
from release.go_build import GoBuild, Module
from release.packages import Package
from release.requirements import Pin
from release.whole import Wanted, release
from tests.scratch_repository import ScratchRepository, small, whole

SECONDS: Final = 300
MODULE: Final = "git.example.org/forgejo-mcp/v2"
MAIN: Final = Module(MODULE, "v2.18.0", "")
SUM: Final = base64.b64encode(b"\1" * 32).decode()
EPOCH: Final = 1_767_323_045


def next_version() -> str:
    """
    @return: one after that of this checkout.
    """
    major, minor, _patch = VERSION.split(".")
    return f"{major}.{int(minor) + 1}.0"


def command(top: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    """
    @param top: of a repository.
    @param arguments: of C{python -m release} there.
    @return: how it ended.
    """
    names = ("PYTHONPATH", "SOURCE_DATE_EPOCH", "PODMAN")
    variables = {name: text for name, text in os.environ.items() if name not in names}
    return subprocess.run(  # noqa: S603 - our own command line
        [sys.executable, "-W", "error", "-m", "release", *arguments],
        cwd=top,
        env=variables,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )


@cache
def released() -> tuple[ScratchRepository, str, Path]:
    """
    Go through docs/releasing.md once, but for .ci/run and the image.

    @return: the repository, what the last command printed, and what it made.
    """
    work = Path("releasing").absolute()
    repository = whole(work / "source")
    number = next_version()
    for step in (("bump", number), ("changelog", "--date", "2026-01-02")):
        done = command(repository.top, *step)
        assert done.returncode == 0, done.stderr
    revision = repository.commit()
    repository.tag(f"v{number}")
    log = work / "ci.log"
    log.write_text(f"revision {revision}\n\n9 passed, 0 failed, 0 skipped\n")
    done = command(repository.top, *made(work / "dist", log))
    assert done.returncode == 0, done.stderr
    return repository, done.stdout, work / "dist" / number


def made(output: Path, log: Path) -> list[str]:
    """
    @param output: where to.
    @param log: of the checks.
    @return: arguments.
    """
    named = {
        "--forgejo-mcp-module": "codeberg.org/goern/forgejo-mcp/v2",
        "--forgejo-mcp-version": "2.18.0",
        "--output": str(output),
        "--ci-log": str(log),
    }
    words = [word for pair in named.items() for word in pair]
    return ["make", *words, "--without-image"]


class ReleaseTests(SynchronousTestCase):
    """Everything that is published."""

    timeout = 600

    def test_everything_is_there(self) -> None:
        """Wheel, sdist, bill, notes, the log of the checks and the sums of all."""
        _repository, told, target = released()
        number = next_version()
        self.assertEqual(
            {path.name for path in target.iterdir()},
            {
                f"fjmcp_broker-{number}-py3-none-any.whl",
                f"fjmcp_broker-{number}.tar.gz",
                f"fjmcp-broker-{number}.cdx.json",
                f"fjmcp-broker-{number}-notes.md",
                "ci.log",
                "SHA256SUMS",
            },
        )
        check = ["sha256sum", "--check", "--strict", "SHA256SUMS"]
        summed = subprocess.run(  # noqa: S603 - a fixed command
            check, cwd=target, capture_output=True, text=True, check=True
        )
        self.assertEqual(summed.stdout.count(": OK\n"), 5)
        for words in (
            ".ci/run: 9 passed, 0 failed, 0 skipped",
            "the same bytes when built twice",
            f"the wheel, installed: fjmcp-broker {number} (revision ",
            "SKIPPED image: --without-image was asked for",
        ):
            self.assertIn(words, told)

    def test_notes(self) -> None:
        """What the changelog says of it: every fragment, below its date."""
        repository, _told, target = released()
        number = next_version()
        notes = (target / f"fjmcp-broker-{number}-notes.md").read_text()
        self.assertTrue(notes.startswith(f"## {number} (2026-01-02)\n\n### Features\n"))
        self.assertNotIn("\n\n\n", notes)
        self.assertNotRegex(notes, r"\(#\d+-")
        self.assertRegex(notes, r"\(#\d+\)\n- ")
        self.assertIn(notes, (repository.top / "CHANGELOG.md").read_text())
        left = [path.name for path in (repository.top / "changelog.d").iterdir()]
        self.assertEqual(left, [".gitignore"])

    def test_sdist_says_nothing_of_the_machine(self) -> None:
        """No owner, one time, two modes."""
        repository, _told, target = released()
        [sdist] = target.glob("*.tar.gz")
        with tarfile.open(sdist) as archive:
            members = archive.getmembers()
        time = int(git(repository.top, "log", "-1", "--format=%ct"))
        self.assertEqual({member.mtime for member in members}, {time})
        self.assertEqual({(member.uid, member.uname) for member in members}, {(0, "")})
        self.assertLessEqual({member.mode for member in members}, {0o644, 0o755})

    def test_bill(self) -> None:
        """The image's packages, with hashes, and nothing of the machine."""
        repository, told, target = released()
        number = next_version()
        text = (target / f"fjmcp-broker-{number}.cdx.json").read_text()
        bill.validate(text)
        self.assertNotIn("file:", text)
        self.assertNotIn(str(repository.top), text)
        components = json.loads(text)["components"]
        names = {component["name"] for component in components}
        image = (repository.top / "Containerfile").read_text()
        pinned = repository.top / "deploy" / "container" / "requirements.txt"
        pins = requirements.parse(
            pinned.read_text(), requirements.image_environment(image)
        )
        self.assertLessEqual({pin.name for pin in pins}, names)
        self.assertEqual({each["scope"] for each in components}, {"required"})
        for component in components:
            if component["purl"].startswith("pkg:pypi/"):
                self.assertTrue(component["externalReferences"][0]["hashes"])
                self.assertTrue(component["licenses"], component["name"])
        if "SKIPPED the Go modules" not in told:
            self.assertIn("github.com/mark3labs/mcp-go", names)
            self.assertIn("stdlib", names)

    def test_twice(self) -> None:
        """What is published stays as it is."""
        repository, _told, target = released()
        log = target / "ci.log"
        done = command(repository.top, *made(target.parent, log))
        self.assertEqual(done.returncode, 1)
        self.assertIn("is there already", done.stderr)

    def test_refused(self) -> None:
        """Every reason on a line of its own, and nothing is left behind."""
        repository, _told, target = released()
        log = target / "ci.log"
        output = target.parents[1] / "refused"
        (repository.top / "forgotten.txt").write_text("")
        try:
            done = command(repository.top, *made(output, log))
        finally:
            (repository.top / "forgotten.txt").unlink()
        self.assertEqual(done.returncode, 1)
        self.assertRegex(done.stderr, r"^refused: 1 files are not as committed.*\n$")
        self.assertFalse(output.exists())

    def test_checks_that_failed(self) -> None:
        """A log of another commit, or with a failure, is no result."""
        repository, _told, target = released()
        output = target.parents[1] / "failed"
        log = target.parents[1] / "failed.log"
        whole_log = (target / "ci.log").read_text()
        log.write_text(whole_log.replace("0 failed", "1 failed"))
        done = command(repository.top, *made(output, log))
        self.assertEqual(done.returncode, 1)
        self.assertIn("refused: .ci/run did not pass: 9 passed, 1 fa", done.stderr)
        self.assertFalse(output.exists())


CHECKS: Final = """\
#!/bin/sh
echo "revision $(git rev-parse HEAD)"
git status --porcelain
echo "MAKEFLAGS is ${MAKEFLAGS-unset}"
echo "3 passed, 1 failed, 0 skipped"
exit 1
"""


class ChecksTests(SynchronousTestCase):
    """Without a log the checks are run."""

    timeout = 120

    def test_run_in_a_clean_clone(self) -> None:
        """Without what this make was given; when they fail, their log is kept."""
        work = Path("running").absolute()
        repository = small(work / "source")
        repository.write(".ci/run", CHECKS)
        (repository.top / ".ci" / "run").chmod(0o755)
        revision = repository.commit()
        repository.tag("v1.2.3")
        wanted = Wanted(
            top=repository.top,
            output=work / "dist",
            module=MODULE,
            version="2.18.0",
            log=None,
            with_image=False,
        )
        told = io.StringIO()
        with redirect_stdout(told), self.assertRaises(ReleaseError) as caught:
            release(wanted)
        self.assertIn("running .ci/run on a clean clone", told.getvalue())
        kept = work / "dist" / "failed-ci.log"
        self.assertEqual(
            caught.exception.problems,
            (
                ".ci/run did not pass: 3 passed, 1 failed, 0 skipped",
                f"its log is {kept}",
            ),
        )
        self.assertEqual(
            kept.read_text(),
            f"revision {revision}\nMAKEFLAGS is unset\n3 passed, 1 failed, 0 skipped\n",
        )
        self.assertEqual([path.name for path in kept.parent.iterdir()], [kept.name])


class BillTests(SynchronousTestCase):
    """The bill of materials, of an image that is not there."""

    def contents(self, **changed: Any) -> bill.Contents:
        """
        @param changed: fields with other values.
        @return: of an image.
        """
        fields: dict[str, Any] = {
            "version": "1.2.3",
            "base": "python:3.13-slim-bookworm",
            "packages": [
                Package(Pin("a", "1", ("a" * 64,)), "MIT", "", ("b",)),
                Package(Pin("b", "2", ("b" * 64, "c" * 64)), "", "Beer", ("absent",)),
                Package(Pin("c", "3", ("d" * 64,))),
            ],
            "direct": ["a"],
            "forgejo_mcp": MAIN,
            "build": GoBuild(
                "1.26.8",
                Module(MODULE, "(devel)", ""),
                (Module("golang.org/x/net", "v0.1.0", f"h1:{SUM}"),),
                {},
            ),
        }
        return bill.Contents(**{**fields, **changed})

    def rendered(self, **changed: Any) -> dict[str, Any]:
        """
        @param changed: fields with other values.
        @return: the bill.
        """
        whole: dict[str, Any] = json.loads(bill.render(self.contents(**changed), EPOCH))
        return whole

    def test_the_same_twice(self) -> None:
        """Number and time come from what is in it; another image has another number."""
        first = bill.render(self.contents(), EPOCH)
        self.assertEqual(first, bill.render(self.contents(), EPOCH))
        number = json.loads(first)["serialNumber"]
        others = {
            self.rendered(version="1.2.4")["serialNumber"],
            self.rendered(wheel_digest="e" * 64)["serialNumber"],
            self.rendered(binary_digest="e" * 64)["serialNumber"],
            json.loads(bill.render(self.contents(), EPOCH + 1))["serialNumber"],
        }
        self.assertEqual(len(others | {number}), 5)
        self.assertIn("2026-01-02T03:04:05", json.loads(first)["metadata"]["timestamp"])

    def test_components(self) -> None:
        """Addresses of packages, licences as far as they are known, hashes."""
        known = {each["name"]: each for each in self.rendered()["components"]}
        self.assertEqual(known["a"]["purl"], "pkg:pypi/a@1")
        self.assertEqual(known["a"]["licenses"], [{"expression": "MIT"}])
        self.assertEqual(known["b"]["licenses"], [{"license": {"name": "Beer"}}])
        self.assertNotIn("licenses", known["c"])
        [files] = known["b"]["externalReferences"]
        self.assertEqual(
            [digest["content"] for digest in files["hashes"]], ["b" * 64, "c" * 64]
        )
        module = known["golang.org/x/net"]
        self.assertEqual(module["purl"], "pkg:golang/golang.org/x/net@v0.1.0")
        self.assertEqual(module["hashes"], [{"alg": "SHA-256", "content": "01" * 32}])
        self.assertEqual(known[MODULE]["version"], "v2.18.0")
        self.assertEqual(known[MODULE]["licenses"], [{"expression": "GPL-3.0-only"}])
        self.assertEqual(known["stdlib"]["purl"], "pkg:golang/stdlib@v1.26.8")

    def test_who_needs_whom(self) -> None:
        """From the image down."""
        needs = {
            each["ref"]: each.get("dependsOn", [])
            for each in self.rendered()["dependencies"]
        }
        program = f"pkg:golang/{MODULE}@v2.18.0"
        self.assertEqual(
            sorted(needs["image:fjmcp-broker@1.2.3"]),
            sorted(
                [
                    "pkg:docker/python@3.13-slim-bookworm",
                    "pkg:generic/fjmcp-broker@1.2.3",
                    program,
                ]
            ),
        )
        self.assertEqual(needs["pkg:generic/fjmcp-broker@1.2.3"], ["pkg:pypi/a@1"])
        self.assertEqual(needs["pkg:pypi/a@1"], ["pkg:pypi/b@2"])
        self.assertEqual(needs["pkg:pypi/b@2"], [])
        self.assertEqual(len(needs[program]), 2)

    def test_without_a_binary(self) -> None:
        """forgejo-mcp is in it all the same."""
        names = {each["name"] for each in self.rendered(build=None)["components"]}
        self.assertEqual(names, {"a", "b", "c", "fjmcp-broker", "python", MODULE})

    def test_a_binary_of_something_else(self) -> None:
        """Another module, another version."""
        for other in (
            Module("example.org/x", "(devel)", ""),
            Module(MODULE, "v2.17.0", ""),
        ):
            with self.assertRaises(ReleaseError):
                self.rendered(build=GoBuild("1.26.8", other, (), {}))

    def test_what_is_not_valid(self) -> None:
        """The schema is looked at."""
        whole = self.rendered()
        whole["components"][0]["scope"] = "necessary"
        with self.assertRaises(ReleaseError):
            bill.validate(json.dumps(whole))
