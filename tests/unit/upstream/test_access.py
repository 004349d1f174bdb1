"""Who may sign in: judged at the sign-in and again with each refresh."""

from fjmcp_broker.oauth.access import AccessRules
from fjmcp_broker.store import upstream_tokens
from fjmcp_broker.upstream.errors import (
    IdentityMismatch,
    NotAllowed,
    SignInNeeded,
    UpstreamUnavailable,
)
from fjmcp_broker.upstream.interfaces import SignedInUser, UserInfo
from fjmcp_broker.upstream.sign_ins import note_user

from .standin import NOW, VERIFIER
from .test_sign_ins import Contradiction
from .tokencase import REFRESH, TokenTestCase

USERINFO = "userinfo"


class AccessCase(TokenTestCase):
    """A broker for alice and for the members of a club."""

    access = AccessRules.of(["Alice"], ["club"])

    def state(self, login: str) -> str | None:
        """
        @return: the stored state of a user's set.
        """
        number = self.controls.user(login).id
        return self.world.done(
            self.world.memory.read(lambda c: upstream_tokens.state_of(c, number))
        )

    def refused(self, login: str) -> NotAllowed:
        """
        @return: why a sign-in is refused.
        """
        failure = self.failureResultOf(self.world.sign_in(login), NotAllowed)
        error: NotAllowed = failure.value
        return error

    def token(self, login: str) -> str:
        """
        @return: a user's token for the API.
        """
        number = self.controls.user(login).id
        return self.world.done(self.world.tokens.access_token(number)).text.reveal()

    def no_token(self, login: str, kind: type[Exception] = NotAllowed) -> None:
        """
        There is none.
        """
        number = self.controls.user(login).id
        self.world.failed(self.world.tokens.access_token(number), kind)

    def refreshed(self) -> int:
        """
        @return: how many refreshes Forgejo has seen.
        """
        count: int = self.controls.count(REFRESH)
        return count


