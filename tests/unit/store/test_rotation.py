"""
Another key: whatever happens on the way, the next start can open everything.
"""

import contextlib
import os
from collections.abc import Callable
from pathlib import Path
from sqlite3 import Connection

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred

from fjmcp_broker.secret import Secret
from fjmcp_broker.store import keys as key_files
from fjmcp_broker.store import rotation as rotations
from fjmcp_broker.store import sessions, tokens, upstream_tokens
from fjmcp_broker.store.errors import StoreRefused
from fjmcp_broker.store.keys import key_path, load_or_create_keys
from fjmcp_broker.store.resealing import key_ids_in_use
from fjmcp_broker.store.rotation import KeyRotation
from fjmcp_broker.store.sealing import Sealer, key_id

from . import rows
from .memory import NOW
from .rows import StoreTestCase, digest

OLD = b"k" * 32


class CrashError(Exception):
    """The process is gone."""


class RotationCase(StoreTestCase):
    """A store with a key file and a few sealed values."""

    def setUp(self) -> None:
        """One value in each of three tables."""
        super().setUp()
        self.path = os.path.abspath(self.mktemp())
        key_files.write_keys(key_path(self.path), [OLD])
        self.write(self.fill)

    def fill(self, connection: Connection) -> None:
        """Seal with the key of the file."""
        sealer = Sealer([OLD])
        upstream_tokens.save(connection, sealer, rows.upstream())
        for number in range(5):
            key = digest(f"session {number}")
            sealed = sealer.seal(b"{}", row=sessions.initialize_row(key))
            record = rows.session(session_digest=key, sealed_initialize=sealed)
            sessions.insert(connection, record)
        old = digest("rotated")
        row = tokens.derivation_key_row(old)
        tokens.insert_refresh(
            connection,
            rows.refresh(
                "rotated",
                rotated_at=NOW,
                sealed_derivation_key=sealer.seal(b"the key", row=row),
            ),
        )

    def rotation(self, *configured: str) -> KeyRotation:
        """A rotation."""
        return KeyRotation(self.path, [Secret(each) for each in configured])

    def everything(self, rotation: KeyRotation) -> None:
        """All of it."""
        sealer = Sealer(self.write(rotation.prepare))
        while self.write(lambda c: rotation.step(c, sealer)):
            pass
        self.write(rotation.finish)

    def fails(
        self, work: Callable[[Connection], object], kind: type[Exception]
    ) -> Exception:
        """A transaction that raises."""
        asked = Deferred.fromCoroutine(self.database.write(work))
        error: Exception = self.failureResultOf(asked, kind).value
        return error

    def file(self) -> tuple[bytes, ...]:
        """The keys that a start would have."""
        return load_or_create_keys(self.path, (), store_has_sealed_rows=True)

    def assert_opens(self, *keys: bytes) -> None:
        """The next start has what everything needs."""
        sealer = Sealer(keys or self.file())
        self.assertTrue(self.read(key_ids_in_use) <= sealer.key_ids)
        row = tokens.derivation_key_row(digest("rotated"))
        found = self.read(lambda c: tokens.find_refresh(c, digest("rotated")))
        assert found is not None and found.sealed_derivation_key is not None
        self.assertEqual(sealer.open(found.sealed_derivation_key, row=row), b"the key")


