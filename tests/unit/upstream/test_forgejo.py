"""The OAuth client of Forgejo, against the stand-in, without sockets."""

from typing import TypeVar
from urllib.parse import parse_qs, urlsplit

from msgspec.structs import replace
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from fjmcp_broker.secret import Secret
from fjmcp_broker.upstream.errors import (
    CodeRefused,
    SignInNeeded,
    UpstreamError,
    UpstreamMisconfigured,
    UpstreamUnavailable,
)
from fjmcp_broker.upstream.interfaces import IForgejo, TokenAnswer

from .standin import CHALLENGE, NOW, REDIRECT_URI, VERIFIER, InMemoryForgejo

T = TypeVar("T")
TOKEN = "/login/oauth/access_token"


class ForgejoTestCase(SynchronousTestCase):
    """A stand-in and its client."""

    base_url = "http://forgejo.test"

    def setUp(self) -> None:
        """A fresh stand-in for each test."""
        self.clock = Clock()
        self.clock.advance(NOW)
        self.world = InMemoryForgejo(self.clock, self.base_url)
        self.controls = self.world.controls
        self.forgejo = self.world.forgejo

    def exchange(self, code: str, verifier: str = VERIFIER) -> Deferred[TokenAnswer]:
        """Start a code exchange."""
        return Deferred.fromCoroutine(self.forgejo.exchange_code(code, verifier))

    def signed_in(self, login: str = "alice") -> TokenAnswer:
        """The token set of a user who has just signed in."""
        return self.successResultOf(self.exchange(self.world.code(login)))

    def refresh(self, token: Secret) -> Deferred[TokenAnswer]:
        """Start a refresh."""
        return Deferred.fromCoroutine(self.forgejo.refresh(token))


class StraightPathTests(ForgejoTestCase):
    """What a sign-in and an hour's use need."""

    def test_interface(self) -> None:
        """The client is what the layers above expect."""
        verifyObject(IForgejo, self.forgejo)

    def test_authorize_url(self) -> None:
        """The browser is sent with PKCE S256 and everything that Forgejo reads."""
        url = urlsplit(self.forgejo.authorize_url("st&te", CHALLENGE))
        self.assertEqual(
            f"{url.scheme}://{url.netloc}{url.path}",
            f"{self.base_url}/login/oauth/authorize",
        )
        self.assertEqual(
            parse_qs(url.query, strict_parsing=True),
            {
                "response_type": ["code"],
                "client_id": [self.world.application.client_id],
                "redirect_uri": [REDIRECT_URI],
                "scope": [self.world.settings.scope],
                "state": ["st&te"],
                "code_challenge": [CHALLENGE],
                "code_challenge_method": ["S256"],
            },
        )

    def test_exchange(self) -> None:
        """A code becomes a token set that names its user and its order."""
        answer = self.signed_in()
        alice = self.controls.user("alice")
        self.assertEqual(answer.user_id, alice.id)
        self.assertEqual(answer.login, "alice")
        self.assertEqual(answer.expires_in, 3600)
        self.assertEqual(answer.grant_number, self.controls.grant("alice").id)
        self.assertEqual(answer.counter, self.controls.grant("alice").counter)

    def test_exchange_without_openid(self) -> None:
        """An old grant without openid brings no id_token; the tokens are good."""
        code = self.world.code(scope="read:user")
        answer = self.successResultOf(self.exchange(code))
        self.assertIsNone(answer.user_id)
        self.assertIsNotNone(answer.counter)

    def test_refresh(self) -> None:
        """A refresh brings a later set of the same grant."""
        first = self.signed_in()
        second = self.successResultOf(self.refresh(first.refresh_token))
        self.assertEqual(second.grant_number, first.grant_number)
        self.assertEqual(second.counter, (first.counter or 0) + 1)
        self.assertEqual(second.user_id, first.user_id)

    def test_userinfo(self) -> None:
        """Userinfo names the user of a token."""
        answer = self.signed_in("bob")
        user = self.successResultOf(
            Deferred.fromCoroutine(self.forgejo.userinfo(answer.access_token))
        )
        bob = self.controls.user("bob")
        self.assertEqual(
            (user.user_id, user.login, user.name), (bob.id, "bob", bob.full_name)
        )

    def test_userinfo_of_a_dead_token(self) -> None:
        """Forgejo's no to a token is not an outage."""
        refused = Deferred.fromCoroutine(self.forgejo.userinfo(Secret("nonsense")))
        self.failureResultOf(refused, SignInNeeded)

    def test_introspection(self) -> None:
        """Introspection shows the scope, for both tokens."""
        answer = self.signed_in()
        for token in (answer.access_token, answer.refresh_token):
            seen = self.successResultOf(
                Deferred.fromCoroutine(self.forgejo.introspect(token))
            )
            self.assertTrue(seen.active)
            self.assertEqual(seen.scope, self.world.settings.scope)

    def test_introspection_of_a_dead_token(self) -> None:
        """A token that means nothing is inactive."""
        seen = self.successResultOf(
            Deferred.fromCoroutine(self.forgejo.introspect(Secret("nonsense")))
        )
        self.assertFalse(seen.active)


