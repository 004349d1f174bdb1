"""
Forward-only migrations: numbered SQL files that come with the package.

A program may be older than a store. Whether it can use that store is for the newer one
to say: a migration whose file has a line C{-- Usable from schema N on.} leaves the
store usable by programs that know the schema up to N; without the line, only by those
that know the migration itself. The highest of these numbers is C{PRAGMA user_version},
which is part of every transaction and of every copy.

Usable means: what such a program writes is still accepted (new columns have defaults,
no constraint is new), what it deletes takes new rows along, and rows that it wrote are
understood by programs that know the migration.
"""

import re
import sqlite3
from collections.abc import Iterator, Sequence
from functools import cache
from hashlib import sha256
from importlib import resources
from typing import Final

import msgspec

from .connection import transaction
from .errors import StoreRefused

_SCHEMA_MIGRATIONS: Final = """
CREATE TABLE schema_migrations (
    version INTEGER PRIMARY KEY,
    applied_at INTEGER NOT NULL,
    checksum BLOB NOT NULL
) STRICT
"""

_USABLE: Final = re.compile(r"^-- Usable from schema ([0-9]+) on\.$", re.MULTILINE)


class Migration(msgspec.Struct, frozen=True):
    """
    One step of the schema.

    @ivar version: 1 for the first, without gaps.
    @ivar name: of its file.
    @ivar sql: its statements.
    """

    version: int
    name: str
    sql: str

    @property
    def checksum(self) -> bytes:
        """
        SHA-256 of the text: a migration that was applied must never change.
        """
        return sha256(self.sql.encode()).digest()

    @property
    def usable_from(self) -> int:
        """
        The oldest schema whose programs can use a store that has this migration.
        """
        said = _USABLE.search(self.sql)
        return int(said[1]) if said else self.version

    def statements(self) -> Iterator[str]:
        """
        Cut the text into statements. C{executescript} would commit first.

        @return: complete statements, each ending with its semicolon.
        @raise ValueError: the text ends within a statement.
        """
        statement = ""
        for line in self.sql.splitlines(keepends=True):
            statement += line
            if sqlite3.complete_statement(statement):
                yield statement
                statement = ""
        leftover = [
            line for line in statement.splitlines() if not line.startswith("--")
        ]
        if "".join(leftover).strip():
            raise ValueError(f"{self.name} ends within a statement")


@cache
def embedded() -> tuple[Migration, ...]:
    """
    @return: the migrations that come with this version, in order.
    """
    folder = resources.files("fjmcp_broker.store") / "schema"
    found = tuple(
        Migration(int(file.name[:4]), file.name, file.read_text(encoding="utf-8"))
        for file in sorted(folder.iterdir(), key=lambda file: file.name)
        if file.name.endswith(".sql")
    )
    if [migration.version for migration in found] != list(range(1, len(found) + 1)):
        raise ValueError("the schema files are not numbered 1, 2, 3, ...")
    return found


def check(
    connection: sqlite3.Connection, migrations: Sequence[Migration] | None = None
) -> int:
    """
    Look whether a store can be used by this version, changing nothing.

    @param connection: to the store.
    @param migrations: instead of the embedded ones.
    @return: how many migrations it has, perhaps more than are known; 0 for a new store.
    @raise StoreRefused: it is too new, or other migrations were applied, or it is the
        database of another program. The message does not name the file.
    """
    known = embedded() if migrations is None else migrations
    tables = {
        name
        for (name,) in connection.execute(
            "SELECT name FROM sqlite_schema"
            " WHERE type = 'table' AND name NOT LIKE 'sqlite!_%' ESCAPE '!'"
        )
    }
    if not tables:
        return 0
    if "schema_migrations" not in tables:
        raise StoreRefused("it is the database of another program")
    applied = connection.execute(
        "SELECT version, checksum FROM schema_migrations ORDER BY version"
    ).fetchall()
    newest = applied[-1][0] if applied else 0
    # 0: written before this was recorded.
    (usable_from,) = connection.execute("PRAGMA user_version").fetchone()
    if newest > len(known) and not 0 < usable_from <= len(known):
        raise StoreRefused(
            f"its schema is version {newest}, but this version of fjmcp-broker only"
            f" knows up to {len(known)}; install the version that wrote it or restore"
            " an older backup"
        )
    for migration, (version, checksum) in zip(known, applied, strict=False):
        if version != migration.version or checksum != migration.checksum:
            raise StoreRefused(
                f"its migration {version} differs from {migration.name} of this"
                " version of fjmcp-broker"
            )
    return len(applied)


def apply(
    connection: sqlite3.Connection,
    now: int,
    migrations: Sequence[Migration] | None = None,
) -> int:
    """
    Apply what is missing, statement by statement, within the caller's transaction.

    @param connection: in a transaction that may write.
    @param now: recorded as the time of application, seconds since the epoch.
    @param migrations: instead of the embedded ones.
    @return: how many were applied.
    @raise StoreRefused: as for L{check}.
    """
    known = embedded() if migrations is None else migrations
    present = check(connection, known)
    if not present:
        connection.execute(_SCHEMA_MIGRATIONS)
    for migration in known[present:]:
        for statement in migration.statements():
            connection.execute(statement)
        connection.execute(
            "INSERT INTO schema_migrations (version, applied_at, checksum)"
            " VALUES (?, ?, ?)",
            (migration.version, now, migration.checksum),
        )
    usable_from = max((each.usable_from for each in known), default=0)
    if present <= len(known):
        # No parameter can stand there.
        connection.execute(f"PRAGMA user_version = {usable_from:d}")
    return max(0, len(known) - present)


def migrate(
    connection: sqlite3.Connection,
    now: int,
    migrations: Sequence[Migration] | None = None,
) -> int:
    """
    As L{apply}, in a transaction of its own: all of it or nothing.

    @param connection: opened with C{isolation_level=None}, in no transaction.
    """
    with transaction(connection):
        return apply(connection, now, migrations)
