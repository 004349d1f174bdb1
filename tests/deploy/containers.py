"""
Containers of the image, as an operator starts them, and the Forgejo beside them.
"""

from __future__ import annotations

import atexit
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, ClassVar, Final

from twisted.trial.unittest import SynchronousTestCase

from fjmcp_broker.version import VERSION
from tests.deploy.units import FORGEJO_ADDRESS, SECONDS, URL, answers, run, until
from tests.real.client import McpClient

TOP: Final = Path(__file__).parents[2]
OLD: Final = f"localhost/fjmcp-broker:{VERSION}"
"""What C{make image} makes."""

COMPILED: Final = "localhost/fjmcp-broker:check-compiled"
"""With the forgejo-mcp that the Containerfile compiles."""

NEWER: Final = "localhost/fjmcp-broker:check-newer"
"""Its store is a version further, and older versions can use it."""

NEWEST: Final = "localhost/fjmcp-broker:check-newest"
"""The same, but they cannot."""

NAME: Final = "fjmcp-check"


def podman(*arguments: str) -> str:
    """
    @param arguments: of podman.
    @return: what it printed.
    @raise AssertionError: it failed.
    """
    return run("podman", *arguments, errors=False)


def logs() -> str:
    """
    @return: what the container has written on both outputs.
    """
    return run("podman", "logs", NAME)


def inspected(what: str, name: str = NAME) -> Any:
    """
    @return: a part of what podman knows of a container or an image.
    """
    return json.loads(podman("inspect", "--format", f"{{{{json .{what}}}}}", name))


def start_forgejo(port: int = 3000, *logins: str) -> dict[str, Any]:
    """
    Start a Forgejo that ends with this process.

    @param logins: who gets tokens without a sign-in.
    @return: what the stand-in tells of itself.
    """
    directory = Path(tempfile.mkdtemp(dir=os.getcwd()))
    forgejo = subprocess.Popen(  # noqa: S603 - our own program
        [
            *(sys.executable, "-m", "tests.deploy.stand_in"),
            *(str(port), URL, str(directory), FORGEJO_ADDRESS, *logins),
        ]
    )
    atexit.register(forgejo.wait)
    atexit.register(forgejo.terminate)
    file = directory / "known"
    until(file.exists, "no Forgejo", log=str)
    known: dict[str, Any] = json.loads(file.read_text())
    return known


def write_environment(known: dict[str, Any], **more: str) -> Path:
    """
    Fill in the example of the variables, as an operator does.

    @param known: what the stand-in tells of itself.
    @param more: further variables.
    @return: the file.
    """
    values = {
        "FJMCP_BROKER_PUBLIC_URL": URL,
        "FORGEJO_URL": known["url"],
        "FORGEJO_OAUTH_CLIENT_ID": known["client_id"],
        "FORGEJO_OAUTH_CLIENT_SECRET": known["client_secret"],
    }
    example = TOP / "deploy" / "podman" / "fjmcp-broker.env.example"
    lines = []
    for line in example.read_text().splitlines():
        name = line.partition("=")[0]
        lines.append(f"{name}={values.pop(name)}" if name in values else line)
    assert not values, values
    lines += [f"{name}={value}" for name, value in more.items()]
    file = Path("environment").absolute()
    file.write_text("\n".join(lines) + "\n")
    file.chmod(0o600)
    return file


class ContainerCase(SynchronousTestCase):
    """A container at a time, on a volume that nobody has used."""

    timeout = 300
    known: ClassVar[dict[str, Any]] = {}
    """What L{start_forgejo} found, once."""

    def setUp(self) -> None:
        """The variables; what is left in the end goes."""
        if not self.known:
            self.known.update(start_forgejo())
        self.environment = write_environment(self.known)
        self.addCleanup(podman, "volume", "rm", "--force", NAME)
        self.addCleanup(podman, "rm", "--force", "--ignore", NAME)

    def launch(self, image: str = OLD) -> None:
        """Start a container with all the restrictions of the Quadlet."""
        podman(
            *("run", "--detach", f"--name={NAME}", "--read-only", "--cap-drop=all"),
            *("--security-opt=no-new-privileges", "--memory=512m"),
            f"--env-file={self.environment}",
            f"--volume={NAME}:/data",
            "--publish=127.0.0.1:8080:8080",
            image,
        )

    def start(self, image: str = OLD) -> float:
        """
        Start a container and wait until it answers.

        @return: how long that took, in seconds.
        """
        began = time.monotonic()
        self.launch(image)
        until(answers, "not ready", SECONDS, logs)
        return time.monotonic() - began

    def end(self) -> None:
        """Stop it as podman does."""
        podman("stop", "--time=25", NAME)
        self.assertEqual(inspected("State.ExitCode"), 0)
        podman("rm", NAME)

    def once(self, command: str, *arguments: str, image: str = OLD) -> str:
        """
        Run a command on the volume while no daemon has it.

        @return: what it printed.
        @raise AssertionError: it failed.
        """
        return run(
            *("podman", "run", "--rm", "--network=none", "--read-only"),
            *(f"--env-file={self.environment}", f"--volume={NAME}:/data"),
            *(f"--entrypoint={command}", image, *arguments),
        )

    def client(self) -> McpClient:
        """
        @return: a client with tokens and a session.
        """
        client = McpClient(URL)
        client.sign_in("alice", self.known["alice"])
        client.initialize()
        return client
