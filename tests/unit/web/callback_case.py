"""A browser that has approved and been to Forgejo, for the tests of the callback."""

from twisted.trial.unittest import SynchronousTestCase

from tests.unit.web.signin import (
    PUBLIC_URL,
    WEB_REDIRECT,
    Answer,
    Browser,
    Site,
    authorize_target,
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
