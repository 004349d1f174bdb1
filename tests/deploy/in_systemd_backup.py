"""
The backup units under a real systemd; see L{tests.deploy.in_systemd}.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Final

from twisted.trial.unittest import SynchronousTestCase

from tests.deploy import in_systemd
from tests.deploy.in_systemd import SOCKET, STATE
from tests.deploy.units import SERVICE, run, shown, works
from tests.real.client import McpClient

BACKUP: Final = "fjmcp-broker-backup.service"
TIMER: Final = "fjmcp-broker-backup.timer"
FOLDER: Final = Path("/var/lib/fjmcp-broker-backup")
COMMAND: Final = "/opt/fjmcp-broker/bin/fjmcp-broker"


def backups() -> list[Path]:
    """
    @return: what there is, the oldest first.
    """
    return sorted(FOLDER.glob("broker-*.db"))


class BackupFileTests(SynchronousTestCase):
    """What systemd says of the files."""

    def test_nothing_to_complain_about(self) -> None:
        """C{systemd-analyze verify} prints nothing; the exposure is small."""
        for unit in (BACKUP, TIMER):
            self.assertEqual(run("systemd-analyze", "verify", unit), "")
        said = run("systemd-analyze", "security", "--no-pager", BACKUP)
        exposure = float(said.rpartition("level for")[2].split()[1])
        sys.stderr.write(f"exposure of the backup {exposure}\n")
        self.assertLessEqual(exposure, 1.0)


class BackupTests(in_systemd.ServiceCase):
    """The nightly backup, and the store from it."""

    def test_beside_the_daemon(self) -> None:
        """It is the daemon's user who makes it, and nothing of the store changes."""
        client = self.client()
        before = self.main_process()
        owner = STATE.stat().st_uid
        run("systemctl", "start", BACKUP)
        self.assertEqual(shown("Result", BACKUP), "success")
        newest = backups()[-1].stat()
        self.assertEqual((newest.st_uid, newest.st_mode & 0o777), (owner, 0o600))
        self.assertEqual(FOLDER.resolve().stat().st_mode & 0o777, 0o700)
        self.assertEqual({file.stat().st_uid for file in STATE.iterdir()}, {owner})
        works(client)
        self.assertEqual(self.main_process(), before)

    def test_of_a_stopped_daemon(self) -> None:
        """A start afterwards can write."""
        client = self.client()
        run("systemctl", "stop", SERVICE, SOCKET)
        count = len(backups())
        run("systemctl", "start", BACKUP)
        self.assertEqual(len(backups()), count + 1)
        run("systemctl", "start", SOCKET)
        works(client)
        client.refresh()

    def test_timer(self) -> None:
        """It can be enabled, and knows when it is due."""
        run("systemctl", "enable", "--now", TIMER)
        self.addCleanup(run, "systemctl", "disable", "--now", TIMER)
        self.assertEqual(shown("ActiveState", TIMER), "active")
        self.assertNotEqual(shown("NextElapseUSecRealtime", TIMER), "")

    def test_restore(self) -> None:
        """Root restores; the daemon can use it; one sign-in, and sessions go on."""
        client = self.client()
        run("systemctl", "start", BACKUP)
        owner = STATE.stat().st_uid
        arguments = ["restore", "--store", str(STATE / "broker.db")]
        refused = self.assertRaises(
            AssertionError, run, COMMAND, *arguments, str(backups()[-1])
        )
        self.assertIn("a broker is running", str(refused))
        run("systemctl", "stop", SERVICE, SOCKET)
        said = run(COMMAND, *arguments, str(backups()[-1]))
        self.assertIn("must sign in again", said)
        self.assertEqual({file.stat().st_uid for file in STATE.iterdir()}, {owner})
        run("systemctl", "start", SOCKET)
        self.assertEqual(client.request("tools/list").status, 401)
        other: McpClient = self.client()
        works(client)
        works(other)
