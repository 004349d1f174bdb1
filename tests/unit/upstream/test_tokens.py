"""Handing out access tokens: refreshed once, judged late, never lost."""

from twisted.internet.defer import CancelledError
from zope.interface import implementer

from fjmcp_broker.errors import BrokerError
from fjmcp_broker.secret import Secret
from fjmcp_broker.store import upstream_tokens
from fjmcp_broker.store.errors import StoreUnavailable
from fjmcp_broker.upstream.errors import (
    IdentityMismatch,
    SignInNeeded,
    UpstreamMisconfigured,
    UpstreamUnavailable,
)
from fjmcp_broker.upstream.interfaces import (
    IForgejo,
    Introspection,
    TokenAnswer,
    UpstreamAccessToken,
    UserInfo,
)

from .standin import NOW
from .tokencase import EXCHANGE, REFRESH, TokenTestCase


class RefreshTests(TokenTestCase):
    """When a token is refreshed, and how often."""

    def test_live_token_is_handed_out(self) -> None:
        """A token that lives long enough costs no request."""
        world = self.world
        world.signed_in()
        self.controls.forget_requests()
        token = world.done(world.tokens.access_token(world.alice))
        self.assertEqual(token.expires_at, NOW + 3600)
        self.assertEqual(self.controls.count(), 0)

    def test_token_is_refreshed_in_time(self) -> None:
        """One that would expire within the minimum is refreshed, not a second
        earlier."""
        world = self.world
        world.signed_in()
        world.remote.advance(3480)
        world.done(world.tokens.access_token(world.alice, 120))
        self.assertEqual(self.controls.count(REFRESH), 0)
        world.remote.advance(1)
        token = world.done(world.tokens.access_token(world.alice, 120))
        self.assertEqual(self.controls.count(REFRESH), 1)
        self.assertEqual(token.expires_at, NOW + 3481 + 3600)
        self.assertTrue(world.is_newest("alice"))
        self.assertEqual(world.set_of(world.alice).scope, world.remote.settings.scope)
        owner = world.done(world.forgejo.userinfo(token.text))
        self.assertEqual(owner.user_id, world.alice)

    def test_text_is_shared(self) -> None:
        """All sessions of a user hold one text, until there is another."""
        world = self.world
        world.signed_in()
        first = world.done(world.tokens.access_token(world.alice)).text
        self.assertIs(world.done(world.tokens.access_token(world.alice)).text, first)
        world.remote.advance(3600)
        second = world.done(world.tokens.access_token(world.alice)).text
        self.assertNotEqual(second, first)
        self.assertIs(world.done(world.tokens.access_token(world.alice)).text, second)

    def test_token_from_the_future(self) -> None:
        """A clock was set back while the broker was down: nobody knows how old it
        is, so that it is refreshed, once."""
        world = self.world
        world.remote.advance(7200)
        world.signed_in()
        world.clock.rightNow -= 3600
        for _ in range(2):
            world.done(world.tokens.access_token(world.alice))
            self.assertEqual(self.controls.count(REFRESH), 1)

    def test_short_lives_do_not_loop(self) -> None:
        """A Forgejo with short tokens gets one refresh for each demand, no more."""
        world = self.world
        world.signed_in()
        self.controls.set_lifetimes(access_seconds=60)
        world.expire()
        token = world.done(world.tokens.access_token(world.alice, 120))
        self.assertEqual(token.expires_at, NOW + 3600 + 60)
        self.assertEqual(self.controls.count(REFRESH), 1)

    def test_fifty_callers_one_refresh(self) -> None:
        """Everybody who comes during a refresh gets its result."""
        world = self.world
        world.signed_in()
        world.expire()
        fault = self.controls.hold_answer(REFRESH)
        callers = [
            world.begin(world.tokens.access_token(world.alice)) for _ in range(50)
        ]
        for caller in callers[10:20]:
            caller.cancel()
            self.failureResultOf(caller, CancelledError)
        fault.end()
        world.remote.flush()
        others = callers[:10] + callers[20:]
        texts = {self.successResultOf(each).text.reveal() for each in others}
        self.assertEqual(len(texts), 1)
        self.assertEqual(self.controls.count(REFRESH), 1)
        self.assertTrue(world.is_newest("alice"))

    def test_cancelled_callers_do_not_end_the_refresh(self) -> None:
        """With all callers gone the refresh is finished and stored all the same."""
        world = self.world
        world.signed_in()
        world.expire()
        fault = self.controls.hold_answer(REFRESH)
        callers = [world.begin(world.tokens.access_token(world.alice)) for _ in "123"]
        for caller in callers:
            caller.cancel()
            self.failureResultOf(caller, CancelledError)
        fault.end()
        world.remote.flush()
        self.assertTrue(world.is_newest("alice"))
        world.done(world.tokens.access_token(world.alice))
        self.assertEqual(self.controls.count(REFRESH), 1)

    def test_cancelled_between_any_two_steps(self) -> None:
        """No step of a refresh depends on its caller."""
        world = self.world
        world.signed_in()
        for count in range(12):
            world.expire()
            world.gates.is_open = False
            caller = world.begin(world.tokens.access_token(world.alice))
            for _ in range(count):
                if len(world.gates):
                    world.gates.step()
            caller.cancel()
            caller.addErrback(lambda failure: failure.trap(CancelledError) and None)
            world.gates.open()
            world.done(world.tokens.access_token(world.alice))
            self.assertTrue(world.is_newest("alice"))
        self.assertEqual(world.suspended, [])

    def test_caller_that_looked_before_a_refresh(self) -> None:
        """Somebody who saw the old set just before it was replaced does not spend
        the new one."""
        world = self.world
        world.signed_in()
        world.expire()
        world.gates.is_open = False
        late = world.begin(world.tokens.access_token(world.alice))
        prompt = world.begin(world.tokens.access_token(world.alice))
        while not prompt.called:
            world.gates.step(1)
        self.assertNoResult(late)
        world.gates.open()
        self.assertEqual(
            self.successResultOf(late).text, self.successResultOf(prompt).text
        )
        self.assertEqual(self.controls.count(REFRESH), 1)

    def test_users_do_not_wait_for_each_other(self) -> None:
        """Single flight is per user."""
        world = self.world
        world.signed_in("alice")
        world.signed_in("bob")
        world.expire()
        fault = self.controls.hold_answer(REFRESH, times=1)
        alice = world.begin(world.tokens.access_token(world.alice))
        bob = world.begin(world.tokens.access_token(world.bob))
        self.assertNoResult(alice)
        self.assertEqual(self.successResultOf(bob).user_id, world.bob)
        fault.end()
        world.remote.flush()
        self.assertEqual(self.successResultOf(alice).user_id, world.alice)

    def test_unknown_user(self) -> None:
        """Somebody who never signed in has to."""
        world = self.world
        world.failed(world.tokens.access_token(99), SignInNeeded)

    def test_refreshing_many(self) -> None:
        """The hook for rotation: each user's outcome, a few at a time."""
        world = self.world
        world.signed_in("alice")
        world.signed_in("bob")
        self.controls.revoke_grant("bob")
        results = world.done(
            world.tokens.refresh_due([world.alice, world.bob, world.alice, 99], 7200)
        )
        self.assertEqual(set(results), {world.alice, world.bob, 99})
        self.assertIsInstance(results[world.alice], UpstreamAccessToken)
        self.assertIsInstance(results[world.bob], SignInNeeded)
        self.assertIsInstance(results[99], BrokerError)
        self.assertEqual(self.controls.count(REFRESH), 2)

    def test_another_users_answer(self) -> None:
        """Tokens of somebody else are never stored under this user."""
        world = self.world
        world.signed_in()
        world.tokens = world.new_tokens(Swapped(world.forgejo, world.bob))
        world.failed(world.tokens.access_token(world.alice, 7200), IdentityMismatch)
        self.assertEqual(world.suspended, [world.alice])
        self.assertIsNone(world.stored(world.bob))


