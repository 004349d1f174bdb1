"""The way back from Forgejo: one browser, one state, once."""

from hashlib import sha256
from urllib.parse import parse_qsl, urlsplit

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from fjmcp_broker.oauth.tokens import code_challenge
from fjmcp_broker.store import clients, grants, tokens
from fjmcp_broker.store.errors import StoreUnavailable
from fjmcp_broker.upstream.errors import (
    CodeRefused,
    IdentityMismatch,
    ScopeMismatch,
    SignInNeeded,
    UpstreamMisconfigured,
    UpstreamUnavailable,
)
from tests.unit.web.signin import (
    CHALLENGE,
    FORGEJO_URL,
    PUBLIC_URL,
    USER,
    WEB_REDIRECT,
    Answer,
    Browser,
    Site,
    authorize_target,
    callback_target,
)


class CallbackCase(SynchronousTestCase):
    """A browser that has approved and been to Forgejo."""

    def setUp(self) -> None:
        self.site = Site(self)
        self.client_id = self.site.register()
        self.browser = Browser(self.site)

    def leave(self, decision: str = "full", **changes: str | None) -> Answer:
        """
        @return: the redirect to Forgejo after the consent page.
        """
        page = self.browser.get(authorize_target(self.client_id, **changes))
        return self.browser.submit(page, decision)

    def assert_page(self, answer: Answer, status: int) -> None:
        """
        A page, nothing issued.
        """
        self.assertEqual(answer.status, status)
        self.assertIn("text/html", answer.header("Content-Type"))
        self.assertFalse(answer.headers.hasHeader("Location"))
        self.assertEqual(self.site.count("grants"), 0)
        self.assertEqual(self.site.count("authorization_codes"), 0)

    def assert_error(self, answer: Answer, code: str) -> None:
        """
        A redirect to the client with an error, nothing issued.
        """
        self.assertEqual(answer.status, 303)
        self.assertTrue(answer.location.startswith(f"{WEB_REDIRECT}?"))
        self.assertEqual(answer.query["error"], code)
        self.assertEqual(answer.query["state"], "client-state")
        self.assertEqual(answer.query["iss"], PUBLIC_URL)
        self.assertNotIn("code", answer.query)
        self.assertEqual(self.site.count("grants"), 0)
        self.assertEqual(self.site.count("authorization_codes"), 0)


