"""Which Forgejo a store belongs to: user numbers of another one mean other people."""

from sqlite3 import Connection

import msgspec
from msgspec.structs import force_setattr

from .errors import StoreRefused


class Instance(msgspec.Struct, frozen=True):
    """
    What user numbers and tokens are good for.

    @ivar forgejo_url: base URL, compared without trailing slashes.
    @ivar oauth_client_id: of the broker's application there.
    """

    forgejo_url: str
    oauth_client_id: str

    def __post_init__(self) -> None:
        url = self.forgejo_url.rstrip("/")
        force_setattr(self, "forgejo_url", url)


def check(connection: Connection, instance: Instance) -> None:
    """
    @param connection: to a migrated store.
    @param instance: as configured.
    @raise StoreRefused: the store belongs to another one. The message does not name
        the file.
    """
    row = connection.execute(
        "SELECT forgejo_url, oauth_client_id FROM instance"
    ).fetchone()
    if row is not None and row != (instance.forgejo_url, instance.oauth_client_id):
        raise StoreRefused(
            f"it belongs to {row[0]} (application {row[1]}), but the configuration"
            f" names {instance.forgejo_url} (application {instance.oauth_client_id});"
            " use another store"
        )


def claim(connection: Connection, instance: Instance, now: int) -> None:
    """
    Tie a new store to its instance.

    @param connection: in a transaction that may write.
    @param instance: as configured.
    @param now: seconds since the epoch.
    @raise StoreRefused: as for L{check}.
    """
    connection.execute(
        "INSERT INTO instance (one, forgejo_url, oauth_client_id, created_at)"
        " VALUES (1, ?, ?, ?) ON CONFLICT DO NOTHING",
        (instance.forgejo_url, instance.oauth_client_id, now),
    )
    check(connection, instance)
