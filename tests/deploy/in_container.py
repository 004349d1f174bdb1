"""
The image as it is built, run by podman: as its own user, on a read-only file system,
with a published port. To be run in a network namespace of its own, as
C{tests/deploy/check-container} does.
"""

from __future__ import annotations

import atexit
import json
import os
import shlex
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, ClassVar, Final

from twisted.trial.unittest import SynchronousTestCase

from fjmcp_broker.version import VERSION
from tests.real.browser import Browser
from tests.real.client import McpClient

TOP: Final = Path(__file__).parents[2]
URL: Final = "http://127.0.0.1:8080"
FORGEJO_ADDRESS: Final = "192.0.2.10"
"""On the loopback interface outside of the container, no loopback address inside."""

PODMAN: Final = shlex.split(os.environ.get("FJMCP_PODMAN", "podman"))
OLD: Final = "localhost/fjmcp-broker:check"
NEW: Final = "localhost/fjmcp-broker:check-newer"
METACIRCULAR: Final = "localhost/fjmcp-broker:check-metacircular"
NAME: Final = "fjmcp-check"
LIMITS: Final = ("--ulimit=nofile=1024:1024", "--ulimit=nproc=1024:1024")
TOOL: Final = "get_my_user_info"
SECONDS: Final = 30.0


def podman(*arguments: str) -> str:
    """
    @param arguments: of podman.
    @return: what it printed.
    @raise AssertionError: it failed.
    """
    done = subprocess.run(  # noqa: S603 - commands of this test
        [*PODMAN, *arguments], capture_output=True, text=True, timeout=120, check=False
    )
    if done.returncode:
        raise AssertionError(f"{arguments}: {done.returncode}\n{done.stderr}")
    return done.stdout


def logs() -> str:
    """
    @return: what the container has written on both outputs.
    """
    return subprocess.run(  # noqa: S603 - a command of this test
        [*PODMAN, "logs", NAME],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=60,
        check=True,
    ).stdout


def inspected(what: str, name: str = NAME) -> Any:
    """
    @return: a part of what podman knows of a container or an image.
    """
    return json.loads(podman("inspect", "--format", f"{{{{json .{what}}}}}", name))


def start_forgejo() -> dict[str, str]:
    """
    Start a Forgejo that ends with this process.

    @return: what the stand-in tells of itself.
    """
    directory = Path(tempfile.mkdtemp(dir=os.getcwd()))
    forgejo = subprocess.Popen(  # noqa: S603 - our own program
        [
            *(sys.executable, "-m", "tests.deploy.stand_in"),
            *("3000", URL, str(directory), FORGEJO_ADDRESS),
        ]
    )
    atexit.register(forgejo.wait)
    atexit.register(forgejo.terminate)
    ends = time.monotonic() + SECONDS
    while not (directory / "known").exists():
        if time.monotonic() > ends:
            raise AssertionError("no Forgejo")
        time.sleep(0.05)
    known: dict[str, str] = json.loads((directory / "known").read_text())
    return known


