"""
Audit events: who did what and how it ended, never what it was about.

Events name users, clients and grants without referring to them: they outlive them.
"""

import json
from collections.abc import Iterable, Sequence
from enum import StrEnum, unique
from itertools import chain, groupby
from sqlite3 import Connection
from typing import Any, Final

import msgspec

_COLUMNS: Final = (
    "at",
    "kind",
    "user_id",
    "client_id",
    "grant_id",
    "session",
    "tool",
    "outcome",
    "duration_ms",
    "actor",
)
"""Those of the table, without its key."""

EventRow = tuple[
    int,
    str,
    int | None,
    str | None,
    str | None,
    str | None,
    str | None,
    str,
    int | None,
    str | None,
]
"""An event as the table has it, in the order of the columns."""

CALL_COLUMNS: Final = tuple(each for each in _COLUMNS if each not in ("kind", "actor"))
"""What differs from one call of a tool to another."""

CallRow = tuple[int, int, str, str, str, str, str, int]
"""A call of a tool in the order of L{CALL_COLUMNS}: when, whose, where, what, how, how
long. Nothing of it has to be looked up."""

Row = EventRow | CallRow

ROWS_AT_ONCE: Final = (1000, 100, 10, 1)
"""Calls in one statement. With a statement for each they take twice the CPU time. And
around each the interpreter's lock is let go and taken again half a dozen times: while
the writer waits for it, every system call of the event loop wakes the writer in vain,
because the loop has it back before that runs. The first takes 2 MB once it is used."""

_INSERT: Final = "INSERT INTO audit_events"
_CALL: Final = f"('tool_call', {', '.join('?' * len(CALL_COLUMNS))})"
_INSERT_CALLS: Final = {
    count: f"{_INSERT} (kind, {', '.join(CALL_COLUMNS)}) VALUES "
    + ", ".join([_CALL] * count)
    for count in ROWS_AT_ONCE
}
_INSERT_EVENT: Final = (
    f"{_INSERT} ({', '.join(_COLUMNS)}) SELECT ?1, ?2,"  # noqa: S608 - constants
    " ifnull(?3, (SELECT user_id FROM grants WHERE grant_id = ?5)),"
    " ifnull(?4, (SELECT client_id FROM grants WHERE grant_id = ?5)),"
    " ?5, ?6, ?7,"
    # Whoever is told of the end of a grant is not told why.
    " ifnull(nullif(?8, ''),"
    " ifnull((SELECT reason FROM grants WHERE grant_id = ?5), 'unknown')),"
    " ?9, ?10"
)


@unique
class Kind(StrEnum):
    """
    What an event is about.

    @cvar TOOL_CALL: C{tools/call}, of either era of the protocol.
    @cvar SIGN_IN: somebody came back from Forgejo, or cancelled before.
    @cvar GRANT_ENDED: revoked, expired or misused; the outcome is the reason.
    @cvar TOKEN_REVOKED: one access token, whose grant goes on.
    @cvar USER_SUSPENDED: has to sign in at Forgejo again.
    @cvar REVOKE: an administrator ended grants.
    @cvar ROTATE_KEY: an administrator had everything sealed anew.
    @cvar RESTORE: an administrator put a backup in the place of the store.
    @cvar EVENTS_LOST: so many events before this one could not be written.
    """

    TOOL_CALL = "tool_call"
    SIGN_IN = "sign_in"
    GRANT_ENDED = "grant_ended"
    TOKEN_REVOKED = "token_revoked"  # noqa: S105 - the name of a kind
    USER_SUSPENDED = "user_suspended"
    REVOKE = "revoke"
    ROTATE_KEY = "rotate_key"
    RESTORE = "restore"
    EVENTS_LOST = "events_lost"


class AuditEvent(msgspec.Struct, frozen=True, kw_only=True):
    """
    One event.

    @ivar at: when it was over, seconds since the epoch.
    @ivar kind: what it is about.
    @ivar outcome: one of our own words.
    @ivar user_id: whose it is, Forgejo's number.
    @ivar client_id: with which client.
    @ivar grant_id: with which grant. Where the two before are C{None}, they are taken
        from the grant when the event is written.
    @ivar session: what the log calls the session.
    @ivar tool: that was called; at most 128 characters that are harmless anywhere.
    @ivar duration_ms: from the headers of the request to its answer.
    @ivar actor: who asked for an act of administration.
    """

    at: int
    kind: Kind
    outcome: str
    user_id: int | None = None
    client_id: str | None = None
    grant_id: str | None = None
    session: str | None = None
    tool: str | None = None
    duration_ms: int | None = None
    actor: str | None = None


