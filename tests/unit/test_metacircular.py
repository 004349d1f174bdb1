"""The files for the Metacircular platform, against the platform's rules."""

import re
import tomllib
from pathlib import Path
from typing import Any, Final

from twisted.trial.unittest import SynchronousTestCase

from fjmcp_broker.config.load import load
from fjmcp_broker.version import VERSION

TOP: Final = Path(__file__).parents[2]
DEPLOY: Final = TOP / "deploy" / "metacircular"
NAME: Final = "fjmcp-broker"
HOME: Final = f"/srv/{NAME}"


def stage(name: str) -> list[str]:
    """
    @return: the instructions of the Containerfile that a stage and those that it is
        made from consist of, the external image aside.
    """
    stages: dict[str, list[str]] = {}
    lines = (TOP / "Containerfile").read_text().replace("\\\n", " ").splitlines()
    current: list[str] = []
    for line in lines:
        if match := re.match(r"FROM (\S+) AS (\S+)", line):
            current = stages[match[2]] = list(stages.get(match[1], []))
        elif line and not line.startswith(("#", " ")):
            current.append(line)
    return stages[name]


class MetacircularTests(SynchronousTestCase):
    """The definitions and the image's stage."""

    def definition(self, mode: str) -> Any:
        """
        @return: the service definition for a mode of its route.
        """
        return tomllib.loads((DEPLOY / f"service-{mode}.toml").read_text())

    def test_definitions(self) -> None:
        """One component; version, command and directory by the rules."""
        for mode in ("l7", "l4"):
            service = self.definition(mode)
            self.assertEqual(service["name"], NAME)
            self.assertTrue(service["node"])
            self.assertIn(NAME, service["build"]["images"])
            (component,) = service["components"]
            self.assertEqual(component["image"], f"{NAME}:v{VERSION}")
            self.assertEqual(component["volumes"], [f"{HOME}:{HOME}"])
            self.assertEqual(
                component["cmd"], ["server", "--config", f"{HOME}/{NAME}.toml"]
            )
            (route,) = component["routes"]
            self.assertEqual(route["mode"], mode)
            self.assertTrue(route["hostname"])

    def test_file_named_for_the_build(self) -> None:
        """It is there."""
        for file in self.definition("l7")["build"]["images"].values():
            self.assertTrue((TOP / file).is_file())

    def test_stage(self) -> None:
        """No USER, VOLUME or adduser; the directory; the version from an argument."""
        instructions = stage("metacircular")
        text = "\n".join(instructions)
        names = {line.split()[0] for line in instructions}
        self.assertFalse(names & {"USER", "VOLUME"})
        self.assertNotRegex(text, "adduser|useradd")
        self.assertIn(f"WORKDIR {HOME}", instructions)
        self.assertIn("ARG VERSION", text)

    def test_example(self) -> None:
        """One directory holds everything; PORT beats the address of the file."""
        file = str(DEPLOY / f"{NAME}.toml")
        config = load(file, {"PORT": "9000"}).config
        self.assertEqual(config.server.listen_addr.text, "0.0.0.0:9000")
        self.assertEqual(str(config.database.path), f"{HOME}/{NAME}.db")

    def test_make(self) -> None:
        """The platform's names of targets."""
        targets = re.findall(r"^([a-z-]+):", (TOP / "Makefile").read_text(), re.M)
        wanted = {"all", "build", "test", "vet", "lint", "docker", "devserver"}
        self.assertEqual(wanted - set(targets), set())