class SubPathTests(StraightPathTests):
    """The same with Forgejo below a path of its host."""

    base_url = "http://shared.test/code/forge"


class InternalUrlTests(ForgejoTestCase):
    """Browsers and the broker may reach Forgejo at different addresses."""

    def test_calls_go_to_the_internal_url(self) -> None:
        """Only the authorize URL has the public base; a trailing slash is nothing."""
        settings = replace(
            self.world.settings,
            url="https://git.example.org/",
            internal_url="http://forgejo.test/",
        )
        self.forgejo = self.world.client(settings)
        self.assertTrue(
            self.forgejo.authorize_url("s", "c").startswith(
                "https://git.example.org/login/oauth/authorize?"
            )
        )
        self.signed_in()
        self.assertEqual(self.controls.count(TOKEN), 1)


class RefusalTests(ForgejoTestCase):
    """Errors as the stand-in gives them; the whole table is in test_answers."""

    def refused(self, code: str, verifier: str = VERIFIER) -> UpstreamError:
        """What an exchange raises."""
        failure = self.failureResultOf(self.exchange(code, verifier), UpstreamError)
        error: UpstreamError = failure.value
        return error

    def rejected(self, token: Secret) -> UpstreamError:
        """What a refresh raises."""
        failure = self.failureResultOf(self.refresh(token), UpstreamError)
        error: UpstreamError = failure.value
        return error

    def test_code_faults(self) -> None:
        """Unknown, used, stolen and foreign codes are refused for good."""
        used = self.world.code()
        self.successResultOf(self.exchange(used))
        for code, verifier in (
            ("gta_unknown", VERIFIER),
            (used, VERIFIER),
            (self.world.code(), "w" * 43),
        ):
            error = self.refused(code, verifier)
            assert isinstance(error, CodeRefused)
            self.assertFalse(error.restart)

    def test_lost_counter_race_restarts(self) -> None:
        """A code burnt by a concurrent token request is worth another round trip."""
        code = self.world.code()
        self.controls.lose_counter_race()
        error = self.refused(code)
        assert isinstance(error, CodeRefused)
        self.assertTrue(error.restart)

    def test_lost_code_race(self) -> None:
        """A code that a parallel request has used is gone."""
        code = self.world.code()
        self.controls.lose_code_race()
        error = self.refused(code)
        assert isinstance(error, CodeRefused)
        self.assertFalse(error.restart)

    def test_wrong_secret_is_the_operators_fault(self) -> None:
        """Exchange, refresh and introspection say so in three different ways."""
        first = self.signed_in()
        code = self.world.code()
        self.controls.regenerate_secret()
        self.assertIsInstance(self.refused(code), UpstreamMisconfigured)
        self.assertIsInstance(self.rejected(first.refresh_token), UpstreamMisconfigured)
        self.failureResultOf(
            Deferred.fromCoroutine(self.forgejo.introspect(first.access_token)),
            UpstreamMisconfigured,
        )

    def test_deleted_application_is_the_operators_fault(self) -> None:
        """So is an application that is gone."""
        first = self.signed_in()
        self.controls.delete_application()
        self.assertIsInstance(self.refused("gta_x"), UpstreamMisconfigured)
        self.assertIsInstance(self.rejected(first.refresh_token), UpstreamMisconfigured)

    def test_dead_refresh_tokens(self) -> None:
        """Used, revoked, expired, forged and orphaned ones need a new sign-in."""
        first = self.signed_in()
        second = self.successResultOf(self.refresh(first.refresh_token))
        self.assertIsInstance(self.rejected(first.refresh_token), SignInNeeded)
        self.assertIsInstance(self.rejected(Secret("nonsense")), SignInNeeded)
        self.assertIsInstance(self.rejected(second.access_token), SignInNeeded)
        self.controls.revoke_grant("alice")
        self.assertIsInstance(self.rejected(second.refresh_token), SignInNeeded)
        third = self.signed_in("bob")
        self.world.advance(31 * 86_400)
        self.assertIsInstance(self.rejected(third.refresh_token), SignInNeeded)
        fourth = self.signed_in("bob")
        self.controls.rotate_signing_key()
        self.assertIsInstance(self.rejected(fourth.refresh_token), SignInNeeded)
        fifth = self.signed_in("bob")
        self.controls.delete_user("bob")
        self.assertIsInstance(self.rejected(fifth.refresh_token), SignInNeeded)


