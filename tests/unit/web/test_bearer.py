"""The bearer check: what the store says, remembered for as long as it is true."""

from collections.abc import Callable
from sqlite3 import Connection
from typing import Any, TypeVar

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.test.requesthelper import DummyRequest

from fjmcp_broker.oauth.bearer import Principal
from fjmcp_broker.oauth.grants import AccessToken
from fjmcp_broker.oauth.tokens import digest
from fjmcp_broker.oauth.vocabulary import Policy
from fjmcp_broker.store import tokens
from fjmcp_broker.store.database import Database
from fjmcp_broker.store.errors import StoreUnavailable
from fjmcp_broker.web.bearer import (
    BearerAuthenticator,
    BearerRefused,
    authorization_header,
)
from tests.unit.web.token_fixture import (
    ACCESS_LIFETIME,
    PUBLIC_URL,
    USER_ID,
    TokenWorld,
)

T = TypeVar("T")

METADATA = f"{PUBLIC_URL}/.well-known/oauth-protected-resource/mcp"


class GatedDatabase(Database):
    """
    A database that counts its work, and holds results back when told to.
    """

    reads = 0
    writes = 0
    gate: "Deferred[None] | None" = None

    async def read(self, query: Callable[[Connection], T]) -> T:
        """
        @return: what the query gave.
        """
        self.reads += 1
        result = await super().read(query)
        await self._pass()
        return result

    async def write(self, transaction: Callable[[Connection], T]) -> T:
        """
        @return: what the transaction gave.
        """
        self.writes += 1
        result = await super().write(transaction)
        await self._pass()
        return result

    async def _pass(self) -> None:
        if self.gate is not None:
            waiting: Deferred[None] = Deferred()
            self.gate.chainDeferred(waiting)
            await waiting


class BearerTestCase(SynchronousTestCase):
    """A signed-in client."""

    def setUp(self) -> None:
        self.world = TokenWorld(self)
        self.bearer = self.world.bearer
        self.tokens = self.world.signed_in()
        self.header = b"Bearer " + self.tokens["access_token"].encode()

    def gated(self) -> GatedDatabase:
        """
        @return: control over the database.
        """
        database = self.world.database
        database.__class__ = GatedDatabase
        assert isinstance(database, GatedDatabase)
        return database

    def authenticate(self, header: bytes | None) -> "Deferred[Principal]":
        """
        @return: fires with the principal.
        """
        return Deferred.fromCoroutine(self.bearer.authenticate(header))

    def accepted(self) -> Principal:
        """
        @return: who the client's token speaks for.
        """
        return self.successResultOf(self.authenticate(self.header))

    def refused(self, header: bytes | None) -> str:
        """
        @return: the challenge of the refusal.
        """
        failure = self.failureResultOf(self.authenticate(header), BearerRefused)
        assert isinstance(failure.value, BearerRefused)
        self.assertEqual(failure.value.status, 401)
        return failure.value.challenge


