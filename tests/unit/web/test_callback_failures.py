"""What a failed sign-in is told to whom, and what it leaves in the log."""

import re
from html import unescape
from sqlite3 import Connection
from urllib.parse import parse_qsl, urlsplit

from msgspec.structs import replace
from twisted.logger import capturedLogs, formatEvent

from fjmcp_broker.secret import Secret
from fjmcp_broker.store import upstream_tokens, users
from fjmcp_broker.store.database import Database
from fjmcp_broker.store.errors import StoreUnavailable
from fjmcp_broker.store.upstream_tokens import UpstreamSet
from fjmcp_broker.upstream.errors import (
    CodeRefused,
    IdentityMismatch,
    NotAllowed,
    ScopeMismatch,
    SignInNeeded,
    UpstreamMisconfigured,
    UpstreamUnavailable,
)
from fjmcp_broker.upstream.interfaces import SignedInUser
from tests.unit.store.memory import NOW
from tests.unit.web.callback_case import CallbackCase
from tests.unit.web.sign_in_fakes import FORGEJO_URL, USER, FragileDatabase
from tests.unit.web.signin import (
    WEB_REDIRECT,
    Answer,
    Browser,
    Site,
    authorize_target,
    callback_target,
)


class ForgejoErrorTests(CallbackCase):
    """What Forgejo answers with instead of a code."""

    def test_errors_are_translated(self) -> None:
        """Forgejo's own codes are never relayed: clients act on unauthorized_client
        by throwing their registration away."""
        for theirs, ours in [
            ("access_denied", "access_denied"),
            ("temporarily_unavailable", "temporarily_unavailable"),
            ("server_error", "server_error"),
            ("unauthorized_client", "server_error"),
            ("invalid_request", "server_error"),
            ("invalid_scope", "server_error"),
            ("invalid_grant", "server_error"),
            ("<script>", "server_error"),
        ]:
            answer = self.browser.get(
                callback_target(
                    self.leave(), error=theirs, error_description="their words"
                )
            )
            self.assert_error(answer, ours)
            self.assertNotIn("their", answer.location)
            self.assertEqual(self.site.count_under_way(), 0)
            self.assertEqual(list(self.browser.cookies), ["__Host-fjmcp_consent"])
        self.assertEqual(self.site.upstream.calls, [])

    def test_error_needs_the_right_browser(self) -> None:
        """Nobody else can end a sign-in with a forged error."""
        leaving = self.leave()
        target = callback_target(leaving, error="access_denied")
        self.assert_page(Browser(self.site).get(target), 400)
        self.assertIn(
            "code", self.browser.get(callback_target(leaving, code="x")).query
        )