class OutageTests(ForgejoTestCase):
    """A Forgejo in trouble never looks like a refusal."""

    def calls(self) -> list[Deferred[object]]:
        """One of each call."""
        return [
            Deferred.fromCoroutine(each)
            for each in (
                self.forgejo.exchange_code("gta_x", VERIFIER),
                self.forgejo.refresh(Secret("x")),
                self.forgejo.userinfo(Secret("x")),
                self.forgejo.introspect(Secret("x")),
            )
        ]

    def test_bad_gateway(self) -> None:
        """A proxy's error page is transient for every call."""
        self.controls.bad_gateway()
        for call in self.calls():
            self.failureResultOf(call, UpstreamUnavailable)

    def test_timeouts(self) -> None:
        """No call waits longer than it is allowed to, and none leaves a timer."""
        self.controls.hold_request()
        calls = self.calls()
        for call in calls:
            self.assertNoResult(call)
        self.world.advance(10)
        for call in calls[:2]:
            self.assertNoResult(call)
        for call in calls[2:]:
            self.failureResultOf(call, UpstreamUnavailable)
        self.world.advance(5)
        for call in calls[:2]:
            failure = self.failureResultOf(call, UpstreamUnavailable)
            self.assertIn("within 15 seconds", str(failure.value))
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_answer_that_is_lost(self) -> None:
        """A connection that breaks after the counter moved is transient too."""
        code = self.world.code()
        self.controls.drop_answer(TOKEN)
        call = self.exchange(code)
        self.world.flush()
        self.failureResultOf(call, UpstreamUnavailable)

    def test_token_timeout_has_a_limit(self) -> None:
        """The judgement of a refused refresh token waits for exchanges this long."""
        with self.assertRaises(ValueError):
            replace(self.world.settings, token_timeout_seconds=16.0)

    def test_cancelled_call(self) -> None:
        """Whoever owns a call may give it up; it ends at once."""
        self.controls.hold_request()
        call = self.exchange("gta_x")
        call.cancel()
        self.failureResultOf(call, CancelledError, UpstreamUnavailable)
        self.assertEqual(self.clock.getDelayedCalls(), [])
