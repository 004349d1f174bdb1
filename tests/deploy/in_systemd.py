"""
The plain units under a real systemd, as its process 1 runs them. To be run inside of
the tree that C{tests/deploy/check-systemd} makes, never on a machine that matters.
"""

from __future__ import annotations

import atexit
import json
import os
import shutil
import ssl
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any, ClassVar, Final

from twisted.trial.unittest import SynchronousTestCase

from fjmcp_broker.store.lock import StoreLock
from tests.deploy.units import SERVICE, URL, journal, run, shown, until, works
from tests.real.browser import Browser
from tests.real.client import McpClient

SOCKET: Final = "fjmcp-broker.socket"
PROGRAM: Final = Path("/opt/fjmcp-broker/bin/python")
CONFIGURATION: Final = Path("/etc/fjmcp-broker")
AUTHORITY: Final = CONFIGURATION / "authority.pem"
STATE: Final = Path("/var/lib/private/fjmcp-broker")
DROP_IN: Final = Path(f"/run/systemd/system/{SERVICE}.d/test.conf")
WATCHDOG_SECONDS: Final = 4
ENDED: Final = "-> dormant"
"""What the daemon says of a session when its child has ended."""

DYNAMIC_USERS: Final = range(61184, 65520)


def in_cgroup() -> list[int]:
    """
    @return: the processes of the service, by its control group.
    """
    path = Path(f"/sys/fs/cgroup{shown('ControlGroup')}/cgroup.procs")
    return sorted(int(line) for line in path.read_text().split())


def prepare() -> dict[str, Any]:
    """
    Start a Forgejo, which ends with this process, and write the configuration. It
    speaks TLS, since the restrictions of a unit can be in the way of that.

    @return: what the stand-in tells of itself.
    """
    directory = Path(tempfile.mkdtemp())
    file = directory / "known"
    forgejo = subprocess.Popen(  # noqa: S603 - our own program
        [sys.executable, "-m", "tests.deploy.stand_in", "3000", URL, str(directory)]
    )
    atexit.register(forgejo.wait)
    atexit.register(forgejo.terminate)
    until(file.exists, "no Forgejo")
    known: dict[str, Any] = json.loads(file.read_text())
    AUTHORITY.write_bytes((directory / "certificate.pem").read_bytes())
    shutil.rmtree(directory)
    child = [shutil.which("forgejo-mcp") or "", "--transport", "stdio"]
    if not child[0]:
        child[:1] = [str(PROGRAM), "-m", "fjmcp_broker.demo.child"]
    sys.stderr.write(f"the child is {child}\n")
    (CONFIGURATION / "fjmcp-broker.toml").write_text(
        f'[server]\npublic_url = "{URL}"\n'
        f'[forgejo]\nurl = "{known["url"]}"\nca_file = "{AUTHORITY}"\n'
        f'oauth_client_id = "{known["client_id"]}"\n'
        f"[child]\ncommand = {json.dumps(child)}\n"
    )
    secret = CONFIGURATION / "forgejo-client-secret"
    secret.touch(0o600)
    secret.write_text(known["client_secret"])
    return known


class UnitFileTests(SynchronousTestCase):
    """What systemd says of the files."""

    def test_nothing_to_complain_about(self) -> None:
        """C{systemd-analyze verify} prints nothing; it may warn with status 0."""
        for unit in (SERVICE, SOCKET):
            self.assertEqual(run("systemd-analyze", "verify", unit), "")

    def test_exposure(self) -> None:
        """C{systemd-analyze security} gives 2.0 or better."""
        said = run("systemd-analyze", "security", "--no-pager", SERVICE)
        exposure = float(said.rpartition("level for")[2].split()[1])
        sys.stderr.write(f"exposure {exposure}\n")
        self.assertLessEqual(exposure, 2.0)


