"""Sign-in traces in the store."""

from collections.abc import Sequence
from sqlite3 import Connection
from typing import Any, Final

import msgspec

from fjmcp_broker.trace.attempts import (
    Attempt,
    related_from_json,
    related_to_json,
    steps_from_json,
    steps_to_json,
)

from .audit import client_name

_COLUMNS: Final = (
    "trace_id, network, began_at, updated_at, client_id, pending_id, grant_id,"
    " user_id, steps, related"
)


class ShownAttempt(msgspec.Struct, frozen=True):
    """
    An attempt as it is shown.

    @ivar attempt: the attempt.
    @ivar login: the user's name now, C{None} when it is not known.
    @ivar client_name: what the client calls itself, likewise.
    """

    attempt: Attempt
    login: str | None
    client_name: str | None


def write(
    connection: Connection, saved: Sequence[Attempt], removed: Sequence[str]
) -> None:
    """
    @param connection: in a transaction that may write.
    @param saved: attempts that are new or have changed.
    @param removed: ids of those that are not kept any more.
    """
    connection.executemany(
        "DELETE FROM sign_in_traces WHERE trace_id = ?", [(each,) for each in removed]
    )
    connection.executemany(
        f"INSERT OR REPLACE INTO sign_in_traces ({_COLUMNS})"  # noqa: S608 - constants
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        [
            (
                each.trace_id,
                each.network,
                each.began_at,
                each.updated_at,
                each.client_id,
                each.pending_id,
                each.grant_id,
                each.user_id,
                steps_to_json(each.steps),
                related_to_json(each.related),
            )
            for each in saved
        ],
    )


def load(connection: Connection) -> list[Attempt]:
    """
    @param connection: to the store.
    @return: all attempts, the oldest first.
    """
    rows = connection.execute(
        f"SELECT {_COLUMNS} FROM sign_in_traces"  # noqa: S608 - constants
        " ORDER BY began_at, trace_id"
    )
    return [_record(row) for row in rows]


def find(connection: Connection, trace_id: str) -> ShownAttempt | None:
    """
    @param connection: to the store.
    @param trace_id: of an attempt.
    @return: the attempt, if it is kept still.
    """
    found = _select(connection, "WHERE trace_id = ?", (trace_id,))
    return found[0] if found else None


def newest(
    connection: Connection, limit: int, most_of_a_network: int
) -> list[ShownAttempt]:
    """
    The latest ones, without those of one network pushing the others off the list.

    @param connection: to the store.
    @param limit: how many at most.
    @param most_of_a_network: so many of each network come before the others of it.
    @return: attempts, the newest first.
    """
    chosen = (
        "WHERE trace_id IN (SELECT trace_id FROM (SELECT trace_id, began_at,"
        " row_number() OVER (PARTITION BY network ORDER BY began_at DESC, trace_id)"
        " AS place FROM sign_in_traces)"
        " ORDER BY place > ?, began_at DESC, trace_id LIMIT ?)"
        " ORDER BY began_at DESC, trace_id"
    )
    return _select(connection, chosen, (most_of_a_network, limit))


def page(
    connection: Connection,
    limit: int,
    after: tuple[int, str] | None = None,
    *,
    user_id: int | None = None,
) -> list[ShownAttempt]:
    """
    @param connection: to the store.
    @param limit: how many at most.
    @param after: when the last one of the page before began, and its id.
    @param user_id: of this user only.
    @return: attempts, the newest first.
    """
    clause = (
        "WHERE (:after IS NULL OR began_at < :after"
        " OR (began_at = :after AND trace_id > :trace_id))"
        " AND (:user_id IS NULL OR trace.user_id = :user_id)"
        " ORDER BY began_at DESC, trace_id LIMIT :limit"
    )
    began_at, trace_id = after or (None, None)
    values = {
        "after": began_at,
        "trace_id": trace_id,
        "user_id": user_id,
        "limit": limit,
    }
    return _select(connection, clause, values)


def _select(
    connection: Connection,
    clause: str,
    values: tuple[str | int, ...] | dict[str, str | int | None],
) -> list[ShownAttempt]:
    columns = ", ".join(f"trace.{name}" for name in _COLUMNS.split(", "))
    rows = connection.execute(
        f"SELECT {columns}, users.login, clients.metadata"  # noqa: S608 - constants
        " FROM sign_in_traces AS trace"
        " LEFT JOIN users ON users.user_id = trace.user_id"
        f" LEFT JOIN clients ON clients.client_id = trace.client_id {clause}",
        values,
    )
    return [
        ShownAttempt(
            _record(row[:10]),
            row[10],
            None if row[11] is None else client_name(row[11]),
        )
        for row in rows
    ]


def _record(row: tuple[Any, ...]) -> Attempt:
    trace_id, network, began_at, updated_at, client_id, pending_id, *rest = row
    grant_id, user_id, steps, related = rest
    return Attempt(
        trace_id=trace_id,
        network=network,
        began_at=began_at,
        updated_at=updated_at,
        client_id=client_id,
        pending_id=pending_id,
        grant_id=grant_id,
        user_id=user_id,
        steps=steps_from_json(steps),
        related=related_from_json(related),
    )
