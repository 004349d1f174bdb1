"""Sign-ins and refreshes in every order, of a user who comes and goes on the list."""

from typing import Final

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred

from fjmcp_broker.oauth.access import AccessRules
from fjmcp_broker.oauth.forgejo_scopes import DEFAULT_SCOPES
from fjmcp_broker.upstream.errors import SignInNeeded

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