class KeyFileTests(RotationCase):
    """Without configured keys."""

    def test_new_key_alone_is_left(self) -> None:
        """The open refresh window has the key from which its answer is derived."""
        self.everything(self.rotation())
        (key,) = self.file()
        self.assertNotEqual(key, OLD)
        self.assertEqual(self.read(key_ids_in_use), {key_id(key)})
        self.assert_opens()
        mode = os.stat(key_path(self.path)).st_mode & 0o777
        self.assertEqual(mode, 0o600)

    @given(st.lists(st.integers(0, 6), max_size=5))
    def test_crashes(self, crashes: list[int]) -> None:
        """After any number of them, at any point, one more try ends well."""
        self.patch(rotations, "BATCH", 2)
        for point in crashes:
            with_crash = self.rotation()
            with contextlib.suppress(CrashError):
                self.crash_at(point, with_crash)
            self.assert_opens()
        self.everything(self.rotation())
        self.assertEqual(len(self.file()), 1)
        self.assert_opens()

    def crash_at(self, point: int, rotation: KeyRotation) -> None:
        """Go so far and no further."""
        if point == 0:
            self.dies_in(rotation.prepare)
        sealer = Sealer(self.write(rotation.prepare))
        for number in range(1, 5):
            if point == number:
                raise CrashError
            self.write(lambda c: rotation.step(c, sealer))
        if point == 5:
            self.dies_in(rotation.finish)
        self.write(rotation.finish)

    def dies_in(self, work: Callable[[Connection], object]) -> None:
        """The file beside is written; nobody comes to put it in its place."""

        def die(*arguments: object) -> None:
            raise CrashError

        patched = self.patch(os, "replace", die)
        self.fails(work, CrashError)
        patched.restore()
        raise CrashError

    def test_what_came_in_between_keeps_its_key(self) -> None:
        """The old key stays in the file as long as something needs it."""
        rotation = self.rotation()
        sealer = Sealer(self.write(rotation.prepare))
        while self.write(lambda c: rotation.step(c, sealer)):
            pass
        late = Sealer([OLD]).seal(b"{}", row=sessions.initialize_row(digest("late")))
        self.write(
            lambda c: sessions.insert(
                c, rows.session(session_digest=digest("late"), sealed_initialize=late)
            )
        )
        self.fails(rotation.finish, StoreRefused)
        self.assertIn(OLD, self.file())
        self.assert_opens()

    def test_file_that_cannot_be_written(self) -> None:
        """Nothing has changed."""
        Path(f"{key_path(self.path)}.new").mkdir()
        self.fails(self.rotation().prepare, StoreRefused)
        self.assertEqual(self.file(), (OLD,))
        self.assert_opens()

    def test_unknown_key(self) -> None:
        """With another store's key file nothing is done."""
        key_files.write_keys(key_path(self.path), [b"x" * 32])
        refused = self.fails(self.rotation().prepare, StoreRefused)
        self.assertIn(key_id(OLD).hex(), str(refused))
        self.assertEqual(self.file(), (b"x" * 32,))


class ConfiguredTests(RotationCase):
    """With configured keys, which only the operator changes."""

    def test_first_one_seals(self) -> None:
        """The others, and the file, are of no use any more."""
        new = b"n" * 32
        rotation = self.rotation(new.hex(), (b"m" * 32).hex())
        sealer = Sealer(self.write(rotation.prepare))
        while self.write(lambda c: rotation.step(c, sealer)):
            pass
        rotated = self.write(rotation.finish)
        self.assertEqual(rotated.key_id, key_id(new).hex())
        self.assertEqual((rotated.spare, rotated.key_file_is_spare), (1, True))
        self.assertEqual((rotated.new_key, rotated.resealed), (False, 8))
        self.assertEqual(self.file(), (OLD,))
        self.assert_opens(new)


class ReplacedSealerTests(RotationCase):
    """A daemon's sealer, while it works."""

    def test_both_open_and_the_new_one_seals(self) -> None:
        """What clients hold still comes back; another daemon has the new key only."""
        sealer = Sealer([OLD])
        before = sealer.seal(b"x", row="a/b/1")
        sealer.replace([b"n" * 32])
        after = sealer.seal(b"y", row="a/b/1")
        self.assertEqual(sealer.open(before, row="a/b/1"), b"x")
        self.assertEqual(Sealer([b"n" * 32]).open(after, row="a/b/1"), b"y")
        self.assertFalse(sealer.is_current(before))
        self.assertTrue(sealer.is_current(after))
