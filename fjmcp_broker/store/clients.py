"""OAuth clients that are known here."""

from sqlite3 import Connection
from typing import Any

import msgspec

from fjmcp_broker.oauth.clients import Client
from fjmcp_broker.oauth.redirect_uris import find_registered


class StoredClient(msgspec.Struct, frozen=True):
    """
    A client with what only the store knows of it.

    @ivar client: the client.
    @ivar metadata_expires_at: when a fetched document has to be fetched again,
        seconds since the epoch; C{None} for other kinds.
    """

    client: Client
    metadata_expires_at: int | None


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
    stored = find_stored(connection, client_id)
    return None if stored is None else stored.client


def find_stored(connection: Connection, client_id: str) -> StoredClient | None:
    """
    @param connection: to the store.
    @param client_id: controlled by the peer.
    @return: the client and when its document expires, or C{None}: unknown.
    """
    row: tuple[Any, ...] | None = connection.execute(
        "SELECT kind, metadata, secret_digest, created_at, last_used_at,"
        " metadata_expires_at FROM clients WHERE client_id = ?",
        (client_id,),
    ).fetchone()
    if row is None:
        return None
    kind, metadata, secret_digest, created_at, last_used_at, expires_at = row
    client = Client.restore(
        client_id=client_id,
        kind=kind,
        metadata=metadata,
        secret_digest=secret_digest,
        created_at=created_at,
        last_used_at=last_used_at,
    )
    return StoredClient(client, expires_at)


def may_redirect(
    connection: Connection,
    client_id: str,
    redirect_uri: str,
    *,
    has_documents: bool = True,
) -> bool:
    """
    @param connection: to the store.
    @param client_id: of a sign-in under way.
    @param redirect_uri: pinned when it began.
    @param has_documents: whether clients with a metadata document may sign in.
    @return: whether the client is still there and has not given up that address since.
    """
    client = find(connection, client_id)
    return (
        client is not None
        and (has_documents or client.kind != "metadata-document")
        and find_registered(client.redirect_uris, redirect_uri) is not None
    )


def save_document(
    connection: Connection,
    client: Client,
    expires_at: int,
    *,
    in_place_of: int | None = None,
) -> bool:
    """
    Store a client as a document describes it, unless a newer one was stored since that
    was fetched: one that expires later, because a document is not fetched again before
    it expires. A client that is configured or registered under the same id is left
    alone.

    @param connection: in a transaction that may write.
    @param client: of kind C{metadata-document}.
    @param expires_at: when the document has to be fetched again.
    @param in_place_of: when the one expired that was stored at the fetch. It is
        replaced whatever it says: it may have been stored while the clock was wrong.
    @return: whether it was stored.
    """
    changed = connection.execute(
        "INSERT INTO clients (client_id, kind, metadata, created_at,"
        " metadata_expires_at) VALUES (?, ?, ?, ?, ?)"
        " ON CONFLICT (client_id) DO UPDATE SET metadata = excluded.metadata,"
        " metadata_expires_at = excluded.metadata_expires_at"
        " WHERE clients.kind = 'metadata-document'"
        " AND (clients.metadata_expires_at IS ?"
        " OR excluded.metadata_expires_at > clients.metadata_expires_at)",
        (
            client.client_id,
            client.kind,
            client.metadata_json(),
            client.created_at,
            expires_at,
            in_place_of,
        ),
    )
    return changed.rowcount == 1


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
