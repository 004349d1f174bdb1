"""The same answer once more: people click twice, and see what the second click does."""

from hashlib import sha256
from typing import Any

from twisted.internet.defer import Deferred
from twisted.web.http_headers import Headers

from fjmcp_broker.store import revocation, tokens
from fjmcp_broker.store.database import Database
from fjmcp_broker.store.errors import StoreUnavailable
from fjmcp_broker.upstream.errors import (
    CodeRefused,
    NotAllowed,
    UpstreamUnavailable,
)
from tests.unit.store.memory import NOW
from tests.unit.web.callback_case import CallbackCase
from tests.unit.web.sign_in_fakes import FragileDatabase
from tests.unit.web.signin import (
    PUBLIC_URL,
    Answer,
    Browser,
    Site,
    authorize_target,
    callback_target,
)


class AgainCase(CallbackCase):
    """A browser with a consent page."""

    def setUp(self) -> None:
        super().setUp()
        self.page = self.browser.get(authorize_target(self.client_id))

    def submit(self, decision: str) -> Answer:
        """
        @return: what the browser is shown.
        """
        return self.browser.submit(self.page, decision)

    def come_back(self, decision: str = "full") -> Answer:
        """
        @return: what ends the way over Forgejo.
        """
        target = callback_target(self.submit(decision), code="gta_x")
        return self.browser.get(target)

    def assert_over(self, answer: Answer) -> None:
        """
        A page that says so.
        """
        self.assertEqual(answer.status, 400)
        self.assertIn("no longer valid", answer.text)
        self.assertFalse(answer.headers.hasHeader("Location"))

    def digest(self, answer: Answer) -> bytes:
        """
        @return: of the code in a redirect.
        """
        return sha256(answer.query["code"].encode()).digest()


class CancelTests(AgainCase):
    """Cancel."""

    def test_twice_is_as_once(self) -> None:
        """The client hears of it, whichever answer the browser follows."""
        first = self.submit("cancel")
        before = self.site.dump()
        second = self.submit("cancel")
        self.assertEqual((second.status, second.location), (303, first.location))
        self.assertEqual(second.query["error"], "access_denied")
        self.assertEqual(second.query["state"], "client-state")
        self.assertEqual(second.cookies, [])
        self.assertEqual(self.site.dump(), before)

    def test_then_allow_is_refused(self) -> None:
        """The client was told."""
        self.submit("cancel")
        self.assert_over(self.submit("full"))

    def test_only_as_long_as_the_form(self) -> None:
        """Ten minutes."""
        self.site.clock.advance(599)
        self.submit("cancel")
        self.assertEqual(self.submit("cancel").status, 303)
        self.site.clock.advance(1)
        self.assert_over(self.submit("cancel"))

    def test_other_browser_learns_nothing(self) -> None:
        """The redirect carries the client's state."""
        self.submit("cancel")
        other = Browser(self.site)
        other.get(authorize_target(self.client_id))
        self.assertEqual(other.submit(self.page, "cancel").status, 403)

    def test_after_a_restart(self) -> None:
        """Nothing secret is in the store, so then a page says what to do."""
        self.submit("cancel")
        site = Site(self, before=self.site)
        browser = Browser(site)
        browser.cookies = self.browser.cookies
        answer = browser.submit(self.page, "cancel")
        self.assert_over(answer)
        self.assertIn("connect again", answer.text)


class AllowTests(AgainCase):
    """Allow, after the return from Forgejo."""

    def test_code_that_nobody_has_used(self) -> None:
        """The same redirect, no second code, no second grant."""
        first = self.come_back()
        self.assertIn("code", first.query)
        before = self.site.dump()
        again = self.submit("full")
        self.assertEqual((again.status, again.location), (303, first.location))
        self.assertEqual(again.cookies, [])
        self.assertEqual(self.site.dump(), before)
        self.assertEqual(len(self.site.upstream.calls), 1)

    def test_used_code(self) -> None:
        """It is not sent a second time: RFC 6749 section 4.1.2, once."""
        code = self.digest(self.come_back())
        self.site.write(lambda c: tokens.use_code(c, code, NOW))
        self.assert_over(self.submit("full"))

    def test_code_of_an_ended_grant(self) -> None:
        """Nobody can do anything with it."""
        self.come_back()
        ((grant_id,),) = self.site.read(
            lambda c: c.execute("SELECT grant_id FROM grants").fetchall()
        )
        self.site.write(
            lambda c: revocation.end_grant(c, grant_id, NOW, "administrator")
        )
        self.assert_over(self.submit("full"))

    def test_other_decision(self) -> None:
        """It was not that which led there."""
        self.come_back()
        for decision in ("read-only", "cancel"):
            self.assert_over(self.submit(decision))

    def test_only_as_long_as_the_form(self) -> None:
        """Though the code is good for longer."""
        self.site.clock.advance(599)
        self.come_back()
        self.assertEqual(self.submit("full").status, 303)
        self.site.clock.advance(1)
        self.assert_over(self.submit("full"))

    def test_refused_at_forgejo(self) -> None:
        """The client is told the same."""
        target = callback_target(self.submit("full"), error="access_denied")
        first = self.browser.get(target)
        again = self.submit("full")
        self.assertEqual(again.location, first.location)
        self.assertEqual(again.query["error"], "access_denied")

    def test_after_a_failure(self) -> None:
        """What has not ended the sign-in is tried again: Forgejo was away, or the
        account may sign in now."""
        for failure in (UpstreamUnavailable("away"), NotAllowed("bob")):
            self.site.upstream.outcomes = [failure]
            self.come_back()
            answer = self.submit("full")
            self.assertTrue(answer.location.startswith("https://git."), answer.location)
        self.assertIn(
            "code", self.browser.get(callback_target(answer, code="gta_y")).query
        )
        self.assertEqual(self.site.count("grants"), 1)

    def test_other_decision_after_a_failure(self) -> None:
        """The last one counts."""
        self.site.upstream.outcomes = [UpstreamUnavailable("away")]
        self.come_back("full")
        target = callback_target(self.submit("read-only"), code="gta_y")
        self.assertIn("code", self.browser.get(target).query)
        ((policy,),) = self.site.read(
            lambda c: c.execute("SELECT policy FROM grants").fetchall()
        )
        self.assertEqual(policy, "read-only")

    def test_code_that_forgejo_had_spent(self) -> None:
        """The second visit belongs to the same answer."""
        self.site.upstream.outcomes = [CodeRefused("counter", restart=True)]
        leaving = self.come_back()
        click = self.submit("full")
        self.assertNotEqual(click.location, leaving.location)
        self.assert_over(self.browser.get(callback_target(leaving, code="gta_y")))
        first = self.browser.get(callback_target(click, code="gta_y"))
        self.assertIn("code", first.query)
        self.assertEqual(self.submit("full").location, first.location)
        self.assertEqual(self.site.count("grants"), 1)

    def test_expired_form_brings_nothing_back(self) -> None:
        """Also when its sign-in could still be at work."""
        self.site.upstream.outcomes = [UpstreamUnavailable("away")]
        self.come_back()
        self.site.clock.advance(600)
        self.assert_over(self.submit("full"))


