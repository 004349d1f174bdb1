"""
What is known of the configured child's program, kept in the store: the first child of a
program that nobody has met yet tells it for all others.
"""

import json
import os
import shutil
from collections.abc import Callable, Sequence
from contextlib import suppress
from hashlib import sha256
from typing import Final, Protocol

from twisted.logger import Logger

from fjmcp_broker.logs import background
from fjmcp_broker.mcp.modern.profiles import ChildEra, ChildProfile
from fjmcp_broker.store import child_profiles
from fjmcp_broker.store.database import Database
from fjmcp_broker.store.errors import StoreError

IDENTITY_SECONDS: Final = 1.0

Identify = Callable[[], bytes]
"""Tells the kind of child that would be started now."""


class ProfileRows(Protocol):
    """
    Where profiles are written down.
    """

    async def all(self) -> dict[bytes, ChildProfile]:
        """
        @return: every profile by identity.
        @raise StoreError: the store cannot be used.
        """

    async def put(self, identity: bytes, profile: ChildProfile, now: int) -> None:
        """
        @param identity: of a kind of child.
        @param profile: what is known of it.
        @param now: seconds since the epoch.
        @raise StoreError: the store cannot be used.
        """


class StoredProfiles:
    """
    Profiles in the store.
    """

    def __init__(self, database: Database) -> None:
        """
        @param database: the store.
        """
        self._database = database

    async def all(self) -> dict[bytes, ChildProfile]:
        """
        @return: every profile by identity.
        @raise StoreError: the store cannot be used.
        """
        return await self._database.read(child_profiles.find_all)

    async def put(self, identity: bytes, profile: ChildProfile, now: int) -> None:
        """
        @param identity: of a kind of child.
        @param profile: what is known of it.
        @param now: seconds since the epoch.
        @raise StoreError: the store cannot be used.
        """
        await self._database.write(
            lambda connection: child_profiles.put(connection, identity, profile, now)
        )


class ChildProfiles:
    """
    The profiles, in memory since the start; what is new is written off the path.
    """

    log = Logger()

    def __init__(
        self,
        identify: Identify,
        rows: ProfileRows | None = None,
        seconds: Callable[[], float] = lambda: 0.0,
    ) -> None:
        """
        @param identify: tells the kind of child that would be started now.
        @param rows: where they are written down, C{None} for nowhere.
        @param seconds: the time, seconds since the epoch.
        """
        self._identify = identify
        self._rows = rows
        self._seconds = seconds
        self._known: dict[bytes, ChildProfile] = {}

    @classmethod
    def of_old_children(cls) -> "ChildProfiles":
        """
        @return: what is known when every child speaks the older revisions: nothing
            is asked of it, and nothing written down.
        """
        profiles = cls(lambda: b"")
        profiles._known[b""] = ChildProfile(ChildEra.LEGACY)
        return profiles

    async def load(self) -> None:
        """
        Read what earlier daemons have found out. Without it the first child tells it
        again.
        """
        if self._rows is None:
            return
        try:
            self._known = {**await self._rows.all(), **self._known}
        except StoreError as problem:
            self.log.warn("what children are is not known: {e}", e=str(problem))

    def identity(self) -> bytes:
        """
        @return: the kind of child that would be started now.
        """
        return self._identify()

    def known(self, identity: bytes | None = None) -> ChildProfile | None:
        """
        @param identity: of a kind of child, by default of the one that would be started
            now.
        @return: what is known of it.
        """
        return self._known.get(self._identify() if identity is None else identity)

    def learnt(
        self, identity: bytes, profile: ChildProfile, *, certain: bool = True
    ) -> None:
        """
        @param identity: of the kind of a child that has just been heard.
        @param profile: what it said. What is known and it did not say stays.
        @param certain: whether another daemon may rely on it.
        """
        before = self._known.get(identity)
        if before is not None and before.era is profile.era:
            profile = ChildProfile(
                profile.era,
                profile.initialize_result or before.initialize_result,
                profile.discover_result or before.discover_result,
            )
        if profile == before:
            return
        self._known[identity] = profile
        if before is None or before.era is not profile.era:
            self.log.info("children speak {era}", era=profile.era.value)
        if certain and self._rows is not None:
            background(
                self._rows.put(identity, profile, int(self._seconds())),
                "writing down what children are",
            )

    def forget(self, identity: bytes) -> None:
        """
        @param identity: of a kind of child that is not what was known of it.
        """
        self._known.pop(identity, None)


class ProgramIdentity:
    """
    The kind of the configured child. It is looked up once a second at most, since
    every request asks for it.
    """

    def __init__(self, command: Sequence[str], seconds: Callable[[], float]) -> None:
        """
        @param command: program and arguments.
        @param seconds: the time.
        """
        self._command = command
        self._seconds = seconds
        self._known = b""
        self._at: float | None = None

    def __call__(self) -> bytes:
        """
        @return: as L{program_identity}.
        """
        now = self._seconds()
        if self._at is None or not 0 <= now - self._at < IDENTITY_SECONDS:
            self._known, self._at = program_identity(self._command), now
        return self._known


def program_identity(command: Sequence[str]) -> bytes:
    """
    Tell a kind of child by its command line and its program's inode and time of change.
    A script behind an interpreter is not looked at: when it begins to speak another
    era, its children say so at their start.

    @param command: program and arguments.
    @return: a digest.
    """
    program = shutil.which(command[0])
    facts: list[object] = [*command]
    if program is not None:
        # One that is removed in this moment is missed by the start of the child.
        with suppress(OSError):
            status = os.stat(program)
            facts += [status.st_dev, status.st_ino, status.st_mtime_ns]
    return sha256(json.dumps(facts).encode("utf-8", "surrogateescape")).digest()
