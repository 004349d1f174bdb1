"""
The Quadlet of deploy/podman under a real systemd and podman. To be run inside of the
tree that C{tests/deploy/check-quadlet} makes, never on a machine that matters; by root,
and by a user of whom C{systemd --user} runs the units. It needs no more than Debian's
own attrs: no package of the broker is outside of the image.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
import unittest
from pathlib import Path
from typing import Any, ClassVar, Final

from tests.deploy.units import (
    MANAGER,
    SERVICE,
    URL,
    answers,
    instance,
    journal,
    run,
    shown,
    systemctl,
    until,
    works,
)
from tests.real.browser import Browser
from tests.real.client import McpClient

NAME: Final = "fjmcp-broker"
KNOWN: Final = Path("/srv/check/known")
CONFIGURATION: Final = Path.home() / ".config" if MANAGER else Path("/etc")
ENVIRONMENT: Final = CONFIGURATION / "fjmcp-broker" / "fjmcp-broker.env"
DROP_INS: Final = CONFIGURATION / "containers" / "systemd" / f"{NAME}.container.d"
GENERATED: Final = (
    Path(os.environ.get("XDG_RUNTIME_DIR", "/run") if MANAGER else "/run")
    / "systemd"
    / "generator"
)


class QuadletTests(unittest.TestCase):
    """What systemd makes of the files."""

    def test_nothing_to_complain_about(self) -> None:
        """C{systemd-analyze verify} prints nothing of the generated units."""
        for unit in (SERVICE, f"{NAME}-volume.service"):
            said = run("systemd-analyze", *MANAGER, "verify", str(GENERATED / unit))
            self.assertEqual(said, "")


class WhoTests(unittest.TestCase):
    """Whose container it is."""

    def test_user_namespace(self) -> None:
        """Of root's it is the machine's; of a user's, one with subordinate ids."""
        systemctl("start", SERVICE)
        pid = run("podman", "inspect", "--format={{.State.Pid}}", NAME).strip()
        status = Path("/proc", pid, "status").read_text()
        fields = dict(line.split(":\t", 1) for line in status.splitlines())
        outside = int(fields["Uid"].split()[0])
        if MANAGER:
            self.assertGreater(outside, 65536)
            self.assertIn(
                "true", run("podman", "info", "--format={{.Host.Security.Rootless}}")
            )
        else:
            self.assertEqual(outside, 65532)