class AuthenticationTests(BearerTestCase):
    """RFC 6750."""

    def test_valid_token(self) -> None:
        """Who it is, until when, and what they may do."""
        principal = self.accepted()
        self.assertEqual(principal.user_id, USER_ID)
        self.assertEqual(principal.login, "alice")
        self.assertEqual(principal.client_id, "public")
        self.assertEqual(principal.policy, Policy.FULL)
        self.assertEqual(principal.expires_at, self.world.now + ACCESS_LIFETIME)
        self.assertEqual(principal.token_digest, digest(self.tokens["access_token"]))

    def test_no_credentials(self) -> None:
        """RFC 6750 section 3.1: a challenge without an error."""
        for header in (None, b"Basic abc"):
            self.assertEqual(
                self.refused(header),
                f'Bearer resource_metadata="{METADATA}", scope="read write"',
            )

    def test_bad_credentials(self) -> None:
        """RFC 6750 section 3.1: invalid_token; malformed ones never reach the store."""
        for header in (b"Bearer", b"Bearer a b", b"Bearer fjmcp_at_unknown"):
            self.assertIn('error="invalid_token"', self.refused(header))
            self.assertIn(METADATA, self.refused(header))

    @given(st.binary() | st.binary().map(b"Bearer ".__add__))
    def test_any_header_is_judged(self, header: bytes) -> None:
        """Junk is refused, and changes nothing."""
        self.assertIsNone(self.bearer.cached(header))
        self.refused(header)

    def test_expired_token(self) -> None:
        """RFC 6750 section 3.1, with an empty cache."""
        self.world.clock.advance(ACCESS_LIFETIME)
        self.assertIn('error="invalid_token"', self.refused(self.header))

    def test_scope_to_ask_for(self) -> None:
        """RFC 6750 section 3.1: insufficient_scope names it."""
        challenge = self.bearer.insufficient_scope()
        self.assertIn('error="insufficient_scope"', challenge)
        self.assertIn('scope="read write"', challenge)

    def test_store_that_fails(self) -> None:
        """It is not the token's fault."""
        self.world.result(self.world.database.close())
        self.failureResultOf(self.authenticate(self.header), StoreUnavailable)

    def test_several_headers_are_no_token(self) -> None:
        """None of two tokens is chosen."""
        request: Any = DummyRequest([b""])
        self.assertIsNone(authorization_header(request))
        request.requestHeaders.setRawHeaders(b"authorization", [self.header] * 2)
        header = authorization_header(request)
        self.assertIn('error="invalid_token"', self.refused(header))


class CacheTests(BearerTestCase):
    """Valid tokens are looked up once."""

    def test_second_look_asks_nobody(self) -> None:
        """Neither of the two ways."""
        self.assertIsNone(self.bearer.cached(self.header))
        principal = self.accepted()
        database = self.gated()
        self.assertEqual(self.bearer.cached(self.header), principal)
        self.assertEqual(self.accepted(), principal)
        self.assertEqual((database.reads, database.writes), (0, 0))

    def test_end_of_life_is_checked_at_every_hit(self) -> None:
        """The cache does not know that time passes."""
        self.accepted()
        self.world.clock.advance(ACCESS_LIFETIME - 1)
        self.assertIsNotNone(self.bearer.cached(self.header))
        self.world.clock.advance(1)
        self.assertIsNone(self.bearer.cached(self.header))
        self.refused(self.header)

    def test_what_ends_is_forgotten_at_once(self) -> None:
        """Grant, user and token."""
        principal = self.accepted()
        for forget in (
            lambda: self.bearer.forget_grant(principal.grant_id),
            lambda: self.bearer.forget_user(principal.user_id),
            lambda: self.bearer.forget_token(principal.token_digest),
        ):
            self.accepted()
            forget()
            self.assertIsNone(self.bearer.cached(self.header))

    def test_others_are_not_forgotten(self) -> None:
        """Only what ended."""
        self.accepted()
        self.bearer.forget_grant("g_other")
        self.bearer.forget_user(USER_ID + 1)
        self.bearer.forget_token(b"other")
        self.assertIsNotNone(self.bearer.cached(self.header))

    def test_number_of_entries_is_bounded(self) -> None:
        """The least recently used goes first."""
        bearer = BearerAuthenticator(
            self.world.database, self.world.clock, PUBLIC_URL, maximum_entries=2
        )
        first, second, third = (
            b"Bearer " + self.world.signed_in()["access_token"].encode()
            for _ in range(3)
        )
        self.world.result(bearer.authenticate(first))
        self.world.result(bearer.authenticate(second))
        self.assertIsNotNone(bearer.cached(first))
        self.world.result(bearer.authenticate(third))
        self.assertIsNone(bearer.cached(second))
        self.assertIsNotNone(bearer.cached(first))
        self.assertIsNotNone(bearer.cached(third))

    def test_revocation_during_a_look_up_counts(self) -> None:
        """What was read before it is not believed, nor remembered."""
        self.accepted()
        self.bearer.forget_token(digest(self.tokens["access_token"]))
        database = self.gated()
        gate = database.gate = Deferred()
        looking = self.authenticate(self.header)
        self.assertNoResult(looking)
        database.gate = None
        self.world.post(
            "/oauth/revoke",
            {"client_id": "public", "token": self.tokens["refresh_token"]},
        )
        gate.callback(None)
        self.failureResultOf(looking, BearerRefused)
        self.assertIsNone(self.bearer.cached(self.header))

    def test_other_peoples_revocations_do_not_starve_a_look_up(self) -> None:
        """They concern others, so that one look at the store is enough."""
        database = self.gated()

        class Restless(GatedDatabase):
            """Something is revoked during every read."""

            async def read(inner, query: Callable[[Connection], T]) -> T:  # noqa: N805
                """
                @return: what the query gave.
                """
                self.bearer.forget_grant("g_other")
                return await super().read(query)

        database.__class__ = Restless
        self.accepted()
        self.assertIsNotNone(self.bearer.cached(self.header))

    def test_a_token_that_ends_at_every_look_is_refused(self) -> None:
        """However often the store says otherwise, and not for ever."""
        database = self.gated()
        token_digest = digest(self.tokens["access_token"])

        class Restless(GatedDatabase):
            """The token is revoked during every read."""

            async def read(inner, query: Callable[[Connection], T]) -> T:  # noqa: N805
                """
                @return: what the query gave.
                """
                self.bearer.forget_token(token_digest)
                return await super().read(query)

        database.__class__ = Restless
        self.failureResultOf(self.authenticate(self.header), BearerRefused)
        self.assertIsNone(self.bearer.cached(self.header))


