"""
The stand-in's pages of repositories and issues.
"""

from tests.unit.demo.browser import StandInTestCase


class SiteTests(StandInTestCase):
    def test_home_lists_what_one_may_see(self) -> None:
        """Nobody is sent to sign in; alice sees her private repository, not bob's."""
        self.assertEqual(self.get("/").location, "http://forgejo.test/user/login")
        self.assertEqual(self.sign_in().location, "http://forgejo.test/?")
        home = self.get("/").text
        self.assertIn("alice/notes (private)", home.replace("</a>", ""))
        self.assertIn("bob/website", home)
        self.assertNotIn("bob/dotfiles", home)

    def test_links_in_answers_lead_somewhere(self) -> None:
        """Whoever creates an issue through the API can open its page."""
        token = self.controls.issue_tokens("bob").access_token
        path = "/repos/alice/hello/issues"
        body = {"title": "<script>", "body": "a & b"}
        made = self.api(path, token, "POST", body).json
        comments = f"{path}/{made['number']}/comments"
        self.api(comments, token, "POST", {"body": "<i>hi"})
        shown = self.get(made["html_url"])
        self.assertEqual(shown.status, 200)
        for text in ("&lt;script&gt;", "a &amp; b", "&lt;i&gt;hi", "bob"):
            self.assertIn(text, shown.text)
        listed = self.get("/alice/hello")
        self.assertIn("&lt;script&gt;", listed.text)
        self.assertIn(made["html_url"], listed.text)
        file = self.api("/repos/alice/hello/contents/src/hello.py", token).json
        self.assertEqual(self.get(file["download_url"]).text, 'print("hello")\n')
        pull = self.api("/repos/alice/hello/pulls/2", token).json
        self.assertEqual(self.get(pull["html_url"]).status, 200)

    def test_private_pages_are_hidden(self) -> None:
        """What is not visible does not exist."""
        for path in (
            "/alice/notes",
            "/alice/notes/issues/1",
            "/alice/notes/raw/branch/main/README.md",
            "/alice/hello/issues/99",
            "/alice/hello/raw/branch/none/README.md",
            "/alice/none",
            "/nonsense",
        ):
            self.assertEqual(self.get(path).status, 404, path)
        self.sign_in()
        self.assertEqual(self.get("/alice/notes").status, 200)
        self.assertEqual(self.get("/alice/notes/issues/1").status, 200)

    def test_attachment(self) -> None:
        """The link of an attachment gives a file."""
        token = self.controls.issue_tokens("bob").access_token
        path = "/repos/alice/hello/issues/1/assets/1"
        attachment = self.api(path, token).json
        self.assertEqual(self.get(attachment["browser_download_url"]).text, "hello\n")