class ServiceCase(SynchronousTestCase):
    """The daemon under systemd, stopped before each test."""

    timeout = 300
    known: ClassVar[dict[str, Any]] = {}
    """What L{prepare} found, once."""

    def setUp(self) -> None:
        """Only the socket."""
        run("systemctl", "stop", SERVICE, SOCKET)
        if not self.known:
            self.known.update(prepare())
        run("systemctl", "reset-failed")
        run("systemctl", "start", SOCKET)

    def client(self) -> McpClient:
        """
        @return: a client with a session that works; the daemon runs.
        """
        client = McpClient(URL)
        client.browser.trust(ssl.create_default_context(cafile=str(AUTHORITY)))
        client.sign_in("alice", self.known["alice"])
        client.initialize()
        works(client)
        return client

    def main_process(self) -> int:
        """
        @return: the daemon's process id.
        """
        return int(shown("MainPID"))


class ServiceTests(ServiceCase):
    """The daemon as a service."""

    def test_started_by_the_first_request(self) -> None:
        """The socket is there first; readiness is what the daemon says it is."""
        self.assertEqual(shown("ActiveState"), "inactive")
        self.assertEqual(Browser().request("GET", f"{URL}/readyz").status, 200)
        self.assertEqual(shown("ActiveState"), "active")
        self.assertIn(f"serving {URL}", shown("StatusText"))

    def test_ready_only_when_it_is(self) -> None:
        """While it waits for the store it is starting; whoever connects waits."""
        self.client()
        run("systemctl", "stop", SERVICE)
        held = StoreLock(str(STATE / "broker.db"))
        self.assertTrue(held.try_acquire())
        try:
            run("systemctl", "start", "--no-block", SERVICE)
            until(lambda: self.main_process(), "it does not start")
            time.sleep(2)
            self.assertEqual(shown("ActiveState"), "activating")
        finally:
            held.release()
        until(lambda: shown("ActiveState") == "active", "it is not ready")

    def test_a_user_of_its_own(self) -> None:
        """No root anywhere; state, key and children are its alone."""
        self.client()
        pids = in_cgroup()
        self.assertIn(self.main_process(), pids)
        self.assertGreaterEqual(len(pids), 2, "the child is not in the unit's cgroup")
        for pid in pids:
            status = Path(f"/proc/{pid}/status").read_text()
            fields = dict(line.split(":\t", 1) for line in status.splitlines())
            self.assertIn(int(fields["Uid"].split()[0]), DYNAMIC_USERS)
            self.assertEqual(fields["CapEff"].strip("0"), "")
            self.assertEqual(fields["NoNewPrivs"], "1")
        self.assertEqual(STATE.stat().st_mode & 0o777, 0o700)
        self.assertTrue(list(STATE.glob("broker.db*")))
        for file in STATE.iterdir():
            self.assertEqual(file.stat().st_mode & 0o077, 0, file)

    def test_children_are_tied_to_the_daemon(self) -> None:
        """The restrictions of the unit are in the way of nothing that it does."""
        self.client()
        trouble = ("less protection", "Traceback", "Unable to write")
        for line in journal().splitlines():
            self.assertFalse([what for what in trouble if what in line], line)

    def test_the_secret_stays_where_it_is(self) -> None:
        """It is in no environment, no argument and no line of the log."""
        self.client()
        secret = self.known["client_secret"]
        self.assertFalse(secret in journal())
        for pid in in_cgroup():
            for name in ("cmdline", "environ"):
                self.assertNotIn(secret, Path(f"/proc/{pid}/{name}").read_text())
            variables = Path(f"/proc/{pid}/environ").read_text()
            if pid != self.main_process():
                for name in ("NOTIFY_", "WATCHDOG_", "LISTEN_", "CREDENTIALS_"):
                    self.assertNotIn(name, variables)

    def test_reload(self) -> None:
        """SIGHUP: the same process, the same session, a line in the log."""
        client = self.client()
        before = self.main_process()
        lines = journal().count("reloaded")
        run("systemctl", "reload", SERVICE)
        until(lambda: journal().count("reloaded") > lines, "no reload")
        until(lambda: shown("SubState") == "running", "it still reloads")
        self.assertEqual(self.main_process(), before)
        works(client)

    def test_requests_wait_during_a_restart(self) -> None:
        """Nobody is refused, and the same session answers the next daemon."""
        client = self.client()
        before = self.main_process()
        problems: list[str] = []
        calls = 0
        over = threading.Event()

        def work() -> None:
            nonlocal calls
            while not over.is_set():
                try:
                    works(client)
                except Exception as error:
                    # In a thread nobody would see it.
                    problems.append(repr(error))
                calls += 1

        thread = threading.Thread(target=work)
        thread.start()
        try:
            for count in range(3):
                # Another one is on its way, or about to be.
                until(lambda count=count: calls > count, "no call")  # type: ignore[misc]
                run("systemctl", "restart", SERVICE)
        finally:
            over.set()
            thread.join()
        self.assertNotEqual(self.main_process(), before)
        self.assertEqual(problems, [])
        self.assertGreater(calls, 3)
        works(client)

    def test_watchdog(self) -> None:
        """A daemon that hangs is killed and started again; the session lives on."""
        DROP_IN.parent.mkdir(parents=True, exist_ok=True)
        DROP_IN.write_text(f"[Service]\nWatchdogSec={WATCHDOG_SECONDS}\n")
        self.addCleanup(run, "systemctl", "daemon-reload")
        self.addCleanup(DROP_IN.unlink)
        run("systemctl", "daemon-reload")
        client = self.client()
        time.sleep(2 * WATCHDOG_SECONDS)
        self.assertEqual(shown("NRestarts"), "0")
        before, pids = self.main_process(), in_cgroup()
        os.kill(before, 19)
        until(lambda: shown("NRestarts") == "1", "no restart", 4 * WATCHDOG_SECONDS)
        works(client)
        self.assertNotEqual(self.main_process(), before)
        until(lambda: "Failed with result 'watchdog'" in journal(), "not by that")
        self.assertEqual([pid for pid in pids if Path(f"/proc/{pid}").exists()], [])

    def test_killed(self) -> None:
        """SIGKILL takes the children along; the next daemon knows the session."""
        client = self.client()
        pids = in_cgroup()
        run("systemctl", "kill", "--kill-who=main", "--signal=KILL", SERVICE)
        until(lambda: shown("NRestarts") == "1", "no restart", 4 * WATCHDOG_SECONDS)
        works(client)
        self.assertEqual([pid for pid in pids if Path(f"/proc/{pid}").exists()], [])

    def test_a_killed_child(self) -> None:
        """It costs one call at most, and the unit nothing."""
        client = self.client()
        main = self.main_process()
        before = journal().count(ENDED)
        for pid in in_cgroup():
            if pid != main:
                os.kill(pid, 9)
        until(lambda: journal().count(ENDED) > before, "it does not notice")
        works(client)
        self.assertEqual((self.main_process(), shown("NRestarts")), (main, "0"))

    def test_stopped(self) -> None:
        """An orderly end: it says so, nothing is left, and a start finds it all."""
        client = self.client()
        began = time.monotonic()
        run("systemctl", "stop", SERVICE)
        self.assertLess(time.monotonic() - began, 5)
        self.assertEqual(shown("Result"), "success")
        self.assertEqual(shown("ActiveState"), "inactive")
        self.assertEqual(shown("ExecMainStatus"), "0")
        self.assertEqual(shown("ControlGroup"), "")
        self.assertEqual(shown("ActiveState", SOCKET), "active")
        works(client)

    def test_a_wrong_configuration(self) -> None:
        """One line that says what is wrong, and no endless attempts."""
        file = CONFIGURATION / "fjmcp-broker.toml"
        right = file.read_text()
        self.addCleanup(run, "systemctl", "reset-failed")
        self.addCleanup(file.write_text, right)
        file.write_text(right.replace("public_url", "publik_url"))
        run("systemctl", "start", "--no-block", SERVICE)
        until(lambda: shown("Result") == "exit-code", "it started")
        until(lambda: shown("ActiveState") == "failed", "it is tried for ever")
        until(lambda: "publik_url" in journal(), "it does not say why")
