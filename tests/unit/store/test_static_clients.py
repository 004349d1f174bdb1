"""Clients of the configuration in the store."""

from fjmcp_broker.config import StaticClient
from fjmcp_broker.oauth.clients import Client
from fjmcp_broker.oauth.redirect_uris import DEFAULT_APPLICATION_SCHEMES
from fjmcp_broker.oauth.tokens import digest
from fjmcp_broker.secret import Secret
from fjmcp_broker.store import clients, grants
from fjmcp_broker.store.collector import collect
from fjmcp_broker.store.static_clients import synchronise

from . import rows
from .memory import NOW
from .rows import CLIENT_ID, GRANT_ID, StoreTestCase

SECRET = "a secret of 24 characters"
DAY = 24 * 3600

PUBLIC = StaticClient(
    client_id="our-tool", client_name="Our tool", redirect_uris=("ourtool.example:/cb",)
)
CONFIDENTIAL = StaticClient(
    client_id="our-server",
    redirect_uris=("https://app.example.com/cb",),
    token_endpoint_auth_method="client_secret_basic",
    client_secret=Secret(SECRET),
)


class SynchroniseTests(StoreTestCase):
    """At each start."""

    def synchronise(self, *configured: StaticClient, now: int = NOW) -> None:
        """
        Start with a configuration.
        """
        self.write(
            lambda c: synchronise(c, configured, DEFAULT_APPLICATION_SCHEMES, now)
        )

    def found(self, client_id: str) -> Client:
        """
        @return: a client that is there.
        """
        client = self.read(lambda c: clients.find(c, client_id))
        assert client is not None
        return client

    def test_public_and_confidential(self) -> None:
        """As if they had registered themselves."""
        self.synchronise(PUBLIC, CONFIDENTIAL)
        public, confidential = self.found("our-tool"), self.found("our-server")
        self.assertEqual((public.kind, public.name), ("static", "Our tool"))
        self.assertEqual(public.redirect_uris, ("ourtool.example:/cb",))
        self.assertFalse(public.is_confidential)
        self.assertEqual(confidential.secret_digest, digest(SECRET))
        self.assertEqual(confidential.token_endpoint_auth_method, "client_secret_basic")

    def test_changes_take_effect(self) -> None:
        """What it was allowed stays, and when it was used."""
        self.synchronise(CONFIDENTIAL)
        self.write(lambda c: clients.mark_used(c, "our-server", NOW + 5))
        self.write(
            lambda c: grants.insert(c, rows.grant("g_9", client_id="our-server"))
        )
        other = StaticClient(
            client_id="our-server", redirect_uris=("https://new.example.com/cb",)
        )
        self.synchronise(other, now=NOW + DAY)
        client = self.found("our-server")
        self.assertEqual(client.redirect_uris, ("https://new.example.com/cb",))
        self.assertIsNone(client.secret_digest)
        self.assertEqual((client.created_at, client.last_used_at), (NOW, NOW + 5))
        self.assertIsNotNone(self.read(lambda c: grants.find(c, "g_9")))

    def test_removed_client_goes_with_all_it_was_allowed(self) -> None:
        """Others are left alone."""
        self.synchronise(PUBLIC, CONFIDENTIAL)
        self.write(
            lambda c: grants.insert(c, rows.grant("g_9", client_id="our-server"))
        )
        self.synchronise(PUBLIC)
        self.assertIsNone(self.read(lambda c: clients.find(c, "our-server")))
        self.assertIsNone(self.read(lambda c: grants.find(c, "g_9")))
        self.found("our-tool")
        self.found(CLIENT_ID)
        self.assertIsNotNone(self.read(lambda c: grants.find(c, GRANT_ID)))

    def test_client_that_was_known_in_another_way(self) -> None:
        """It becomes the operator's, with the grants that it has."""
        self.synchronise(
            StaticClient(
                client_id=CLIENT_ID, redirect_uris=("https://new.example.com/cb",)
            )
        )
        self.assertEqual(self.found(CLIENT_ID).kind, "static")
        self.assertIsNotNone(self.read(lambda c: grants.find(c, GRANT_ID)))

    def test_never_collected(self) -> None:
        """However long nobody uses it."""
        self.synchronise(PUBLIC)
        self.write(lambda c: collect(c, NOW + 1000 * DAY))
        self.found("our-tool")


class DocumentRowTests(StoreTestCase):
    """Rows of metadata documents."""

    def test_saving_again_keeps_the_history(self) -> None:
        """Metadata and expiry change, nothing else."""
        client = rows.client("https://app.example.com/x", kind="metadata-document")
        self.write(lambda c: clients.save_document(c, client, NOW + 60))
        self.write(lambda c: clients.mark_used(c, client.client_id, NOW + 5))
        later = rows.client(
            client.client_id, kind="metadata-document", created_at=NOW + 9
        )
        self.write(lambda c: clients.save_document(c, later, NOW + 600))
        stored = self.read(lambda c: clients.find_stored(c, client.client_id))
        assert stored is not None
        self.assertEqual(stored.metadata_expires_at, NOW + 600)
        self.assertEqual(
            (stored.client.created_at, stored.client.last_used_at), (NOW, NOW + 5)
        )

    def test_configured_client_is_left_alone(self) -> None:
        """Whatever a document of the same name says."""
        client = rows.client("https://app.example.com/x", kind="static")
        self.write(lambda c: clients.insert(c, client))
        other = rows.client(client.client_id, kind="metadata-document")
        self.write(lambda c: clients.save_document(c, other, NOW + 60))
        stored = self.read(lambda c: clients.find_stored(c, client.client_id))
        assert stored is not None
        self.assertEqual(stored.client.kind, "static")
        self.assertIsNone(stored.metadata_expires_at)
