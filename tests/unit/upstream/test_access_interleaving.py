"""Sign-ins and refreshes in every order, of a user who comes and goes on the list."""

from typing import Final

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred

from fjmcp_broker.oauth.access import AccessRules
from fjmcp_broker.oauth.forgejo_scopes import DEFAULT_SCOPES
from fjmcp_broker.upstream.errors import (
    NotAllowed,
    SignInNeeded,
    UpstreamUnavailable,
)

from .standin import VERIFIER
from .test_access import USERINFO, AccessCase
from .test_interleaving import (
    WITHOUT_OPENID,
    Action,
    InterleavingCase,
    example,
    examples,
    expected,
    harmless,
)
from .tokencase import World

CLUB: Final = AccessRules.of(groups=["club"])
SCOPES: Final = st.sampled_from([DEFAULT_SCOPES, WITHOUT_OPENID])


class GuardedInterleavingTests(InterleavingCase):
    """With a list of who may sign in."""

    @given(SCOPES, st.lists(harmless))
    @examples(60)
    def test_whoever_is_on_the_list_stays_signed_in(
        self, scope: str, actions: list[Action]
    ) -> None:
        """The list takes nothing away from those who are on it."""
        world = World(self, CLUB)
        world.controls.set_groups("alice", "club")
        example(world, scope, actions)
        self.check_no_loss(world)
        self.doCleanups()

    @given(SCOPES, st.lists(harmless), st.lists(harmless))
    @examples(60)
    def test_whoever_has_left_never_gets_in(
        self, scope: str, before: list[Action], after: list[Action]
    ) -> None:
        """
        Once suspended, no order of sign-ins and refreshes makes the set usable, not
        for a moment; back on the list a sign-in does.
        """
        world = World(self, CLUB)
        world.controls.set_groups("alice", "club")
        example(world, scope, before)
        world.controls.set_groups("alice")
        world.expire()
        world.failed(world.tokens.access_token(world.alice), SignInNeeded)
        self.assertEqual(world.set_of(world.alice).state, "needs_sign_in")
        world.gates.is_open = False
        callers: list[Deferred[object]] = []
        for action, number in after:
            if action == "sign in":
                callers.append(world.sign_in(scope=scope).addErrback(expected))
            elif action == "refresh":
                work = world.tokens.access_token(world.alice, 7200)
                callers.append(world.begin(work).addErrback(expected))
            elif action == "step" and len(world.gates):
                world.gates.step(number)
            elif action == "cancel" and callers:
                callers.pop(number % len(callers)).cancel()
            self.assertEqual(world.set_of(world.alice).state, "needs_sign_in")
        world.gates.open()
        for _ in range(8):
            world.remote.advance(30)
            self.assertEqual(world.set_of(world.alice).state, "needs_sign_in")
        world.controls.set_groups("alice", "club")
        world.signed_in(scope=scope)
        self.check_no_loss_after_repair(world)
        self.doCleanups()

    @given(
        SCOPES,
        st.lists(
            st.one_of(
                st.tuples(st.sampled_from(["sign in", "abandon"]), st.just(0)),
                *(st.tuples(st.just("step"), st.integers(0, 7)) for _ in range(3)),
            )
        ),
    )
    @examples(60)
    def test_one_that_ends_well_is_enough(
        self, scope: str, actions: list[tuple[str, int]]
    ) -> None:
        """
        Of sign-ins side by side, some of them left half way, one with a grant makes a
        new user usable, in whatever order the sets come in.
        """
        world = World(self, CLUB)
        world.controls.set_groups("alice", "club")
        world.gates.is_open = False
        callers: list[Deferred[object]] = []
        ended: list[object] = []
        for action, number in actions:
            if action == "sign in":
                sign_in = world.sign_in(scope=scope)
                callers.append(sign_in.addCallbacks(ended.append, expected))
            elif action == "abandon":
                code = world.remote.code(scope=scope)
                pending_id = world.pending_id()
                left = world.begin(world.tokens.sign_in(pending_id, code, VERIFIER))
                callers.append(left.addErrback(expected))
            elif len(world.gates):
                world.gates.step(number)
            if ended:
                self.assertEqual(world.set_of(world.alice).state, "usable")
        world.gates.open()
        for _ in range(8):
            world.remote.advance(30)
        if ended:
            self.check_no_loss(world)
        self.doCleanups()


class OvertakingTests(AccessCase):
    """What Forgejo said first may come last."""

    def test_question_about_an_older_set(self) -> None:
        """Its answer lets no newer set through, of which Forgejo was not asked."""
        self.controls.set_groups("bob", "club")
        self.world.signed_in("bob")
        self.world.tokens = self.world.new_tokens()
        number = self.world.bob
        fault = self.controls.hold_answer(USERINFO, times=1)
        asking = self.world.begin(self.world.tokens.access_token(number))
        self.world.remote.flush()
        self.assertEqual(fault.waiting, 1)
        second = self.controls.hold_answer(USERINFO)
        sign_in = self.world.sign_in("bob")
        self.world.remote.flush()
        later = self.world.begin(self.world.tokens.access_token(number))
        self.controls.set_groups("bob")
        fault.end()
        self.world.remote.flush()
        self.assertNoResult(asking)
        self.assertNoResult(later)
        second.end()
        self.world.remote.flush()
        self.failureResultOf(asking, NotAllowed)
        self.failureResultOf(later, NotAllowed)
        self.successResultOf(sign_in.addErrback(lambda _: None))
        self.assertEqual(self.state("bob"), "needs_sign_in")

    def test_refused_while_forgejo_was_asked(self) -> None:
        """Its answers overtake each other, and nobody knows which is the older one:
        whoever was refused meanwhile is let in by none that was asked for before."""
        for is_known in (False, True):
            self.controls.set_groups("bob", "club")
            if is_known:
                self.world.signed_in("bob")
            fault = self.controls.hold_answer(USERINFO, times=1)
            sign_in = self.world.sign_in("bob")
            self.world.remote.flush()
            self.assertEqual(fault.waiting, 1)
            self.controls.set_groups("bob")
            if is_known:
                # The very set of that sign-in, which is the stored one by now.
                self.no_token("bob")
            else:
                self.refused("bob")
            fault.end()
            self.world.remote.flush()
            self.failureResultOf(sign_in, UpstreamUnavailable)
            self.assertEqual(self.state("bob"), "needs_sign_in", is_known)
            self.no_token("bob", SignInNeeded)
        self.controls.set_groups("bob", "club")
        self.world.signed_in("bob")
        self.token("bob")