class SignInTests(AccessCase):
    """Coming in."""

    def test_user_of_the_list(self) -> None:
        """By login, whatever the case."""
        self.assertEqual(self.world.signed_in("alice").login, "alice")
        self.assertEqual(self.state("alice"), "usable")
        self.token("alice")

    def test_member_of_an_organization(self) -> None:
        """Whoever is in one of those listed."""
        self.controls.set_groups("bob", "other", "club", "club:guests")
        self.world.signed_in("bob")
        self.assertEqual(self.state("bob"), "usable")

    def test_private_member_of_an_organization(self) -> None:
        """The default scopes see private memberships too."""
        self.controls.set_additional_grant_scopes(True)
        self.controls.set_groups("bob", "club", hidden=True)
        self.world.signed_in("bob")

    def test_somebody_else(self) -> None:
        """Refused by name; the set is kept, because it is the newest one there is."""
        self.controls.set_groups("bob", "other")
        self.assertEqual(self.refused("bob").login, "bob")
        self.assertEqual(self.state("bob"), "needs_sign_in")
        self.assertTrue(self.world.is_newest("bob"))
        self.no_token("bob", SignInNeeded)
        # Nobody was signed in, so there is nothing to suspend.
        self.assertEqual(self.world.suspended, [])

    def test_without_an_id_token(self) -> None:
        """The same when userinfo is the first to say who it is."""
        failure = self.failureResultOf(
            self.world.begin(
                self.world.tokens.sign_in(
                    self.world.pending_id(),
                    self.world.remote.code("bob", scope="read:user"),
                    VERIFIER,
                )
            )
        )
        self.assertIsInstance(failure.value, NotAllowed)
        self.assertEqual(self.state("bob"), "needs_sign_in")
        self.assertEqual(self.world.parked(), [])

    def test_allowed_later(self) -> None:
        """After that the same user signs in and goes on."""
        self.refused("bob")
        self.controls.set_groups("bob", "club")
        self.no_token("bob", SignInNeeded)
        self.world.signed_in("bob")
        self.assertEqual(self.state("bob"), "usable")
        self.token("bob")

    def test_new_user_waits_for_the_judgement(self) -> None:
        """The tokens are stored at once, and are of no use until then."""
        fault = self.controls.hold_answer(USERINFO)
        sign_in = self.world.sign_in("alice")
        self.assertTrue(self.world.is_newest("alice"))
        self.assertEqual(self.state("alice"), "needs_sign_in")
        self.no_token("alice", SignInNeeded)
        fault.end()
        self.world.remote.flush()
        self.successResultOf(sign_in)
        self.assertEqual(self.state("alice"), "usable")

    def come_back(self, login: str) -> SignedInUser:
        """
        @return: who has come back from Forgejo, and was not noted yet.
        """
        code = self.world.remote.code(login)
        pending_id = self.world.pending_id()
        return self.world.done(self.world.tokens.sign_in(pending_id, code, VERIFIER))

    def note(self, user: SignedInUser) -> None:
        """
        What belongs into the transaction of the grant.
        """
        self.world.done(self.world.memory.write(lambda c: note_user(c, user, NOW)))

    def test_usable_with_the_grant(self) -> None:
        """Who leaves before that has tokens of no use, until the next sign-in."""
        user = self.come_back("alice")
        assert user.release is not None
        self.assertEqual(self.state("alice"), "needs_sign_in")
        self.no_token("alice", SignInNeeded)
        self.note(self.come_back("alice"))
        self.assertEqual(self.state("alice"), "usable")
        self.token("alice")
        # There is nothing to wait for any more.
        self.assertIsNone(self.come_back("alice").release)

    def test_judgement_of_an_older_set(self) -> None:
        """It makes no newer one usable, which was refused meanwhile."""
        self.controls.set_groups("bob", "club")
        user = self.come_back("bob")
        self.controls.set_groups("bob")
        self.refused("bob")
        self.note(user)
        self.assertEqual(self.state("bob"), "needs_sign_in")
        self.no_token("bob", SignInNeeded)

    def test_second_sign_in_between_judgement_and_grant(self) -> None:
        """One that brings a set and is then left takes nothing from the first."""
        user = self.come_back("alice")
        self.come_back("alice")
        self.note(user)
        self.assertEqual(self.state("alice"), "usable")
        self.token("alice")

    def test_second_sign_in_before_the_judgement(self) -> None:
        """The first is judged by a set that is not the stored one any more."""
        fault = self.controls.hold_answer(USERINFO)
        first = self.world.sign_in("alice")
        second = self.world.begin(
            self.world.tokens.sign_in(
                self.world.pending_id(), self.world.remote.code("alice"), VERIFIER
            )
        )
        fault.end()
        self.world.remote.flush()
        self.successResultOf(first)
        self.successResultOf(second)
        self.assertEqual(self.state("alice"), "usable")
        self.token("alice")

    def test_second_sign_in_that_fails(self) -> None:
        """Forgejo does not say who it is; the first has said so already."""
        user = self.come_back("alice")
        fault = self.controls.bad_gateway(USERINFO)
        second = self.world.sign_in("alice")
        self.failureResultOf(second, UpstreamUnavailable)
        fault.end()
        self.note(user)
        self.assertEqual(self.state("alice"), "usable")
        self.token("alice")

    def test_refused_between_judgement_and_grant(self) -> None:
        """What was found before is void, also when yet another set has come since."""
        self.controls.set_groups("bob", "club")
        user = self.come_back("bob")
        self.controls.set_groups("bob")
        self.refused("bob")
        fault = self.controls.bad_gateway(USERINFO)
        self.failureResultOf(self.world.sign_in("bob"), UpstreamUnavailable)
        fault.end()
        self.note(user)
        self.assertEqual(self.state("bob"), "needs_sign_in")

    def test_set_that_forgejo_refused_stays_suspended(self) -> None:
        """A judgement from before that makes it no better."""
        first = self.come_back("alice")
        self.note(self.come_back("alice"))
        self.controls.revoke_grant("alice")
        self.world.expire()
        self.no_token("alice", SignInNeeded)
        self.note(first)
        self.assertEqual(self.state("alice"), "needs_sign_in")

    def test_abandoned_sign_in_leaves_a_good_grant(self) -> None:
        """Its set is the newest one and serves whoever was there before."""
        self.world.signed_in("alice")
        self.come_back("alice")
        fault = self.controls.bad_gateway(USERINFO)
        self.failureResultOf(self.world.sign_in("alice"), UpstreamUnavailable)
        fault.end()
        self.assertEqual(self.state("alice"), "usable")
        self.token("alice")
        self.world.expire()
        self.token("alice")
        self.assertEqual(self.world.suspended, [])

    def test_never_usable_before_the_judgement(self) -> None:
        """
        Somebody who is not allowed any more does not get a moment's access by signing
        in again and again.
        """
        self.controls.set_groups("bob", "club")
        self.world.signed_in("bob")
        self.controls.set_groups("bob")
        self.world.expire()
        self.no_token("bob")
        seen: list[str | None] = []
        self.world.gates.is_open = False
        sign_in = self.world.sign_in("bob")
        while not sign_in.called:
            self.world.gates.step()
            seen.append(self.state("bob"))
        self.failureResultOf(sign_in, NotAllowed)
        self.world.gates.open()
        self.assertEqual(set(seen), {"needs_sign_in"})

    def test_second_client_of_somebody_signed_in(self) -> None:
        """A sign-in that is being judged suspends nothing that works."""
        self.world.signed_in("alice")
        fault = self.controls.hold_answer(USERINFO)
        second = self.world.sign_in("alice")
        self.assertEqual(self.state("alice"), "usable")
        fault.end()
        self.world.remote.flush()
        self.successResultOf(second)
        self.assertEqual(self.world.suspended, [])


