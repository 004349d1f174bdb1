"""
What clients notice when a container is replaced: by a newer image, by an older one, or
on a store that was restored. See L{tests.deploy.in_container}.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SkipTest

from tests.deploy.containers import (
    NAME,
    NEWER,
    NEWEST,
    OLD,
    TOP,
    ContainerCase,
    inspected,
    logs,
    podman,
    start_forgejo,
    write_environment,
)
from tests.deploy.in_container import BUNDLED
from tests.deploy.units import TOOL, URL, works
from tests.real.browser import Browser
from tests.real.client import McpClient
from tests.real.store_dump import Holder, Upstream, restore

USER = 65532
LOADED_BACKUPS = 5


class JourneyTests(ContainerCase):
    """The official client, which goes on while the container is replaced."""

    def journey(self, mode: str) -> dict[str, Any]:
        """
        The client signs in, lists, calls; the container is replaced by one of a newer
        image, whose store is a version further; the client goes on.

        @param mode: which of the protocol's eras.
        @return: what the client saw.
        """
        self.start()
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
        self.start(NEWER)
        health = Browser().request("GET", f"{URL}/healthz").text
        self.assertEqual(json.loads(health)["revision"], "newer")
        output, errors = client.communicate("done\n", timeout=60)
        self.assertEqual(client.returncode, 0, errors + logs())
        seen: dict[str, Any] = json.loads(output)
        self.end()
        return seen

    def check(self, seen: dict[str, Any], sessions: int) -> None:
        """Assert that the client noticed no upgrade."""
        self.assertIn(TOOL, seen["tools"])
        self.assertIn("alice", seen[TOOL])
        self.assertEqual(seen[f"{TOOL} after upgrade"], seen[TOOL])
        self.assertEqual(seen["sign_ins"], 1)
        self.assertEqual(seen["sessions"], sessions)
        self.tools = seen["tools"]

    def test_with_a_session(self) -> None:
        """A session survives the upgrade."""
        self.check(self.journey("legacy"), 1)

    def test_without_sessions(self) -> None:
        """So does a client of the stateless revision."""
        seen = self.journey("auto")
        self.assertEqual(seen["protocol_version"], "2026-07-28")
        self.check(seen, 0)

    def test_tools_of_forgejo_mcp(self) -> None:
        """The real one in the image offers what it offers."""
        if BUNDLED == "stand-in":
            raise SkipTest("the real forgejo-mcp could not be had")
        self.start()
        listed = json.loads(self.client().request("tools/list").text)
        names = {tool["name"] for tool in listed["result"]["tools"]}
        self.assertGreater(len(names), 50)
        self.assertLessEqual({TOOL, "create_issue", "list_my_repos"}, names)
        self.end()


class DowngradeTests(ContainerCase):
    """Back to the image before."""

    def test_compatible(self) -> None:
        """A newer version says that this one can use its store: sessions go on."""
        self.start(NEWER)
        client = self.client()
        works(client)
        self.end()
        self.start(OLD)
        works(client)
        client.refresh()
        self.end()
        self.start(NEWER)
        works(client)
        self.end()

    def test_incompatible(self) -> None:
        """
        It refuses and says what to do; the newer version goes on, and so does the
        older one with the backup from before the upgrade.
        """
        self.start(OLD)
        client = self.client()
        podman("exec", NAME, "fjmcp-broker", "backup", "/data/before.db")
        self.end()
        self.start(NEWEST)
        works(client)
        self.end()
        self.launch(OLD)
        self.assertEqual(podman("wait", NAME).strip(), "1")
        said = logs()
        self.assertIn("install the version that wrote it or restore an older", said)
        self.assertNotIn("Traceback", said)
        podman("rm", NAME)
        self.start(NEWEST)
        works(client)
        self.end()
        self.once("fjmcp-broker", "restore", "/data/before.db")
        self.start(OLD)
        # One sign-in with any client; then this one goes on.
        works(self.client())
        works(client)
        self.end()


class OldStoreTests(ContainerCase):
    """A store that version 1 of the schema left, with clients in the middle of work."""

    def test_upgraded(self) -> None:
        """Sessions answer under their ids, rights are the same, tokens refresh."""
        known = start_forgejo(3001, "alice", "bob")
        upstream = Upstream(
            known["url"],
            known["client_id"],
            lambda login: (
                known["issued"][login]["access_token"],
                known["issued"][login]["refresh_token"],
            ),
        )
        made = Path("old-broker.db").absolute()
        key, holders = restore("store-v1", str(made), URL, upstream, int(time.time()))
        self.environment = write_environment(known, FJMCP_BROKER_ENCRYPTION_KEYS=key)
        podman("volume", "create", NAME)
        volume = Path(inspected("Mountpoint", NAME))
        store = volume / "broker.db"
        shutil.move(made, store)
        store.chmod(0o600)
        for path in (volume, store):
            os.chown(path, USER, USER)
        self.start()
        self.assertEqual(len(holders), 3)
        for holder in holders:
            self.goes_on(holder)
        self.end()
        self.assertTrue({holder.login for holder in holders} > {"alice"})

    def goes_on(self, holder: Holder) -> None:
        """Assert that a client of the old store has what it had."""
        client = holder.client(URL)
        for _ in range(2):
            works(client, holder.login)
            listed = client.request("tools/list")
            self.assertEqual(listed.status, 200, listed.text)
            self.assertEqual("create_issue" in listed.text, holder.decision == "full")
            client.refresh()
        self.assertEqual(client.session_id, holder.session_id)


class BackupTests(ContainerCase):
    """As the page says: saved while it runs, put back while none runs."""

    def test_under_load(self) -> None:
        """
        Clients call and refresh all the time; each backup is whole, has no key in it,
        and C{--keep} removes the oldest. The last one is restored; after one sign-in
        everybody goes on.
        """
        self.start()
        calling, refreshing = self.client(), self.client()
        problems: list[str] = []
        counts = {"calls": 0, "refreshes": 0}
        over = threading.Event()

        def work(what: str, client: McpClient) -> None:
            while not over.is_set():
                try:
                    works(client) if what == "calls" else client.refresh()
                except Exception as error:
                    # In a thread nobody would see it.
                    problems.append(repr(error))
                    return
                counts[what] += 1

        threads = [
            threading.Thread(target=work, args=("calls", calling)),
            threading.Thread(target=work, args=("refreshes", refreshing)),
        ]
        for thread in threads:
            thread.start()
        try:
            for _ in range(LOADED_BACKUPS):
                podman(
                    *("exec", NAME, "fjmcp-broker", "backup", "--keep=3"),
                    "/data/backups/",
                )
                # The names have seconds.
                ended = int(time.time())
                while int(time.time()) == ended:
                    time.sleep(0.05)
        finally:
            over.set()
            for thread in threads:
                thread.join()
        self.assertEqual(problems, [])
        self.assertGreater(min(counts.values()), LOADED_BACKUPS, counts)
        files = podman("exec", NAME, "ls", "/data/backups").split()
        self.assertEqual(len(files), 3)
        modes = podman("exec", NAME, "sh", "-c", "stat -c %a /data/backups/*")
        self.assertEqual(set(modes.split()), {"600"})
        sys.stderr.write(f"backups beside {counts}\n")
        newest = f"/data/backups/{files[-1]}"
        refused = self.assertRaises(
            AssertionError, podman, "exec", NAME, "fjmcp-broker", "restore", newest
        )
        self.assertIn("a broker is running", str(refused))
        self.end()
        self.assertIn(
            "must sign in again", self.once("fjmcp-broker", "restore", newest)
        )
        self.start()
        self.assertEqual(calling.request("tools/list").status, 401)
        works(self.client())
        works(calling)
        self.end()
