"""What the consent page says of every kind of client and of where its access goes."""

import re

from twisted.trial.unittest import SynchronousTestCase

from tests.unit.web.signin import Answer, Browser, Site, authorize_target

PUNYCODE = "https://xn--80ak6aa92e.com/callback"


class NoteTests(SynchronousTestCase):
    """Notes stand where there is something to think about, and nowhere else."""

    def setUp(self) -> None:
        self.site = Site(self)

    def answer(self, redirect_uri: str) -> Answer:
        """
        @return: the page for a client with that redirect URI.
        """
        client_id = self.site.register(redirect_uris=[redirect_uri])
        target = authorize_target(client_id, redirect_uri=redirect_uri)
        return Browser(self.site).get(target)

    def shown(self, redirect_uri: str) -> str:
        """
        @return: the same, only its body.
        """
        return self.answer(redirect_uri).text

    def test_each_kind_of_target(self) -> None:
        """A program, an application, a name in punycode; a website needs no note."""
        for uri, host, words in [
            ("https://claude.ai/callback", "claude.ai", None),
            ("http://127.0.0.1:1/cb", "127.0.0.1:1", "a program on the computer"),
            ("http://localhost/cb", "localhost", "a program on the computer"),
            ("http://[::1]:9/cb", "[::1]:9", "a program on the computer"),
            ("cursor://x/cb", "cursor:", "an application installed on this device"),
            (PUNYCODE, "xn--80ak6aa92e.com", "letters of other alphabets"),
        ]:
            answer = self.answer(uri)
            page = answer.text
            self.assertEqual(answer.target_host, host)
            self.assertEqual(page.count('class="note"'), 0 if words is None else 1, uri)
            self.assertIn(words or "", page)

    def test_host_is_not_cut_in_the_middle_of_a_label(self) -> None:
        """Each label is a piece of its own, its dot with it."""
        page = self.shown("https://a-b.example.co.uk:8443/callback")
        pieces = re.findall('<span class="label">(.*?)</span>', page)
        self.assertEqual(pieces, ["a-b.", "example.", "co.", "uk:8443"])

    def test_a_chosen_name_is_not_taken_for_a_checked_one(self) -> None:
        """Whoever registers is told to be unverified, whatever it calls itself."""
        page = self.shown("https://claude.ai/callback")
        self.assertIn('class="badge">Not verified<', page)
        self.assertNotIn('class="badge good"', page)

    def test_only_what_was_asked_for(self) -> None:
        """A client that asked for read gets one button, and one thing it could do."""
        client_id = self.site.register()
        page = Browser(self.site).get(authorize_target(client_id, scope="read"))
        self.assertEqual(page.form.buttons, ["read-only-requested", "cancel"])
        self.assertEqual(page.text.count("<dt>"), 1)
        self.assertNotIn("Full access", page.text)
