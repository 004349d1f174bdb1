"""
Every page, light and dark, wide and narrow: axe-core finds nothing grave, nothing has
to be scrolled sideways, and a picture of each is kept.
"""

from __future__ import annotations

import re

from playwright.sync_api import Page, expect

from tests.browser.chromium import Chromium, Examiner, executable
from tests.browser.test_sign_in import outline
from tests.browser.world import (
    DOCUMENT,
    LOOKALIKE,
    URL,
    WEBSITE,
    BrowserCase,
)

LONG_NAME = "Assistant" * 9
LONG_HOST = "a-subdomain-with-a-rather-long-name-of-its-own.example.com"


BAD = (
    "<!DOCTYPE html><html lang=en><title>Bad</title><main><h1>Bad</h1>"
    "<p style='color:#bbb;background:#fff'>pale</p><input>"
    "<div style='width:900px'>wide</div></main>"
)


class ExaminerTests(BrowserCase):
    """Whoever looks at pages is able to find something."""

    async def test_a_bad_page(self) -> None:
        """Pale text, a field without a name, sideways scrolling, light in the dark."""
        self.hosts = {}
        examiner = Examiner()

        def use(chromium: Chromium) -> None:
            with chromium.window() as page:
                page.set_content(BAD)
                examiner.look(page, "bad")

        executable()
        await self.browse(use)
        found = "\n".join(examiner.found)
        for words in ("color-contrast", "label", "pixels wide on 320", "light in"):
            self.assertIn(words, found)


class ConsentTests(BrowserCase):
    """The page where access is decided."""

    async def test_every_kind_of_client(self) -> None:
        """Verified or not, each kind of target, a name as long as can be."""
        await self.begin()
        shown = {
            "consent-verified": self.authorize(DOCUMENT, WEBSITE),
            "consent-read-only": self.authorize(DOCUMENT, WEBSITE, scope="read"),
        }
        for name, called, back in (
            ("consent-unverified", "Example Assistant", WEBSITE),
            ("consent-program", "Example CLI", "http://127.0.0.1:49152/callback"),
            ("consent-application", "Example Editor", "cursor://example/callback"),
            ("consent-punycode", "Example Assistant", f"https://{LOOKALIKE}/callback"),
            ("consent-long", LONG_NAME, f"https://{LONG_HOST}/callback"),
        ):
            shown[name] = self.authorize(self.register(called, back), back)
        examiner = Examiner()

        def use(chromium: Chromium) -> None:
            with chromium.window() as page:
                for name, address in shown.items():
                    page.goto(address)
                    expect(page.get_by_role("button", name="Cancel")).to_be_visible()
                    examiner.look(page, name)

        await self.browse(use)
        self.assertEqual(examiner.found, [])
        self.assertEqual(examiner.seen, list(shown))


class FrontPageTests(BrowserCase):
    """C{/}"""

    async def test_closed_and_open(self) -> None:
        """Each client opens with the keyboard; what there is to copy is selected."""
        await self.begin()
        examiner = Examiner()

        def use(chromium: Chromium) -> None:
            with chromium.window(java_script_enabled=False) as page:
                page.goto(URL)
                page.get_by_text("Claude Code", exact=True).click()
                command = f"claude mcp add --transport http forgejo {URL}/mcp"
                expect(page.get_by_text(command)).to_be_visible()
                page.get_by_text(command).click(position={"x": 40, "y": 20})
                self.assertEqual(page.evaluate("String(getSelection())"), command)
            with chromium.window() as page:
                page.goto(URL)
                examiner.look(page, "front")
                for number in range(page.locator("summary").count()):
                    page.locator("summary").nth(number).press("Enter")
                    self.assertGreaterEqual(outline(page), 3)
                self.assertEqual(
                    page.locator("details[open]").count(),
                    page.locator("details").count(),
                )
                examiner.look(page, "front-open")
                for command in page.locator("pre").all_inner_texts():
                    self.assertNotIn("\u00a0", command)

        await self.browse(use)
        self.assertEqual(examiner.found, [])


class ErrorTests(BrowserCase):
    """What people see when something goes wrong."""

    async def test_every_page_of_trouble(self) -> None:
        """Each says what to do and has a number that stands in the log."""
        await self.begin()
        client = self.register("Example Assistant", WEBSITE)
        document = f"https://{LOOKALIKE}/oauth/client.json"
        visited = {
            "unknown-client": self.authorize("nobody", WEBSITE),
            "no-document": self.authorize(document, WEBSITE),
            "invalid-request": self.authorize(
                client, WEBSITE, code_challenge_method="plain"
            ),
            "wrong-redirect": self.authorize(client, "https://evil.example.net/"),
            "not-found": f"{URL}/nothing/here",
            "wrong-browser": f"{URL}/oauth/callback?state=a&code=b",
            "wrong-method": f"{URL}/oauth/consent",
        }
        good = self.authorize(client, WEBSITE)
        examiner = Examiner()
        numbers: dict[str, str] = {}

        def note(page: Page, name: str) -> None:
            examiner.look(page, name)
            text = page.locator(".reference").inner_text()
            found = re.search(r"this reference: (\S+)", text)
            numbers[name] = found[1] if found else ""

        def use(chromium: Chromium) -> None:
            with chromium.window() as page:
                for name, address in visited.items():
                    page.goto(address)
                    note(page, name)
                page.goto(good)
                page.evaluate(
                    "document.querySelector('input[name=pending]').value += 'x'"
                )
                page.get_by_role("button", name="Allow full").click()
                note(page, "foreign-form")

        await self.browse(use)
        self.assertEqual(examiner.found, [])
        for name, number in numbers.items():
            self.assertNotEqual(number, "", name)
            self.assertIn(number, self.daemon.text, name)

    async def test_scopes_that_forgejo_remembers(self) -> None:
        """The page that explains how to make Forgejo forget, and then tries again."""
        await self.begin()
        address = self.authorize(DOCUMENT, WEBSITE)
        controls = self.forgejo.stand_in.controls
        scope = "openid read:user"
        controls.issue_tokens("alice", scope, client_id=self.application)
        examiner = Examiner()

        def use(chromium: Chromium) -> None:
            with chromium.window() as page:
                page.goto(address)
                page.get_by_role("button", name="Allow full").click()
                self.sign_in(page)
                expect(page.get_by_role("heading")).to_contain_text("older permission")
                examiner.look(page, "other-scopes")
                page.get_by_role("link", name="Try again").click()
                expect(page.get_by_role("button", name="Cancel")).to_be_visible()

        await self.browse(use)
        self.assertEqual(examiner.found, [])
