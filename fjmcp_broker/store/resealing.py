"""
All sealed columns at once: which keys they need, and sealing them with a newer one.

A sealed column is one whose name begins with C{sealed_}; its value is sealed at
C{table/column/primary key}. The schema itself says which there are, so that a new
table cannot be forgotten here.
"""

from collections.abc import Iterator
from itertools import islice
from sqlite3 import Connection

import msgspec

from .sealing import KEY_ID_BYTES, Sealer, row_name


class SealedColumn(msgspec.Struct, frozen=True):
    """
    Where sealed values are.

    @ivar table: name of the table.
    @ivar column: name of the column.
    @ivar key: name of the table's primary key, one column.
    """

    table: str
    column: str
    key: str


def sealed_columns(connection: Connection) -> list[SealedColumn]:
    """
    @param connection: to a store, perhaps an empty one.
    @return: its sealed columns.
    """
    rows = connection.execute(
        "SELECT tables.name, sealed.name, keys.name FROM sqlite_schema AS tables,"
        " pragma_table_info(tables.name) AS sealed,"
        " pragma_table_info(tables.name) AS keys"
        " WHERE tables.type = 'table' AND sealed.name GLOB 'sealed_*' AND keys.pk = 1"
        " ORDER BY tables.name, sealed.cid"
    )
    return [SealedColumn(*row) for row in rows]


def key_ids_in_use(connection: Connection) -> frozenset[bytes]:
    """
    @param connection: to a store, perhaps an empty one.
    @return: the ids of the keys that are needed to open everything in it.
    """
    return frozenset(
        key_id
        for place in sealed_columns(connection)
        for (key_id,) in connection.execute(
            f"SELECT DISTINCT substr({place.column}, 1, {KEY_ID_BYTES})"  # noqa: S608 - names from the schema
            f" FROM {place.table} WHERE {place.column} IS NOT NULL"
        )
    )


def reseal(connection: Connection, sealer: Sealer, *, limit: int | None = None) -> int:
    """
    Seal with the first key what is sealed with another one.

    @param connection: in a transaction that may write.
    @param sealer: opens everything.
    @param limit: how many values at most; C{None}: all of them.
    @return: how many values were sealed anew.
    @raise SealError: a value cannot be opened.
    """
    count = 0
    for place in sealed_columns(connection):
        left = None if limit is None else limit - count
        for key, sealed in list(islice(_stale(connection, place, sealer), left)):
            row = row_name(place.table, place.column, key)
            connection.execute(
                f"UPDATE {place.table} SET {place.column} = ?"  # noqa: S608 - names from the schema
                f" WHERE {place.key} = ?",
                (sealer.seal(sealer.open(sealed, row=row), row=row), key),
            )
            count += 1
    return count


def _stale(
    connection: Connection, place: SealedColumn, sealer: Sealer
) -> Iterator[tuple[str | int | bytes, bytes]]:
    """
    Find what the first key did not seal.
    """
    rows = connection.execute(
        f"SELECT {place.key}, {place.column} FROM {place.table}"  # noqa: S608 - names from the schema
        f" WHERE {place.column} IS NOT NULL"
    )
    for key, sealed in rows:
        if not sealer.is_current(sealed):
            yield key, sealed
