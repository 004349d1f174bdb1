"""
The disk is full, or another program locks the store: 503 where something has to be
written, calls go on, nothing is lost, and nobody has to start anything again.
"""

from __future__ import annotations

import contextlib
import json
import resource
import signal
import sqlite3
import subprocess
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlencode

import attrs
from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThread

from tests import skip_visibly
from tests.real.browser import Browser, Page
from tests.real.client import FORM, REDIRECT_URI, McpClient
from tests.real.daemon import pause
from tests.real.test_sessions import SessionCase

FILE_SYSTEM_BYTES = 8 * 1024 * 1024


class StoreTroubleCase(SessionCase):
    """What a client asks for, and what it hears."""

    def asking(self, client: McpClient, body: object, path: str) -> Page:
        """A POST beside the MCP endpoint."""
        form = not isinstance(body, bytes)
        data = urlencode(body).encode() if isinstance(body, dict) else body
        assert isinstance(data, bytes)
        headers = FORM if form else {"Content-Type": "application/json"}
        return Browser().request("POST", client.url + path, data, headers)

    def refreshing(self, client: McpClient) -> Page:
        """A refresh, whatever comes of it."""
        form = {
            "client_id": client.client_id,
            "grant_type": "refresh_token",
            "refresh_token": client.refresh_token,
        }
        return self.asking(client, form, "/oauth/token")

    def registering(self, client: McpClient) -> Page:
        """A new client."""
        metadata = {"client_name": "Test", "redirect_uris": [REDIRECT_URI]}
        metadata |= {"token_endpoint_auth_method": "none"}
        return self.asking(client, json.dumps(metadata).encode(), "/oauth/register")

    def answering(self, client: McpClient) -> Page:
        """The beginning of a sign-in: the page, which always comes, and a yes to it."""
        query = {
            "response_type": "code",
            "client_id": client.client_id,
            "redirect_uri": REDIRECT_URI,
            "state": "s",
            "code_challenge": "x" * 43,
            "code_challenge_method": "S256",
        }
        url = f"{client.url}/oauth/authorize?{urlencode(query)}"
        browser = Browser()
        page = browser.request("GET", url)
        self.assertEqual(page.status, 200, page.text)
        return browser.submit(page, button="full", stop_at="http")

    def assert_busy(self, page: Page) -> None:
        """Not now."""
        self.assertEqual(page.status, 503, page.text)
        self.assertGreater(int(page.headers["Retry-After"]), 0)

    async def trouble(self, breaks: Callable[[], object], heals: object) -> None:
        """
        What clients see before, during and after.

        @param breaks: makes writing impossible.
        @param heals: callable, makes it possible again.
        """
        assert callable(heals)
        client, other = await self.signed_in(), await self.signed_in("bob")
        fresh = await self.signed_in()
        deleted = await self.signed_in("bob")
        # Its new token is not used before there is trouble.
        await deferToThread(fresh.refresh)
        breaks()
        for _ in range(200):
            page = await deferToThread(self.registering, client)
            if page.status != 201:
                break
        self.assert_busy(page)
        # What needs no write goes on, with another child too.
        for _ in range(3):
            await self.check(client)
        await self.crash()
        for each, login in ((client, "alice"), (other, "bob")):
            await self.check(each, login)
        # What needs one does not.
        self.assert_busy(await self.send(fresh, "who_am_i"))
        self.assert_busy(await deferToThread(self.refreshing, other))
        self.assert_busy(await deferToThread(deleted.send, b"", "DELETE"))
        self.assert_busy(await deferToThread(attrs.evolve(client).initialize))
        self.assert_busy(await deferToThread(self.answering, client))
        level = await deferToThread(other.request, "logging/setLevel", level="debug")
        self.assertEqual(level.status, 200, level.text)
        heals()
        # And all of it is as if nothing had been.
        await self.check(fresh)
        await deferToThread(other.refresh)
        await self.check(other, "bob")
        await self.check(deleted, "bob")
        gone = await deferToThread(deleted.send, b"", "DELETE")
        self.assertEqual(gone.status, 204)
        await deferToThread(attrs.evolve(client).initialize)
        self.assertEqual((await deferToThread(self.registering, client)).status, 201)
        self.assertEqual((await deferToThread(self.answering, client)).status, 0)
        await self.daemon.stop()
        self.assertEqual(self.daemon.exit_code, 0, self.daemon.text)
        self.assertNotIn("Traceback", self.daemon.text)
        self.assertEqual(self.log_levels(), ["debug"])
        await self.start()
        for each, login in ((client, "alice"), (other, "bob"), (fresh, "alice")):
            await self.check(each, login)
        self.assertEqual((await self.send(deleted, "who_am_i")).status, 404)

    def log_levels(self) -> list[str]:
        """What the store has of them."""
        store = self.environment["FJMCP_BROKER_STORE_PATH"]
        connection = sqlite3.connect(f"file:{store}?mode=ro", uri=True)
        try:
            query = "SELECT log_level FROM sessions WHERE log_level IS NOT NULL"
            return [level for (level,) in connection.execute(query)]
        finally:
            connection.close()