class RefreshTests(AccessCase):
    """Going on."""

    def setUp(self) -> None:
        super().setUp()
        self.controls.set_groups("bob", "club")
        self.world.signed_in("bob")
        self.controls.forget_requests()

    def test_judged_with_every_refresh(self) -> None:
        """One question each; none in between."""
        self.token("bob")
        self.assertEqual(self.controls.count(USERINFO), 0)
        self.world.expire()
        self.token("bob")
        self.token("bob")
        self.assertEqual((self.refreshed(), self.controls.count(USERINFO)), (1, 1))

    def test_no_longer_allowed(self) -> None:
        """Suspended with the next refresh; nothing is deleted."""
        self.controls.set_groups("bob")
        self.token("bob")
        self.world.expire()
        self.no_token("bob")
        self.assertEqual(self.state("bob"), "needs_sign_in")
        self.assertEqual(self.world.suspended, [self.controls.user("bob").id])
        self.assertTrue(self.world.is_newest("bob"))
        self.no_token("bob", SignInNeeded)
        self.assertEqual(self.refreshed(), 1)

    def test_revived(self) -> None:
        """Allowed again and signed in, everything goes on."""
        self.controls.set_groups("bob")
        self.world.expire()
        self.no_token("bob")
        self.refused("bob")
        self.controls.set_groups("bob", "club")
        self.world.signed_in("bob")
        self.token("bob")
        self.assertEqual(self.state("bob"), "usable")

    def test_renamed_user(self) -> None:
        """The name that counts is the one Forgejo says now."""
        self.world.signed_in("alice")
        self.controls.user("alice").login = "alicia"
        self.world.expire()
        self.no_token("alicia")

    def test_question_that_fails(self) -> None:
        """Nobody is let on unjudged, nobody is signed out by an outage."""
        self.controls.set_groups("bob")
        self.world.expire()
        fault = self.controls.bad_gateway(USERINFO)
        self.no_token("bob", UpstreamUnavailable)
        self.no_token("bob", UpstreamUnavailable)
        self.assertEqual(self.refreshed(), 1)
        self.assertEqual(self.state("bob"), "usable")
        fault.end()
        self.no_token("bob")
        self.assertEqual(self.refreshed(), 1)

    def test_many_callers_one_question(self) -> None:
        """Everybody who comes meanwhile gets the same answer."""
        self.world.expire()
        fault = self.controls.hold_answer(USERINFO)
        number = self.controls.user("bob").id
        callers = [
            self.world.begin(self.world.tokens.access_token(number)) for _ in range(9)
        ]
        callers[0].cancel()
        callers[0].addErrback(lambda failure: None)
        fault.end()
        self.world.remote.flush()
        texts = {self.successResultOf(each).text.reveal() for each in callers[1:]}
        self.assertEqual(len(texts), 1)
        self.assertEqual(self.controls.count(USERINFO), 1)

    def test_changed_list_counts_from_the_start(self) -> None:
        """Not only when the token has to be refreshed."""
        self.world.access = AccessRules.of(["alice"])
        self.world.tokens = self.world.new_tokens()
        self.no_token("bob")
        self.assertEqual(self.refreshed(), 0)
        self.assertEqual(self.state("bob"), "needs_sign_in")

    def test_restart_with_the_same_list(self) -> None:
        """One question, then as before."""
        self.world.tokens = self.world.new_tokens()
        self.token("bob")
        self.token("bob")
        self.assertEqual(self.controls.count(USERINFO), 1)

    def test_list_taken_away(self) -> None:
        """Then nobody is asked; who was suspended has to sign in."""
        self.refused_alien()
        self.world.access = AccessRules.of()
        self.world.tokens = self.world.new_tokens()
        self.controls.forget_requests()
        self.token("bob")
        self.assertEqual(self.controls.count(USERINFO), 0)
        self.no_token("carol", SignInNeeded)
        self.world.signed_in("carol")
        self.token("carol")

    def refused_alien(self) -> None:
        """Somebody whom nobody knows."""
        self.controls.add_user("carol")
        self.refused("carol")

    def test_user_who_became_somebody_else(self) -> None:
        """A Forgejo that contradicts itself is not believed."""
        liar = Contradiction(
            self.world.forgejo, UserInfo(self.world.alice, "alice", "")
        )
        self.world.tokens = self.world.new_tokens(liar)
        self.no_token("bob", IdentityMismatch)
        self.assertEqual(self.state("bob"), "needs_sign_in")