class SuccessTests(CallbackCase):
    """A sign-in that works."""

    def test_code_goes_to_the_pinned_redirect_uri(self) -> None:
        """RFC 6749 section 4.1.2 with iss (RFC 9207): code, state, issuer."""
        answer = self.browser.get(callback_target(self.leave(), code="gta_x"))
        self.assertEqual(answer.status, 303)
        self.assertTrue(answer.location.startswith(f"{WEB_REDIRECT}?code="))
        self.assertEqual(set(answer.query), {"code", "state", "iss"})
        self.assertEqual(answer.query["state"], "client-state")
        self.assertEqual(answer.query["iss"], PUBLIC_URL)
        self.assertEqual(answer.header("Cache-Control"), "no-store")
        self.assertEqual(answer.header("Referrer-Policy"), "no-referrer")
        text = answer.query["code"]
        self.assertRegex(text, r"\Afjmcp_code_[A-Za-z0-9_-]{43}\Z")
        now = int(self.site.clock.seconds())
        code = self.site.read(
            lambda c: tokens.find_code(c, sha256(text.encode()).digest())
        )
        assert code is not None
        self.assertEqual(code.redirect_uri, WEB_REDIRECT)
        self.assertEqual(code.code_challenge, CHALLENGE)
        self.assertEqual(code.expires_at, now + 600)
        grant = self.site.read(lambda c: grants.find(c, code.grant_id))
        assert grant is not None
        self.assertEqual(grant.user_id, USER.user_id)
        self.assertEqual(grant.client_id, self.client_id)
        self.assertEqual(grant.scope, ("read", "write"))
        self.assertEqual(grant.policy, "full")
        self.assertEqual(grant.resource, f"{PUBLIC_URL}/mcp")
        client = self.site.read(lambda c: clients.find(c, self.client_id))
        assert client is not None
        self.assertEqual(client.last_used_at, now)
        self.assertEqual(self.site.count("pending_authorizations"), 0)
        self.assertNotIn(text, "\n".join(self.site.dump()))

    def test_verifier_belongs_to_the_challenge(self) -> None:
        """RFC 7636 towards Forgejo: what was promised is what is sent."""
        leaving = self.leave()
        self.browser.get(callback_target(leaving, code="gta_x"))
        ((_, code, verifier),) = self.site.upstream.calls
        self.assertEqual(code, "gta_x")
        self.assertEqual(code_challenge(verifier), leaving.query["code_challenge"])

    def test_approval_cookie_is_cleared(self) -> None:
        """Nothing of the sign-in stays in the browser but the consent cookie."""
        self.browser.get(callback_target(self.leave(), code="gta_x"))
        self.assertEqual(list(self.browser.cookies), ["__Host-fjmcp_consent"])

    def test_policies_become_scopes(self) -> None:
        """What the user chose is what the grant may do."""
        cases: list[tuple[str, str | None, tuple[str, ...]]] = [
            ("full", None, ("read", "write")),
            ("full", "write", ("read", "write")),
            ("read-only", "read write", ("read",)),
            ("read-only-requested", "read", ("read",)),
        ]
        for decision, asked, scope in cases:
            self.browser.get(
                callback_target(self.leave(decision, scope=asked), code="gta_x")
            )
            rows = self.site.read(
                lambda c: c.execute(
                    "SELECT policy, scope FROM grants ORDER BY created_at DESC"
                ).fetchall()
            )
            self.assertEqual(rows[0], (decision, " ".join(scope)))
            self.site.clock.advance(1)

    def test_two_sign_ins_in_one_browser_both_work(self) -> None:
        """Clients start two within a second; the answers may come in any order."""
        first, second = self.leave(state="one"), self.leave(state="two")
        for leaving, state in ((second, "two"), (first, "one")):
            answer = self.browser.get(callback_target(leaving, code="gta_x"))
            self.assertEqual(answer.query["state"], state)
            self.assertIn("code", answer.query)
        self.assertEqual(self.site.count("grants"), 2)

    def test_double_click_ends_well(self) -> None:
        """The browser follows the later answer; the earlier one is of no use."""
        page = self.browser.get(authorize_target(self.client_id))
        first = self.browser.submit(page, "full")
        second = self.browser.submit(page, "full")
        self.assert_page(self.browser.get(callback_target(first, code="gta_x")), 400)
        answer = self.browser.get(callback_target(second, code="gta_x"))
        self.assertIn("code", answer.query)

    def test_loopback_port_is_kept(self) -> None:
        """RFC 8252 section 7.3: the code goes to the port of the request."""
        self.client_id = self.site.register(redirect_uris=["http://127.0.0.1/cb"])
        leaving = self.leave(redirect_uri="http://127.0.0.1:40123/cb")
        answer = self.browser.get(callback_target(leaving, code="gta_x"))
        self.assertTrue(answer.location.startswith("http://127.0.0.1:40123/cb?code="))

    def test_registered_query_is_kept(self) -> None:
        """RFC 6749 section 3.1.2."""
        uri = "https://a.test/cb?tenant=%7e"
        self.client_id = self.site.register(redirect_uris=[uri])
        leaving = self.leave(redirect_uri=uri)
        answer = self.browser.get(callback_target(leaving, code="gta_x"))
        self.assertTrue(answer.location.startswith(f"{uri}&code="))


