"""
One connection: its settings, and its transactions.
"""

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, TypeVar

from .errors import StoreRefused

T = TypeVar("T")

#: The path of a database that lives in one connection: for tests only.
MEMORY: Final = ":memory:"


def connection_target(path: str) -> str:
    """
    @param path: of a database file that exists, or C{:memory:}.
    @return: the same as a URI that never creates a file.
    """
    if path == MEMORY:
        return "file::memory:"
    return f"{Path(path).absolute().as_uri()}?mode=rw"


def set_up_writer(connection: sqlite3.Connection) -> None:
    """
    Give a new connection the settings that every writer needs; close it when they
    cannot be had.

    @param connection: opened with C{isolation_level=None}.
    @raise sqlite3.Error: SQLite refuses.
    @raise StoreRefused: the file system cannot do it.
    """
    try:
        connection.execute("PRAGMA foreign_keys = ON")
        connection.execute("PRAGMA trusted_schema = OFF")
        (mode,) = connection.execute("PRAGMA journal_mode = WAL").fetchone()
        if mode not in ("wal", "memory"):
            raise StoreRefused("its file system has no write-ahead logging")
        # NORMAL could lose the last transactions with the power; a lost rotation
        # logs a user out.
        connection.execute("PRAGMA synchronous = FULL")
        # Deleted tokens are overwritten.
        connection.execute("PRAGMA secure_delete = ON")
    except BaseException:
        connection.close()
        raise


def set_up_reader(connection: sqlite3.Connection) -> None:
    """
    As L{set_up_writer}, for a connection that only reads.

    @param connection: opened with C{isolation_level=None}.
    @raise sqlite3.Error: SQLite refuses.
    @raise StoreRefused: the file system cannot do it.
    """
    set_up_writer(connection)
    connection.execute("PRAGMA query_only = ON")


def touch(connection: sqlite3.Connection) -> None:
    """
    Read from the file: opening a connection alone does not.

    @param connection: to the store.
    @raise sqlite3.Error: it is not readable.
    """
    connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()


def _fetched(result: T) -> T:
    """
    Refuse what would be read after the transaction.
    """
    if isinstance(result, sqlite3.Cursor):
        raise TypeError("fetch the rows before the transaction ends")
    return result


@contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """
    Put C{BEGIN IMMEDIATE} and C{COMMIT} around a block, or C{ROLLBACK} when it raises.

    @param connection: opened with C{isolation_level=None}, in no transaction.
    @raise RuntimeError: the block ended the transaction by itself.
    """
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        if not connection.in_transaction:
            raise RuntimeError("the transaction was ended from within")
        connection.execute("COMMIT")
    except BaseException:
        # SQLite has rolled back by itself after some errors, a full disk say.
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def writing(
    work: Callable[[sqlite3.Connection], T],
) -> Callable[[sqlite3.Connection], T]:
    """
    Put a transaction that may write around a function.

    @param work: returns values, never a cursor.
    @return: what does the work and commits it.
    """

    def write(connection: sqlite3.Connection) -> T:
        with transaction(connection):
            result = _fetched(work(connection))
        return result

    return write


def reading(
    query: Callable[[sqlite3.Connection], T],
) -> Callable[[sqlite3.Connection], T]:
    """
    Put a transaction that cannot write around a function.

    @param query: returns values, never a cursor.
    @return: what does the query on one view of the store.
    """

    def read(connection: sqlite3.Connection) -> T:
        was_query_only = connection.execute("PRAGMA query_only").fetchone()[0]
        try:
            connection.execute("PRAGMA query_only = ON")
            connection.execute("BEGIN")
            return _fetched(query(connection))
        except sqlite3.OperationalError as error:
            if getattr(error, "sqlite_errorcode", 0) == sqlite3.SQLITE_READONLY:
                raise RuntimeError("a query that writes, in a read") from error
            raise
        finally:
            if connection.in_transaction:
                connection.execute("COMMIT")
            if not was_query_only:
                connection.execute("PRAGMA query_only = OFF")

    return read
