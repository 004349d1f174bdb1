"""
A store from its backup.

A backup knows nothing of what came after it. Forgejo's refresh tokens are good once:
the ones in it may have been used since, and Forgejo takes a second use for theft. So
nothing of that kind is tried; users sign in once, and all else of theirs goes on.
"""

import os
import sqlite3
from collections.abc import Sequence
from contextlib import closing, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import msgspec

from fjmcp_broker.secret import Secret

from . import instance as instances
from .audit import AuditEvent, Kind, insert_many
from .backup import Contents, copy, look_into, read_only, sync_folder, trouble_named
from .connection import transaction
from .errors import StoreRefused
from .instance import Instance
from .keys import key_path, load_or_create_keys
from .lock import StoreLock
from .sealing import Sealer

_COMPANIONS: Final = ("-wal", "-shm")
#: The first versions had none.
_HAS_AUDIT: Final = "SELECT 1 FROM sqlite_schema WHERE name = 'audit_events'"


class Restored(msgspec.Struct, frozen=True):
    """
    What a restore did.

    @ivar contents: what is in the store now.
    @ivar suspended: how many users have to sign in again.
    @ivar codes: how many authorization codes were voided.
    @ivar sign_ins: how many sign-ins on their way were dropped.
    @ivar aside: where the store before is now, or C{None}: there was none.
    """

    contents: Contents
    suspended: int
    codes: int
    sign_ins: int
    aside: str | None


class Expected(msgspec.Struct, frozen=True):
    """
    What the configuration says about a store.

    @ivar instance: what it must belong to.
    @ivar encryption_keys: as configured.
    """

    instance: Instance
    encryption_keys: Sequence[Secret]


def restore(
    backup_path: str, path: str, now: int, expected: Expected | None = None
) -> Restored:
    """
    Put a backup in the place of a store. The store is replaced in one step, or not at
    all, and the one before is kept.

    @param backup_path: of the backup; it is not changed.
    @param path: of the store.
    @param now: seconds since the epoch.
    @param expected: what the backup has to fit to; C{None}: that is not known here.
    @return: what was done.
    @raise StoreRefused: a daemon runs, or the backup cannot be used. The store is as
        it was.
    """
    if not Path(backup_path).is_file():
        raise StoreRefused(f"there is no backup at {backup_path}")
    if Path(path).exists() and os.path.samefile(backup_path, path):
        raise StoreRefused(f"{path} is the store itself, not a backup")
    with trouble_named(f"the store {path} cannot be made"):
        Path(path).absolute().parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    lock = StoreLock(path)
    if not lock.try_acquire():
        raise StoreRefused(
            f"a broker is running on the store {path}; stop it first (for example"
            " systemctl stop fjmcp-broker.socket fjmcp-broker.service)"
        )
    try:
        with trouble_named(f"the backup {backup_path} cannot be restored"):
            # Also when it is refused now: the daemon has to open it later.
            _give_to_owner(lock.path, os.path.realpath(path))
            return _restore(backup_path, os.path.realpath(path), now, expected)
    finally:
        lock.release()


def _restore(
    backup_path: str, path: str, now: int, expected: Expected | None
) -> Restored:
    with closing(read_only(backup_path)) as source:
        _check(source, look_into(source), path, expected)
    partial = f"{path}.restoring-{os.getpid()}"
    try:
        contents = copy(backup_path, partial)
        with closing(sqlite3.connect(partial, isolation_level=None)) as store:
            store.execute("PRAGMA foreign_keys = ON")
            store.execute("PRAGMA synchronous = FULL")
            with transaction(store):
                suspended, codes, sign_ins = _outdate(store, now)
        _give_to_owner(partial, path)
        aside = _put_aside(path, now)
        os.replace(partial, path)
    finally:
        Path(partial).unlink(missing_ok=True)
    sync_folder(path)
    return Restored(contents, suspended, codes, sign_ins, aside)


def _check(
    source: sqlite3.Connection,
    contents: Contents,
    path: str,
    expected: Expected | None,
) -> None:
    """
    See that the daemon will be able to use it.
    """
    if expected is None:
        return
    instances.check(source, expected.instance)
    if not contents.key_ids:
        return
    keys = load_or_create_keys(
        path, expected.encryption_keys, store_has_sealed_rows=True
    )
    missing = contents.key_ids - Sealer(keys).key_ids
    if missing:
        ids = ", ".join(sorted(key_id.hex() for key_id in missing))
        raise StoreRefused(
            f"it is sealed with another key (id {ids}): add that to"
            f" database.encryption_keys or put {key_path(path)} back first"
        )


def _outdate(store: sqlite3.Connection, now: int) -> tuple[int, int, int]:
    """
    Take away what can only be used once, and note that it was done.

    @return: how many users, codes and sign-ins were concerned.
    """
    if store.execute(_HAS_AUDIT).fetchone() is not None:
        actor = f"uid {os.getuid()}"
        event = AuditEvent(at=now, kind=Kind.RESTORE, outcome="ok", actor=actor)
        insert_many(store, [event])
    suspended = store.execute(
        "UPDATE upstream_tokens SET state = 'needs_sign_in', updated_at = ?", (now,)
    ).rowcount
    codes = store.execute(
        "DELETE FROM authorization_codes WHERE used_at IS NULL"
    ).rowcount
    sign_ins = store.execute("DELETE FROM pending_authorizations").rowcount
    return suspended, codes, sign_ins


def _give_to_owner(made: str, path: str) -> None:
    """
    Let the daemon use what root has made.
    """
    if os.geteuid() == 0:
        owner = Path(path) if Path(path).exists() else Path(path).parent
        status = owner.stat()
        os.chown(made, status.st_uid, status.st_gid)


def _put_aside(path: str, now: int) -> str | None:
    """
    Keep the store that is there under another name as well. Until the new one takes
    its name, a daemon could still use it.

    @return: the other name, or C{None}: there is no store.
    """
    moment = datetime.fromtimestamp(now, UTC).strftime("%Y%m%dT%H%M%SZ")
    aside = f"{path}.before-{moment}"
    if Path(path).exists():
        # A damaged one, perhaps why there is a restore, is kept as it is.
        with (
            suppress(sqlite3.DatabaseError),
            closing(sqlite3.connect(path, isolation_level=None)) as old,
        ):
            # What its log holds goes into the file, and the log away.
            old.execute("PRAGMA journal_mode = DELETE")
    for suffix in _COMPANIONS:
        # Never beside the new store: its log would be applied to it.
        if Path(path + suffix).exists():
            os.rename(path + suffix, aside + suffix)
    if not Path(path).exists():
        return None
    os.link(path, aside)
    return aside
