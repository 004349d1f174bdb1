"""
Copies of a store that is in use: online, whole, and looked at before they count.

A copy is made through SQLite's backup interface (https://sqlite.org/backup.html) in one
step, so that it is one moment of the store, however much is written meanwhile, and a
daemon never waits for it. Sealed columns stay sealed; the key file is not copied.
"""

import errno
import os
import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import msgspec

from . import migrations
from .errors import StoreError, StoreRefused
from .resealing import key_ids_in_use

_BUSY_SECONDS: Final = 5.0
#: A file system without hard links; some network shares are.
_NO_LINKS: Final = (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS)
_STAMP: Final = "%Y%m%dT%H%M%SZ"
_STAMP_PATTERN: Final = "[0-9]{8}T[0-9]{6}Z"


class Contents(msgspec.Struct, frozen=True):
    """
    What is in a copy.

    @ivar schema: version of its schema.
    @ivar users: how many there are.
    @ivar grants: how many are not revoked.
    @ivar sessions: how many are not closed.
    @ivar key_ids: of the keys that are needed to open its sealed columns.
    @ivar instance: base URL of its Forgejo, and the application there; C{None}: the
        store was never used.
    """

    schema: int
    users: int
    grants: int
    sessions: int
    key_ids: frozenset[bytes]
    instance: tuple[str, str] | None


def read_only(path: str) -> sqlite3.Connection:
    """
    @param path: of a database file.
    @return: a connection that cannot change it.
    """
    return sqlite3.connect(
        f"{Path(path).absolute().as_uri()}?mode=ro",
        uri=True,
        isolation_level=None,
        timeout=_BUSY_SECONDS,
    )


def look_into(connection: sqlite3.Connection) -> Contents:
    """
    See that a copy is whole, and a store that this version can use.

    @param connection: to the copy.
    @return: what is in it.
    @raise StoreRefused: it is damaged, or cannot be used.
    """
    (problem,) = connection.execute("PRAGMA integrity_check(1)").fetchone()
    if problem != "ok":
        raise StoreRefused(f"it is damaged ({' '.join(problem.split())})")
    schema = migrations.check(connection)
    if not schema:
        raise StoreRefused("there is no store in it")
    if connection.execute("PRAGMA foreign_key_check").fetchone() is not None:
        raise StoreRefused("it is damaged (rows refer to rows that are not there)")

    def count(table_and_condition: str) -> int:
        row = connection.execute(
            f"SELECT count(*) FROM {table_and_condition}"  # noqa: S608 - our own words
        ).fetchone()
        return int(row[0])

    return Contents(
        schema=schema,
        users=count("users"),
        grants=count("grants WHERE revoked_at IS NULL"),
        sessions=count("sessions WHERE closed_at IS NULL"),
        key_ids=key_ids_in_use(connection),
        instance=connection.execute(
            "SELECT forgejo_url, oauth_client_id FROM instance"
        ).fetchone(),
    )


def copy(source: str, target: str) -> Contents:
    """
    Copy a store, used or not, to a new file with mode 0600, and look into the copy.

    @param source: path of the store.
    @param target: path of a file that does not exist; what is there after a failure
        is no copy.
    @return: what is in the copy.
    @raise StoreRefused: the copy is damaged, or no store.
    @raise sqlite3.Error: SQLite cannot read or write.
    @raise OSError: the file cannot be made.
    """
    os.close(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
    with (
        closing(read_only(source)) as stored,
        closing(sqlite3.connect(target, isolation_level=None)) as copied,
    ):
        stored.backup(copied)
        # The store's own mode would need two more files to be readable.
        copied.execute("PRAGMA journal_mode = DELETE")
    # As whoever restores it will find it, not as this connection remembers it.
    with closing(read_only(target)) as written:
        contents = look_into(written)
    with open(target, "rb") as file:
        os.fsync(file.fileno())
    return contents


def backup(source: str, target: str) -> Contents:
    """
    Make a backup. The file gets its name when it is whole, and never another's.

    @param source: path of the store.
    @param target: path of the backup to be, in a directory that exists.
    @return: what is in it.
    @raise StoreError: it cannot be made; the message names the file.
    """
    if not Path(source).is_file():
        raise StoreRefused(f"there is no store at {source}")
    if os.path.lexists(target):
        raise StoreRefused(f"{target} exists already, and is not overwritten")
    partial = f"{target}.partial-{os.getpid()}"
    with trouble_named(f"the backup {target} cannot be made"):
        try:
            contents = copy(source, partial)
            _give_name(partial, target)
        finally:
            Path(partial).unlink(missing_ok=True)
        sync_folder(target)
    return contents


def _give_name(partial: str, target: str) -> None:
    try:
        # Unlike a rename, this cannot replace what has come there meanwhile.
        os.link(partial, target)
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        os.rename(partial, target)


def backup_name(source: str, now: int) -> str:
    """
    @param source: path of the store.
    @param now: seconds since the epoch.
    @return: the name of a backup made then: those of one store sort by time.
    """
    moment = datetime.fromtimestamp(now, UTC)
    return f"{Path(source).stem}-{moment.strftime(_STAMP)}.db"


def prune(folder: str, source: str, keep: int) -> list[str]:
    """
    Remove the oldest backups of a store.

    @param folder: where they are; files with other names are left alone.
    @param source: path of the store.
    @param keep: how many stay, at least 1.
    @return: the paths of those removed.
    @raise StoreError: one cannot be removed.
    """
    name = re.compile(f"{re.escape(Path(source).stem)}-{_STAMP_PATTERN}[.]db")
    with trouble_named(f"old backups in {folder} cannot be removed"):
        found = sorted(each for each in os.listdir(folder) if name.fullmatch(each))
        old = [str(Path(folder, each)) for each in found[:-keep]]
        for path in old:
            os.unlink(path)
    return old


def sync_folder(path: str) -> None:
    """
    Let a new name survive a loss of power.

    @param path: of the file with that name.
    @raise OSError: the directory cannot be synchronised.
    """
    folder = os.open(Path(path).absolute().parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


@contextmanager
def trouble_named(what: str) -> Iterator[None]:
    """
    Turn what goes wrong in a block into one clear line.

    @param what: what cannot be done, with the name of the file.
    @raise StoreRefused: instead of the errors of SQLite, of the system and of
        L{look_into}.
    """
    try:
        yield
    except StoreError as error:
        raise StoreRefused(f"{what}: {error}") from error
    except OSError as error:
        raise StoreRefused(f"{what}: {error.strerror or error}") from error
    except sqlite3.Error as error:
        raise StoreRefused(f"{what}: {error}") from error