class ExchangeFailureTests(CallbackCase):
    """What can go wrong with the exchange of Forgejo's code."""

    def finish(self, outcome: Exception | SignedInUser) -> Answer:
        """
        @return: the answer to a callback whose exchange ends so.
        """
        self.site.upstream.outcomes = [outcome]
        return self.browser.get(callback_target(self.leave(), code="gta_x"))

    def test_outage_is_told_as_such(self) -> None:
        """The client may try again later; nothing is its fault."""
        for failure in (
            UpstreamUnavailable("timeout"),
            StoreUnavailable("disk full"),
        ):
            self.assert_error(self.finish(failure), "temporarily_unavailable")

    def fragile_store(self) -> FragileDatabase:
        """
        @return: the store of a new site, which fails when it is told to.
        """
        made: list[FragileDatabase] = []

        def wrap(inner: Database) -> Database:
            made.append(FragileDatabase(inner))
            return made[0]

        self.site = Site(self, wrap=wrap)
        self.client_id = self.site.register()
        self.browser = Browser(self.site)
        return made[0]

    def test_store_that_fails_later_is_told_to_the_client(self) -> None:
        """The sign-in is spent by then, and opening the address again does not help:
        the client hears that it may begin anew."""
        store = self.fragile_store()

        def break_down() -> None:
            store.failure = StoreUnavailable("disk full")

        self.site.upstream.on_call = break_down
        for outcome in (USER, CodeRefused("counter", restart=True)):
            store.failure = None
            self.assert_error(self.finish(outcome), "temporarily_unavailable")
            self.assertEqual(list(self.browser.cookies), ["__Host-fjmcp_consent"])

    def test_store_that_fails_at_once_spends_nothing(self) -> None:
        """What comes with the return is written before Forgejo's code is used: the
        proof that its tokens can be stored. The same address works later."""
        store = self.fragile_store()
        target = callback_target(self.leave(), code="gta_x")
        store.failure = StoreUnavailable("disk full")
        self.assertEqual(self.browser.get(target).status, 503)
        self.assertEqual(self.site.upstream.calls, [])
        store.failure = None
        self.assertIn("code", self.browser.get(target).query)

    def test_user_who_is_not_allowed(self) -> None:
        """A page that says so, with the way back for whoever wants it: the client
        hears access_denied. No code, no grant."""
        answer = self.finish(NotAllowed("b<o>b"))
        self.assert_page(answer, 403)
        self.assertIn("b&lt;o&gt;b", answer.text)
        self.assertNotIn("b<o>b", answer.text)
        (link,) = re.findall('<a href="([^"]*)"', answer.text)
        url = unescape(link)
        self.assertTrue(url.startswith(f"{WEB_REDIRECT}?"), url)
        query = dict(parse_qsl(urlsplit(url).query))
        self.assertEqual(query["error"], "access_denied")
        self.assertEqual(query["state"], "client-state")
        self.assertEqual(query["iss"], self.site.public_url)
        self.assertNotIn("code", query)
        self.assertEqual(self.site.count("grants"), 0)
        self.assertEqual(list(self.browser.cookies), ["__Host-fjmcp_consent"])

    def test_refused_code_is_a_server_error(self) -> None:
        """To the client it is a fault between us and Forgejo."""
        failure = CodeRefused("not authorised", restart=False)
        self.assert_error(self.finish(failure), "server_error")

    def test_refused_user_is_denied(self) -> None:
        """Forgejo does not let this user in."""
        self.assert_error(self.finish(SignInNeeded("disabled")), "access_denied")

    def test_operator_faults_have_an_incident(self) -> None:
        """What the client shows leads the operator to the log."""
        for failure in (
            UpstreamMisconfigured("bad secret"),
            IdentityMismatch("two users"),
        ):
            answer = self.finish(failure)
            self.assert_error(answer, "server_error")
            self.assertRegex(
                answer.query["error_description"], r"incident [0-9a-f]{16}\Z"
            )

    def test_burnt_code_restarts_once_without_asking(self) -> None:
        """Another token request of the same user burnt the code: Forgejo gives a
        new one at once. A second time it is told to the client."""
        burnt = CodeRefused("counter", restart=True)
        again = self.finish(burnt)
        self.assertEqual(again.status, 303)
        self.assertTrue(again.location.startswith(FORGEJO_URL))
        approvals = [name for name in self.browser.cookies if "approval" in name]
        self.assertEqual(len(approvals), 1)
        answer = self.browser.get(callback_target(again, code="gta_y"))
        self.assertIn("code", answer.query)
        self.assertEqual(answer.query["state"], "client-state")
        ((_, _, first), (_, code, second)) = self.site.upstream.calls
        self.assertEqual(code, "gta_y")
        self.assertNotEqual(first, second)
        self.assertEqual(self.site.count_under_way(), 0)

    def test_burnt_code_restarts_only_once(self) -> None:
        """No loop between us and Forgejo."""
        burnt = CodeRefused("counter", restart=True)
        again = self.finish(burnt)
        self.site.upstream.outcomes = [burnt]
        answer = self.browser.get(callback_target(again, code="gta_y"))
        self.assert_error(answer, "server_error")

    def test_restart_keeps_the_policy(self) -> None:
        """The user is not asked again, so what was chosen stays."""
        self.site.upstream.outcomes = [CodeRefused("counter", restart=True)]
        leaving = self.leave("read-only")
        again = self.browser.get(callback_target(leaving, code="gta_x"))
        self.browser.get(callback_target(again, code="gta_y"))
        rows = self.site.read(
            lambda c: c.execute("SELECT policy FROM grants").fetchall()
        )
        self.assertEqual(rows, [("read-only",)])

    def test_other_scopes_are_explained(self) -> None:
        """The page says what to do in Forgejo and leads back to the same request."""
        hostile = "<script>x</script>"
        answer = self.finish(ScopeMismatch("read:user", hostile))
        self.assert_page(answer, 409)
        self.assertIn(f'href="{FORGEJO_URL}/user/settings/applications"', answer.text)
        self.assertNotIn("<script", answer.text)
        again = answer.text.partition('href="/oauth/authorize?')[2].partition('"')[0]
        again = "/oauth/authorize?" + again.replace("&amp;", "&")
        parameters = dict(parse_qsl(urlsplit(again).query))
        self.assertEqual(parameters["state"], "client-state")
        page = self.browser.get(again)
        self.assertEqual(page.status, 200)
        leaving = self.browser.submit(page, "full")
        answer = self.browser.get(callback_target(leaving, code="gta_y"))
        self.assertIn("code", answer.query)

    def test_unexpected_failure_is_a_page_with_an_incident(self) -> None:
        """A fault of ours has an id that stands in the log."""
        answer = self.finish(RuntimeError("secret detail"))
        self.assert_page(answer, 500)
        self.assertNotIn("secret detail", answer.text)
        (failure,) = self.flushLoggedErrors(RuntimeError)
        self.assertIn("secret detail", str(failure.value))
        self.assertRegex(answer.text, r"<code>[0-9a-f]{16}</code>")

    def test_vanished_client_is_told_on_a_page(self) -> None:
        """There is nobody to send a code to, whatever became of the exchange."""
        for outcome in (USER, CodeRefused("counter", restart=True)):
            self.client_id = self.site.register()
            leaving = self.leave()
            self.site.upstream.outcomes = [outcome]
            self.site.upstream.on_call = self.remove_clients
            answer = self.browser.get(callback_target(leaving, code="gta_x"))
            self.assert_page(answer, 400)

    def test_user_of_a_vanished_client_may_go_on(self) -> None:
        """Who has just been judged is not kept out with the other clients for that."""
        token = Secret("t")
        waiting = UpstreamSet(7, token, token, NOW + 3600, state="needs_sign_in")

        def keep(connection: Connection) -> None:
            users.upsert_user(connection, 7, "", "", NOW)
            upstream_tokens.save(connection, self.site.sealer, waiting)

        def release(connection: Connection) -> None:
            upstream_tokens.mark_usable(connection, 7)

        self.site.write(keep)
        leaving = self.leave()
        self.site.upstream.outcomes = [replace(USER, release=release)]
        self.site.upstream.on_call = self.remove_clients
        answer = self.browser.get(callback_target(leaving, code="gta_x"))
        self.assert_page(answer, 400)
        state = self.site.read(lambda c: upstream_tokens.state_of(c, 7))
        self.assertEqual(state, "usable")

    def remove_clients(self) -> None:
        """
        What the collector could do at the worst moment.
        """
        self.site.write(lambda c: c.execute("DELETE FROM clients").rowcount)


class LogTests(CallbackCase):
    """What a sign-in leaves in the log."""

    def test_no_secret_is_logged(self) -> None:
        """Neither cookies nor state, codes, verifier, challenge or form token."""
        with capturedLogs() as events:
            page = self.browser.get(authorize_target(self.client_id))
            leaving = self.browser.submit(page, "full")
            cookies = list(self.browser.cookies.values())
            answer = self.browser.get(callback_target(leaving, code="gta_secret"))
            other = Browser(self.site)
            other.get(callback_target(leaving, code="gta_secret"))
            other.submit(page, "full")
            self.browser.get(
                callback_target(self.leave(), error="server_error", code="gta_secret")
            )
        ((_, _, verifier),) = self.site.upstream.calls
        logged = "\n".join(
            f"{formatEvent(event)} {event.get('log_format')} {event!r}"
            for event in events
        )
        self.assertIn("user 7 signed in", logged)
        self.assertIn("callback refused", logged)
        self.assertIn("consent refused", logged)
        for secret in (
            *cookies,
            leaving.query["state"],
            leaving.query["code_challenge"],
            page.form.fields["form_token"],
            answer.query["code"],
            "gta_secret",
            verifier,
            "client-state",
        ):
            self.assertNotIn(secret, logged)
