"""
The image for the Metacircular platform, as C{make docker} makes it, run as that
platform runs services: from one directory, with a port in a variable. Each of its rules
is asserted of the image or of the running process. See L{tests.deploy.in_container}.
"""

from __future__ import annotations

import os
import re
import shutil
import ssl
import sys
import time
import tomllib
from pathlib import Path
from typing import Any, Final

from twisted.trial.unittest import SynchronousTestCase

from fjmcp_broker.version import VERSION
from tests.deploy.containers import NAME, TOP, inspected, logs, podman
from tests.deploy.units import SECONDS, ended_by_terminal
from tests.real.browser import Browser
from tests.real.certificates import write_certificate

DEPLOY: Final = TOP / "deploy" / "metacircular"
SERVICE: Final = "fjmcp-broker"
HOME: Final = f"/srv/{SERVICE}"
PORT: Final = 9000
USER: Final = 65532
LISTENS: Final = "0A"
"""The state in C{/proc/net/tcp}."""


def definition(mode: str) -> Any:
    """
    @return: the one component of the service definition for a mode of its route.
    """
    text = (DEPLOY / f"service-{mode}.toml").read_text()
    (component,) = tomllib.loads(text)["components"]
    return component


IMAGE: Final = f"localhost/{definition('l7')['image']}"


class PlatformImageTests(SynchronousTestCase):
    """What is written in the image."""

    def test_leaves_user_and_volumes_to_the_platform(self) -> None:
        """No USER and no VOLUME, of the base image neither; no user was added."""
        config = inspected("Config", IMAGE)
        self.assertNotIn("User", config)
        self.assertNotIn("Volumes", config)
        made = podman("history", "--no-trunc", "--format={{.CreatedBy}}", IMAGE)
        self.assertIn("WORKDIR", made)
        self.assertIsNone(re.search(r"\b(adduser|useradd|USER|VOLUME)\b", made), made)
        users = self.inside("cat", "/etc/passwd")
        self.assertNotIn("fjmcp", users)
        self.assertNotIn(str(USER), users)

    def inside(self, *command: str) -> str:
        """
        @return: what a command prints in the image.
        """
        return podman(
            *("run", "--rm", "--network=none", f"--entrypoint={command[0]}"),
            *(IMAGE, *command[1:]),
        )

    def test_directory_and_command(self) -> None:
        """Both are the platform's, and the definitions say the same."""
        config = inspected("Config", IMAGE)
        self.assertEqual(config["WorkingDir"], HOME)
        self.assertEqual(config["Entrypoint"], [SERVICE])
        for mode in ("l7", "l4"):
            self.assertEqual(config["Cmd"], definition(mode)["cmd"])
            self.assertIn(f"{HOME}:{HOME}", definition(mode)["volumes"])

    def test_certificates_and_time_zones(self) -> None:
        """Both are in the image."""
        self.inside("test", "-s", "/etc/ssl/certs/ca-certificates.crt")
        self.inside("test", "-s", "/usr/share/zoneinfo/Pacific/Auckland")

    def test_version(self) -> None:
        """An explicit semantic version, from a build argument; never latest."""
        tags = podman("images", "--format={{.Tag}}", f"localhost/{SERVICE}").split()
        self.assertIn(f"v{VERSION}", tags)
        self.assertNotIn("latest", tags)
        self.assertTrue(re.fullmatch(r"v\d+\.\d+\.\d+", IMAGE.rpartition(":")[2]))
        labels = inspected("Labels", IMAGE)
        self.assertEqual(labels["org.opencontainers.image.version"], VERSION)
        self.assertIn(VERSION, self.inside(SERVICE, "--version"))


class PlatformCase(SynchronousTestCase):
    """The directory of the service, with the example."""

    timeout = 120

    def setUp(self) -> None:
        """Everything in it belongs to the platform's user."""
        self.directory = Path("srv").absolute()
        self.addCleanup(shutil.rmtree, self.directory)
        self.directory.mkdir()
        for name in ("certs", "backups"):
            (self.directory / name).mkdir()
        self.write((DEPLOY / f"{SERVICE}.toml").read_text())

    def write(self, text: str) -> None:
        """Write the configuration, and give everything to the platform's user."""
        (self.directory / f"{SERVICE}.toml").write_text(text)
        for path in (self.directory, *self.directory.rglob("*")):
            os.chown(path, USER, USER)


