"""
Backups of a daemon that is busy, and what its clients notice of a restore; daemons on
stores of other versions.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.threads import deferToThread

from fjmcp_broker.store.migrations import embedded
from tests.real.broker_case import BrokerCase
from tests.real.client import McpClient
from tests.real.daemon import Daemon, Program, free_port, pause

BACKUPS = 3


class BackupCase(BrokerCase):
    """A daemon that can be started again, and the operator's command."""

    async def begin(self) -> None:
        """Start Forgejo and the daemon."""
        self.port = free_port()
        self.environment, self.forgejo = await self.settings(self.port)
        self.store = f"{self.directory}/broker.db"
        await self.start()

    async def start(self) -> None:
        """Start the daemon, to be stopped with the test."""
        self.daemon = Daemon.launch(self.environment, port=self.port)
        self.addCleanup(self.daemon.stop)
        await self.daemon.until_ready()

    async def command(self, *arguments: str) -> Program:
        """
        @return: the command C{fjmcp-broker}, after its end.
        """
        program = Program.start(
            ["fjmcp-broker", *arguments],
            environment={
                **self.environment,
                "FJMCP_BROKER_PUBLIC_URL": self.daemon.url,
            },
        )
        await program.wait()
        return program

    async def check(self, client: McpClient, login: str) -> None:
        """A call that works, as the right user."""
        answer = await deferToThread(client.call, "who_am_i")
        self.assertIn(login, str(answer.get("result")), self.daemon.text)


class BusyTests(BackupCase):
    """Backups while clients rotate tokens, sign in and open sessions."""

    async def busy(self, client: McpClient, login: str) -> None:
        """Work until told to stop; nothing may fail."""
        while not self.enough:
            await deferToThread(client.refresh)
            await self.check(client, login)
            await deferToThread(client.initialize)
            self.rounds += 1
        await self.session(self.daemon, self.forgejo, login)

    async def test_each_is_one_moment(self) -> None:
        """Whole, and nothing half: each grant has one refresh token to present."""
        await self.begin()
        self.enough, self.rounds = False, 0
        work = []
        for login in ("alice", "bob"):
            client = await self.session(self.daemon, self.forgejo, login)
            work.append(self.busy(client, login))
        running = gatherResults([Deferred.fromCoroutine(each) for each in work])
        folder = f"{self.directory}/backups/"
        try:
            for number in range(BACKUPS):
                rounds = self.rounds
                done = await self.command("backup", f"{folder}{number}.db")
                if not number:
                    # The directory has to be there for a file, and is not.
                    self.assertEqual(done.exit_code, 1, done.text)
                    self.assertIn("No such file", done.text)
                    done = await self.command("backup", "--keep", "3", folder)
                self.assertEqual(done.exit_code, 0, done.text)
                self.assertIn("2 users", done.text)
                while self.rounds < rounds + 2 and not running.called:
                    await pause(0.02)
        finally:
            self.enough = True
            await running
        made = sorted(Path(folder).glob("*.db"), key=lambda path: path.stat().st_mtime)
        self.assertEqual(len(made), BACKUPS)
        for path in made:
            self.assertEqual(path.stat().st_mode & 0o777, 0o600)
            with closing(sqlite3.connect(path)) as copy:
                self.assertEqual(
                    copy.execute("PRAGMA integrity_check").fetchall(), [("ok",)]
                )
                presentable = copy.execute(
                    "SELECT count(*) FROM refresh_tokens WHERE rotated_at IS NULL"
                    " GROUP BY grant_id"
                ).fetchall()
                self.assertEqual(presentable, [(1,), (1,)])
        sizes = [self.count_rotated(path) for path in made]
        self.assertEqual(sizes, sorted(sizes))
        self.assertNotIn("Traceback", self.daemon.text)

    def count_rotated(self, path: Path) -> int:
        """
        @return: how many refresh tokens were used by then.
        """
        with closing(sqlite3.connect(path)) as copy:
            row = copy.execute(
                "SELECT count(*) FROM refresh_tokens WHERE rotated_at IS NOT NULL"
            ).fetchone()
            return int(row[0])


