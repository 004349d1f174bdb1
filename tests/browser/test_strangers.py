"""
The consent page of clients that choose their names and addresses to mislead, or that
only write in other letters.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing

from playwright.sync_api import Page, expect

from tests.browser.chromium import PHONE, Chromium, Examiner, screenshots
from tests.browser.world import BACK, CLIENT, DOCUMENT, LOOKALIKE, WEBSITE, BrowserCase

ELSEWHERE = "a-subdomain-with-a-rather-long-name-of-its-own.login.example.com"
NAMES = {
    "arabic": "مساعد البرمجة 7",
    "reversed": "gpj.\u202etnatsissA\u202c\u2066 elpmaxE",
    "controls": "Example\x1b[31m\r\nAssistant\t\u200b\u2028\x85(verified)",
    "markup": "</bdi><h1>Verified</h1>&lt;b&gt;",
    "marks": "E" + "\u0336\u0324\u033a" * 20 + "xample",
    "wide": "𒐫" * 20 + " ﷽﷽﷽ " + "W" * 60,
}
EXAMINED = ("stranger-host", "stranger-lookalike")
"""The others differ from pages that are examined elsewhere by nothing but a name."""

NAME_INSIDE = """() => {
    const name = document.querySelector(".name").getBoundingClientRect();
    const range = document.createRange();
    range.selectNodeContents(document.querySelector(".name"));
    const box = document.querySelector(".who").getBoundingClientRect();
    return [...range.getClientRects()].every((rect) =>
        rect.left >= box.left - 1 && rect.right <= box.right + 1 &&
        rect.bottom <= name.bottom + 12 && rect.top >= name.top - 12);
}"""

LABELS_WHOLE = """() => [...document.querySelectorAll(".host .label")].filter(
    (label) => {
        const range = document.createRange();
        range.selectNodeContents(label);
        const lines = new Set([...range.getClientRects()].map((rect) => rect.top));
        return label.textContent.length < 20 && lines.size > 1;
    }).map((label) => label.textContent)"""


class StrangerTests(BrowserCase):
    """What strangers write stays where it belongs."""

    async def test_names_and_hosts(self) -> None:
        """
        A name keeps to its box and turns nothing around that is not its own; a host is
        broken between its labels; a document of a lookalike is pointed out.
        """
        await self.begin()
        shown = {
            f"stranger-{name}": self.authorize(self.register(called, WEBSITE), WEBSITE)
            for name, called in NAMES.items()
        }
        back = f"https://{ELSEWHERE}/callback"
        shown["stranger-host"] = self.authorize(self.register("Example", back), back)
        examiner = Examiner()

        def use(chromium: Chromium) -> None:
            with chromium.window() as page:
                for name, address in shown.items():
                    page.goto(address)
                    self.look(page, examiner, name)
                    box = page.locator(".who")
                    expect(box.get_by_text("Not verified")).to_be_visible()
                page.goto(self.authorize(DOCUMENT, WEBSITE))
                self.look(page, examiner, "stranger-verified")
                # With the answer the store gets to know it.
                page.get_by_role("button", name="Cancel").click()
                expect(page.get_by_role("heading")).to_have_text(BACK)
                page.goto(self.lookalike())
                self.look(page, examiner, "stranger-lookalike")
                expect(page.locator(".badge")).to_contain_text(LOOKALIKE)
                expect(page.locator(".note")).to_contain_text("xn--")

        await self.browse(use)
        self.assertEqual(examiner.found, [])

    def look(self, page: Page, examiner: Examiner, name: str) -> None:
        """Keep the pictures, and measure on the smallest screen."""
        expect(page.get_by_role("button", name="Cancel")).to_be_visible()
        self.assertEqual(page.locator("h1").count(), 1)
        if name in EXAMINED:
            examiner.look(page, name)
        width, height = PHONE
        page.set_viewport_size({"width": width, "height": height})
        page.screenshot(path=screenshots() / f"{name}.png", full_page=True)
        self.assertTrue(page.evaluate(NAME_INSIDE), name)
        self.assertEqual(page.evaluate(LABELS_WHOLE), [], name)

    def lookalike(self) -> str:
        """
        @return: the address of a sign-in with a document on a host that is not what it
            looks like; no name server of the tests has one, so the store gets it.
        """
        with closing(sqlite3.connect(f"{self.directory}/broker.db")) as store, store:
            copied = store.execute(
                "INSERT INTO clients (client_id, kind, metadata, created_at,"
                " metadata_expires_at) SELECT replace(client_id, :old, :new), kind,"
                " replace(metadata, :old, :new), created_at, metadata_expires_at + 3600"
                " FROM clients WHERE client_id = :document",
                {"old": CLIENT, "new": LOOKALIKE, "document": DOCUMENT},
            ).rowcount
        self.assertEqual(copied, 1)
        document, website = (
            each.replace(CLIENT, LOOKALIKE) for each in (DOCUMENT, WEBSITE)
        )
        return self.authorize(document, website)