class ShownEvent(msgspec.Struct, frozen=True, kw_only=True):
    """
    An event as it is shown.

    @ivar event_id: of later events it is larger.
    @ivar event: the event.
    @ivar login: the user's name now, C{None} when it is not known.
    @ivar client_name: what the client calls itself, likewise.
    """

    event_id: int
    event: AuditEvent
    login: str | None
    client_name: str | None


def row_of(event: AuditEvent) -> EventRow:
    """
    @param event: any.
    @return: the same for the table.
    """
    return (
        event.at,
        event.kind.value,
        event.user_id,
        event.client_id,
        event.grant_id,
        event.session,
        event.tool,
        event.outcome,
        event.duration_ms,
        event.actor,
    )


def event_of(row: EventRow) -> AuditEvent:
    """
    @param row: of the table.
    @return: what L{row_of} made it of.
    """
    return AuditEvent(
        at=row[0],
        kind=Kind(row[1]),
        user_id=row[2],
        client_id=row[3],
        grant_id=row[4],
        session=row[5],
        tool=row[6],
        outcome=row[7],
        duration_ms=row[8],
        actor=row[9],
    )


def insert_many(connection: Connection, events: Iterable[AuditEvent]) -> None:
    """
    Write events down.

    @param connection: in a transaction that may write.
    @param events: in the order in which they happened.
    """
    insert_rows(connection, [row_of(event) for event in events])


def insert_rows(connection: Connection, rows: Sequence[Row]) -> None:
    """
    As L{insert_many}.

    @param connection: in a transaction that may write.
    @param rows: of events, in the order in which they happened.
    """
    for length, some in groupby(rows, len):
        if length == len(CALL_COLUMNS):
            _insert_calls(connection, list(some))
        else:
            connection.executemany(_INSERT_EVENT, some)


def _insert_calls(connection: Connection, rows: list[Row]) -> None:
    start = 0
    for count, statement in _INSERT_CALLS.items():
        while start + count <= len(rows):
            some = rows[start : start + count]
            connection.execute(statement, list(chain.from_iterable(some)))
            start += count


def select(
    connection: Connection,
    *,
    limit: int,
    user_id: int | None = None,
    since: int = 0,
    after: tuple[int, int] | None = None,
) -> list[ShownEvent]:
    """
    Read events, the oldest first.

    @param connection: to the store.
    @param limit: how many at most.
    @param user_id: of this user only, Forgejo's number; C{None}: of everybody.
    @param since: not before, seconds since the epoch.
    @param after: time and id of the last event of the page before.
    @return: the events.
    """
    of_user = "" if user_id is None else " AND event.user_id = :user"
    at, event_id = after or (since, 0)
    rows = connection.execute(
        f"SELECT event_id, {_COLUMNS_OF_EVENT}, users.login,"  # noqa: S608 - constants
        " clients.metadata FROM audit_events AS event"
        " LEFT JOIN users ON users.user_id = event.user_id"
        " LEFT JOIN clients ON clients.client_id = event.client_id"
        f" WHERE (at, event_id) > (:at, :event){of_user}"
        " ORDER BY at, event_id LIMIT :limit",
        {"at": at, "event": event_id, "user": user_id, "limit": limit},
    )
    return [_shown(row) for row in rows]


_COLUMNS_OF_EVENT: Final = ", ".join(f"event.{name}" for name in _COLUMNS)


def delete_before(connection: Connection, before: int, limit: int) -> int:
    """
    @param connection: in a transaction that may write.
    @param before: seconds since the epoch; events at that moment go too.
    @param limit: how many at most.
    @return: how many there were.
    """
    return connection.execute(
        "DELETE FROM audit_events WHERE event_id IN ("
        " SELECT event_id FROM audit_events WHERE at <= ? LIMIT ?)",
        (before, limit),
    ).rowcount


def _shown(row: tuple[Any, ...]) -> ShownEvent:
    event: Any
    event_id, *event, login, metadata = row
    return ShownEvent(
        event_id=event_id,
        event=event_of(tuple(event)),
        login=login,
        client_name=None if metadata is None else client_name(metadata),
    )


def client_name(metadata: str) -> str | None:
    """
    @param metadata: of a stored client, JSON.
    @return: what it calls itself, if it does; controlled by the client.
    """
    name = json.loads(metadata).get("client_name")
    return name if isinstance(name, str) else None
