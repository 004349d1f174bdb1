"""Signing in through Forgejo: no token set is lost, and none goes to the wrong user."""

from sqlite3 import Connection

from twisted.internet.defer import CancelledError
from zope.interface import implementer
from zope.interface.verify import verifyObject

from fjmcp_broker.oauth.forgejo_scopes import DEFAULT_SCOPES
from fjmcp_broker.secret import Secret
from fjmcp_broker.store.errors import StoreUnavailable
from fjmcp_broker.upstream.errors import (
    CodeRefused,
    IdentityMismatch,
    ScopeMismatch,
    SignInNeeded,
    UpstreamUnavailable,
)
from fjmcp_broker.upstream.interfaces import (
    IForgejo,
    Introspection,
    IUpstreamTokens,
    TokenAnswer,
    UserInfo,
)

from .standin import NOW, VERIFIER
from .tokencase import EXCHANGE, REFRESH, TokenTestCase

WITHOUT_OPENID = DEFAULT_SCOPES.removeprefix("openid ")


class StraightPathTests(TokenTestCase):
    """A sign-in as it should be."""

    def test_interface(self) -> None:
        """The token sets are what the layers above expect."""
        verifyObject(IUpstreamTokens, self.world.tokens)

    def test_set_needs_no_grant(self) -> None:
        """What the caller commits later, or never, is all but the tokens."""
        world = self.world
        code = world.remote.code()
        user = world.done(world.tokens.sign_in(world.pending_id(), code, VERIFIER))
        self.assertEqual((user.user_id, user.release), (world.alice, None))
        stored = world.set_of(world.alice)
        self.assertEqual((stored.state, stored.scope), ("usable", None))
        known = world.user(world.alice)
        assert known is not None
        self.assertEqual((known.login, known.display_name), ("alice", "Alice Example"))
        world.done(world.tokens.access_token(world.alice))

    def test_user_and_tokens_are_stored(self) -> None:
        """The user, the newest set and its introspected scope are in the store."""
        world = self.world
        user = world.signed_in()
        self.assertEqual(
            (user.user_id, user.login, user.display_name, user.scope),
            (world.alice, "alice", "Alice Example", DEFAULT_SCOPES),
        )
        known = world.user(world.alice)
        assert known is not None
        self.assertEqual((known.login, known.display_name), ("alice", "Alice Example"))
        stored = world.set_of(world.alice)
        self.assertEqual(stored.state, "usable")
        self.assertEqual(stored.scope, DEFAULT_SCOPES)
        self.assertEqual(stored.expires_at, NOW + 3600)
        self.assertTrue(world.is_newest("alice"))

    def test_two_users_do_not_mix(self) -> None:
        """Each user has a set of their own."""
        world = self.world
        world.signed_in("alice")
        world.signed_in("bob")
        for user_id, login in ((world.alice, "alice"), (world.bob, "bob")):
            token = world.done(world.tokens.access_token(user_id))
            self.assertEqual(token.user_id, user_id)
            owner = world.done(world.forgejo.userinfo(token.text))
            self.assertEqual(owner.login, login)

    def test_second_sign_in_replaces_the_set(self) -> None:
        """Another client of the same user brings the newest set for both."""
        world = self.world
        world.signed_in()
        first = world.set_of(world.alice)
        world.signed_in()
        self.assertNotEqual(
            first.refresh_token, world.set_of(world.alice).refresh_token
        )
        self.assertTrue(world.is_newest("alice"))

    def test_renamed_user_is_the_same_user(self) -> None:
        """Forgejo's number is the identity; the login follows."""
        world = self.world
        world.signed_in()
        self.controls.user("alice").login = "alicia"
        user = world.signed_in("alicia")
        self.assertEqual((user.user_id, user.login), (world.alice, "alicia"))

    def test_set_is_stored_before_anything_else(self) -> None:
        """With an id_token nothing comes between the answer and the store."""
        world = self.world
        self.controls.hold_request("userinfo")
        sign_in = world.sign_in()
        self.assertNoResult(sign_in)
        self.assertTrue(world.is_newest("alice"))
        known = world.user(world.alice)
        assert known is not None
        self.assertEqual(known.login, "alice")

    def test_restored_forgejo(self) -> None:
        """A counter that went back, as from a backup, does not lock a user out."""
        world = self.world
        for _ in range(3):
            world.signed_in()
        self.controls.grant("alice").counter = 1
        world.signed_in()
        self.assertTrue(world.is_newest("alice"))