class RolledBackTests(AgainCase):
    """The disk is full when a transaction is to be committed."""

    def setUp(self) -> None:
        super().setUp()
        made: list[FragileDatabase] = []

        def fragile(inner: Database) -> FragileDatabase:
            made.append(FragileDatabase(inner))
            return made[0]

        self.site = Site(self, wrap=fragile)
        (self.store,) = made
        self.client_id = self.site.register()
        self.browser = Browser(self.site)
        self.page = self.browser.get(authorize_target(self.client_id))

    def break_next(self) -> None:
        """
        The next transaction comes to nothing.
        """
        self.store.no_commit = StoreUnavailable("disk full")

    def codes(self, *leaving: Answer) -> int:
        """
        @return: how many of these ways over Forgejo lead to the client.
        """
        answers = [
            self.browser.get(callback_target(one, code="gta_z"))
            for one in leaving
            if one.status == 303
        ]
        codes = sum(answer.status == 303 for answer in answers)
        self.assertEqual(self.site.count("grants"), codes)
        return codes

    def test_click_that_took_the_sign_in_over(self) -> None:
        """What it began under another id is not there, so there is one grant still,
        whatever the browser follows."""
        self.site.upstream.outcomes = [UpstreamUnavailable("away")]
        leaving = self.submit("full")
        cookies = dict(self.browser.cookies)
        target = callback_target(leaving, code="gta_x")
        self.browser.get(target)
        self.break_next()
        self.assertEqual(self.submit("full").status, 503)
        click = self.submit("full")
        self.browser.cookies.update(cookies)
        reload = self.browser.get(target)
        self.assertEqual(self.codes(reload, click), 1)

    def return_waits(self, decision: str) -> tuple[Deferred[None], Deferred[Any], Any]:
        """
        @return: lets Forgejo answer; the return, which waits for that; its client.
        """
        waiting: Deferred[None] = Deferred()
        self.site.upstream.before_answer = lambda: waiting
        target = callback_target(self.submit(decision), code="gta_x")
        cookies = "; ".join(f"{k}={v}" for k, v in self.browser.cookies.items())
        stub = self.site.stub()
        returned = stub.get(
            PUBLIC_URL + target,
            headers=Headers({"Cookie": [cookies]}),
            allow_redirects=False,
        )
        stub.flush()
        return waiting, returned, stub

    def test_return_at_work(self) -> None:
        """It ends the sign-in after all, and the page leads where it led."""
        waiting, returned, stub = self.return_waits("full")
        self.break_next()
        self.assertEqual(self.submit("full").status, 503)
        waiting.callback(None)
        stub.flush()
        (location,) = self.successResultOf(returned).headers.getRawHeaders("Location")
        self.assertIn("code=", location)
        self.assertEqual(self.submit("full").location, location)
        self.assertEqual(self.site.count("grants"), 1)

    def test_cancel_ends_the_return_at_work(self) -> None:
        """The client was told no, so there is no grant."""
        waiting, returned, stub = self.return_waits("full")
        self.break_next()
        self.assertEqual(self.submit("full").status, 503)
        self.assertEqual(self.submit("cancel").query["error"], "access_denied")
        waiting.callback(None)
        stub.flush()
        self.assertEqual(self.successResultOf(returned).code, 400)
        self.assertEqual(self.site.count("grants"), 0)

    def test_answers(self) -> None:
        """They did not count, so another one does."""
        self.break_next()
        self.assertEqual(self.submit("cancel").status, 503)
        self.break_next()
        self.assertEqual(self.submit("full").status, 503)
        self.assertEqual(self.codes(self.submit("read-only")), 1)
        self.assert_over(self.submit("cancel"))

    def test_code(self) -> None:
        """It is none, and nobody is sent on with it."""
        leaving = self.submit("full")
        self.site.upstream.on_call = self.break_issuing
        answer = self.browser.get(callback_target(leaving, code="gta_x"))
        self.assertEqual(answer.query["error"], "temporarily_unavailable")
        again = self.submit("full")
        self.assertTrue(again.location.startswith("https://git."), again.location)
        self.assertEqual(self.codes(again), 1)

    def break_issuing(self) -> None:
        """
        Once.
        """
        self.site.upstream.on_call = lambda: None
        self.break_next()