class FullDiskTests(StoreTroubleCase):
    """Nothing more fits."""

    async def test_full_file_system(self) -> None:
        """A file system without room."""
        mounted = Path(self.mktemp()).resolve()
        mounted.mkdir(parents=True)
        mount = ["mount", "-t", "tmpfs", "-o", f"size={FILE_SYSTEM_BYTES}"]
        done = subprocess.run(  # noqa: S603 - a fixed command
            [*mount, "tmpfs", str(mounted)], check=False, capture_output=True
        )
        if done.returncode:
            skip_visibly("full disk", f"no mount: {done.stderr.decode().strip()}")
        self.addCleanup(
            subprocess.run,
            ["umount", str(mounted)],
            check=True,
        )
        filler = mounted / "filler"

        def fill() -> None:
            with filler.open("wb", buffering=0) as file, contextlib.suppress(OSError):
                while True:
                    file.write(b"x" * 4096)

        await self.begin(FJMCP_BROKER_STORE_PATH=str(mounted / "broker.db"))
        await self.trouble(fill, filler.unlink)
        await self.daemon.stop()

    async def test_file_size_limit(self) -> None:
        """A process that may not write any further into its files."""
        await self.begin()
        wal = Path(self.environment["FJMCP_BROKER_STORE_PATH"] + "-wal")

        def limit(size: int) -> None:
            _, hard = resource.prlimit(self.daemon.pid, resource.RLIMIT_FSIZE)
            resource.prlimit(self.daemon.pid, resource.RLIMIT_FSIZE, (size, hard))

        await self.trouble(
            lambda: limit(wal.stat().st_size), lambda: limit(resource.RLIM_INFINITY)
        )


class LockedStoreTests(StoreTroubleCase):
    """Another program locks the store."""

    takes_long = True

    def lock(self) -> sqlite3.Connection:
        """Reads go on: only writers wait, and give up after five seconds."""
        store = self.environment["FJMCP_BROKER_STORE_PATH"]
        lock = sqlite3.connect(store, isolation_level=None)
        self.addCleanup(lock.close)
        lock.execute("BEGIN EXCLUSIVE")
        return lock

    async def test_locked_for_long(self) -> None:
        """As with a full disk."""
        await self.begin()
        locks: list[sqlite3.Connection] = []
        await self.trouble(
            lambda: locks.append(self.lock()), lambda: locks.pop().close()
        )

    async def test_locked_for_a_moment(self) -> None:
        """Whoever needs a write waits, and nobody is refused."""
        await self.begin()
        client, other = await self.signed_in(), await self.signed_in("bob")
        lock = self.lock()
        waiting = [
            deferToThread(self.refreshing, client),
            deferToThread(other.send, b"", "DELETE"),
            deferToThread(self.registering, client),
        ]
        await pause(1)
        await self.check(client)
        self.assertFalse(any(each.called for each in waiting))
        lock.close()
        answers = [(await each).status for each in waiting]
        self.assertEqual(answers, [200, 204, 201])
        await self.check(client)

    async def test_killed_while_it_is_locked(self) -> None:
        """What was answered holds, what was not is as before."""
        await self.begin()
        client = await self.signed_in()
        lock = self.lock()
        waiting: Deferred[Page] = deferToThread(client.send, b"", "DELETE")
        await pause(0.5)
        self.daemon.signal_with(signal.SIGKILL)
        await self.daemon.wait()
        with self.assertRaises(OSError):
            await waiting
        lock.close()
        await self.start()
        await self.check(client)
