"""
The clients of the configuration, brought into the store at each start.
"""

from collections.abc import Collection
from sqlite3 import Connection
from typing import Final

from twisted.logger import Logger

from fjmcp_broker.config import StaticClient
from fjmcp_broker.oauth.clients import Client
from fjmcp_broker.oauth.tokens import digest

_SAVE: Final = (
    "INSERT INTO clients (client_id, kind, metadata, secret_digest, created_at)"
    " VALUES (?, 'static', ?, ?, ?)"
    " ON CONFLICT (client_id) DO UPDATE SET kind = 'static',"
    " metadata = excluded.metadata, secret_digest = excluded.secret_digest,"
    " metadata_expires_at = NULL"
)


_log: Final = Logger()


def synchronise(
    connection: Connection,
    configured: Collection[StaticClient],
    application_schemes: Collection[str],
    now: int,
) -> None:
    """
    Make the store agree with the configuration. A client keeps its grants when its
    table changes, also when it was known in another way before.

    @param connection: in a transaction that may write; no request may have been
        served yet, since nothing is told to caches.
    @param configured: checked.
    @param application_schemes: allowed in redirect URIs.
    @param now: seconds since the epoch.
    """
    for each in configured:
        secret = each.client_secret
        client = Client.from_metadata(
            client_id=each.client_id,
            kind="static",
            metadata=each.metadata(application_schemes).values,
            secret_digest=None if secret is None else digest(secret.reveal()),
            created_at=now,
        )
        connection.execute(
            _SAVE,
            (client.client_id, client.metadata_json(), client.secret_digest, now),
        )
    kept = {each.client_id for each in configured}
    stored = connection.execute(
        "SELECT client_id FROM clients WHERE kind = 'static'"
    ).fetchall()
    for (client_id,) in stored:
        if client_id not in kept:
            connection.execute("DELETE FROM clients WHERE client_id = ?", (client_id,))
            _log.warn(
                "client {client} is not configured any more: it was removed with all "
                "that it was allowed",
                client=client_id,
            )
