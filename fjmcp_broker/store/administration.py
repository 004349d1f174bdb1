"""
What an operator sees of the store and ends in it: lists in pages, each in the order of
its primary key, and grants found by user, client or id.
"""

from collections.abc import Sequence
from sqlite3 import Connection
from typing import Any, Final

import msgspec

from . import upstream_tokens
from .audit import client_name
from .revocation import end_grant

BY_ADMINISTRATOR: Final = "revoked_by_administrator"

#: So many grants are ended in one transaction, so that requests need not wait long.
ENDED_AT_ONCE: Final = 200

Row = dict[str, Any]
"""As it goes out, JSON values only."""


class Page(msgspec.Struct, frozen=True):
    """
    A piece of a list.

    @ivar rows: of it.
    @ivar after: what the next page begins behind; C{None}: there is none.
    """

    rows: list[Row]
    after: Any = None


class Choice(msgspec.Struct, frozen=True):
    """
    Which grants: those that are of all that are named.

    @ivar user_id: Forgejo's number.
    @ivar client_id: of a client.
    @ivar grant_id: of one grant.
    """

    user_id: int | None = None
    client_id: str | None = None
    grant_id: str | None = None


def users(connection: Connection, limit: int, after: Any = None) -> Page:
    """
    @param connection: to the store.
    @param limit: rows of one page.
    @param after: from the page before.
    @return: users who have ever signed in.
    """
    return _page(
        connection,
        "SELECT user_id, login, display_name, first_seen_at, last_seen_at,"
        " (SELECT state FROM upstream_tokens AS held"
        " WHERE held.user_id = users.user_id) AS forgejo,"
        " (SELECT count(*) FROM grants WHERE grants.user_id = users.user_id"
        " AND revoked_at IS NULL) AS grants"
        " FROM users WHERE user_id > :after ORDER BY user_id LIMIT :limit",
        {"limit": limit, "after": -1 if after is None else after},
        "user_id",
    )


def clients(
    connection: Connection, limit: int, after: Any = None, *, unused: bool = False
) -> Page:
    """
    @param connection: to the store.
    @param limit: rows of one page.
    @param after: from the page before.
    @param unused: those as well with which nobody has ever signed in.
    @return: clients.
    """
    found = _page(
        connection,
        "SELECT client_id, kind, metadata AS client_name, created_at, last_used_at,"
        " (SELECT count(*) FROM grants WHERE grants.client_id = clients.client_id"
        " AND revoked_at IS NULL) AS grants FROM clients WHERE client_id > :after"
        " AND (:unused OR kind = 'static' OR last_used_at IS NOT NULL)"
        " ORDER BY client_id LIMIT :limit",
        {"limit": limit, "after": "" if after is None else after, "unused": unused},
        "client_id",
    )
    return _named(found)


def grants(
    connection: Connection,
    limit: int,
    after: Any = None,
    *,
    ended: bool = False,
    user_id: int | None = None,
) -> Page:
    """
    @param connection: to the store.
    @param limit: rows of one page.
    @param after: from the page before.
    @param ended: those as well that have ended.
    @param user_id: of this user only; C{None}: of everybody.
    @return: grants.
    """
    found = _page(
        connection,
        "SELECT grant_id, users.user_id, login, clients.client_id,"
        " clients.metadata AS client_name, policy, grants.created_at,"
        " grants.last_used_at, revoked_at, reason,"
        " (SELECT count(*) FROM sessions WHERE sessions.grant_id = grants.grant_id"
        " AND closed_at IS NULL) AS sessions"
        " FROM grants JOIN users ON users.user_id = grants.user_id"
        " JOIN clients ON clients.client_id = grants.client_id"
        " WHERE grant_id > :after AND (:ended OR revoked_at IS NULL)"
        " AND (:user IS NULL OR grants.user_id = :user)"
        " ORDER BY grant_id LIMIT :limit",
        {
            "limit": limit,
            "after": "" if after is None else after,
            "ended": ended,
            "user": user_id,
        },
        "grant_id",
    )
    return _named(found)


