"""Sign-ins and refreshes of one user in every order that hypothesis can think of."""

from collections.abc import Iterable
from typing import Literal

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from twisted.internet.defer import CancelledError, Deferred
from twisted.trial.unittest import SynchronousTestCase

from fjmcp_broker.errors import BrokerError
from fjmcp_broker.oauth.forgejo_scopes import DEFAULT_SCOPES

from .tokencase import World

WITHOUT_OPENID = DEFAULT_SCOPES.removeprefix("openid ")

Action = tuple[
    Literal["sign in", "refresh", "step", "cancel", "lose", "fail", "wait"], int
]

numbers = st.integers(0, 7)
harmless: st.SearchStrategy[Action] = st.one_of(
    st.tuples(st.sampled_from(["sign in", "refresh"]), numbers),
    # Most of the time something that is under way goes on.
    *(st.tuples(st.just("step"), numbers) for _ in range(4)),
    st.tuples(st.just("cancel"), numbers),
)
lossy: st.SearchStrategy[Action] = st.one_of(
    harmless, st.tuples(st.just("lose"), st.just(1))
)
unwritable: st.SearchStrategy[Action] = st.one_of(
    harmless,
    st.tuples(st.just("fail"), st.integers(1, 4)),
    st.tuples(st.just("wait"), st.integers(1, 8)),
)


def example(world: World, scope: str, actions: Iterable[Action]) -> None:
    """
    Let the actions happen, then let everything come to its end.
    """
    world.signed_in(scope=scope)
    world.gates.is_open = False
    callers: list[Deferred[object]] = []
    for action, number in actions:
        if action == "sign in":
            callers.append(world.sign_in(scope=scope).addErrback(expected))
        elif action == "refresh":
            # More than any token has left, so a refresh is due each time.
            work = world.tokens.access_token(world.alice, 7200)
            callers.append(world.begin(work).addErrback(expected))
        elif action == "step" and len(world.gates):
            world.gates.step(number)
        elif action == "cancel" and callers:
            callers.pop(number % len(callers)).cancel()
        elif action == "lose":
            world.forgejo.lose_answers += number
        elif action == "fail":
            world.database.fail_writes += number
        elif action == "wait":
            world.remote.advance(number)
    world.gates.open()
    world.forgejo.lose_answers = 0
    world.database.fail_writes = 0
    # Long enough for everything that waits to be tried again.
    for _ in range(8):
        world.remote.advance(30)
    for caller in callers:
        assert caller.called


def expected(failure: object) -> None:
    """
    Callers may fail; what matters is what is left in the store.
    """
    failure.trap(BrokerError, CancelledError)  # type: ignore[attr-defined]


def examples(count: int) -> settings:
    """
    Each example makes a store and a Forgejo, which takes some milliseconds.
    """
    return settings(
        max_examples=count, deadline=None, suppress_health_check=[HealthCheck.too_slow]
    )


class InterleavingCase(SynchronousTestCase):
    """What is looked at when all has come to its end."""

    def newest_delivered(self, world: World) -> tuple[int, int]:
        """The last of the token answers, as Forgejo counts."""
        return max((gnt or 0, cnt or 0) for gnt, cnt in world.forgejo.delivered)

    def check_kept(self, world: World) -> None:
        """The stored set is the newest that arrived."""
        stored = world.set_of(world.alice)
        self.assertEqual(
            (stored.grant_number, stored.counter), self.newest_delivered(world)
        )
        self.assertEqual(world.parked(), [])

    def check_no_loss(self, world: World) -> None:
        """Nothing was lost, so nobody has to sign in."""
        self.check_kept(world)
        self.assertTrue(world.is_newest("alice"))
        self.assertEqual(world.set_of(world.alice).state, "usable")
        self.assertEqual(world.suspended, [])
        world.done(world.tokens.access_token(world.alice, 7200))

    def check_no_loss_after_repair(self, world: World) -> None:
        """The user goes on working."""
        self.assertTrue(world.is_newest("alice"))
        self.assertEqual(world.set_of(world.alice).state, "usable")
        world.done(world.tokens.access_token(world.alice, 7200))


class InterleavingTests(InterleavingCase):
    """Whatever the order, the newest set is the stored one."""

    @given(st.sampled_from([DEFAULT_SCOPES, WITHOUT_OPENID]), st.lists(harmless))
    @examples(100)
    def test_order_does_not_matter(self, scope: str, actions: list[Action]) -> None:
        """With every answer arriving, the user stays signed in."""
        world = World(self)
        example(world, scope, actions)
        self.check_no_loss(world)
        self.doCleanups()

    @given(st.sampled_from([DEFAULT_SCOPES, WITHOUT_OPENID]), st.lists(unwritable))
    @examples(100)
    def test_failing_store_loses_nothing(
        self, scope: str, actions: list[Action]
    ) -> None:
        """A store that fails now and then delays sets, it does not lose them."""
        world = World(self)
        example(world, scope, actions)
        self.check_no_loss(world)
        self.doCleanups()

    @given(st.sampled_from([DEFAULT_SCOPES, WITHOUT_OPENID]), st.lists(lossy))
    @examples(100)
    def test_only_forgejos_word_ends_it(
        self, scope: str, actions: list[Action]
    ) -> None:
        """With answers lost on the way, the user has to sign in again only when
        Forgejo really refuses the newest set that arrived; a sign-in repairs it."""
        world = World(self)
        example(world, scope, actions)
        self.check_kept(world)
        if world.set_of(world.alice).state == "needs_sign_in":
            self.assertFalse(world.is_newest("alice"))
        world.signed_in(scope=scope)
        self.check_no_loss_after_repair(world)
        self.doCleanups()
