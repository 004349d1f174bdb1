"""
What is known of each kind of child. A kind is a program as it was at some time, so that
an upgrade makes a new one.
"""

from sqlite3 import Connection
from typing import Final

from fjmcp_broker.mcp.modern.profiles import ChildProfile

KEPT: Final = 20
"""So many kinds are remembered: one for each program, and room to go back."""


def find_all(connection: Connection) -> dict[bytes, ChildProfile]:
    """
    @param connection: to the store.
    @return: the profiles by identity.
    """
    rows = connection.execute(
        "SELECT identity, era, initialize_result, discover_result FROM child_profiles"
    )
    return {
        identity: ChildProfile.from_stored(era, initialized, discovered)
        for identity, era, initialized, discovered in rows.fetchall()
    }


def put(
    connection: Connection, identity: bytes, profile: ChildProfile, now: int
) -> None:
    """
    Write down what is known of a kind of child. The kinds that were not heard of for
    the longest time are forgotten.

    @param connection: in a transaction that may write.
    @param identity: digest of what tells the kind.
    @param profile: what is known now.
    @param now: seconds since the epoch.
    """
    connection.execute(
        "INSERT OR REPLACE INTO child_profiles"
        " (identity, era, initialize_result, discover_result, updated_at)"
        " VALUES (?, ?, ?, ?, ?)",
        (
            identity,
            profile.era.value,
            profile.initialize_result,
            profile.discover_result,
            now,
        ),
    )
    connection.execute(
        "DELETE FROM child_profiles WHERE identity NOT IN (SELECT identity"
        " FROM child_profiles ORDER BY identity = ? DESC, updated_at DESC LIMIT ?)",
        (identity, KEPT),
    )