def sessions(
    connection: Connection,
    limit: int,
    after: Any = None,
    *,
    user_id: int | None = None,
) -> Page:
    """
    @param connection: to the store.
    @param limit: rows of one page.
    @param after: from the page before.
    @param user_id: of this user only; C{None}: of everybody.
    @return: open sessions, under the names that the log has for them.
    """
    found = _page(
        connection,
        "SELECT lower(hex(session_digest)) AS session, sessions.grant_id,"
        " users.user_id, login, clients.client_id, clients.metadata AS client_name,"
        " protocol_version, sessions.created_at, last_active_at"
        " FROM sessions JOIN grants ON grants.grant_id = sessions.grant_id"
        " JOIN users ON users.user_id = grants.user_id"
        " JOIN clients ON clients.client_id = grants.client_id"
        " WHERE session_digest > :after AND closed_at IS NULL"
        " AND (:user IS NULL OR grants.user_id = :user)"
        " ORDER BY session_digest LIMIT :limit",
        {
            "limit": limit,
            "after": b"" if after is None else bytes.fromhex(after),
            "user": user_id,
        },
        "session",
    )
    return _named(found)


def grant_owners(connection: Connection, grant_ids: Sequence[str]) -> dict[str, Row]:
    """
    @param connection: to the store.
    @param grant_ids: of grants.
    @return: whose they are, by id.
    """
    found = {}
    for grant_id in grant_ids:
        page = _named(
            _page(
                connection,
                "SELECT grant_id, users.user_id, login, clients.client_id,"
                " clients.metadata AS client_name FROM grants"
                " JOIN users ON users.user_id = grants.user_id"
                " JOIN clients ON clients.client_id = grants.client_id"
                " WHERE grant_id = :grant",
                {"grant": grant_id, "limit": 2},
                "grant_id",
            )
        )
        found.update({row["grant_id"]: row for row in page.rows})
    return found


def users_called(connection: Connection, name: str) -> list[int]:
    """
    @param connection: to the store.
    @param name: a login, in any case, or Forgejo's number.
    @return: the users that it may mean.
    """
    number = int(name) if name.isascii() and name.isdecimal() else -1
    rows = connection.execute(
        "SELECT user_id FROM users WHERE login = ? COLLATE NOCASE OR user_id = ?"
        " ORDER BY user_id",
        (name, min(number, 2**62)),
    )
    return [user_id for (user_id,) in rows]


def exists(connection: Connection, choice: Choice) -> bool:
    """
    @param connection: to the store.
    @param choice: which grants.
    @return: whether the client and the grant that it names are there at all.
    """
    for table, column, value in (
        ("clients", "client_id", choice.client_id),
        ("grants", "grant_id", choice.grant_id),
    ):
        if value is not None:
            row = connection.execute(
                f"SELECT 1 FROM {table} WHERE {column} = ?",  # noqa: S608 - constants
                (value,),
            ).fetchone()
            if row is None:
                return False
    return True


def end_grants(connection: Connection, choice: Choice, now: int) -> list[str]:
    """
    End grants with their tokens and sessions; call it again until there are none. Of a
    user who has no grant left nothing of Forgejo's stays.

    @param connection: in a transaction that may write.
    @param choice: which ones; nothing named is nobody's.
    @param now: seconds since the epoch.
    @return: the ids of at most L{ENDED_AT_ONCE} that had not ended before.
    """
    named = {
        "user_id": choice.user_id,
        "client_id": choice.client_id,
        "grant_id": choice.grant_id,
    }
    conditions = [f"{name} = :{name}" for name, value in named.items() if value]
    if not conditions:
        return []
    rows = connection.execute(
        "SELECT grant_id FROM grants WHERE revoked_at IS NULL"  # noqa: S608 - constants
        f" AND {' AND '.join(conditions)} LIMIT :limit",
        {**named, "limit": ENDED_AT_ONCE},
    ).fetchall()
    for (grant_id,) in rows:
        end_grant(connection, grant_id, now, BY_ADMINISTRATOR)
    if choice.user_id is not None:
        # A sign-in that came to no grant may have left some, too.
        upstream_tokens.delete_without_grant(connection, choice.user_id, now)
    return [grant_id for (grant_id,) in rows]


def _page(
    connection: Connection, statement: str, values: dict[str, Any], key: str
) -> Page:
    cursor = connection.execute(statement, values)
    names = [column[0] for column in cursor.description]
    rows = [dict(zip(names, row, strict=True)) for row in cursor]
    is_full = len(rows) >= values["limit"]
    return Page(rows, rows[-1][key] if is_full else None)


def _named(page: Page) -> Page:
    for row in page.rows:
        row["client_name"] = client_name(row["client_name"])
    return page
