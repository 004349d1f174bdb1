"""The posted decision: bound to the browser that was shown the page."""

from hashlib import sha256

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from fjmcp_broker.oauth.tokens import code_challenge
from fjmcp_broker.store import pending
from tests.unit.web.sign_in_fakes import FORGEJO_URL
from tests.unit.web.signin import (
    PUBLIC_URL,
    WEB_REDIRECT,
    Answer,
    Browser,
    Site,
    authorize_target,
)


class ConsentTests(SynchronousTestCase):
    """POST /oauth/consent."""

    def setUp(self) -> None:
        self.site = Site(self)
        self.client_id = self.site.register()
        self.browser = Browser(self.site)
        self.page = self.browser.get(authorize_target(self.client_id))

    def assert_refused(self, answer: Answer, status: int) -> None:
        """
        A page: no cookie, no redirect.
        """
        self.assertEqual(answer.status, status)
        self.assertIn("text/html", answer.header("Content-Type"))
        self.assertEqual(answer.cookies, [])
        self.assertFalse(answer.headers.hasHeader("Location"))

    def test_allow_leads_to_forgejo(self) -> None:
        """Only now there is an approval cookie, and a state that belongs to it."""
        answer = self.browser.submit(self.page, "full")
        self.assertEqual(answer.status, 303)
        self.assertTrue(answer.location.startswith(f"{FORGEJO_URL}/login/oauth/"))
        (cookie,) = answer.cookies
        self.assertRegex(
            cookie,
            r"\A__Host-fjmcp_approval_[A-Za-z0-9_-]{22}=[A-Za-z0-9_-]{43}; Path=/; "
            r"Max-Age=600; HttpOnly; SameSite=Lax; Secure\Z",
        )
        value = cookie.partition("=")[2].partition(";")[0]
        pending_id = self.page.form.fields["pending"]
        row = self.site.read(
            lambda c: pending.find(c, pending_id, int(self.site.clock.seconds()))
        )
        assert row is not None and row.sealed_upstream_verifier is not None
        state = answer.query["state"]
        self.assertEqual(row.state_digest, sha256(state.encode()).digest())
        self.assertEqual(row.approval_digest, sha256(value.encode()).digest())
        self.assertEqual(row.policy, "full")
        verifier = self.site.sealer.open(
            row.sealed_upstream_verifier, row=pending.verifier_row(pending_id)
        )
        self.assertEqual(
            answer.query["code_challenge"], code_challenge(verifier.decode())
        )
        stored = "\n".join(self.site.dump())
        for secret in (state, value, verifier.decode()):
            self.assertNotIn(secret, stored)
            self.assertNotIn(secret.encode().hex().upper(), stored)

    def test_state_is_short_enough_for_forgejo(self) -> None:
        """Forgejo keeps the whole address in a cookie of 4 KB."""
        answer = self.browser.submit(self.page, "full")
        self.assertLessEqual(len(answer.query["state"]), 100)

    def test_read_only_is_remembered(self) -> None:
        """The user's choice is in the row, not in anything the browser carries."""
        self.browser.submit(self.page, "read-only")
        rows = self.site.read(
            lambda c: c.execute("SELECT policy FROM pending_authorizations").fetchall()
        )
        self.assertEqual(rows, [("read-only",)])

    def test_cancel_tells_the_client(self) -> None:
        """RFC 6749 section 4.1.2.1: access_denied, with state and iss (RFC 9207)."""
        answer = self.browser.submit(self.page, "cancel")
        self.assertEqual(answer.status, 303)
        self.assertTrue(answer.location.startswith(f"{WEB_REDIRECT}?"))
        self.assertEqual(answer.query["error"], "access_denied")
        self.assertEqual(answer.query["state"], "client-state")
        self.assertEqual(answer.query["iss"], PUBLIC_URL)
        self.assertEqual(self.site.count_under_way(), 0)
        self.assert_refused(self.browser.submit(self.page, "full"), 400)

    def test_form_of_another_browser_is_refused(self) -> None:
        """RFC 9700 section 4.7.1: a token of browser A is of no use in browser B."""
        other = Browser(self.site)
        other.get(authorize_target(self.client_id))
        before = self.site.dump()
        for decision in ("full", "read-only", "cancel"):
            self.assert_refused(other.submit(self.page, decision), 403)
        self.assert_refused(Browser(self.site).submit(self.page, "full"), 403)
        self.assertEqual(self.site.dump(), before)

    def test_form_token_of_another_sign_in_is_refused(self) -> None:
        """A token belongs to one pending authorization."""
        second = self.browser.get(authorize_target(self.client_id))
        before = self.site.dump()
        answer = self.browser.submit(
            self.page, "full", pending=second.form.fields["pending"]
        )
        self.assert_refused(answer, 403)
        self.assertEqual(self.site.dump(), before)

    def test_other_sites_are_refused(self) -> None:
        """RFC 9700 section 4.7: the form counts only when our own page sent it."""
        before = self.site.dump()
        for headers in (
            {"Sec-Fetch-Site": "cross-site"},
            {"Sec-Fetch-Site": "same-site"},
            {"Sec-Fetch-Site": "none"},
            {"Sec-Fetch-Site": "cross-site", "Origin": PUBLIC_URL},
            {"Sec-Fetch-Site": "", "Origin": "https://evil.test"},
            {"Sec-Fetch-Site": "", "Origin": "null"},
            {"Sec-Fetch-Site": "", "Origin": f"{PUBLIC_URL}.evil.test"},
            {"Sec-Fetch-Site": "", "Origin": "http://mcp.example.org"},
            {"Sec-Fetch-Site": "", "Origin": ""},
        ):
            self.assert_refused(
                self.browser.submit(self.page, "full", headers=headers), 403
            )
        self.assertEqual(self.site.dump(), before)

    def test_origin_is_enough_where_browsers_send_no_more(self) -> None:
        """Sec-Fetch-Site is missing in older browsers and on plain http."""
        answer = self.browser.submit(self.page, "full", headers={"Sec-Fetch-Site": ""})
        self.assertEqual(answer.status, 303)

    def test_injected_cookie_is_of_no_use(self) -> None:
        """RFC 6265bis section 4.1.3: a cookie without our prefix is not ours, and
        of two values neither is believed."""
        value = self.browser.cookies["__Host-fjmcp_consent"]
        for cookie in (
            f"fjmcp_consent={value}",
            f"__host-fjmcp_consent={value}",
            f"__Host-fjmcp_consent={value}; __Host-fjmcp_consent={'x' * 43}",
            "__Host-fjmcp_consent=",
            f"__Host-fjmcp_consent={value}x",
        ):
            answer = self.browser.submit(self.page, "full", headers={"Cookie": cookie})
            self.assert_refused(answer, 403)

    def test_unoffered_decision_is_refused(self) -> None:
        """What was not on the page cannot be posted."""
        page = self.browser.get(authorize_target(self.client_id, scope="read"))
        before = self.site.dump()
        for decision in ("full", "read-only", "FULL", "everything", ""):
            self.assert_refused(self.browser.submit(page, decision), 400)
        self.assert_refused(self.browser.submit(self.page, "read-only-requested"), 400)
        self.assertEqual(self.site.dump(), before)

    def test_second_click_overwrites_the_first(self) -> None:
        """A double click ends where the browser follows: at the later answer."""
        first = self.browser.submit(self.page, "full")
        second = self.browser.submit(self.page, "full")
        self.assertEqual((first.status, second.status), (303, 303))
        self.assertNotEqual(first.query["state"], second.query["state"])
        rows = self.site.read(
            lambda c: c.execute(
                "SELECT state_digest FROM pending_authorizations"
            ).fetchall()
        )
        self.assertEqual(rows, [(sha256(second.query["state"].encode()).digest(),)])

    def test_late_decision_is_refused(self) -> None:
        """Ten minutes after the page was made it is over."""
        self.site.clock.advance(600)
        self.assert_refused(self.browser.submit(self.page, "full"), 400)
        self.assert_refused(self.browser.submit(self.page, "cancel"), 400)

    def test_any_form_has_an_answer(self) -> None:
        """No form gives a 5xx, and without the cookie none changes anything."""
        names = st.sampled_from(["pending", "form_token", "decision", "x"])
        fields = self.page.form.fields
        values = st.sampled_from(
            [*fields.values(), "full", "read-only", "cancel"]
        ) | st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
        stranger = Browser(self.site)
        before = self.site.dump()

        @settings(max_examples=150, deadline=None)
        @given(st.lists(st.tuples(names, values), max_size=6))
        def check(pairs: list[tuple[str, str]]) -> None:
            answer = stranger.post("/oauth/consent", pairs)
            self.assertIn(answer.status, (400, 403))
            self.assert_refused(answer, answer.status)
            self.assertEqual(self.site.dump(), before)

        check()

    def test_other_body_types_are_refused(self) -> None:
        """A form is what our page sends; nothing else is read."""
        for headers, status in [
            ({"Content-Type": "application/json"}, 415),
            ({"Content-Type": "text/plain"}, 415),
        ]:
            answer = self.site.request(
                "POST", "/oauth/consent", headers=headers, body=b"{}"
            )
            self.assert_refused(answer, status)
        answer = self.site.request("GET", "/oauth/consent")
        self.assert_refused(answer, 405)