class RefusalTests(TokenTestCase):
    """Sign-ins that cannot succeed, and what they leave behind."""

    def test_burnt_code_asks_for_a_restart(self) -> None:
        """A lost race for the counter is told apart from a bad code."""
        world = self.world
        self.controls.lose_counter_race()
        failure = self.failureResultOf(world.sign_in(), CodeRefused)
        self.assertTrue(failure.value.restart)
        self.assertIsNone(world.stored(world.alice))

    def test_other_scope_is_told(self) -> None:
        """A scope frozen at an earlier consent is an error of its own; the set is
        the newest all the same."""
        world = self.world
        failure = self.failureResultOf(
            world.sign_in(scope="openid read:user"), ScopeMismatch
        )
        self.assertEqual(failure.value.requested, DEFAULT_SCOPES)
        self.assertEqual(failure.value.granted, "openid read:user")
        stored = world.set_of(world.alice)
        self.assertEqual((stored.scope, stored.state), ("openid read:user", "usable"))
        self.assertTrue(world.is_newest("alice"))

    def test_contradiction_about_the_user(self) -> None:
        """When id_token and userinfo differ nobody is signed in, and the set is not
        used."""
        world = self.world
        world.tokens = world.new_tokens(
            Contradiction(world.forgejo, UserInfo(world.bob, "bob", ""))
        )
        self.failureResultOf(world.sign_in(), IdentityMismatch)
        self.assertEqual(world.set_of(world.alice).state, "needs_sign_in")
        self.assertIsNone(world.stored(world.bob))
        self.assertEqual(world.suspended, [world.alice])

    def test_unconfirmed_token(self) -> None:
        """A token that introspection does not know is no sign-in."""
        world = self.world
        world.tokens = world.new_tokens(Contradiction(world.forgejo, None))
        self.failureResultOf(world.sign_in(), UpstreamUnavailable)

    def test_outage_after_the_exchange(self) -> None:
        """Userinfo or introspection may fail: the set is safe, the user tries again."""
        world = self.world
        for endpoint in ("userinfo", "introspect"):
            fault = self.controls.bad_gateway(endpoint)
            self.failureResultOf(world.sign_in(), UpstreamUnavailable)
            self.assertTrue(world.is_newest("alice"))
            self.assertEqual(world.set_of(world.alice).state, "usable")
            fault.end()


class LostCommitTests(TokenTestCase):
    """The store fails between the exchange and the commit."""

    def test_set_is_kept_and_stored_later(self) -> None:
        """The sign-in fails, the set does not."""
        world = self.world
        fault = self.controls.hold_answer(EXCHANGE)
        sign_in = world.sign_in()
        world.database.fail_writes = 3
        fault.end()
        world.remote.flush()
        self.failureResultOf(sign_in, StoreUnavailable)
        self.assertIsNone(world.stored(world.alice))
        # Nobody gets a token that is not committed.
        world.failed(world.tokens.access_token(world.alice), StoreUnavailable)
        world.remote.advance(1)
        self.assertIsNone(world.stored(world.alice))
        world.remote.advance(2)
        self.assertTrue(world.is_newest("alice"))
        world.done(world.tokens.access_token(world.alice))

    def test_newer_sign_in_wins_over_a_kept_set(self) -> None:
        """A set that waits for the store never replaces a later one."""
        world = self.world
        fault = self.controls.hold_answer(EXCHANGE)
        sign_in = world.sign_in()
        world.database.fail_writes = 1
        fault.end()
        world.remote.flush()
        self.failureResultOf(sign_in, StoreUnavailable)
        world.signed_in()
        self.assertTrue(world.is_newest("alice"))
        world.remote.advance(60)
        self.assertTrue(world.is_newest("alice"))

    def test_without_id_token(self) -> None:
        """A set of an unknown user that cannot even be parked is not lost either."""
        world = self.world
        fault = self.controls.hold_answer(EXCHANGE)
        sign_in = world.sign_in(scope=WITHOUT_OPENID)
        world.database.fail_writes = 2
        fault.end()
        world.remote.flush()
        self.failureResultOf(sign_in, StoreUnavailable)
        self.assertEqual(world.parked(), [])
        world.remote.advance(1)
        self.assertTrue(world.is_newest("alice"))

    def test_last_attempt_at_the_stop(self) -> None:
        """A stop tries once more instead of waiting for the next turn."""
        world = self.world
        fault = self.controls.hold_answer(EXCHANGE)
        sign_in = world.sign_in()
        world.database.fail_writes = 1
        fault.end()
        world.remote.flush()
        self.failureResultOf(sign_in, StoreUnavailable)
        world.done(world.tokens.stop())
        self.assertTrue(world.is_newest("alice"))


