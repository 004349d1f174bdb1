"""The image of a release, with a podman that only writes down what it is asked."""

import shutil
import sys
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from release import image
from release.building import Source
from release.commands import ReleaseError
from tests.scratch_repository import TOP

REVISION = "0123456789abcdef0123456789abcdef01234567"
PODMAN = """\
import os, pathlib, sys

words = sys.argv[1:]
with open("asked", "a") as file:
    file.write(" ".join(words) + "\\n")
if words[0] == "--fails":
    sys.exit("there is no such base image")
if words[1] == "save":
    pathlib.Path(words[3]).write_text("image")
elif words[1] == "create":
    print("c0ffee")
elif words[1] == "cp":
    pathlib.Path(words[3]).write_text("program")
elif words[1] == "image":
    print("sha256:1dea")
"""


class ImageTests(SynchronousTestCase):
    """What podman is asked, and what is made of its answers."""

    def setUp(self) -> None:
        """A clone, as far as its Makefile looks at it."""
        self.top = Path(self.mktemp()).absolute()
        (self.top / "fjmcp_broker").mkdir(parents=True)
        for name in ("Makefile", "fjmcp_broker/version.py"):
            shutil.copy2(TOP / name, self.top / name)
        (self.top / "podman.py").write_text(PODMAN)
        self.program = f"{sys.executable} {self.top}/podman.py"

    def build(self, argument: str) -> str:
        """
        @param argument: of podman.
        @return: what is said of the image.
        """
        source = Source(self.top, REVISION, 1_767_323_045)
        return image.build(
            source,
            "1.2.3",
            self.top / "image.tar",
            self.top / "forgejo-mcp",
            program=f"{self.program} {argument}",
            image="registry.example.org/fjmcp-broker",
        )

    def test_built_and_looked_into(self) -> None:
        """With the commit and its time; the program is copied, nothing is started."""
        self.assertEqual(self.build("--root=x"), "sha256:1dea")
        self.assertEqual((self.top / "image.tar").read_text(), "image")
        self.assertEqual((self.top / "forgejo-mcp").read_text(), "program")
        build, *asked = (self.top / "asked").read_text().splitlines()
        name = "registry.example.org/fjmcp-broker:1.2.3"
        for words in (
            f"--root=x build --format docker --tag {name} ",
            f"--build-arg GIT_REVISION={REVISION} ",
            "--build-arg BUILD_DATE=2026-01-02T03:04:05Z ",
        ):
            self.assertIn(words, build)
        self.assertEqual(
            asked,
            [
                f"--root=x save --output {self.top}/image.tar {name}",
                f"--root=x create {name}",
                f"--root=x cp c0ffee:/usr/local/bin/forgejo-mcp {self.top}/forgejo-mcp",
                "--root=x rm c0ffee",
                f"--root=x image inspect --format {{{{.Id}}}} {name}",
            ],
        )

    def test_a_build_that_fails(self) -> None:
        """Says why."""
        with self.assertRaises(ReleaseError) as caught:
            self.build("--fails")
        self.assertIn("there is no such base image", str(caught.exception))
