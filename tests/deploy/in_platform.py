"""
The image's stage for the Metacircular platform, run as that platform runs services:
from one directory, with a port in a variable. See L{tests.deploy.in_container}.
"""

from __future__ import annotations

import os
import shutil
import ssl
import time
from pathlib import Path
from typing import Final

from twisted.trial.unittest import SynchronousTestCase

from tests.deploy.in_container import (
    LIMITS,
    METACIRCULAR,
    NAME,
    TOP,
    inspected,
    logs,
    podman,
)
from tests.real.browser import Browser
from tests.real.certificates import write_certificate

DEPLOY: Final = TOP / "deploy" / "metacircular"
HOME: Final = "/srv/fjmcp-broker"
PORT: Final = 9000
USER: Final = 65532
SECONDS: Final = 30.0


class PlatformImageTests(SynchronousTestCase):
    """What is written in the image."""

    def test_leaves_user_and_volumes_to_the_platform(self) -> None:
        """Its directory and its command are the platform's, too."""
        config = inspected("Config", METACIRCULAR)
        self.assertNotIn("User", config)
        self.assertNotIn("Volumes", config)
        self.assertEqual(config["WorkingDir"], HOME)
        self.assertEqual(config["Entrypoint"], ["fjmcp-broker"])
        self.assertEqual(
            config["Cmd"], ["server", "--config", f"{HOME}/fjmcp-broker.toml"]
        )

    def test_certificates_and_time_zones(self) -> None:
        """Both are in the image."""
        podman(
            *(
                "run",
                "--rm",
                "--network=none",
                *LIMITS,
                "--entrypoint=ls",
                METACIRCULAR,
            ),
            *("/etc/ssl/certs/ca-certificates.crt", "/usr/share/zoneinfo/UTC"),
        )


class PlatformTests(SynchronousTestCase):
    """The running process."""

    timeout = 120

    def setUp(self) -> None:
        """The directory of the service, with the example."""
        self.directory = Path("srv").absolute()
        self.addCleanup(shutil.rmtree, self.directory)
        self.directory.mkdir()
        (self.directory / "certs").mkdir()
        example = (DEPLOY / "fjmcp-broker.toml").read_text()
        self.write(example)

    def write(self, text: str) -> None:
        """Write the configuration, and give everything to the platform's user."""
        (self.directory / "fjmcp-broker.toml").write_text(text)
        for path in (self.directory, *self.directory.rglob("*")):
            os.chown(path, USER, USER)

    def start(self, *more: str) -> None:
        """Start it with the port in a variable; another one is in the file."""
        self.addCleanup(podman, "rm", "--force", "--ignore", NAME)
        podman(
            *("run", "--detach", f"--name={NAME}", *LIMITS, "--read-only"),
            *("--cap-drop=all", f"--user={USER}:{USER}", f"--env=PORT={PORT}", *more),
            *(f"--volume={self.directory}:{HOME}", f"--publish=127.0.0.1:8080:{PORT}"),
            METACIRCULAR,
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
        self.assertTrue((self.directory / "fjmcp-broker.db").is_file())

    def test_variable_beats_file(self) -> None:
        """$<SERVICE>_<SECTION>_<KEY>."""
        path = f"{HOME}/other.db"
        self.start(f"--env=FJMCP_BROKER_DATABASE_PATH={path}")
        self.wait("http://127.0.0.1:8080", Browser())
        self.assertTrue((self.directory / "other.db").is_file())

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
        self.start("--env=FJMCP_BROKER_SERVER_TLS=required")
        context = ssl.create_default_context(cafile=made[0])
        browser = Browser()
        browser.trust(context)
        self.wait("https://127.0.0.1:8080", browser)
        podman("healthcheck", "run", NAME)
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        self.assertRaises(
            OSError, browser.request, "GET", "https://127.0.0.1:8080/readyz"
        )

    def test_tls_without_certificate(self) -> None:
        """It does not start."""
        self.write(self.with_tls())
        self.start()
        self.assertEqual(podman("wait", NAME).strip(), "1")
        said = logs()
        self.assertIn("server.tls_cert", said)
        self.assertNotIn("Traceback", said)