class JudgementTests(TokenTestCase):
    """What a refused refresh token means."""

    def test_revoked_consent(self) -> None:
        """Forgejo's no suspends the user, once, and costs no more requests."""
        world = self.world
        world.signed_in()
        world.expire()
        self.controls.revoke_grant("alice")
        for _ in range(3):
            world.failed(world.tokens.access_token(world.alice), SignInNeeded)
        self.assertEqual(world.suspended, [world.alice])
        self.assertEqual(self.controls.count(REFRESH), 1)
        self.assertEqual(world.set_of(world.alice).state, "needs_sign_in")

    def test_new_sign_in_revives(self) -> None:
        """Any sign-in of the user makes the set usable again."""
        world = self.world
        world.signed_in()
        self.controls.revoke_grant("alice")
        world.failed(world.tokens.access_token(world.alice, 7200), SignInNeeded)
        world.signed_in()
        self.assertEqual(world.set_of(world.alice).state, "usable")
        world.done(world.tokens.access_token(world.alice, 7200))

    def test_sign_in_overtakes_a_refresh(self) -> None:
        """A refresh that a sign-in made useless ends with the sign-in's token."""
        world = self.world
        world.signed_in()
        world.expire()
        fault = self.controls.hold_request(REFRESH)
        caller = world.begin(world.tokens.access_token(world.alice))
        world.signed_in()
        fault.end()
        world.remote.flush()
        token = self.successResultOf(caller)
        self.assertEqual(token.text, world.set_of(world.alice).access_token)
        self.assertEqual(world.suspended, [])

    def test_last_grant_ends_during_a_refresh(self) -> None:
        """The set goes at once, and what Forgejo answers then is kept nowhere."""
        world = self.world
        world.signed_in()
        world.expire()
        fault = self.controls.hold_answer(REFRESH)
        caller = world.begin(world.tokens.access_token(world.alice))
        now = int(world.clock.seconds())
        forget = world.memory.write(
            lambda c: upstream_tokens.delete_without_grant(c, world.alice, now)
        )
        self.assertTrue(world.done(forget))
        fault.end()
        world.remote.flush()
        self.failureResultOf(caller, SignInNeeded)
        self.assertIsNone(world.stored(world.alice))
        # It is no reason for anything but a new sign-in.
        self.assertEqual(world.suspended, [])
        world.signed_in()
        world.done(world.tokens.access_token(world.alice))

    def test_sign_in_overtakes_a_refresh_that_succeeds(self) -> None:
        """When the refresh came first at Forgejo but is heard of last, the sign-in's
        set stays and everybody gets that."""
        world = self.world
        world.signed_in()
        world.expire()
        fault = self.controls.hold_answer(REFRESH)
        caller = world.begin(world.tokens.access_token(world.alice))
        # Within one second the two access tokens would be the same bytes.
        world.remote.advance(1)
        world.signed_in()
        fault.end()
        world.remote.flush()
        token = self.successResultOf(caller)
        self.assertEqual(token.text, world.set_of(world.alice).access_token)
        self.assertTrue(world.is_newest("alice"))

    def test_refusal_waits_for_exchanges_in_flight(self) -> None:
        """An exchange whose answer is on its way may be this user's."""
        world = self.world
        world.signed_in()
        world.expire()
        fault = self.controls.hold_answer(EXCHANGE)
        sign_in = world.sign_in()
        caller = world.begin(world.tokens.access_token(world.alice))
        self.assertNoResult(caller)
        fault.end()
        world.remote.flush()
        self.successResultOf(sign_in)
        token = self.successResultOf(caller)
        self.assertEqual(token.text, world.set_of(world.alice).access_token)
        self.assertEqual(world.suspended, [])
        self.assertTrue(world.is_newest("alice"))

    def test_refusal_waits_for_the_commit(self) -> None:
        """A set that waits for the store is not overlooked."""
        world = self.world
        world.signed_in()
        world.expire()
        fault = self.controls.hold_answer(EXCHANGE)
        sign_in = world.sign_in()
        caller = world.begin(world.tokens.access_token(world.alice))
        world.database.fail_writes = -1
        fault.end()
        world.remote.flush()
        self.failureResultOf(sign_in, StoreUnavailable)
        self.failureResultOf(caller, StoreUnavailable)
        self.assertEqual(world.set_of(world.alice).state, "usable")
        world.database.fail_writes = 0
        world.done(world.tokens.access_token(world.alice))
        self.assertTrue(world.is_newest("alice"))
        self.assertEqual(world.suspended, [])
        world.remote.advance(60)

    def test_exchange_that_never_answers(self) -> None:
        """The wait is bounded; then Forgejo's no counts, since the set is dead."""
        world = self.world
        world.signed_in()
        world.expire()
        self.controls.hold_answer(EXCHANGE)
        sign_in = world.sign_in()
        caller = world.begin(world.tokens.access_token(world.alice))
        world.remote.advance(14)
        self.assertNoResult(caller)
        world.remote.advance(1)
        self.failureResultOf(sign_in, UpstreamUnavailable)
        self.failureResultOf(caller, SignInNeeded)
        self.assertEqual(world.suspended, [world.alice])

    def test_exchange_of_another_user(self) -> None:
        """Whose exchange it was is not known before; the no stands afterwards."""
        world = self.world
        world.signed_in()
        self.controls.revoke_grant("alice")
        fault = self.controls.hold_answer(EXCHANGE)
        sign_in = world.sign_in("bob")
        caller = world.begin(world.tokens.access_token(world.alice, 7200))
        self.assertNoResult(caller)
        fault.end()
        world.remote.flush()
        self.successResultOf(sign_in)
        self.failureResultOf(caller, SignInNeeded)
        self.assertEqual(world.suspended, [world.alice])

    def test_lost_answer(self) -> None:
        """A refresh whose answer was lost is an outage first; when the old token
        turns out to be spent, the user has to sign in."""
        world = self.world
        world.signed_in()
        world.expire()
        self.controls.drop_answer(REFRESH)
        caller = world.begin(world.tokens.access_token(world.alice))
        world.remote.flush()
        self.failureResultOf(caller, UpstreamUnavailable)
        self.assertEqual(world.set_of(world.alice).state, "usable")
        world.failed(world.tokens.access_token(world.alice), SignInNeeded)
        self.assertEqual(world.suspended, [world.alice])

    def test_counters_that_stand_still(self) -> None:
        """With INVALIDATE_REFRESH_TOKENS off every counter is 1; the later set wins."""
        world = self.world
        self.controls.invalidate_refresh_tokens(False)
        world.signed_in()
        first = world.set_of(world.alice)
        world.expire()
        world.done(world.tokens.access_token(world.alice))
        self.assertNotEqual(world.set_of(world.alice).access_token, first.access_token)


