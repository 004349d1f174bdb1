"""Forgejo users who have signed in."""

from sqlite3 import Connection
from typing import Any

import msgspec


class User(msgspec.Struct, frozen=True):
    """
    A user as Forgejo named them last.

    @ivar user_id: Forgejo's number, which never changes.
    @ivar login: the user name, which may.
    @ivar display_name: chosen by the user; may be empty.
    @ivar first_seen_at: of the first sign-in, seconds since the epoch.
    @ivar last_seen_at: of the newest sign-in.
    """

    user_id: int
    login: str
    display_name: str
    first_seen_at: int
    last_seen_at: int


def upsert_user(
    connection: Connection, user_id: int, login: str, display_name: str, now: int
) -> None:
    """
    Note that a user signed in.

    @param connection: in a transaction that may write.
    @param user_id: Forgejo's number.
    @param login: the user name now.
    @param display_name: the full name now; may be empty.
    @param now: seconds since the epoch.
    """
    connection.execute(
        "INSERT INTO users (user_id, login, display_name, first_seen_at, last_seen_at)"
        " VALUES (:user_id, :login, :display_name, :now, :now)"
        " ON CONFLICT (user_id) DO UPDATE SET login = excluded.login,"
        " display_name = excluded.display_name,"
        " last_seen_at = max(last_seen_at, excluded.last_seen_at)",
        {"user_id": user_id, "login": login, "display_name": display_name, "now": now},
    )


def find_user(connection: Connection, user_id: int) -> User | None:
    """
    @param connection: to the store.
    @param user_id: Forgejo's number.
    @return: the user, or C{None}: never signed in here.
    """
    row: tuple[Any, ...] | None = connection.execute(
        "SELECT user_id, login, display_name, first_seen_at, last_seen_at"
        " FROM users WHERE user_id = ?",
        (user_id,),
    ).fetchone()
    return None if row is None else User(*row)
