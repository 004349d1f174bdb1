"""Attacks with tokens that are real, only not here, not now or not alone."""

from twisted.trial.unittest import SynchronousTestCase

from fjmcp_broker.oauth.tokens import derive_successor
from fjmcp_broker.store.tokens import derivation_key_row
from tests.unit.web.mcp_world import McpWorld, initialize
from tests.unit.web.signin import Site
from tests.unit.web.test_token import TokenTestCase
from tests.unit.web.token_fixture import PUBLIC_URL

ELSEWHERE = "https://elsewhere.example/mcp"


class AnotherResourceTests(TokenTestCase):
    """
    RFC 8707 section 2, MCP 2026-07-28, authorization: a token is good for what it was
    issued for. Elsewhere is a broker whose store was copied, or this one before it
    moved.
    """

    def move(self, resource: str) -> None:
        """Let all grants be for another resource."""
        self.world.write(
            lambda c: c.execute("UPDATE grants SET resource = ?", (resource,)).rowcount
        )

    def test_token_of_another_resource(self) -> None:
        """It opens nothing here, and cannot be exchanged for one that does."""
        tokens = self.world.signed_in()
        code = self.world.code()
        self.move(ELSEWHERE)
        self.assertFalse(self.world.use(tokens["access_token"]))
        refused = self.world.refresh(tokens["refresh_token"])
        self.assertEqual(refused.error, (400, "invalid_grant"))
        self.assertEqual(self.world.exchange(code).error, (400, "invalid_grant"))
        # Nothing was spent or revoked by that.
        self.assertEqual(self.world.ended, [])
        self.move(f"{PUBLIC_URL}/mcp")
        self.assertTrue(self.world.use(tokens["access_token"]))
        self.assertEqual(self.world.refresh(tokens["refresh_token"]).status, 200)
        self.assertEqual(self.world.exchange(code).status, 200)

    def test_token_of_forgejo(self) -> None:
        """What Forgejo itself takes is no token here: nothing is passed through."""
        for token in ("eyJhbGciOiJSUzI1NiJ9.eyJnbnQiOjF9.c2ln", "gto_" + "a" * 52):
            self.assertFalse(self.world.use(token))
            refused = self.world.refresh(token)
            self.assertEqual(refused.error, (400, "invalid_grant"))


class StolenStoreTests(TokenTestCase):
    """Somebody has a copy of the database, and a refresh token from an old log."""

    def blobs(self) -> set[bytes]:
        """Every value of the store that is bytes."""
        return {
            value
            for rows in self.world.dump().values()
            for row in rows
            for value in row
            if isinstance(value, bytes)
        }

    def derived(self, old: str, secrets: set[bytes]) -> set[str]:
        """What the old token gives under each key that some value may hide."""
        keys = {
            value[start : start + 32]
            for value in secrets
            for start in range(max(1, len(value) - 31))
        }
        return {
            token
            for key in keys
            if len(key) == 32
            for number in range(3)
            for pair in (derive_successor(old, key, number),)
            for token in (pair.access_token, pair.refresh_token)
        }

    def test_old_token_and_a_copy_of_the_database(self) -> None:
        """The successor cannot be derived: its key is sealed."""
        old = self.world.signed_in()["refresh_token"]
        tokens = self.world.refresh(old).document
        live = {tokens["access_token"], tokens["refresh_token"]}
        copy = self.blobs()
        self.assertGreater(len(copy), 5)
        self.assertEqual(self.derived(old, copy) & live, set())

    def test_old_token_the_database_and_the_key(self) -> None:
        """Nor with the store's key, once the client has used what it was given."""
        old = self.world.signed_in()["refresh_token"]
        tokens = self.world.refresh(old).document
        live = {tokens["access_token"], tokens["refresh_token"]}
        self.assertEqual(self.derived(old, self.opened()) & live, live)
        self.world.clock.advance(61)
        self.assertTrue(self.world.use(tokens["access_token"]))
        self.assertEqual(self.derived(old, self.opened()) & live, set())

    def opened(self) -> set[bytes]:
        """What the key of the store opens of the sealed derivation keys."""
        rows = self.world.dump()["refresh_tokens"]
        return {
            self.world.sealer.open(row[4], row=derivation_key_row(row[0]))
            for row in rows
            if row[4] is not None
        }


class QueryTokenTests(McpWorld):
    """OAuth 2.1 draft 13, section 5.1: addresses are written down in many places."""

    def test_token_in_the_query(self) -> None:
        """It is not looked at, whatever it is called."""
        for name in ("access_token", "token", "authorization"):
            wire = self.send(initialize(), token=None, path=f"/mcp?{name}=alice")
            self.assertEqual(wire.status, 401, name)
            self.assertNotIn("error=", wire.headers["www-authenticate"])
        # The same token is good where it belongs.
        wire = self.send(initialize(), token="alice", path="/mcp?x=1")
        self.assertEqual(wire.status, 200)


class ClientIdTests(SynchronousTestCase):
    """RFC 9700 section 4.15: a client must not be taken for a user."""

    def test_id_of_a_user(self) -> None:
        """A client that asks for an id gets another one, which no user has."""
        site = Site(self)
        for wanted in ("1", "alice", "https://client.example/id"):
            client_id = site.register(client_id=wanted, client_name="1")
            self.assertNotEqual(client_id, wanted)
            self.assertRegex(client_id, r"\Afjmcp_[a-z]+_[\w-]{22}\Z")