class OutageTests(TokenTestCase):
    """Forgejo in trouble, the operator's mistakes, a full disk."""

    def test_ten_minutes_without_forgejo(self) -> None:
        """However Forgejo fails, nobody has to sign in again for it."""
        world = self.world
        world.signed_in()
        world.expire()
        for kind in (
            lambda: self.controls.bad_gateway("token"),
            lambda: self.controls.hold_request("token"),
        ):
            fault = kind()
            for _ in range(10):
                caller = world.begin(world.tokens.access_token(world.alice))
                world.remote.advance(30)
                self.failureResultOf(caller, UpstreamUnavailable)
            fault.end()
            self.assertEqual(world.set_of(world.alice).state, "usable")
        self.assertEqual(world.suspended, [])
        world.done(world.tokens.access_token(world.alice))

    def test_unknown_application(self) -> None:
        """A changed secret is the operator's fault; after the repair all is well."""
        world = self.world
        world.signed_in()
        world.expire()
        secret = world.remote.application.client_secret
        self.controls.regenerate_secret()
        for _ in range(3):
            world.failed(world.tokens.access_token(world.alice), UpstreamMisconfigured)
        self.assertEqual(world.suspended, [])
        world.remote.application.client_secret = secret
        world.done(world.tokens.access_token(world.alice))

    def test_store_that_cannot_be_written(self) -> None:
        """The refresh token is not spent when its successor could not be stored."""
        world = self.world
        world.signed_in()
        world.expire()
        world.database.fail_writes = 1
        world.failed(world.tokens.access_token(world.alice), StoreUnavailable)
        self.assertEqual(self.controls.count(REFRESH), 0)
        world.done(world.tokens.access_token(world.alice))

    def test_store_that_fails_after_the_refresh(self) -> None:
        """The new set is kept; nobody gets it uncommitted, nobody refreshes again."""
        world = self.world
        world.signed_in()
        world.expire()
        fault = self.controls.hold_answer(REFRESH)
        caller = world.begin(world.tokens.access_token(world.alice))
        world.database.fail_writes = 4
        fault.end()
        world.remote.flush()
        self.failureResultOf(caller, StoreUnavailable)
        world.failed(world.tokens.access_token(world.alice), StoreUnavailable)
        world.remote.advance(1)
        world.remote.advance(2)
        self.assertFalse(world.is_newest("alice"))
        world.remote.advance(4)
        self.assertTrue(world.is_newest("alice"))
        world.done(world.tokens.access_token(world.alice))
        self.assertEqual(self.controls.count(REFRESH), 1)

    def test_store_that_fails_until_the_end(self) -> None:
        """What cannot be stored at all is reported at the stop."""
        world = self.world
        world.signed_in()
        world.expire()
        fault = self.controls.hold_answer(REFRESH)
        caller = world.begin(world.tokens.access_token(world.alice))
        world.database.fail_writes = -1
        fault.end()
        world.remote.flush()
        self.failureResultOf(caller, StoreUnavailable)
        world.done(world.tokens.stop())
        self.assertEqual(self.clock.getDelayedCalls(), [])
        world.database.fail_writes = 0

    def test_stopping(self) -> None:
        """A refresh in flight is stored before the stop ends; later ones refused."""
        world = self.world
        world.signed_in()
        world.expire()
        fault = self.controls.hold_answer(REFRESH)
        caller = world.begin(world.tokens.access_token(world.alice))
        stopped = world.begin(world.tokens.stop())
        self.assertNoResult(stopped)
        world.failed(world.tokens.access_token(world.alice), UpstreamUnavailable)
        fault.end()
        world.remote.flush()
        self.successResultOf(stopped)
        self.successResultOf(caller)
        self.assertTrue(world.is_newest("alice"))


@implementer(IForgejo)
class Swapped:
    """
    A Forgejo that answers refreshes with tokens of another user.
    """

    def __init__(self, inner: IForgejo, user_id: int) -> None:
        self._inner = inner
        self._user_id = user_id

    def authorize_url(self, state: str, code_challenge: str) -> str:
        """As the inner one."""
        return self._inner.authorize_url(state, code_challenge)

    async def exchange_code(self, code: str, verifier: str) -> TokenAnswer:
        """As the inner one."""
        return await self._inner.exchange_code(code, verifier)

    async def refresh(self, refresh_token: Secret) -> TokenAnswer:
        """Somebody else's."""
        return TokenAnswer(Secret("a"), Secret("r"), 3600, user_id=self._user_id)

    async def userinfo(self, access_token: Secret) -> UserInfo:
        """As the inner one."""
        return await self._inner.userinfo(access_token)

    async def introspect(self, token: Secret) -> Introspection:
        """As the inner one."""
        return await self._inner.introspect(token)