class BindingTests(CallbackCase):
    """Who may finish a sign-in: RFC 9700 sections 4.4, 4.5 and 4.7."""

    def test_other_browser_cannot_finish(self) -> None:
        """CSRF and code injection (RFC 9700 section 4.7): an attacker's state in the
        victim's browser, or the other way round, ends on a page."""
        target = callback_target(self.leave(), code="gta_x")
        self.assert_page(Browser(self.site).get(target), 400)
        self.assertEqual(self.site.upstream.calls, [])
        # The row is not spent by that: the right browser can still finish.
        self.assertIn("code", self.browser.get(target).query)

    def test_cookie_of_another_sign_in_is_of_no_use(self) -> None:
        """Cookie and state must belong to the same row."""
        other = Browser(self.site)
        page = other.get(authorize_target(self.client_id))
        other.submit(page, "full")
        leaving = self.leave()
        (mine,) = [name for name in self.browser.cookies if "approval" in name]
        (theirs,) = [name for name in other.cookies if "approval" in name]
        self.browser.cookies[mine] = other.cookies[theirs]
        self.assert_page(self.browser.get(callback_target(leaving, code="x")), 400)
        self.assertEqual(self.site.upstream.calls, [])

    def test_cookie_planted_without_prefix_is_of_no_use(self) -> None:
        """RFC 6265bis section 4.1.3.2: a neighbouring host can set cookies for the
        whole domain, but not with this prefix."""
        leaving = self.leave()
        victim = Browser(self.site)
        for name, value in self.browser.cookies.items():
            victim.cookies[name.removeprefix("__Host-")] = value
        self.assert_page(victim.get(callback_target(leaving, code="gta_x")), 400)

    def test_cookie_planted_before_consent_is_not_used(self) -> None:
        """The approval cookie is always fresh: one that was planted before the user
        agreed does not become valid by it."""
        planted = "A" * 43
        leaving = self.leave()
        (name,) = [name for name in self.browser.cookies if "approval" in name]
        self.assertNotEqual(self.browser.cookies[name], planted)
        victim = Browser(self.site)
        victim.cookies[name] = planted
        self.assert_page(victim.get(callback_target(leaving, code="gta_x")), 400)

    def test_nobody_gets_past_the_consent_page(self) -> None:
        """Confused deputy: without our own approval there is no state that counts,
        even though Forgejo would answer without asking."""
        page = self.browser.get(authorize_target(self.client_id))
        for state in (page.form.fields["pending"], page.form.fields["form_token"]):
            answer = self.browser.get(f"/oauth/callback?state={state}&code=gta_x")
            self.assert_page(answer, 400)
        self.assertEqual(self.site.upstream.calls, [])

    def test_replay_is_refused(self) -> None:
        """RFC 6749 section 10.12: a state counts once, with or without its cookie."""
        leaving = self.leave()
        kept = dict(self.browser.cookies)
        target = callback_target(leaving, code="gta_x")
        self.assertIn("code", self.browser.get(target).query)
        self.browser.cookies = kept
        before = self.site.dump()
        answer = self.browser.get(target)
        self.assertEqual(answer.status, 400)
        self.assertEqual(len(self.site.upstream.calls), 1)
        self.assertEqual(self.site.dump(), before)

    def test_late_return_is_refused(self) -> None:
        """Ten minutes after the request it is over."""
        leaving = self.leave()
        self.site.clock.advance(600)
        self.assert_page(self.browser.get(callback_target(leaving, code="x")), 400)

    def test_redirect_uri_of_the_callback_does_not_count(self) -> None:
        """RFC 9700 section 4.1: the target is pinned in the row."""
        target = callback_target(
            self.leave(), code="gta_x", redirect_uri="https://evil.test/", iss="x"
        )
        answer = self.browser.get(target)
        self.assertTrue(answer.location.startswith(WEB_REDIRECT))
        self.assertEqual(answer.query["iss"], PUBLIC_URL)

    def test_any_query_has_an_answer(self) -> None:
        """No query gives a 5xx, and none without a valid state changes anything."""
        self.leave()
        before = self.site.dump()
        names = st.sampled_from(["state", "code", "error", "iss", "x"])
        pairs = st.lists(
            st.tuples(names, st.text("ab%&=+é\x00", max_size=6)), max_size=5
        )

        @settings(max_examples=150, deadline=None)
        @given(pairs)
        def check(given_pairs: list[tuple[str, str]]) -> None:
            query = "&".join(f"{name}={value}" for name, value in given_pairs)
            answer = self.site.request(
                "GET", "/oauth/callback?" + query.replace("\x00", "%00")
            )
            self.assert_page(answer, 400)
            self.assertEqual(self.site.dump(), before)

        check()

    def test_repeated_parameters_are_refused(self) -> None:
        """RFC 6749 section 3.1: two states, codes or errors are none."""
        target = callback_target(self.leave(), code="gta_x")
        for extra in ("state=x", "code=y", "error=a&error=b"):
            self.assert_page(self.browser.get(f"{target}&{extra}"), 400)
        self.assertIn("code", self.browser.get(target).query)


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
            self.assertEqual(self.site.count("pending_authorizations"), 0)
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

    def finish(self, failure: Exception) -> Answer:
        """
        @return: the answer to a callback whose exchange fails.
        """
        self.site.upstream.outcomes = [failure]
        return self.browser.get(callback_target(self.leave(), code="gta_x"))

    def test_outage_is_told_as_such(self) -> None:
        """The client may try again later; nothing is its fault."""
        for failure in (
            UpstreamUnavailable("timeout"),
            StoreUnavailable("disk full"),
        ):
            self.assert_error(self.finish(failure), "temporarily_unavailable")

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
        self.assertEqual(self.site.count("pending_authorizations"), 0)

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
        """There is nobody to send a code to."""
        leaving = self.leave()

        def vanish() -> None:
            self.site.write(
                lambda c: c.execute("DELETE FROM clients").rowcount,
            )

        self.site.upstream.before_answer = vanish
        self.assert_page(self.browser.get(callback_target(leaving, code="x")), 400)
