"""What the files around the image say of each other."""

import configparser
import re
from pathlib import Path
from typing import Final

from twisted.trial.unittest import SynchronousTestCase

from fjmcp_broker.config.load import load
from fjmcp_broker.version import VERSION

TOP: Final = Path(__file__).parents[2]
PODMAN: Final = TOP / "deploy" / "podman"
PINS: Final = TOP / "deploy" / "container"


def pins(name: str) -> dict[str, str]:
    """
    @return: the versions of a file of pinned requirements, by normalised name.
    """
    found = re.findall(r"^([a-z0-9-]+)==(\S+)", (PINS / name).read_text(), re.M)
    return dict(found)


class RequirementsTests(SynchronousTestCase):
    """The pinned requirements."""

    def test_cover_what_setup_asks_for(self) -> None:
        """Each requirement of the package is pinned, not below its lower bound."""
        setup = configparser.ConfigParser()
        setup.read(TOP / "setup.cfg", encoding="utf-8")
        have = pins("requirements.txt")
        for line in setup["options"]["install_requires"].split("\n")[1:]:
            name, bound = line.lower().split(" >= ")
            version = [int(part) for part in have[name].split(".")]
            self.assertGreaterEqual(version, [int(part) for part in bound.split(".")])

    def test_every_pin_has_hashes_and_none_names_an_index(self) -> None:
        """pip refuses the former; the latter is the business of who builds."""
        for name in ("requirements.txt", "requirements-build.txt"):
            text = (PINS / name).read_text()
            for entry in re.split(r"\n(?=[a-z])", text.strip()):
                self.assertRegex(entry, r"^[a-z0-9-]+==\S+.* \\\n    --hash=sha256:")
            self.assertNotIn("://", text)
            self.assertNotRegex(text, r"(?m)^-")


class QuadletTests(SynchronousTestCase):
    """The Quadlet and its environment."""

    def test_names_this_version(self) -> None:
        """The image is what C{make image} makes."""
        text = (PODMAN / "fjmcp-broker.container").read_text()
        self.assertIn(f"\nImage=localhost/fjmcp-broker:{VERSION}\n", text)

    def test_no_value_ends_in_a_quote(self) -> None:
        """Quadlet takes a last one away."""
        for line in (PODMAN / "fjmcp-broker.container").read_text().splitlines():
            self.assertFalse(line.endswith(('"', "'")), line)

    def test_environment_has_what_is_required(self) -> None:
        """The example with the two secrets filled in is a whole configuration."""
        lines = (PODMAN / "fjmcp-broker.env.example").read_text().splitlines()
        values = dict(
            line.split("=", 1) for line in lines if line and not line.startswith("#")
        )
        empty = [name for name, value in values.items() if not value]
        self.assertEqual(len(empty), 2)
        loaded = load(None, {**values, **dict.fromkeys(empty, "filled-in")})
        self.assertEqual(loaded.warnings, ())


class ContainerfileTests(SynchronousTestCase):
    """The Containerfile."""

    def test_says_what_the_makefile_says(self) -> None:
        """Both have the same default of forgejo-mcp."""
        makefile = (TOP / "Makefile").read_text()
        containerfile = (TOP / "Containerfile").read_text()
        for name in ("FORGEJO_MCP_MODULE", "FORGEJO_MCP_VERSION"):
            default = re.findall(rf"^{name} \?= (\S+)$", makefile, re.M)
            self.assertEqual(
                re.findall(rf"^ARG {name}=(\S+)$", containerfile, re.M), default
            )
