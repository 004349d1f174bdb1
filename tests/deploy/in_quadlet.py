"""
The Quadlet of deploy/podman under a real systemd and podman, as root. To be run inside
of the tree that C{tests/deploy/check-quadlet} makes, never on a machine that matters.
It needs no more than Debian's own attrs: no package of the broker is outside of the
image.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
import unittest
from collections.abc import Callable
from pathlib import Path
from typing import ClassVar, Final

from tests.real.browser import Browser
from tests.real.client import McpClient

SERVICE: Final = "fjmcp-broker.service"
NAME: Final = "fjmcp-broker"
URL: Final = "http://127.0.0.1:8080"
FORGEJO_ADDRESS: Final = "192.0.2.10"
KNOWN: Final = Path("/srv/check/known")
ENVIRONMENT: Final = Path("/etc/fjmcp-broker/fjmcp-broker.env")
TOOL: Final = "get_my_user_info"
SECONDS: Final = 30.0


def run(*command: str) -> str:
    """
    @param command: a program and its arguments.
    @return: what it printed on both outputs.
    @raise AssertionError: it failed.
    """
    done = subprocess.run(  # noqa: S603 - commands of this test
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=120,
        check=False,
    )
    if done.returncode:
        raise AssertionError(f"{command}: {done.returncode}\n{done.stdout}")
    return done.stdout


def shown(what: str) -> str:
    """
    @return: a property of the unit.
    """
    return run("systemctl", "show", "--value", f"--property={what}", SERVICE).strip()


def journal() -> str:
    """
    @return: what the service has logged.
    """
    return run("journalctl", "--boot", "--unit", SERVICE, "--no-pager", "--output=cat")


def until(condition: Callable[[], object], what: str, seconds: float = SECONDS) -> None:
    """
    Wait for something.

    @raise AssertionError: it did not come true.
    """
    ends = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > ends:
            raise AssertionError(f"{what}\n{journal()[-4000:]}")
        time.sleep(0.05)


def instance() -> str:
    """
    @return: which process answers; nothing when none does.
    """
    try:
        browser = Browser(timeout_seconds=2)
        text = browser.request("GET", f"{URL}/healthz").text
    except OSError:
        return ""
    return str(json.loads(text)["instance"])


class QuadletTests(unittest.TestCase):
    """What systemd makes of the files."""

    def test_nothing_to_complain_about(self) -> None:
        """C{systemd-analyze verify} prints nothing of the generated units."""
        for unit in (SERVICE, f"{NAME}-volume.service"):
            path = f"/run/systemd/generator/{unit}"
            self.assertEqual(run("systemd-analyze", "verify", path), "")


class ServiceTests(unittest.TestCase):
    """The container under systemd."""

    known: ClassVar[dict[str, str]] = {}
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
        ENVIRONMENT.parent.mkdir(exist_ok=True)
        ENVIRONMENT.touch(0o600)
        ENVIRONMENT.write_text("".join(f"{n}={v}\n" for n, v in values.items()))
        run("systemctl", "reset-failed")
        run("systemctl", "start", SERVICE)

    def client(self) -> McpClient:
        """
        @return: a client with a session that works.
        """
        client = McpClient(URL)
        client.sign_in("alice", self.known["alice"])
        client.initialize()
        self.works(client)
        return client

    def works(self, client: McpClient) -> None:
        """Assert that a session answers, with its own user's name."""
        client.browser = Browser(timeout_seconds=SECONDS)
        self.assertIn("alice", json.dumps(client.call(TOOL)))

    def test_started_means_ready(self) -> None:
        """When systemd says that it has started, it answers."""
        run("systemctl", "stop", SERVICE)
        began = time.monotonic()
        run("systemctl", "start", SERVICE)
        seconds = time.monotonic() - began
        self.assertEqual(Browser().request("GET", f"{URL}/readyz").status, 200)
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
        self.assertNotIn(secret, run("systemctl", "show", SERVICE))
        self.assertNotIn(secret, run("systemctl", "cat", SERVICE))
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
        self.works(client)
        run("systemctl", "restart", SERVICE)
        self.works(client)

    def test_unhealthy(self) -> None:
        """One that stands still is killed by its health check, and started again."""
        before = instance()
        run("podman", "kill", "--signal=STOP", NAME)

        def is_another() -> bool:
            # Sooner than its timer would; in the first 20 s nothing counts.
            subprocess.run(  # noqa: S603 - a command of this test
                ["/usr/bin/podman", "healthcheck", "run", NAME],
                check=False,
                timeout=60,
            )
            return instance() not in ("", before)

        until(is_another, "it is not started again", 120)

    def test_stop(self) -> None:
        """A stop is an orderly one, and the volume stays."""
        run("systemctl", "stop", SERVICE)
        self.assertEqual(shown("ActiveState"), "inactive")
        self.assertIn(NAME, run("podman", "volume", "ls", "--quiet").split())
        named = run("podman", "ps", "--all", "--format", "{{.Names}}").split()
        self.assertNotIn(NAME, named)
        self.assertIn("Main loop terminated", journal())

    def test_refused(self) -> None:
        """A wrong configuration ends in a failed unit; the journal has the reason."""
        run("systemctl", "stop", SERVICE)
        ENVIRONMENT.write_text("FJMCP_BROKER_PUBLIC_URL=mcp.example.org\n")
        with self.assertRaises(AssertionError):
            run("systemctl", "start", SERVICE)
        until(lambda: shown("ActiveState") == "failed", "it is tried for ever")
        self.assertIn("FORGEJO_URL", journal())
        self.assertIn("must be a URL", journal())


if __name__ == "__main__":
    unittest.main(verbosity=2)
