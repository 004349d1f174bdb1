"""The way back from Forgejo: one browser, one state, once."""

from hashlib import sha256

from hypothesis import given, settings
from hypothesis import strategies as st
from zope.interface.verify import verifyObject

from fjmcp_broker.oauth.tokens import code_challenge
from fjmcp_broker.store import clients, grants, tokens
from fjmcp_broker.upstream.interfaces import IUpstreamTokens
from tests.unit.web.callback_case import CallbackCase
from tests.unit.web.sign_in_fakes import USER
from tests.unit.web.signin import (
    CHALLENGE,
    PUBLIC_URL,
    WEB_REDIRECT,
    Browser,
    authorize_target,
    callback_target,
)


class FakeTests(CallbackCase):
    """The stand-in for the upstream side."""

    def test_stand_in_has_the_interface(self) -> None:
        """Its methods take what the real one's take."""
        verifyObject(IUpstreamTokens, self.site.upstream)


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
        self.assertEqual(self.site.count_under_way(), 0)
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
        page = self.browser.get(target)
        self.assertEqual(page.status, 400)
        self.assertIn("has been finished already", page.text)
        self.browser.cookies = kept
        before = self.site.dump()
        answer = self.browser.get(target)
        self.assertEqual(answer.status, 400)
        self.assertEqual(len(self.site.upstream.calls), 1)
        self.assertEqual(self.site.dump(), before)

    def test_head_spends_nothing(self) -> None:
        """RFC 9110 section 9.2.1: HEAD is safe; the browser can still come back."""
        target = callback_target(self.leave(), code="gta_x")
        before = self.site.dump()
        cookies = {
            "Cookie": "; ".join(f"{k}={v}" for k, v in self.browser.cookies.items())
        }
        answer = self.site.request("HEAD", target, headers=cookies)
        self.assertEqual(answer.status, 405)
        self.assertEqual(answer.header("Allow"), "GET")
        self.assertEqual(self.site.dump(), before)
        self.assertIn("code", self.browser.get(target).query)

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