class PlatformTests(PlatformCase):
    """The running process."""

    def start(self, *more: str, port: str = f"PORT={PORT}", mode: str = "l7") -> None:
        """Start it with the port in a variable; another one is in the file."""
        self.addCleanup(podman, "rm", "--force", "--ignore", NAME)
        component = definition(mode)
        volume = component["volumes"][0].replace(HOME, str(self.directory), 1)
        podman(
            *("run", "--detach", f"--name={NAME}", "--read-only", "--cap-drop=all"),
            *(f"--user={USER}:{USER}", f"--env={port}", *more),
            *(f"--volume={volume}", f"--publish=127.0.0.1:8080:{PORT}"),
            *(f"localhost/{component['image']}", *component["cmd"]),
        )

    def wait(self, url: str, browser: Browser) -> None:
        """
        Wait until it is ready.

        @raise AssertionError: it is not.
        """
        ends = time.monotonic() + SECONDS
        while time.monotonic() < ends:
            try:
                if browser.request("GET", f"{url}/readyz").status == 200:
                    return
            except OSError:
                time.sleep(0.05)
        self.fail(logs())

    def test_plain(self) -> None:
        """For a route of mode l7: HTTP on the platform's port, reached from outside."""
        self.start()
        self.wait("http://127.0.0.1:8080", Browser())
        podman("healthcheck", "run", NAME)
        self.assertTrue((self.directory / f"{SERVICE}.db").is_file())
        # What the page says of backups.
        command = ("backup", "--config", f"{HOME}/{SERVICE}.toml", "--keep", "7")
        podman("exec", NAME, SERVICE, *command, f"{HOME}/backups/")
        self.assertEqual(len(list((self.directory / "backups").iterdir())), 1)

    def test_process(self) -> None:
        """Its command line, and the address that it listens on: everybody's."""
        self.start()
        self.wait("http://127.0.0.1:8080", Browser())
        line = podman("exec", NAME, "cat", "/proc/1/cmdline").split("\0")
        command = [part for part in line if part]
        self.assertEqual(command[-3:], ["server", "--config", f"{HOME}/{SERVICE}.toml"])
        self.assertTrue(command[-4].endswith(f"/{SERVICE}"), command)
        rows = podman("exec", NAME, "cat", "/proc/1/net/tcp").splitlines()[1:]
        fields = [row.split() for row in rows]
        listening = {each[1] for each in fields if each[3] == LISTENS}
        self.assertEqual(listening, {f"00000000:{PORT:04X}"})

    def test_named_port(self) -> None:
        """$PORT_<NAME> of the route, above the file, too."""
        name = definition("l7")["routes"][0]["name"].upper()
        self.start(port=f"PORT_{name}={PORT}")
        self.wait("http://127.0.0.1:8080", Browser())

    def test_variable_beats_file(self) -> None:
        """$<SERVICE>_<SECTION>_<KEY>."""
        path = f"{HOME}/other.db"
        self.start(f"--env=FJMCP_BROKER_DATABASE_PATH={path}")
        self.wait("http://127.0.0.1:8080", Browser())
        self.assertTrue((self.directory / "other.db").is_file())
        self.assertFalse((self.directory / f"{SERVICE}.db").exists())

    def with_tls(self) -> str:
        """
        @return: the example as for a route of mode l4.
        """
        text = (DEPLOY / "fjmcp-broker.toml").read_text()
        for key in ("tls", "tls_cert", "tls_key"):
            self.assertIn(f"#{key} = ", text)
            text = text.replace(f"#{key} = ", f"{key} = ")
        return text

    def test_tls(self) -> None:
        """For a route of mode l4: TLS 1.3 and nothing older."""
        made = write_certificate(str(self.directory / "certs"))
        (self.directory / "certs" / "cert.pem").write_bytes(Path(made[0]).read_bytes())
        self.write(self.with_tls())
        self.start("--env=FJMCP_BROKER_SERVER_TLS=required", mode="l4")
        context = ssl.create_default_context(cafile=made[0])
        browser = Browser()
        browser.trust(context)
        self.wait("https://127.0.0.1:8080", browser)
        podman("healthcheck", "run", NAME)
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        self.assertRaises(
            OSError, browser.request, "GET", "https://127.0.0.1:8080/readyz"
        )

    def test_tls_without_files(self) -> None:
        """It does not start without the certificate, nor without the key alone."""
        for present in ((), ("cert.pem",), ("key.pem",)):
            for name in ("cert.pem", "key.pem"):
                (self.directory / "certs" / name).unlink(missing_ok=True)
            made = write_certificate(str(self.directory))
            for name, file in zip(("cert.pem", "key.pem"), made, strict=True):
                if name in present:
                    Path(file).rename(self.directory / "certs" / name)
            self.write(self.with_tls())
            self.start(mode="l4")
            self.assertEqual(podman("wait", NAME).strip(), "1")
            said = logs()
            self.assertRegex(
                said, r"server\.tls_(cert|key) cannot be used: No such file"
            )
            self.assertNotIn("Traceback", said)
            podman("rm", NAME)


class DevserverTests(PlatformCase):
    """The target of the Makefile for a desk."""

    def test_make_devserver(self) -> None:
        """It serves with a file of its own, and ends with a terminal's signal."""
        example = (self.directory / f"{SERVICE}.toml").read_text()
        file = self.directory / "desk.toml"
        file.write_text(example.replace(HOME, str(self.directory)))
        environment = Path(sys.executable).parents[1]
        said = ended_by_terminal(
            *("make", "-C", str(TOP), "devserver", f"CONFIG={file}"),
            # It is there already, or this would not run.
            *(f"VENV={environment}", f"--old-file={environment}/.installed"),
            # Nobody signs in here.
            FORGEJO_MCP_BINARY="/bin/true",
        )
        self.assertIn("Main loop terminated", said)
