"""
Results of commands for people.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final

import msgspec

Row = Mapping[str, Any]


class Column(msgspec.Struct, frozen=True):
    """
    A column of a table.

    @ivar title: above it.
    @ivar show: makes the text of a row.
    """

    title: str
    show: Callable[[Row], str]


def printable(text: object) -> str:
    """
    @param text: perhaps chosen by a client or a user.
    @return: the same without anything that moves a cursor.
    """
    return "".join(c if c.isprintable() else "?" for c in str(text))


def moment(seconds: int | None) -> str:
    """
    @param seconds: since the epoch, or C{None}: never.
    @return: the minute, UTC.
    """
    if seconds is None:
        return "-"
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M}Z"


def second(seconds: int) -> str:
    """
    @param seconds: since the epoch.
    @return: the second, UTC.
    """
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M:%S}Z"


def text(title: str, key: str) -> Column:
    """
    @param title: of the column.
    @param key: of the value.
    @return: a column that shows it.
    """

    def show(row: Row) -> str:
        value = row.get(key)
        return "-" if value is None or value == "" else printable(value)

    return Column(title, show)


def time_of(title: str, key: str) -> Column:
    """
    @param title: of the column.
    @param key: of the moment.
    @return: a column that shows it.
    """
    return Column(title, lambda row: moment(row.get(key)))


def table(columns: Sequence[Column], rows: Iterable[Row]) -> str:
    """
    @param columns: from the left to the right.
    @param rows: from above.
    @return: the table, its columns aligned; the last one is never padded.
    """
    cells = [[column.title for column in columns]]
    cells += [[column.show(row) for column in columns] for row in rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True))
        for line in cells
    ]
    return "".join(f"{line.rstrip()}\n" for line in lines)


_USER: Final = text("USER", "login")
_CLIENT: Final = Column(
    "CLIENT",
    lambda row: printable(row.get("client_name") or row.get("client_id") or "-"),
)

COLUMNS: Final[Mapping[str, Sequence[Column]]] = {
    "users": (
        text("ID", "user_id"),
        _USER,
        text("FORGEJO", "forgejo"),
        text("GRANTS", "grants"),
        time_of("LAST SIGN-IN", "last_seen_at"),
        text("NAME", "display_name"),
    ),
    "clients": (
        text("CLIENT ID", "client_id"),
        text("KIND", "kind"),
        text("GRANTS", "grants"),
        time_of("REGISTERED", "created_at"),
        time_of("LAST USED", "last_used_at"),
        text("NAME", "client_name"),
    ),
    "grants": (
        text("GRANT", "grant_id"),
        _USER,
        text("POLICY", "policy"),
        text("SESSIONS", "sessions"),
        time_of("SINCE", "created_at"),
        time_of("LAST USED", "last_used_at"),
        Column("ENDED", lambda row: printable(row.get("reason") or "-")),
        _CLIENT,
    ),
    "sessions": (
        text("SESSION", "session"),
        _USER,
        text("STATE", "state"),
        text("PROTOCOL", "protocol_version"),
        time_of("LAST USED", "last_active_at"),
        text("GRANT", "grant_id"),
        _CLIENT,
    ),
    "audit": (
        Column("TIME", lambda row: second(row["at"])),
        text("KIND", "kind"),
        _USER,
        text("TOOL", "tool"),
        text("OUTCOME", "outcome"),
        text("MS", "duration_ms"),
        text("SESSION", "session"),
        text("BY", "actor"),
        _CLIENT,
    ),
    "trace": (
        text("TRACE", "trace"),
        Column("BEGAN", lambda row: second(row["began_at"])),
        text("STATUS", "status"),
        _USER,
        text("NETWORK", "network"),
        _CLIENT,
        text("VERDICT", "verdict"),
    ),
}
"""What is shown of each list, in the order of its columns."""


def attempt(row: Row) -> str:
    """
    @param row: a sign-in trace.
    @return: all of it.
    """
    client = f"{row['client_name'] or 'no name'}, {row['client_id'] or 'not known'}"
    lines = [
        f"trace {row['trace']}: {row['status']}",
        f"  {row['verdict']}",
        *([f"  {row['advice']}"] if row["advice"] else []),
        "",
        f"client  {printable(client)}",
        f"user    {printable(row['login'] or '-')}",
        f"grant   {row['grant_id'] or '-'}",
        "",
    ]
    for step in row["steps"]:
        detail = f" ({printable(step['detail'])})" if step["detail"] else ""
        lines.append(
            f"{second(step['at'])}  {step['name']:<9}  {step['outcome']}{detail},"
            f" {step['milliseconds']} ms, from {step['network']}"
        )
    if row["possibly_related"]:
        lines += ["", f"possibly related, without a valid token, {row['network']}:"]
        lines += [
            f"{second(seen['at'])}  {printable(seen['what'])}"
            for seen in row["possibly_related"]
        ]
    return "".join(f"{line}\n" for line in lines)
