"""What can go wrong with the store, told apart by what the caller can do about it."""

import sqlite3
from typing import Final

from fjmcp_broker.errors import BrokerError

#: Result codes that say "not now" or "not on this disk", not "wrong statement".
_UNAVAILABLE: Final = frozenset(
    {
        sqlite3.SQLITE_BUSY,
        sqlite3.SQLITE_LOCKED,
        sqlite3.SQLITE_NOMEM,
        sqlite3.SQLITE_READONLY,
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_CORRUPT,
        sqlite3.SQLITE_FULL,
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_PROTOCOL,
        sqlite3.SQLITE_NOTADB,
    }
)


class StoreError(BrokerError):
    """
    The store cannot be used. The message is one clear line.
    """


class StoreUnavailable(StoreError):  # noqa: N818 - says what the store is
    """
    The store cannot be used at the moment: busy, locked, full, read-only or closed.
    Towards a client this is 503 with C{Retry-After}.
    """


class StoreRefused(StoreError):  # noqa: N818 - says what was done
    """
    A check at start failed: newer schema, corrupt, locked or unwritable file, no key,
    another instance's store. Nothing was changed; the message goes to the operator.
    """


class SealError(StoreError):
    """
    A sealed column cannot be opened: unknown key, another row's value, or forged.
    """


def primary_code(error: sqlite3.Error) -> int:
    """
    @param error: any error of the C{sqlite3} module.
    @return: SQLite's primary result code, or 0 when the error did not come from
        SQLite itself.
    """
    return getattr(error, "sqlite_errorcode", 0) & 0xFF


def is_unavailable(error: sqlite3.Error) -> bool:
    """
    @param error: any error of the C{sqlite3} module.
    @return: whether it says that the store cannot be used, as opposed to that a
        statement is wrong or a constraint was violated.
    """
    return primary_code(error) in _UNAVAILABLE
