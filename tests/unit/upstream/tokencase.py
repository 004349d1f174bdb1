"""
A world for tests of the token sets: clock, stand-in Forgejo, store, what is under test.
"""

from collections.abc import Coroutine
from typing import Any, TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from fjmcp_broker.oauth.access import EVERYBODY, AccessRules
from fjmcp_broker.oauth.authorization import AuthorizationRequest
from fjmcp_broker.oauth.clients import Client
from fjmcp_broker.oauth.forgejo_scopes import DEFAULT_SCOPES
from fjmcp_broker.store import clients, pending, upstream_tokens, users
from fjmcp_broker.store.sealing import Sealer
from fjmcp_broker.store.upstream_tokens import UpstreamSet
from fjmcp_broker.upstream.interfaces import IForgejo, SignedInUser
from fjmcp_broker.upstream.sign_ins import note_user
from fjmcp_broker.upstream.tokens import UpstreamTokens
from tests.unit.store.memory import memory_database

from .standin import NOW, VERIFIER, InMemoryForgejo
from .stepping import Gates, SteppedDatabase, SteppedForgejo

T = TypeVar("T")

EXCHANGE = "token:authorization_code"
REFRESH = "token:refresh_token"
CLIENT_ID = "fjmcp_client_test"


class World:
    """
    Everything that one example needs.

    @ivar suspended: user numbers, in the order of the calls.
    """

    def __init__(
        self, test: SynchronousTestCase, access: AccessRules = EVERYBODY
    ) -> None:
        """
        @param test: whose cleanup closes the store.
        @param access: who may sign in.
        """
        self.test = test
        self.access = access
        self.clock = Clock()
        self.clock.advance(NOW)
        self.remote = InMemoryForgejo(self.clock)
        self.controls = self.remote.controls
        self.gates = Gates()
        self.forgejo = SteppedForgejo(self.remote.forgejo, self.gates)
        self.memory = memory_database(test)
        self.database = SteppedDatabase(self.memory, self.gates)
        self.sealer = Sealer([b"k" * 32])
        self.suspended: list[int] = []
        self._pending_count = 0
        self.alice = self.controls.user("alice").id
        self.bob = self.controls.user("bob").id
        self.done(self.memory.write(lambda c: clients.insert(c, _CLIENT)))
        self.tokens = self.new_tokens()

    def new_tokens(self, forgejo: IForgejo | None = None) -> UpstreamTokens:
        """
        @param forgejo: another one than C{self.forgejo}.
        @return: as after a start of the broker.
        """
        return UpstreamTokens(
            self.database,
            self.sealer,
            forgejo or self.forgejo,
            self.clock,
            self.suspended.append,
            requested_scope=DEFAULT_SCOPES,
            access=self.access,
        )

    def begin(self, work: Coroutine[Deferred[Any], Any, T]) -> Deferred[T]:
        """
        @return: the work, begun.
        """
        return Deferred.fromCoroutine(work)

    def done(self, work: Coroutine[Deferred[Any], Any, T]) -> T:
        """
        @return: the result of work that needs no waiting.
        """
        return self.test.successResultOf(Deferred.fromCoroutine(work))

    def failed(
        self, work: Coroutine[Deferred[Any], Any, object], *kinds: type[Exception]
    ) -> Exception:
        """
        @return: what work raises that needs no waiting.
        """
        failure = self.test.failureResultOf(Deferred.fromCoroutine(work), *kinds)
        error: Exception = failure.value
        return error

    def pending_id(self) -> str:
        """
        @return: of a new pending authorization.
        """
        self._pending_count += 1
        pending_id = f"p_{self._pending_count}"
        row = pending.PendingAuthorization(
            pending_id, CLIENT_ID, _REQUEST, NOW, NOW + 600
        )
        self.done(self.memory.write(lambda c: pending.insert(c, row)))
        return pending_id

    def sign_in(
        self, login: str = "alice", *, scope: str = DEFAULT_SCOPES
    ) -> Deferred[SignedInUser]:
        """
        @param login: who comes back from Forgejo.
        @param scope: of the grant, when there is none yet.
        @return: the sign-in, begun.
        """
        code = self.remote.code(login, scope=scope)
        return self.begin(self._sign_in(self.pending_id(), code))

    async def _sign_in(self, pending_id: str, code: str) -> SignedInUser:
        user = await self.tokens.sign_in(pending_id, code, VERIFIER)
        now = int(self.clock.seconds())
        # As the callback does, with the grant.
        await self.database.write(lambda c: note_user(c, user, now))
        return user

    def signed_in(
        self, login: str = "alice", *, scope: str = DEFAULT_SCOPES
    ) -> SignedInUser:
        """
        @return: a sign-in that needs no waiting.
        """
        return self.test.successResultOf(self.sign_in(login, scope=scope))

    def stored(self, user_id: int) -> UpstreamSet | None:
        """
        @return: what the store has of a user.
        """
        return self.done(
            self.memory.read(lambda c: upstream_tokens.find(c, self.sealer, user_id))
        )

    def set_of(self, user_id: int) -> UpstreamSet:
        """
        @return: the stored set of a user who has one.
        """
        found = self.stored(user_id)
        assert found is not None
        return found

    def user(self, user_id: int) -> users.User | None:
        """
        @return: the stored user.
        """
        return self.done(self.memory.read(lambda c: users.find_user(c, user_id)))

    def parked(self) -> list[str]:
        """
        @return: the pending authorizations that hold tokens.
        """
        rows = self.done(self.memory.read(pending.parked))
        return [row.pending_id for row in rows]

    def expire(self) -> None:
        """
        Let an hour pass, and with it every access token.
        """
        self.remote.advance(3600)

    def is_newest(self, login: str) -> bool:
        """
        @return: whether Forgejo would accept the stored refresh token.
        """
        grant = self.controls.grant(login)
        stored = self.set_of(self.controls.user(login).id)
        return (stored.grant_number, stored.counter) == (grant.id, grant.counter)


class TokenTestCase(SynchronousTestCase):
    """
    A test in one world.
    """

    access = EVERYBODY

    def setUp(self) -> None:
        """
        Make the world.
        """
        self.world = World(self, self.access)
        self.controls = self.world.controls
        self.clock = self.world.clock
        # Not tearDown: trial runs that after the cleanup that closes the store.
        self.addCleanup(self._end)

    def _end(self) -> None:
        """
        Nothing is left running.
        """
        self.world.gates.open()
        self.controls.end_faults()
        self.world.remote.flush()
        self.world.done(self.world.tokens.stop())
        self.assertEqual(self.clock.getDelayedCalls(), [])


_CLIENT = Client.from_metadata(
    client_id=CLIENT_ID,
    kind="dynamic",
    metadata={
        "redirect_uris": ["https://client.test/cb"],
        "token_endpoint_auth_method": "none",
        "application_type": "web",
    },
    secret_digest=None,
    created_at=NOW,
)
_REQUEST = AuthorizationRequest(
    client_id=CLIENT_ID,
    redirect_uri="https://client.test/cb",
    redirect_uri_given=True,
    state=None,
    scope=None,
    code_challenge="c" * 43,
    resource="https://broker.test/mcp",
)
