"""
Finding the client that an authorization request names, wherever it is known from.
"""

from sqlite3 import Connection

import msgspec
from twisted.internet.interfaces import IReactorTime

from fjmcp_broker.oauth.clients import Client
from fjmcp_broker.oauth.document_cache import CEILING_SECONDS
from fjmcp_broker.oauth.document_urls import document_url_problem, is_document_url
from fjmcp_broker.store import clients
from fjmcp_broker.store.clients import StoredClient
from fjmcp_broker.store.database import Database
from fjmcp_broker.store.pending import PendingAuthorization
from fjmcp_broker.upstream.document_http import DocumentError
from fjmcp_broker.upstream.documents import FetchedDocument, MetadataDocuments


class FoundClient(msgspec.Struct, frozen=True):
    """
    A client that may ask for a sign-in.

    @ivar client: as it is registered, or as its document describes it.
    @ivar save_until: the store has it otherwise or not at all: it is to be saved with
        the user's answer, to be fetched again at that time; else C{None}.
    @ivar in_place_of: when the document expires that the store has.
    """

    client: Client
    save_until: int | None = None
    in_place_of: int | None = None


class ClientDirectory:
    """
    The registered and configured clients, and those with a metadata document.

    What was fetched is written only when the user answers the consent page: a request
    alone leaves no row behind.
    """

    def __init__(
        self,
        database: Database,
        clock: IReactorTime,
        documents: MetadataDocuments | None = None,
    ) -> None:
        """
        @param database: the store.
        @param clock: tells the time.
        @param documents: fetches documents; C{None}: they are switched off.
        """
        self._database = database
        self._clock = clock
        self._documents = documents

    async def find(self, client_id: str) -> FoundClient | None:
        """
        @param client_id: controlled by the client.
        @return: the client, or C{None}: unknown.
        @raise DocumentError: its id is the URL of a document that cannot be used.
        """
        stored = await self._database.read(lambda c: clients.find_stored(c, client_id))
        if stored is not None and stored.client.kind != "metadata-document":
            return FoundClient(stored.client)
        if self._documents is None or not is_document_url(client_id):
            return None
        problem = document_url_problem(client_id)
        if problem is not None:
            raise DocumentError(f"cannot be fetched: the client_id {problem}")
        return await self._described(self._documents, client_id, stored)

    def may_redirect(self, connection: Connection, row: PendingAuthorization) -> bool:
        """
        @param connection: to the store.
        @param row: a sign-in under way.
        @return: whether it may still lead to its client, at the address from its
            beginning.
        """
        return clients.may_redirect(
            connection,
            row.client_id,
            row.request.redirect_uri,
            has_documents=self._documents is not None,
        )

    async def _described(
        self, documents: MetadataDocuments, url: str, stored: StoredClient | None
    ) -> FoundClient:
        document = documents.recent(url)
        if document is None:
            if stored is not None and self._is_fresh(stored):
                return FoundClient(stored.client)
            is_known = stored is not None and stored.client.last_used_at is not None
            document = await documents.fetch(url, is_known=is_known)
        return self._found(url, document, stored)

    def _found(
        self, url: str, document: FetchedDocument, stored: StoredClient | None
    ) -> FoundClient:
        before = None if stored is None else stored.client
        client = Client.from_metadata(
            client_id=url,
            kind="metadata-document",
            metadata=document.metadata.values,
            secret_digest=None,
            created_at=self._now() if before is None else before.created_at,
            last_used_at=None if before is None else before.last_used_at,
        )
        is_saved = (
            stored is not None
            and stored.metadata_expires_at == document.expires_at
            and stored.client == client
        )
        if is_saved:
            return FoundClient(client)
        stored_until = None if stored is None else stored.metadata_expires_at
        return FoundClient(client, document.expires_at, stored_until)

    def _is_fresh(self, stored: StoredClient) -> bool:
        # One beyond the ceiling was stored when the clock was wrong.
        left = (stored.metadata_expires_at or 0) - self._now()
        return 0 < left <= CEILING_SECONDS

    def _now(self) -> int:
        return int(self._clock.seconds())