def write_environment(known: dict[str, str]) -> Path:
    """
    Fill in the example of the variables, as an operator does.

    @param known: what the stand-in tells of itself.
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
    file = Path("environment").absolute()
    file.write_text("\n".join(lines) + "\n")
    file.chmod(0o600)
    return file


class ImageTests(SynchronousTestCase):
    """What is written in the images."""

    def test_user_and_volume(self) -> None:
        """It runs as nobody in particular, with one volume and one port."""
        config = inspected("Config", OLD)
        self.assertEqual(config["User"], "65532:65532")
        self.assertEqual(list(config["Volumes"]), ["/data"])
        self.assertEqual(list(config["ExposedPorts"]), ["8080/tcp"])
        self.assertEqual(
            inspected("HealthCheck", OLD)["Test"],
            ["CMD", "fjmcp-broker", "healthcheck"],
        )

    def test_labels(self) -> None:
        """The build arguments are in the labels and in the file."""
        for image, revision in ((OLD, "older"), (NEW, "newer")):
            labels = inspected("Labels", image)
            name = "org.opencontainers.image"
            self.assertEqual(labels[f"{name}.version"], VERSION)
            self.assertEqual(labels[f"{name}.revision"], revision)
            self.assertEqual(labels[f"{name}.created"], "2026-01-02T03:04:05Z")
            told = podman(
                "run",
                "--rm",
                "--network=none",
                *LIMITS,
                "--entrypoint=cat",
                image,
                "/etc/build-info",
            )
            self.assertEqual(json.loads(told)["revision"], revision)

    def test_no_build_tools(self) -> None:
        """What has built it is not in it."""
        found = podman(
            "run",
            "--rm",
            "--network=none",
            *LIMITS,
            "--entrypoint=sh",
            OLD,
            "-c",
            "for p in gcc make go git setuptools; do command -v $p; done;"
            "ls -d /source /opt/fjmcp-broker/lib/*/site-packages/pip 2>/dev/null; true",
        )
        self.assertEqual(found, "")


class ContainerTests(SynchronousTestCase):
    """The container."""

    timeout = 300
    known: ClassVar[dict[str, str]] = {}
    """What L{start_forgejo} found, once."""

    def setUp(self) -> None:
        """A volume that nobody has used."""
        if not self.known:
            self.known.update(start_forgejo())
        self.environment = write_environment(self.known)
        self.addCleanup(podman, "volume", "rm", "--force", NAME)

    def start(self, image: str = OLD) -> float:
        """
        Start a container and wait until it answers.

        @return: how long that took, in seconds.
        """
        began = time.monotonic()
        podman(
            "run",
            "--detach",
            f"--name={NAME}",
            *LIMITS,
            "--read-only",
            "--cap-drop=all",
            "--security-opt=no-new-privileges",
            "--memory=512m",
            f"--env-file={self.environment}",
            f"--volume={NAME}:/data",
            "--publish=127.0.0.1:8080:8080",
            image,
        )
        while not self.answers():
            if time.monotonic() - began > SECONDS:
                self.fail(logs())
            time.sleep(0.02)
        return time.monotonic() - began

    def answers(self) -> bool:
        """
        @return: whether it is ready.
        """
        try:
            return Browser().request("GET", f"{URL}/readyz").status == 200
        except OSError:
            return False

    def end(self) -> None:
        """Stop it as podman does."""
        podman("stop", "--time=25", NAME)
        self.assertEqual(inspected("State.ExitCode"), 0)
        podman("rm", NAME)

    def test_locked_in(self) -> None:
        """The process has no more than it needs; the port is reached from outside."""
        self.start()
        self.addCleanup(self.end)
        status = podman("exec", NAME, "cat", "/proc/1/status")
        fields = dict(line.split(":\t", 1) for line in status.splitlines())
        self.assertEqual(set(fields["Uid"].split()), {"65532"})
        self.assertEqual(set(fields["Gid"].split()), {"65532"})
        self.assertEqual(int(fields["CapEff"], 16), 0)
        self.assertEqual(fields["NoNewPrivs"], "1")
        written = podman(
            "exec",
            NAME,
            "sh",
            "-c",
            "touch /x /opt/x /etc/x 2>/dev/null; ls /*/x /x 2>&- || :",
        )
        self.assertEqual(written, "")
        mode = podman("exec", NAME, "stat", "-c", "%a %u %g", "/data/broker.db")
        self.assertEqual(mode.split(), ["600", "65532", "65532"])

    def test_start_time(self) -> None:
        """How long a start takes is printed, for the documentation."""
        seconds = self.start()
        size = int(inspected("Size", OLD)) / 1e6
        sys.stderr.write(f"ready after {seconds:.1f} s, image {size:.0f} MB\n")
        podman("healthcheck", "run", NAME)
        self.end()

    def test_health(self) -> None:
        """The command of the image says when the daemon does not answer."""
        self.start()
        self.addCleanup(podman, "rm", "--force", NAME)
        podman("healthcheck", "run", NAME)
        podman("kill", "--signal=STOP", NAME)
        self.assertRaises(AssertionError, podman, "healthcheck", "run", NAME)
        podman("kill", "--signal=CONT", NAME)

    def test_client_behind_the_port(self) -> None:
        """With the networks of the example, podman's gateway is a believed proxy."""
        self.start()
        self.addCleanup(self.end)
        page = Browser().request(
            "GET", f"{URL}/healthz", None, {"X-Forwarded-For": "198.51.100.7"}
        )
        self.assertEqual(json.loads(page.text)["client"], "forwarded")

    def test_killed(self) -> None:
        """What users allowed survives a kill."""
        self.start()
        client = McpClient(URL)
        client.sign_in("alice", self.known["alice"])
        client.initialize()
        podman("kill", "--signal=KILL", NAME)
        podman("rm", "--force", NAME)
        self.start()
        self.addCleanup(self.end)
        client.browser = Browser(timeout_seconds=SECONDS)
        self.assertIn("alice", json.dumps(client.call(TOOL)))

    def test_backup_and_restore(self) -> None:
        """As the page says: saved while it runs, put back while none runs."""
        self.start()
        client = McpClient(URL)
        client.sign_in("alice", self.known["alice"])
        podman("exec", NAME, "fjmcp-broker", "backup", "--keep=7", "/data/backups/")
        files = podman("exec", NAME, "ls", "/data/backups").split()
        self.assertEqual(len(files), 1)
        restore = ("fjmcp-broker", "restore", f"/data/backups/{files[0]}")
        self.assertRaises(AssertionError, podman, "exec", NAME, *restore)
        self.end()
        podman(
            *("run", "--rm", "--network=none", *LIMITS, "--read-only"),
            *(f"--env-file={self.environment}", f"--volume={NAME}:/data"),
            *(f"--entrypoint={restore[0]}", OLD, *restore[1:]),
        )
        self.start()
        self.addCleanup(self.end)
        client.browser = Browser(timeout_seconds=SECONDS)
        client.sign_in("alice", self.known["alice"])
        client.initialize()
        self.assertIn("alice", json.dumps(client.call(TOOL)))

    def journey(self, mode: str) -> dict[str, Any]:
        """
        The official client signs in, lists, calls; the container is replaced by one of
        a newer image; it goes on.

        @param mode: which of the protocol's eras.
        @return: what the client saw.
        """
        self.start()
        self.addCleanup(podman, "rm", "--force", "--ignore", NAME)
        client = subprocess.Popen(  # noqa: S603 - our own program
            [
                *(sys.executable, "-m", "tests.real.sdk_journey", URL),
                *("--password", self.known["alice"], f"--mode={mode}"),
                *("--calls", json.dumps([[TOOL, {}]]), "--steps", "upgrade"),
            ],
            cwd=TOP,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.addCleanup(client.__exit__, None, None, None)
        self.addCleanup(client.kill)
        assert client.stderr is not None
        said = []
        for line in client.stderr:
            said.append(line)
            if line == "STEP upgrade\n":
                break
        else:
            self.fail("".join(said) + logs())
        self.end()
        self.start(NEW)
        health = Browser().request("GET", f"{URL}/healthz").text
        self.assertEqual(json.loads(health)["revision"], "newer")
        output, errors = client.communicate("done\n", timeout=60)
        self.assertEqual(client.returncode, 0, errors + logs())
        seen: dict[str, Any] = json.loads(output)
        self.end()
        return seen

    def check_journey(self, seen: dict[str, Any], sessions: int) -> None:
        """Assert that the tools are there and the client noticed no upgrade."""
        self.assertIn(TOOL, seen["tools"])
        self.assertGreater(len(seen["tools"]), 50)
        self.assertIn('"login":"alice"', seen[TOOL])
        self.assertIn('"login":"alice"', seen[f"{TOOL} after upgrade"])
        self.assertEqual(seen["sign_ins"], 1)
        self.assertEqual(seen["sessions"], sessions)

    def test_journey_with_a_session(self) -> None:
        """A session survives the upgrade."""
        self.check_journey(self.journey("legacy"), 1)

    def test_journey_without_sessions(self) -> None:
        """So does a client of the stateless revision."""
        seen = self.journey("auto")
        self.assertEqual(seen["protocol_version"], "2026-07-28")
        self.check_journey(seen, 0)