class HomelessTests(TokenTestCase):
    """Grants without openid: the answer does not say whose tokens they are."""

    def sealed_in_store(self) -> list[bytes]:
        """The parked columns as they are on disk."""

        def read(connection: Connection) -> list[bytes]:
            rows = connection.execute(
                "SELECT sealed_upstream_tokens FROM pending_authorizations "
                "WHERE sealed_upstream_tokens IS NOT NULL"
            ).fetchall()
            return [row[0] for row in rows]

        return self.world.done(self.world.memory.read(read))

    def test_straight_path(self) -> None:
        """The set is parked until userinfo answers, sealed, and moved then."""
        world = self.world
        fault = self.controls.hold_request("userinfo")
        sign_in = world.sign_in(scope=WITHOUT_OPENID)
        self.assertNoResult(sign_in)
        self.assertEqual(world.parked(), ["p_1"])
        (sealed,) = self.sealed_in_store()
        self.assertNotIn(b"token", sealed)
        self.assertIsNone(world.stored(world.alice))
        fault.end()
        world.remote.flush()
        self.assertEqual(self.successResultOf(sign_in).user_id, world.alice)
        self.assertEqual(world.parked(), [])
        self.assertTrue(world.is_newest("alice"))

    def test_userinfo_fails_for_a_while(self) -> None:
        """The sign-in fails, and the set is moved when Forgejo is back."""
        world = self.world
        fault = self.controls.bad_gateway("userinfo")
        self.failureResultOf(world.sign_in(scope=WITHOUT_OPENID), UpstreamUnavailable)
        world.remote.advance(1)
        world.remote.advance(2)
        self.assertEqual(world.parked(), ["p_1"])
        fault.end()
        world.remote.advance(4)
        self.assertEqual(world.parked(), [])
        self.assertTrue(world.is_newest("alice"))

    def test_stop_before_it_could_be_parked(self) -> None:
        """What the store would not take is offered once more at the stop."""
        world = self.world
        outage = self.controls.bad_gateway("userinfo")
        fault = self.controls.hold_answer(EXCHANGE)
        sign_in = world.sign_in(scope=WITHOUT_OPENID)
        world.database.fail_writes = 1
        fault.end()
        world.remote.flush()
        self.failureResultOf(sign_in, UpstreamUnavailable)
        self.assertEqual(world.parked(), [])
        world.done(world.tokens.stop())
        self.assertEqual(world.parked(), ["p_1"])
        outage.end()
        world.tokens = world.new_tokens()
        self.start()
        self.assertTrue(world.is_newest("alice"))

    def test_dead_set_and_a_broken_store(self) -> None:
        """A dead set that cannot be forgotten now is forgotten at the next start."""
        world = self.world
        self.interrupted()
        self.controls.revoke_grant("alice")
        world.database.fail_writes = -1
        self.start()
        self.assertEqual(world.parked(), ["p_1"])
        world.database.fail_writes = 0
        world.tokens = world.new_tokens()
        self.start()
        self.assertEqual(world.parked(), [])

    def test_vanished_sign_in(self) -> None:
        """Without its pending row a set lives in memory until userinfo answers."""
        world = self.world
        code = world.remote.code(scope=WITHOUT_OPENID)
        user = world.done(world.tokens.sign_in("p_none", code, VERIFIER))
        self.assertEqual(user.user_id, world.alice)
        self.assertTrue(world.is_newest("alice"))

    def interrupted(self) -> None:
        """A broker that ended between the exchange and userinfo."""
        world = self.world
        fault = self.controls.bad_gateway("userinfo")
        self.failureResultOf(world.sign_in(scope=WITHOUT_OPENID), UpstreamUnavailable)
        world.done(world.tokens.stop())
        fault.end()
        self.assertEqual(world.parked(), ["p_1"])
        world.tokens = world.new_tokens()

    def start(self) -> None:
        """The next start, and its work in the background."""
        self.world.done(self.world.tokens.start())
        self.world.remote.advance(0)

    def test_start_finishes_the_move(self) -> None:
        """The next start goes on where the last process ended."""
        world = self.world
        self.interrupted()
        self.start()
        self.assertEqual(world.parked(), [])
        self.assertTrue(world.is_newest("alice"))

    def test_start_long_after(self) -> None:
        """An access token that has expired meanwhile is refreshed first."""
        world = self.world
        self.interrupted()
        world.expire()
        self.start()
        self.assertEqual(world.parked(), [])
        self.assertTrue(world.is_newest("alice"))
        self.assertEqual(self.controls.count(REFRESH), 1)
        world.done(world.tokens.access_token(world.alice))

    def test_start_with_dead_tokens(self) -> None:
        """A set that was overtaken meanwhile is forgotten."""
        world = self.world
        self.interrupted()
        self.controls.revoke_grant("alice")
        self.start()
        self.assertEqual(world.parked(), [])
        self.assertIsNone(world.stored(world.alice))

    def test_start_never_replaces_a_newer_set(self) -> None:
        """The user has signed in again before the parked set is moved."""
        world = self.world
        self.interrupted()
        fault = self.controls.hold_answer("userinfo", times=1)
        self.start()
        world.signed_in()
        newest = world.set_of(world.alice)
        fault.end()
        world.remote.flush()
        self.assertEqual(world.parked(), [])
        self.assertEqual(world.set_of(world.alice), newest)

    def test_unreadable_parked_set(self) -> None:
        """A row that no key opens is reported and left alone."""
        world = self.world
        self.interrupted()

        def damage(connection: Connection) -> None:
            connection.execute(
                "UPDATE pending_authorizations "
                "SET sealed_upstream_tokens = zeroblob(64)"
            )

        world.done(world.memory.write(damage))
        self.start()
        self.assertEqual(world.parked(), ["p_1"])

    def test_refusal_is_not_judged_meanwhile(self) -> None:
        """While it is unknown who signed in, nobody is told to sign in again."""
        world = self.world
        world.signed_in(scope=WITHOUT_OPENID)
        fault = self.controls.bad_gateway("userinfo")
        self.failureResultOf(world.sign_in(), UpstreamUnavailable)
        refused = world.tokens.access_token(world.alice, 7200)
        world.failed(refused, UpstreamUnavailable)
        self.assertEqual(world.suspended, [])
        fault.end()
        world.remote.advance(1)
        self.assertTrue(world.is_newest("alice"))
        world.done(world.tokens.access_token(world.alice, 7200))

    def test_token_that_is_refused_at_once(self) -> None:
        """The user may take the consent back within the second."""
        world = self.world
        fault = self.controls.hold_request("userinfo")
        sign_in = world.sign_in(scope=WITHOUT_OPENID)
        self.controls.revoke_grant("alice")
        fault.end()
        world.remote.flush()
        self.failureResultOf(sign_in, SignInNeeded)
        self.assertEqual(world.parked(), [])


