"""OAuth clients that are known here."""

from sqlite3 import Connection
from typing import Any

from fjmcp_broker.oauth.clients import Client


def insert(
    connection: Connection, client: Client, metadata_expires_at: int | None = None
) -> None:
    """
    Store a new client.

    @param connection: in a transaction that may write.
    @param client: the client; its id is not in use.
    @param metadata_expires_at: when a fetched document has to be fetched again.
    @raise sqlite3.IntegrityError: the id is in use.
    """
    connection.execute(
        "INSERT INTO clients (client_id, kind, metadata, secret_digest, created_at,"
        " last_used_at, metadata_expires_at) VALUES (?, ?, ?, ?, ?, ?, ?)",
        (
            client.client_id,
            client.kind,
            client.metadata_json(),
            client.secret_digest,
            client.created_at,
            client.last_used_at,
            metadata_expires_at,
        ),
    )


def find(connection: Connection, client_id: str) -> Client | None:
    """
    @param connection: to the store.
    @param client_id: controlled by the peer.
    @return: the client, or C{None}: unknown.
    """
    row: tuple[Any, ...] | None = connection.execute(
        "SELECT kind, metadata, secret_digest, created_at, last_used_at"
        " FROM clients WHERE client_id = ?",
        (client_id,),
    ).fetchone()
    if row is None:
        return None
    kind, metadata, secret_digest, created_at, last_used_at = row
    return Client.restore(
        client_id=client_id,
        kind=kind,
        metadata=metadata,
        secret_digest=secret_digest,
        created_at=created_at,
        last_used_at=last_used_at,
    )


def mark_used(connection: Connection, client_id: str, now: int) -> None:
    """
    Note a completed sign-in, so that the collector keeps the client.

    @param connection: in a transaction that may write.
    @param client_id: of a known client; an unknown one changes nothing.
    @param now: seconds since the epoch.
    """
    connection.execute(
        "UPDATE clients SET last_used_at = max(ifnull(last_used_at, 0), ?)"
        " WHERE client_id = ?",
        (now, client_id),
    )
