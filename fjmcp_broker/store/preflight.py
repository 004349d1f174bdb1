"""
Everything that can be said about a store before the daemon runs: open, check, migrate,
close. Nothing stays open, so that the daemon may fork afterwards.
"""

import os
import sqlite3
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Final

from fjmcp_broker.secret import Secret

from . import instance as instances
from . import migrations
from .connection import MEMORY, connection_target, set_up_writer, transaction
from .errors import StoreRefused, primary_code
from .instance import Instance
from .keys import key_path, load_or_create_keys
from .lock import DEFAULT_WAIT_SECONDS, StoreLock
from .resealing import key_ids_in_use
from .sealing import Sealer

#: The first one with strict tables, the newest thing that the schema uses.
OLDEST_SQLITE: Final = (3, 37, 0)

_REASONS: Final = {
    sqlite3.SQLITE_BUSY: "another program has locked it",
    sqlite3.SQLITE_LOCKED: "another program has locked it",
    sqlite3.SQLITE_READONLY: "it is read-only",
    sqlite3.SQLITE_PERM: "its permissions do not allow it",
    sqlite3.SQLITE_CANTOPEN: "it cannot be opened",
    sqlite3.SQLITE_FULL: "the disk is full",
    sqlite3.SQLITE_NOTADB: "it is not a database, or damaged; restore a backup",
    sqlite3.SQLITE_CORRUPT: "it is damaged; restore a backup",
}


def prepare(
    path: str,
    encryption_keys: Sequence[Secret],
    instance: Instance,
    now: int,
    *,
    lock_wait_seconds: float = DEFAULT_WAIT_SECONDS,
    busy_timeout_seconds: float = 5.0,
    populate: Callable[[sqlite3.Connection], None] = lambda _: None,
) -> tuple[bytes, ...]:
    """
    Make a store ready for L{Database<database.Database>}, or say why it cannot be.
    A store that is refused has not been changed.

    Blocks, also while another daemon still holds the store's lock. The lock is given
    up again; the daemon takes it for good when it starts.

    @param path: of the store; missing directories above it are made.
    @param encryption_keys: as configured, the one that seals first; with none, the
        key file beside the store is read, or made beside a new store.
    @param instance: what the store belongs to, or will.
    @param now: seconds since the epoch.
    @param lock_wait_seconds: how long to wait for another daemon.
    @param busy_timeout_seconds: how long to wait for other programs.
    @param populate: writes what else has to stand in the store from the start.
    @return: the keys for a L{Sealer<sealing.Sealer>}.
    @raise StoreRefused: with one clear line.
    """
    check_sqlite(sqlite3.sqlite_version_info)
    if path == MEMORY or not path:
        raise StoreRefused("the store must be a file")
    _make_folder(path)
    lock = StoreLock(path)
    lock.acquire_blocking(lock_wait_seconds)
    try:
        _make_file(path)
        try:
            with closing(
                sqlite3.connect(
                    connection_target(path),
                    uri=True,
                    isolation_level=None,
                    timeout=busy_timeout_seconds,
                )
            ) as connection:
                return _prepare(
                    connection, path, encryption_keys, instance, now, populate
                )
        except sqlite3.Error as error:
            reason = _REASONS.get(primary_code(error), str(error))
            raise StoreRefused(f"the store {path} cannot be used: {reason}") from error
    finally:
        lock.release()


def check_sqlite(version: tuple[int, ...]) -> None:
    """
    @param version: of the SQLite library that Python brings or finds.
    @raise StoreRefused: it is too old for the schema.
    """
    if version < OLDEST_SQLITE:
        raise StoreRefused(
            f"SQLite {'.'.join(map(str, OLDEST_SQLITE))} or newer is needed, and this"
            f" Python has {'.'.join(map(str, version))}"
        )


def _prepare(
    connection: sqlite3.Connection,
    path: str,
    encryption_keys: Sequence[Secret],
    instance: Instance,
    now: int,
    populate: Callable[[sqlite3.Connection], None],
) -> tuple[bytes, ...]:
    """
    First look, then write.
    """
    (problem,) = connection.execute("PRAGMA quick_check(1)").fetchone()
    if problem != "ok":
        raise StoreRefused(
            f"the store {path} cannot be used: it is damaged; restore a backup"
            f" ({' '.join(problem.split())})"
        )
    try:
        if migrations.check(connection):
            instances.check(connection, instance)
        keys = _keys(connection, path, encryption_keys)
        set_up_writer(connection)
        with transaction(connection):
            migrations.apply(connection, now)
            instances.claim(connection, instance, now)
            populate(connection)
    except StoreRefused as refused:
        if path in str(refused):
            raise
        raise StoreRefused(f"the store {path} cannot be used: {refused}") from None
    return keys


def _keys(
    connection: sqlite3.Connection, path: str, encryption_keys: Sequence[Secret]
) -> tuple[bytes, ...]:
    """
    Find the keys, and see that they open everything.
    """
    needed = key_ids_in_use(connection)
    keys = load_or_create_keys(
        path, encryption_keys, store_has_sealed_rows=bool(needed)
    )
    missing = needed - Sealer(keys).key_ids
    if missing:
        ids = ", ".join(sorted(key_id.hex() for key_id in missing))
        raise StoreRefused(
            f"the store {path} holds values sealed with another key (id {ids}): add it"
            f" to database.encryption_keys or put {key_path(path)} back"
        )
    return keys


def _make_folder(path: str) -> None:
    """
    Make the directories above a store, for nobody else to look into.
    """
    folder = Path(path).absolute().parent
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise StoreRefused(
            f"the store {path} cannot be used: cannot make the directory {folder}:"
            f" {error.strerror}"
        ) from error


def _make_file(path: str) -> None:
    """
    Make an empty file when there is none. SQLite would make one that others can read.
    """
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
    except OSError as error:
        raise StoreRefused(
            f"the store {path} cannot be used: it cannot be written: {error.strerror}"
        ) from error
