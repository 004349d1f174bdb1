"""What is known of the configured child's program."""

import os

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from fjmcp_broker.mcp.modern.profiles import ChildEra, ChildProfile
from fjmcp_broker.sessions.children.profiles import (
    ChildProfiles,
    ProgramIdentity,
    program_identity,
)
from fjmcp_broker.store.errors import StoreUnavailable

LEGACY = ChildProfile(ChildEra.LEGACY, b"{}")


class StubRows:
    """Rows in a dictionary."""

    def __init__(self) -> None:
        """No rows."""
        self.rows: dict[bytes, ChildProfile] = {}
        self.writes = 0
        self.error: Exception | None = None

    async def all(self) -> dict[bytes, ChildProfile]:
        """As the real ones."""
        if self.error is not None:
            raise self.error
        return dict(self.rows)

    async def put(self, identity: bytes, profile: ChildProfile, now: int) -> None:
        """As the real ones."""
        self.writes += 1
        self.rows[identity] = profile


class ProfileTests(SynchronousTestCase):
    """Memory and rows."""

    def setUp(self) -> None:
        """One program."""
        self.rows = StubRows()
        self.identity = b"a"
        self.profiles = ChildProfiles(lambda: self.identity, self.rows)

    def load(self) -> None:
        """At the start of the daemon."""
        self.successResultOf(Deferred.fromCoroutine(self.profiles.load()))

    def test_what_an_earlier_daemon_knew(self) -> None:
        """Is known after the start, for the same program only."""
        self.rows.rows[b"a"] = LEGACY
        self.assertIsNone(self.profiles.known())
        self.load()
        self.assertEqual(self.profiles.known(), LEGACY)
        self.identity = b"b"
        self.assertIsNone(self.profiles.known())
        self.assertEqual(self.profiles.known(b"a"), LEGACY)

    def test_store_that_cannot_be_read(self) -> None:
        """Costs a probe, not the start."""
        self.rows.error = StoreUnavailable("busy")
        self.load()
        self.assertIsNone(self.profiles.known())

    def test_only_news_are_written_down(self) -> None:
        """Each once."""
        for _ in range(2):
            self.profiles.learnt(b"a", LEGACY)
        self.assertEqual((self.rows.rows, self.rows.writes), ({b"a": LEGACY}, 1))
        self.profiles.learnt(b"a", ChildProfile(ChildEra.LEGACY, b'{"b":1}'))
        self.assertEqual(self.rows.writes, 2)

    def test_what_was_not_said_again_stays(self) -> None:
        """Unless the era is another one."""
        dual, modern = ChildEra.DUAL, ChildEra.MODERN
        self.profiles.learnt(b"a", ChildProfile(dual, b"1"))
        self.profiles.learnt(b"a", ChildProfile(dual, None, b"2"))
        self.assertEqual(self.profiles.known(), ChildProfile(dual, b"1", b"2"))
        self.profiles.learnt(b"a", ChildProfile(modern, None, b"3"))
        self.assertEqual(self.profiles.known(), ChildProfile(modern, None, b"3"))
        self.profiles.forget(b"a")
        self.assertIsNone(self.profiles.known())

    def test_what_is_not_certain(self) -> None:
        """Is for this daemon alone."""
        self.profiles.learnt(b"a", LEGACY, certain=False)
        self.assertEqual((self.profiles.known(), self.rows.rows), (LEGACY, {}))


class IdentityTests(SynchronousTestCase):
    """What tells one kind of child from another."""

    def test_program(self) -> None:
        """Its command line, and when it was installed."""
        path = self.mktemp()
        with open(path, "w", encoding="ascii") as file:
            file.write("#!/bin/sh\n")
        os.chmod(path, 0o700)
        path = os.path.abspath(path)
        first = program_identity([path, "a"])
        self.assertEqual(first, program_identity([path, "a"]))
        self.assertNotEqual(first, program_identity([path, "b"]))
        os.utime(path, (1, 1))
        self.assertNotEqual(first, program_identity([path, "a"]))
        again = program_identity([path, "a"])
        os.rename(path, f"{path}.old")
        self.assertNotIn(program_identity([path, "a"]), (first, again))

    def test_is_looked_up_now_and_then(self) -> None:
        """An upgrade is noticed after a moment, whatever the clock does."""
        path = os.path.abspath(self.mktemp())
        with open(path, "w", encoding="ascii") as file:
            file.write("#!/bin/sh\n")
        os.chmod(path, 0o700)
        now = 100.0
        identity = ProgramIdentity([path], lambda: now)
        first = identity()
        os.utime(path, (1, 1))
        self.assertEqual(identity(), first)
        now += 1
        second = identity()
        self.assertNotEqual(second, first)
        os.utime(path, (2, 2))
        now -= 50
        self.assertNotEqual(identity(), second)