class CancellationTests(TokenTestCase):
    """The browser goes away at any moment of the callback."""

    def steps_of_a_sign_in(self, scope: str) -> int:
        """How many gates a whole sign-in passes."""
        world = self.world
        world.signed_in(scope=scope)
        world.gates.is_open = False
        steps = 0
        sign_in = world.sign_in(scope=scope)
        while not sign_in.called:
            world.gates.step()
            steps += 1
        self.successResultOf(sign_in)
        world.gates.open()
        return steps

    def cancel_everywhere(self, scope: str, at_least: int) -> None:
        """Cut the caller off after every number of steps; the set must be there."""
        world = self.world
        steps = self.steps_of_a_sign_in(scope)
        self.assertGreaterEqual(steps, at_least)
        asked = self.controls.count("introspect")
        for count in range(steps):
            world.gates.is_open = False
            sign_in = world.sign_in(scope=scope)
            for _ in range(count):
                world.gates.step()
            sign_in.cancel()
            self.failureResultOf(sign_in, CancelledError)
            world.gates.open()
            self.assertTrue(world.is_newest("alice"), count)
            self.assertEqual(world.parked(), [])
            # The whole sign-in went on, to its last step.
            self.assertEqual(self.controls.count("introspect"), asked + count + 1)
            world.done(world.tokens.access_token(world.alice, 7200))
        self.assertEqual(world.suspended, [])

    def test_no_token_is_lost(self) -> None:
        """Cancelling the caller between any two steps changes nothing."""
        self.cancel_everywhere(DEFAULT_SCOPES, 8)

    def test_no_token_is_lost_without_id_token(self) -> None:
        """Nor on the longer way without an id_token."""
        self.cancel_everywhere(WITHOUT_OPENID, 9)