class RestoreTests(BackupCase):
    """What clients notice."""

    async def test_sessions_go_on_after_one_sign_in(self) -> None:
        """
        Refused while the daemon runs. After it: 401 and C{invalid_grant} for all
        clients of a user until one of them has signed in; then the others go on with
        their tokens and sessions. What came after the backup is gone.
        """
        await self.begin()
        first = await self.session(self.daemon, self.forgejo)
        second = await self.session(self.daemon, self.forgejo)
        other = await self.session(self.daemon, self.forgejo, "bob")
        await self.check(first, "alice")
        backup = f"{self.directory}/copy.db"
        done = await self.command("backup", backup)
        self.assertEqual(done.exit_code, 0, done.text)
        late = await self.session(self.daemon, self.forgejo, "bob")
        refused = await self.command("restore", backup)
        self.assertEqual(refused.exit_code, 1, refused.text)
        self.assertIn("a broker is running", refused.text)
        await self.check(late, "bob")

        await self.daemon.stop()
        done = await self.command("restore", backup)
        self.assertEqual(done.exit_code, 0, done.text)
        self.assertIn("2 users must sign in again", done.text)
        await self.start()
        for client in (first, second, other, late):
            answer = await deferToThread(client.request, "tools/list")
            self.assertEqual(answer.status, 401, answer.text)
        form = {"grant_type": "refresh_token", "refresh_token": first.refresh_token}
        self.assertIn("invalid_grant", await self.refused_token(first, **form))

        renewed = McpClient(self.daemon.url, client_id=first.client_id)
        await deferToThread(renewed.sign_in, "alice", self.forgejo.password("alice"))
        renewed.session_id = first.session_id
        await self.check(renewed, "alice")
        await self.check(second, "alice")
        await deferToThread(second.refresh)
        await self.check(second, "alice")
        # Nobody has signed in for these.
        for client in (other, late):
            answer = await deferToThread(client.request, "tools/list")
            self.assertEqual(answer.status, 401, answer.text)
        await deferToThread(other.sign_in, "bob", self.forgejo.password("bob"))
        await self.check(other, "bob")
        await self.daemon.stop()
        self.assertNotIn("Traceback", self.daemon.text)

    async def refused_token(self, client: McpClient, **form: str) -> str:
        """
        @return: why the token endpoint refuses.
        """
        try:
            await deferToThread(client.token, **form)
        except AssertionError as error:
            return str(error)
        self.fail("it was not refused")


class DowngradeTests(BackupCase):
    """An older program on the store of a newer one."""

    def migrate_further(self, usable_from: int) -> None:
        """
        Do to the store what a newer version would.
        """
        newer = len(embedded()) + 1
        with closing(sqlite3.connect(self.store)) as store, store:
            store.execute("CREATE TABLE novelties (x INTEGER) STRICT")
            store.execute("ALTER TABLE sessions ADD COLUMN novelty TEXT")
            store.execute(
                "INSERT INTO schema_migrations VALUES (?, 1, x'00')", (newer,)
            )
            store.execute(f"PRAGMA user_version = {usable_from:d}")

    async def test_usable_store(self) -> None:
        """It starts, and clients go on and come."""
        await self.begin()
        client = await self.session(self.daemon, self.forgejo)
        await self.daemon.stop()
        self.migrate_further(len(embedded()))
        await self.start()
        await self.check(client, "alice")
        await deferToThread(client.refresh)
        await self.session(self.daemon, self.forgejo, "bob")
        done = await self.command("backup", f"{self.directory}/copy.db")
        self.assertEqual(done.exit_code, 0, done.text)
        await self.daemon.stop()
        self.assertNotIn("Traceback", self.daemon.text)

    async def test_store_that_is_not_usable(self) -> None:
        """One line that says what to do, exit status 1, the store untouched."""
        await self.begin()
        await self.daemon.stop()
        self.migrate_further(len(embedded()) + 1)
        before = Path(self.store).read_bytes()
        refused = Daemon.launch(self.environment, port=self.port)
        await refused.wait()
        self.assertEqual(refused.exit_code, 1, refused.text)
        self.assertIn(
            "install the version that wrote it or restore an older backup",
            refused.text,
        )
        self.assertNotIn("Traceback", refused.text)
        self.assertEqual(Path(self.store).read_bytes(), before)