class FirstUseTests(BearerTestCase):
    """From its first use on a token's predecessor must not be repeated."""

    def first_used_at(self) -> int | None:
        """
        @return: what the store says.
        """
        token = self.world.write(
            lambda connection: tokens.find_access(
                connection, digest(self.tokens["access_token"])
            )
        )
        assert isinstance(token, AccessToken)
        return token.first_used_at

    def test_first_use_is_written_once(self) -> None:
        """The first time, and never again."""
        self.assertIsNone(self.first_used_at())
        database = self.gated()
        self.accepted()
        self.assertEqual((database.reads, database.writes), (1, 1))
        used_at = self.first_used_at()
        self.assertEqual(used_at, self.world.now)
        self.world.clock.advance(10)
        self.bearer.forget_grant(self.bearer.cached(self.header).grant_id)  # type: ignore[union-attr]
        database.reads = database.writes = 0
        self.accepted()
        self.assertEqual((database.reads, database.writes), (1, 0))
        self.assertEqual(self.first_used_at(), used_at)

    def test_nobody_gets_in_before_the_commit(self) -> None:
        """No request is answered while the first use is not on the disk."""
        database = self.gated()
        read = database.gate = Deferred()
        looking = self.authenticate(self.header)
        commit = database.gate = Deferred()
        read.callback(None)
        self.assertEqual(database.writes, 1)
        self.assertNoResult(looking)
        self.assertIsNone(self.bearer.cached(self.header))
        commit.callback(None)
        self.successResultOf(looking)

    def test_concurrent_first_uses(self) -> None:
        """All of them get in; one of them wrote."""
        database = self.gated()
        gate = database.gate = Deferred()
        looking = [self.authenticate(self.header) for _ in range(5)]
        database.gate = None
        gate.callback(None)
        principals = {self.successResultOf(one) for one in looking}
        self.assertEqual(len(principals), 1)
        self.assertEqual(self.first_used_at(), self.world.now)

    def test_refused_token_is_not_used(self) -> None:
        """A suspended user's token stays unused."""
        self.world.suspend()
        self.refused(self.header)
        self.assertIsNone(self.first_used_at())

    def test_token_revoked_between_read_and_write_is_refused(self) -> None:
        """The transaction looks again."""
        database = self.gated()
        gate = database.gate = Deferred()
        looking = self.authenticate(self.header)
        database.gate = None
        self.world.write(
            lambda connection: (
                connection.execute("UPDATE access_tokens SET revoked_at = 1").rowcount
            )
        )
        gate.callback(None)
        self.failureResultOf(looking, BearerRefused)
        self.assertIsNone(self.first_used_at())
