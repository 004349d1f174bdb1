"""
The image as it is built, run by podman: as its own user, on a read-only file system,
with a published port. To be run in a network namespace of its own, as
C{tests/deploy/check-container} does.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Final

from twisted.trial.unittest import SkipTest, SynchronousTestCase

from fjmcp_broker.version import VERSION
from tests.deploy.containers import (
    COMPILED,
    NAME,
    NEWER,
    OLD,
    ContainerCase,
    inspected,
    logs,
    podman,
)
from tests.deploy.units import URL, answers, ended_by_terminal, until, works
from tests.real.browser import Browser

BUNDLED: Final = os.environ.get("FJMCP_DEPLOY_BUNDLED", "")
"""How the image came by its forgejo-mcp."""

SOURCE: Final = os.environ.get("FJMCP_DEPLOY_SOURCE", "")
"""What the image was built from."""


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
        # How to reach a package index is the business of who builds.
        names = {each.partition("=")[0] for each in config["Env"]}
        self.assertFalse([name for name in names if "PROXY" in name or "PIP" in name])

    def inside(self, *command: str, image: str = OLD) -> str:
        """
        @return: what a command prints in the image.
        """
        return podman(
            *("run", "--rm", "--network=none", "--read-only"),
            *(f"--entrypoint={command[0]}", image, *command[1:]),
        )

    def test_labels(self) -> None:
        """The build arguments are in the labels and in the file."""
        for image, revision in ((OLD, "older"), (NEWER, "newer")):
            labels = inspected("Labels", image)
            name = "org.opencontainers.image"
            self.assertEqual(labels[f"{name}.version"], VERSION)
            self.assertEqual(labels[f"{name}.revision"], revision)
            self.assertEqual(labels[f"{name}.created"], "2026-01-02T03:04:05Z")
            told = json.loads(self.inside("cat", "/etc/build-info", image=image))
            self.assertEqual(
                told, {"revision": revision, "build_date": "2026-01-02T03:04:05Z"}
            )

    def test_no_build_tools(self) -> None:
        """What has built it is not in it."""
        found = self.inside(
            "sh",
            "-c",
            "for p in gcc make go git setuptools; do command -v $p; done;"
            "ls -d /source /opt/fjmcp-broker/lib/*/site-packages/pip 2>/dev/null; true",
        )
        self.assertEqual(found, "")

    def test_plugin_cache(self) -> None:
        """Twisted's is there, and knows the plugin: nothing is written at a start."""
        python = "/opt/fjmcp-broker/bin/python"
        found = self.inside(
            python,
            "-c",
            "import pathlib, twisted.plugins as p;"
            "print([c.stat().st_size > 0 and b'fjmcp' in c.read_bytes()"
            " for d in p.__path__ for c in pathlib.Path(d).glob('dropin.cache')])",
        )
        self.assertEqual(found.strip(), "[True]")

    def test_licence_of_forgejo_mcp(self) -> None:
        """It has to come with the program that the image compiles."""
        file = "/usr/local/share/doc/forgejo-mcp/LICENSE"
        self.inside("test", "-s", file, image=COMPILED)

    def test_version_of_forgejo_mcp(self) -> None:
        """The pinned one; one that was installed before may not say it."""
        if BUNDLED == "stand-in":
            raise SkipTest("the real forgejo-mcp could not be had")
        expected = "forgejo-mcp" if BUNDLED == "installed" else "forgejo-mcp v2.18.0"
        self.assertIn(expected, self.inside("forgejo-mcp", "--version"))


class ContainerTests(ContainerCase):
    """The container."""

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
        client = self.client()
        podman("kill", "--signal=KILL", NAME)
        podman("rm", "--force", NAME)
        self.start()
        self.addCleanup(self.end)
        works(client)

    def test_nothing_set(self) -> None:
        """Without variables it ends at once, and says which ones it needs."""
        self.environment.write_text("")
        self.launch()
        self.assertNotEqual(podman("wait", NAME).strip(), "0")
        self.assertIn("FORGEJO_URL", logs())
        self.assertNotIn("Traceback", logs())

    def test_make_image_run(self) -> None:
        """C{make image-run} serves, and ends with the signal of a terminal."""
        self.addCleanup(podman, "volume", "rm", "--force", "fjmcp-broker")
        said = ended_by_terminal(
            *("make", "-C", SOURCE, "image-run", f"ENV_FILE={self.environment}")
        )
        self.assertIn("Main loop terminated", said)
        until(lambda: not answers(), "it still answers", log=str)
