"""
A store before the daemon runs: made, found again, never half written.
"""

import os
import stat
import threading
from contextlib import closing
from pathlib import Path

from fjmcp_broker.secret import Secret
from fjmcp_broker.store import upstream_tokens, users
from fjmcp_broker.store.instance import Instance
from fjmcp_broker.store.migrations import embedded
from fjmcp_broker.store.sealing import Sealer, key_id
from fjmcp_broker.store.upstream_tokens import UpstreamSet

from .stores import (
    KEY,
    NOW,
    OTHER_KEY,
    WRITER,
    PreflightTestCase,
    open_files,
)


class UsableStoreTests(PreflightTestCase):
    def test_fresh_store_is_made_with_its_directories(self) -> None:
        """
        On first start everything is made, for nobody else to look into.
        """
        self.path = os.path.join(self.folder, "a", "b", "store.db")
        keys = self.prepare()
        self.assertEqual([len(key) for key in keys], [32])
        self.assertEqual(
            sorted(os.listdir(os.path.dirname(self.path))),
            ["store.db", "store.db.key", "store.db.lock"],
        )
        for name in os.listdir(os.path.dirname(self.path)):
            path = os.path.join(os.path.dirname(self.path), name)
            self.assertEqual((name, stat.S_IMODE(os.stat(path).st_mode)), (name, 0o600))
        with closing(self.connect()) as connection:
            self.assertEqual(
                connection.execute("PRAGMA journal_mode").fetchone(), ("wal",)
            )
            self.assertEqual(
                connection.execute("SELECT version FROM schema_migrations").fetchall(),
                [(migration.version,) for migration in embedded()],
            )

    def test_reopened_store_keeps_its_rows_and_keys(self) -> None:
        """
        The second start finds what the first one left.
        """
        keys = self.prepare()
        with closing(self.connect()) as connection:
            users.upsert_user(connection, 7, "ada", "Ada", NOW)
        self.assertEqual(self.prepare(), keys)
        with closing(self.connect()) as connection:
            self.assertIsNotNone(users.find_user(connection, 7))

    def test_store_under_odd_names_is_found_again(self) -> None:
        """
        A path may contain what has a meaning in a URI.
        """
        self.path = os.path.join(self.folder, "a?mode=memory#%20 ü.db")
        self.prepare(KEY)
        self.assertTrue(os.path.getsize(self.path))

    def test_empty_file_is_a_new_store(self) -> None:
        """
        A file that some tool has made beforehand is filled.
        """
        open(self.path, "w").close()
        self.prepare()
        self.assertTrue(os.path.getsize(self.path))

    def test_nothing_stays_open(self) -> None:
        """
        Preflight leaves no handle, no lock and no thread, also when it refuses: the
        daemon forks afterwards.
        """
        before = open_files(), threading.enumerate()
        self.prepare()
        self.refusal(instance=Instance("https://other.example", "app"))
        self.assertEqual((open_files(), threading.enumerate()), before)
        self.prepare()

    def test_killed_writer_leaves_a_usable_store(self) -> None:
        """
        After a kill what was committed is there, and half a transaction is not.
        """
        self.prepare()
        self.child(WRITER).kill()
        self.prepare()
        with closing(self.connect()) as connection:
            self.assertEqual(
                connection.execute("SELECT user_id FROM users").fetchall(), [(1,)]
            )


class SealedStoreTests(PreflightTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.prepare(KEY)
        with closing(self.connect()) as connection:
            users.upsert_user(connection, 7, "ada", "Ada", NOW)
            upstream_tokens.save(
                connection,
                Sealer([KEY]),
                UpstreamSet(7, Secret("access"), Secret("refresh"), NOW + 3600),
            )

    def test_missing_key(self) -> None:
        """
        Without a key nothing is made that could not open what is there.
        """
        self.assertEqual(
            self.refusal(),
            f"the store {self.path} holds sealed values, but there is no key:"
            f" configure database.encryption_keys or put {self.path}.key back;"
            " no new key was made",
        )
        self.assertFalse(os.path.exists(f"{self.path}.key"))

    def test_other_key(self) -> None:
        """
        A key that opens nothing is as bad as none; the message names the one that
        is needed by its id.
        """
        self.assertEqual(
            self.refusal(OTHER_KEY),
            f"the store {self.path} holds values sealed with another key"
            f" (id {key_id(KEY).hex()}): add it to database.encryption_keys or put"
            f" {self.path}.key back",
        )

    def test_new_key_before_the_old_one(self) -> None:
        """
        A key can be replaced: the new one seals, the old one still opens.
        """
        self.assertEqual(self.prepare(OTHER_KEY, KEY), (OTHER_KEY, KEY))

    def test_refused_store_is_unchanged(self) -> None:
        """
        Whatever the reason, a refused start leaves every byte as it was.
        """
        before = Path(self.path).read_bytes()
        self.refusal()
        self.refusal(OTHER_KEY)
        self.refusal(KEY, instance=Instance("https://other.example", "app"))
        self.assertEqual(Path(self.path).read_bytes(), before)
