"""
Backups of real stores, and stores from backups.
"""

import os
import sqlite3
import sys
from contextlib import closing
from io import StringIO
from pathlib import Path
from typing import Any

from fjmcp_broker import cli
from fjmcp_broker.key_text import decode_key
from fjmcp_broker.oauth.grants import AuthorizationCode
from fjmcp_broker.secret import Secret
from fjmcp_broker.store import backup as backups
from fjmcp_broker.store import clients, grants, tokens, upstream_tokens, users
from fjmcp_broker.store.backup import backup, prune
from fjmcp_broker.store.errors import StoreRefused
from fjmcp_broker.store.instance import Instance
from fjmcp_broker.store.keys import key_path
from fjmcp_broker.store.migrations import embedded
from fjmcp_broker.store.preflight import prepare
from fjmcp_broker.store.restoring import Expected, Restored, restore
from fjmcp_broker.store.sealing import Sealer
from fjmcp_broker.store.upstream_tokens import UpstreamSet
from tests.real.store_dump import DATA, KEY
from tests.unit.store import rows

from .stores import HOLDER, NOW, OURS, PreflightTestCase, unprivileged


class BackupCase(PreflightTestCase):
    """A store with one user, who has a grant and an unused code."""

    def setUp(self) -> None:
        """Make it, and a place for backups."""
        super().setUp()
        self.sealer = Sealer(self.prepare())
        self.target = f"{self.folder}/copy.db"
        connection = self.connect()
        connection.execute("PRAGMA journal_mode = WAL")
        users.upsert_user(connection, rows.USER_ID, "ada", "Ada", NOW)
        clients.insert(connection, rows.client())
        grants.insert(connection, rows.grant())
        tokens.insert_code(
            connection,
            AuthorizationCode(
                code_digest=rows.digest("code"),
                grant_id=rows.GRANT_ID,
                redirect_uri=rows.REDIRECT_URI,
                code_challenge="c" * 43,
                expires_at=NOW + 600,
            ),
        )
        upstream_tokens.save(
            connection,
            self.sealer,
            UpstreamSet(
                user_id=rows.USER_ID,
                access_token=Secret("their-access"),
                refresh_token=Secret("their-refresh"),
                expires_at=NOW + 3600,
                updated_at=NOW,
            ),
        )
        # Left open: what was written is in the log beside the store.
        self.connection = connection

    def value(self, query: str, path: str | None = None) -> Any:
        """
        @return: the first column of the first row, of the store or another file.
        """
        with closing(sqlite3.connect(path or self.path)) as connection:
            return connection.execute(query).fetchone()[0]