class ServiceTests(unittest.TestCase):
    """The container under systemd."""

    known: ClassVar[dict[str, Any]] = {}
    """What the stand-in tells of itself."""

    def setUp(self) -> None:
        """The environment file of an operator; the unit runs."""
        self.known.update(json.loads(KNOWN.read_text()))
        values = {
            "FJMCP_BROKER_PUBLIC_URL": URL,
            "FORGEJO_URL": self.known["url"],
            "FORGEJO_OAUTH_CLIENT_ID": self.known["client_id"],
            "FORGEJO_OAUTH_CLIENT_SECRET": self.known["client_secret"],
        }
        ENVIRONMENT.parent.mkdir(parents=True, exist_ok=True)
        ENVIRONMENT.touch(0o600)
        ENVIRONMENT.write_text("".join(f"{n}={v}\n" for n, v in values.items()))
        systemctl("reset-failed")
        systemctl("start", SERVICE)

    def client(self) -> McpClient:
        """
        @return: a client with a session that works.
        """
        client = McpClient(URL)
        client.sign_in("alice", self.known["alice"])
        client.initialize()
        works(client)
        return client

    def test_started_means_ready(self) -> None:
        """When systemd says that it has started, it answers."""
        systemctl("stop", SERVICE)
        began = time.monotonic()
        systemctl("start", SERVICE)
        seconds = time.monotonic() - began
        self.assertTrue(answers())
        sys.stderr.write(f"started after {seconds:.1f} s\n")

    def test_restricted(self) -> None:
        """Read-only, without capabilities, as its own user; loopback alone."""
        status = run("podman", "exec", NAME, "cat", "/proc/1/status")
        fields = dict(line.split(":\t", 1) for line in status.splitlines())
        self.assertEqual(set(fields["Uid"].split()), {"65532"})
        self.assertEqual(int(fields["CapBnd"], 16), 0)
        self.assertEqual(fields["NoNewPrivs"], "1")
        for directory in ("/", "/opt/fjmcp-broker", "/etc"):
            with self.assertRaises(AssertionError):
                run("podman", "exec", NAME, "touch", f"{directory}/x")
        run("podman", "exec", NAME, "touch", "/tmp/x")  # noqa: S108 - in the container

    def test_secret_is_not_shown(self) -> None:
        """Neither systemd nor the journal knows the client secret."""
        secret = self.known["client_secret"]
        self.assertNotIn(secret, systemctl("show", SERVICE))
        self.assertNotIn(secret, systemctl("cat", SERVICE))
        self.assertNotIn(secret, journal())

    def test_health(self) -> None:
        """The console command, as podman's timer runs it."""
        run("podman", "healthcheck", "run", NAME)

    def test_kill_and_restart(self) -> None:
        """Killed, it is started again; restarted, it goes on with the session."""
        client = self.client()
        before = instance()
        run("podman", "kill", "--signal=KILL", NAME)
        until(lambda: instance() not in ("", before), "it is not started again")
        works(client)
        systemctl("restart", SERVICE)
        works(client)

    def test_unhealthy(self) -> None:
        """One that stands still is killed by its health check, and started again."""
        before = instance()
        run("podman", "kill", "--signal=STOP", NAME)

        def is_another() -> bool:
            # Sooner than its timer would; in the first 20 s nothing counts.
            subprocess.run(  # noqa: S603 - a command of this test
                ["/usr/bin/podman", "healthcheck", "run", NAME],
                capture_output=True,
                check=False,
                timeout=60,
            )
            return instance() not in ("", before)

        until(is_another, "it is not started again", 120)

    def test_stop(self) -> None:
        """A stop is an orderly one, and the volume stays."""
        systemctl("stop", SERVICE)
        self.assertEqual(shown("ActiveState"), "inactive")
        self.assertIn(NAME, run("podman", "volume", "ls", "--quiet").split())
        named = run("podman", "ps", "--all", "--format", "{{.Names}}").split()
        self.assertNotIn(NAME, named)
        until(lambda: "Main loop terminated" in journal(), "it does not say so")

    def test_refused(self) -> None:
        """A wrong configuration ends in a failed unit; the journal has the reason."""
        systemctl("stop", SERVICE)
        ENVIRONMENT.write_text("FJMCP_BROKER_PUBLIC_URL=mcp.example.org\n")
        with self.assertRaises(AssertionError):
            systemctl("start", SERVICE)
        until(lambda: shown("ActiveState") == "failed", "it is tried for ever")
        until(lambda: "must be a URL" in journal(), "it does not say why")
        self.assertIn("FORGEJO_URL", journal())

    def test_upgrade(self) -> None:
        """As the page does it: another image in a file of its own, and a restart."""
        client = self.client()
        image = run("podman", "inspect", "--format={{.ImageName}}", NAME).strip()
        newer = f"{image.rpartition(':')[0]}:newer"
        run("podman", "tag", image, newer)
        file = DROP_INS / "version.conf"
        self.addCleanup(systemctl, "restart", SERVICE)
        self.addCleanup(systemctl, "daemon-reload")
        self.addCleanup(file.unlink)
        file.write_text(f"[Container]\nImage={newer}\n")
        systemctl("daemon-reload")
        systemctl("restart", SERVICE)
        now = run("podman", "inspect", "--format={{.ImageName}}", NAME).strip()
        self.assertEqual(now, newer)
        works(client)

    def test_backup_and_restore(self) -> None:
        """As the page does it."""
        client = self.client()
        image = run("podman", "inspect", "--format={{.ImageName}}", NAME).strip()
        podman = ("podman", "exec", NAME)
        run(*podman, "fjmcp-broker", "backup", "--keep", "7", "/data/backups/")
        newest = run(*podman, "ls", "/data/backups").split()[-1]
        systemctl("stop", SERVICE)
        said = run(
            *("podman", "run", "--rm", "--network", "none"),
            *("--env-file", str(ENVIRONMENT), "--volume", f"{NAME}:/data"),
            *("--entrypoint", "fjmcp-broker", image),
            *("restore", f"/data/backups/{newest}"),
        )
        self.assertIn("must sign in again", said)
        systemctl("start", SERVICE)
        works(self.client())
        works(client)

    def test_reverse_proxy(self) -> None:
        """The log names the network to believe; with that, it does."""
        forwarded = {"X-Forwarded-For": "203.0.113.7"}

        def believed() -> bool:
            page = Browser().request("GET", f"{URL}/healthz", None, forwarded)
            return bool(json.loads(page.text)["client"] == "forwarded")

        self.assertFalse(believed())
        said = re.compile(r"X-Forwarded-For from (\S+) is not believed")
        until(lambda: said.search(journal()), "the log does not say so")
        network = said.findall(journal())[-1]
        sys.stderr.write(f"the reverse proxy is seen as {network}\n")
        with ENVIRONMENT.open("a") as file:
            file.write(f"FJMCP_BROKER_SERVER_TRUSTED_PROXIES={network}\n")
        systemctl("restart", SERVICE)
        self.assertTrue(believed())