class StopTests(TokenTestCase):
    """The end of the process in the middle of a sign-in."""

    def test_stop_waits_for_the_exchange(self) -> None:
        """An exchange in flight is finished and stored; new ones are refused."""
        world = self.world
        fault = self.controls.hold_answer(EXCHANGE)
        sign_in = world.sign_in()
        stopped = world.begin(world.tokens.stop())
        self.assertNoResult(stopped)
        world.failed(world.tokens.sign_in("p", "c", VERIFIER), UpstreamUnavailable)
        fault.end()
        world.remote.flush()
        self.successResultOf(stopped)
        self.successResultOf(sign_in)
        self.assertTrue(world.is_newest("alice"))

    def test_stop_does_not_wait_for_ever(self) -> None:
        """A Forgejo that hangs does not hold the process."""
        world = self.world
        self.controls.hold_request(EXCHANGE)
        sign_in = world.sign_in()
        stopped = world.begin(world.tokens.stop(5))
        world.remote.advance(5)
        self.successResultOf(stopped)
        self.failureResultOf(sign_in, CancelledError, UpstreamUnavailable)
        self.assertEqual(self.clock.getDelayedCalls(), [])


@implementer(IForgejo)
class Contradiction:
    """
    A Forgejo whose userinfo names somebody, or that knows no token.
    """

    def __init__(self, inner: IForgejo, user: UserInfo | None) -> None:
        self._inner = inner
        self._user = user

    def authorize_url(self, state: str, code_challenge: str) -> str:
        """As the inner one."""
        return self._inner.authorize_url(state, code_challenge)

    async def exchange_code(self, code: str, verifier: str) -> TokenAnswer:
        """As the inner one."""
        return await self._inner.exchange_code(code, verifier)

    async def refresh(self, refresh_token: Secret) -> TokenAnswer:
        """As the inner one."""
        return await self._inner.refresh(refresh_token)

    async def userinfo(self, access_token: Secret) -> UserInfo:
        """Always the same user, if there is one."""
        return self._user or await self._inner.userinfo(access_token)

    async def introspect(self, token: Secret) -> Introspection:
        """Knows nothing."""
        return Introspection(active=False)