class BackupTests(BackupCase):
    """The copy."""

    def test_copy_is_whole_and_alone(self) -> None:
        """What is still in the log is in it; one file, mode 0600, no key, no log."""
        self.assertTrue(os.path.getsize(f"{self.path}-wal"))
        before = set(os.listdir(self.folder))
        contents = backup(self.path, self.target)
        self.assertEqual(set(os.listdir(self.folder)) - before, {"copy.db"})
        self.assertEqual(os.stat(self.target).st_mode & 0o777, 0o600)
        self.assertEqual(
            (contents.schema, contents.users, contents.grants, contents.sessions),
            (len(embedded()), 1, 1, 0),
        )
        self.assertEqual(contents.key_ids, self.sealer.key_ids)
        self.assertEqual(contents.instance, (OURS.forgejo_url, OURS.oauth_client_id))
        self.assertEqual(self.value("SELECT login FROM users", self.target), "ada")

    def test_secrets_stay_sealed(self) -> None:
        """Neither the tokens nor the key are readable in the file."""
        backup(self.path, self.target)
        written = Path(self.target).read_bytes()
        key = Path(key_path(self.path)).read_bytes().strip()
        self.assertNotIn(b"their-", written)
        self.assertNotIn(key, written)
        self.assertNotIn(decode_key(key.decode()), written)

    def test_while_another_writes(self) -> None:
        """An open transaction is not in it, and is not in its way."""
        self.connection.execute("BEGIN IMMEDIATE")
        users.upsert_user(self.connection, 99, "eve", "Eve", NOW)
        self.assertEqual(backup(self.path, self.target).users, 1)
        self.connection.execute("COMMIT")
        self.assertEqual(self.value("SELECT count(*) FROM users"), 2)

    def test_nothing_is_overwritten(self) -> None:
        """Whatever has the name keeps it."""
        Path(self.target).write_text("mine")
        error = self.assertRaises(StoreRefused, backup, self.path, self.target)
        self.assertIn("exists already", str(error))
        self.assertEqual(Path(self.target).read_text(), "mine")

    def test_damage_is_seen(self) -> None:
        """A copy of a damaged store is not kept."""
        self.connection.close()
        size = os.path.getsize(self.path)
        with open(self.path, "r+b") as file:
            file.seek(8192)
            file.write(b"\xff" * (size - 8192))
        before = set(os.listdir(self.folder))
        error = self.assertRaises(StoreRefused, backup, self.path, self.target)
        self.assertIn("cannot be made: ", str(error))
        self.assertNotIn("\n", str(error))
        # A reader leaves an empty log.
        made = set(os.listdir(self.folder)) - before
        self.assertEqual(made - {"store.db-wal", "store.db-shm"}, set())

    def test_no_store_and_no_place(self) -> None:
        """A line that names the file."""
        error = self.assertRaises(StoreRefused, backup, "/nonexistent", self.target)
        self.assertEqual(str(error), "there is no store at /nonexistent")
        error = self.assertRaises(
            StoreRefused, backup, self.path, f"{self.folder}/none/copy.db"
        )
        self.assertIn("No such file", str(error))
        Path(self.folder).chmod(0o555)
        with unprivileged():
            error = self.assertRaises(
                StoreRefused, backup, self.path, f"{self.folder}/copy.db"
            )
        self.assertIn(self.target, str(error))
        self.assertFalse(Path(self.target).exists())

    def test_without_hard_links(self) -> None:
        """Some network shares have none."""

        def link(*_: str) -> None:
            raise PermissionError(1, "Operation not permitted")

        self.patch(os, "link", link)
        backup(self.path, self.target)
        self.assertEqual(self.value("SELECT count(*) FROM users", self.target), 1)

    def test_old_ones_go(self) -> None:
        """Only the oldest, and only what has such a name."""
        names = [backups.backup_name(self.path, NOW + i) for i in range(4)]
        others = ["store-20270115.db", "other-20270115T080000Z.db", "store.db.key"]
        folder = Path(self.mktemp())
        folder.mkdir()
        for name in [*names, *others]:
            (folder / name).touch()
        removed = prune(str(folder), self.path, 2)
        self.assertEqual(removed, [str(folder / name) for name in names[:2]])
        self.assertEqual(set(os.listdir(folder)), {*names[2:], *others})
        self.assertEqual(prune(str(folder), self.path, 2), [])


class RestoreTests(BackupCase):
    """The store from its copy."""

    def setUp(self) -> None:
        """Make a backup, after which something happens."""
        super().setUp()
        backup(self.path, self.target)
        grants.revoke(self.connection, rows.GRANT_ID, NOW, "later")
        self.expected = Expected(OURS, [])

    def restore(self, **changes: Any) -> Restored:
        """
        @return: what was done.
        """
        given = {"backup_path": self.target, "path": self.path, "now": NOW + 100}
        return restore(**{**given, "expected": self.expected, **changes})

    def refusal(self, **changes: Any) -> str:  # type: ignore[override]
        """
        @return: the message; the store is as it was.
        """
        error = self.assertRaises(StoreRefused, lambda: self.restore(**changes))
        self.assertNotIn("\n", str(error))
        self.assertEqual(self.value("SELECT reason FROM grants"), "later")
        self.assertEqual(
            [name for name in os.listdir(self.folder) if "restoring" in name], []
        )
        return str(error)

    def test_what_is_single_use_is_gone(self) -> None:
        """Users have to sign in, codes are void; the rest is as in the backup."""
        done = self.restore()
        self.assertEqual((done.suspended, done.codes, done.sign_ins), (1, 1, 0))
        self.assertEqual(
            self.value("SELECT state FROM upstream_tokens"), "needs_sign_in"
        )
        self.assertEqual(self.value("SELECT count(*) FROM authorization_codes"), 0)
        self.assertEqual(
            self.value("SELECT count(*) FROM grants WHERE revoked_at IS NULL"), 1
        )
        self.assertEqual(
            self.value("SELECT kind || ' by ' || actor FROM audit_events"),
            f"restore by uid {os.getuid()}",
        )
        self.assertEqual(os.stat(self.path).st_mode & 0o777, 0o600)
        self.assertEqual(self.prepare(), self.prepare())
        # The backup itself can be used again.
        self.assertEqual(
            self.value("SELECT state FROM upstream_tokens", self.target), "usable"
        )

    def test_store_before_is_kept(self) -> None:
        """With what was in its log."""
        aside = self.restore().aside
        assert aside is not None
        self.assertEqual(self.value("SELECT reason FROM grants", aside), "later")
        self.assertEqual(
            self.value("SELECT count(*) FROM grants WHERE reason = 'later'"), 0
        )

    def test_damaged_store_is_replaced(self) -> None:
        """That is what backups are for; its log is not applied to the new store."""
        log = Path(f"{self.path}-wal").read_bytes()
        self.connection.close()
        Path(self.path).write_bytes(b"swordfish " * 1000)
        Path(f"{self.path}-wal").write_bytes(log)
        aside = self.restore().aside
        assert aside is not None
        self.assertFalse(Path(f"{self.path}-wal").exists())
        self.assertEqual(Path(f"{aside}-wal").read_bytes(), log)
        self.assertEqual(self.value("SELECT count(*) FROM users"), 1)
        self.prepare()

    def test_another_machine(self) -> None:
        """No store there yet, not even a directory; the key was brought along."""
        path = f"{self.folder}/new/place/store.db"
        Path(path).parent.mkdir(parents=True)
        Path(key_path(path)).write_bytes(Path(key_path(self.path)).read_bytes())
        Path(key_path(path)).chmod(0o600)
        self.assertIsNone(self.restore(path=path).aside)
        self.assertEqual(self.value("SELECT count(*) FROM users", path), 1)
        path = f"{self.folder}/newer/place/store.db"
        self.restore(path=path, expected=None)
        self.assertEqual(os.stat(Path(path).parent).st_mode & 0o777, 0o700)

    def test_owner_stays(self) -> None:
        """Root restores, and the daemon's user can use it."""
        if os.geteuid() != 0:
            # Nobody else can give files away, and nobody else needs to.
            return
        os.chown(self.path, 65533, 65532)
        self.restore()
        for path in (self.path, f"{self.path}.lock"):
            status = os.stat(path)
            self.assertEqual((status.st_uid, status.st_gid), (65533, 65532))
        os.unlink(f"{self.path}.lock")
        Path(self.target).write_bytes(b"swordfish " * 1000)
        self.assertRaises(StoreRefused, self.restore)
        self.assertEqual(os.stat(f"{self.path}.lock").st_uid, 65533)

    def test_backup_of_an_older_version(self) -> None:
        """The daemon brings it up to date, and nobody's tokens are used."""
        old, new = f"{self.folder}/v1.db", f"{self.folder}/again.db"
        with closing(sqlite3.connect(old)) as made:
            made.executescript((DATA / "store-v1.sql").read_text())
        done = self.restore(backup_path=old, path=new, expected=None)
        self.assertEqual((done.contents.schema, done.suspended), (1, 2))
        assert done.contents.instance is not None
        prepare(new, [Secret(KEY)], Instance(*done.contents.instance), NOW)
        self.assertEqual(
            self.value("SELECT count(*) FROM schema_migrations", new), len(embedded())
        )
        self.assertEqual(
            self.value(
                "SELECT count(*) FROM upstream_tokens WHERE state = 'usable'", new
            ),
            0,
        )

    def test_running_daemon(self) -> None:
        """It would go on with the old file."""
        self.child(HOLDER)
        self.assertIn("a broker is running", self.refusal())

    def test_wrong_backups(self) -> None:
        """Each is refused before anything is touched."""
        other = f"{self.folder}/other"
        self.assertIn("no backup at", self.refusal(backup_path=other))
        self.assertIn("the store itself", self.refusal(backup_path=self.path))
        Path(other).write_bytes(b"swordfish " * 1000)
        self.assertIn("not a database", self.refusal(backup_path=other))
        Path(other).write_bytes(b"")
        self.assertIn("no store in it", self.refusal(backup_path=other))
        size = os.path.getsize(self.target)
        Path(other).write_bytes(
            Path(self.target).read_bytes()[: size // 2] + b"\xff" * (size // 2)
        )
        self.assertIn("cannot be restored: ", self.refusal(backup_path=other))
        elsewhere = Expected(Instance("https://other.example", "app"), [])
        self.assertIn("it belongs to", self.refusal(expected=elsewhere))
        with closing(sqlite3.connect(self.target)) as connection, connection:
            connection.execute("INSERT INTO schema_migrations VALUES (99, 1, x'00')")
            connection.execute("PRAGMA user_version = 99")
        self.assertIn("its schema is version 99", self.refusal())

    def test_key_must_be_there(self) -> None:
        """A store that nobody can open is none; no new key is made."""
        key = Path(key_path(self.path))
        text = key.read_bytes()
        key.unlink()
        self.assertIn("there is no key", self.refusal())
        self.assertFalse(key.exists())
        wrong = Expected(OURS, [Secret("00" * 32)])
        self.assertIn("sealed with another key", self.refusal(expected=wrong))
        configured = Expected(OURS, [Secret(text.decode().strip())])
        self.restore(expected=configured)


class CommandTests(BackupCase):
    """C{fjmcp-broker backup} and C{restore}."""

    def setUp(self) -> None:
        """Catch what is printed."""
        super().setUp()
        self.out, self.err = StringIO(), StringIO()
        self.patch(sys, "stdout", self.out)
        self.patch(sys, "stderr", self.err)
        environment = {
            "FJMCP_BROKER_PUBLIC_URL": "https://mcp.example.org",
            "FORGEJO_URL": OURS.forgejo_url,
            "FORGEJO_OAUTH_CLIENT_ID": OURS.oauth_client_id,
            "FORGEJO_OAUTH_CLIENT_SECRET": "the-secret",
            "FJMCP_BROKER_STORE_PATH": self.path,
        }
        self.patch(os, "environ", environment)

    def test_file(self) -> None:
        """It says what is in it, and which key to keep."""
        self.assertEqual(cli.main(["backup", self.target]), 0)
        printed = self.out.getvalue()
        self.assertIn(f"{self.target}: whole, schema {len(embedded())}", printed)
        self.assertIn("1 user, 1 grant, 0 sessions", printed)
        self.assertIn(f"keep {key_path(self.path)} elsewhere", printed)
        self.assertEqual(cli.main(["backup", self.target]), 1)
        self.assertIn("exists already", self.err.getvalue())

    def test_directory(self) -> None:
        """It is made, private, and holds as many as asked for."""
        folder = f"{self.folder}/backups/"
        times = iter((NOW, NOW + 1, NOW + 2))
        self.patch(sys.modules["time"], "time", lambda: next(times))
        for _ in range(3):
            command = ["backup", "--store", self.path, "--keep", "2", folder]
            self.assertEqual(cli.main(command), 0, self.err.getvalue())
        self.assertEqual(
            sorted(os.listdir(folder)),
            ["store-20270115T080001Z.db", "store-20270115T080002Z.db"],
        )
        self.assertEqual(os.stat(folder).st_mode & 0o777, 0o700)
        self.assertIn(f"removed {folder}store-20270115T080000Z", self.out.getvalue())

    def test_keep_needs_a_directory(self) -> None:
        """Nothing is made."""
        command = ["backup", "--keep", "2", self.target]
        self.assertEqual(cli.main(command), 1)
        self.assertFalse(Path(self.target).exists())
        for number in ("0", "-1", "x", "10000"):
            with self.assertRaises(SystemExit):
                cli.main(["backup", "--keep", number, self.folder])

    def test_restore(self) -> None:
        """It says what users will notice."""
        cli.main(["backup", self.target])
        self.assertEqual(cli.main(["restore", self.target]), 0, self.err.getvalue())
        printed = self.out.getvalue()
        for text in (
            f"{self.path} is {self.target} now",
            f"{self.path}.before-",
            "1 user must sign in again",
            "Voided: 1 authorization code, 0 sign-ins",
            "revoke it again",
        ):
            self.assertIn(text, printed)
        self.assertNotIn("was not looked at", printed)

    def test_restore_without_configuration(self) -> None:
        """It says what it could not look at."""
        cli.main(["backup", self.target])
        os.environ.clear()
        command = ["restore", "--store", self.path, self.target]
        self.assertEqual(cli.main(command), 0, self.err.getvalue())
        self.assertIn("was not looked at", self.out.getvalue())
        self.assertEqual(cli.main(["restore", self.target]), 1)
        self.assertIn("server.public_url", self.err.getvalue())

    def test_refusal(self) -> None:
        """Exit status 1 and one line."""
        self.assertEqual(cli.main(["restore", "/nonexistent"]), 1)
        self.assertEqual(self.err.getvalue(), "there is no backup at /nonexistent\n")
