"""
Pages that nobody wants to see, each brought about as it happens: without script, by
keyboard, light and dark, wide and narrow.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager

from msgspec.structs import replace
from playwright.sync_api import Page, expect

from fjmcp_broker.store.keys import load_or_create_keys
from fjmcp_broker.store.sealing import Sealer
from fjmcp_broker.web.oauth.carried import CarriedRequests
from tests.browser.chromium import Chromium, Examiner
from tests.browser.test_sign_in import outline
from tests.browser.world import BACK, FORGEJO, URL, WEBSITE, BrowserCase

MOST_VISITS = 30


class TroubleTests(BrowserCase):
    """What the person could not help."""

    async def test_each_as_it_happens(self) -> None:
        """
        A sign-in that is used or too old, at the consent page and at Forgejo; a store
        that another program holds; a damaged row; too many sign-ins; the address of
        the MCP endpoint. Each page says what went wrong and what to do, and its
        reference stands in the log.
        """
        await self.begin(
            FJMCP_BROKER_LIMITS_AUTHORIZE=f"{MOST_VISITS}/h",
            # Else the browser could be anybody behind a proxy on this computer.
            FJMCP_BROKER_SERVER_TRUSTED_PROXIES="192.0.2.1",
        )
        self.client = self.register("Example Assistant", WEBSITE)
        self.examiner, self.references = Examiner(), dict[str, str]()

        def use(chromium: Chromium) -> None:
            with chromium.window() as self.copy:
                for visit in (
                    self.used,
                    self.expired_before_consent,
                    self.expired_at_forgejo,
                    self.busy_store,
                    self.damaged_row,
                    self.endpoint,
                    self.too_many,
                ):
                    with chromium.window(java_script_enabled=False) as page:
                        visit(page)

        await self.browse(use)
        self.assertEqual(self.examiner.found, [])
        self.assertEqual(len(self.references), 6)
        for name, reference in self.references.items():
            for each in reference.split(", "):
                self.assertIn(each, self.daemon.text, name)

    # How each comes about

    def used(self, page: Page) -> None:
        """The person opens the last address again, from the history."""
        returned: list[str] = []
        page.on(
            "request",
            lambda request: (
                returned.append(request.url)
                if "/oauth/callback?" in request.url
                else None
            ),
        )
        self.consent(page)
        self.sign_in(page)
        expect(page.get_by_role("heading")).to_have_text(BACK)
        page.goto(returned[0])
        self.note(page, "used", 400, "This sign-in cannot be finished here")

    def expired_before_consent(self, page: Page) -> None:
        """The page was left open over lunch."""
        page.goto(self.authorize(self.client, WEBSITE))
        self.age_form(page)
        self.press(page, "Allow full access")
        self.note(page, "expired-consent", 400, "This sign-in is no longer valid")

    def expired_at_forgejo(self, page: Page) -> None:
        """The password took its time."""
        self.consent(page)
        page.wait_for_url(f"https://{FORGEJO}/**")
        self.age_sign_ins()
        self.sign_in(page)
        page.wait_for_url(f"{URL}/**")
        self.note(page, "expired-forgejo", 400, "This sign-in is no longer valid")

    def busy_store(self, page: Page) -> None:
        """The page is shown all the same; the answer counts once it goes on."""
        with self.store() as store:
            store.execute("BEGIN IMMEDIATE")
            self.consent(page)
            page.wait_for_url(f"{URL}/oauth/consent")
            self.note(page, "busy-store", 503, "This service is busy")
            store.execute("ROLLBACK")
        page.go_back()
        self.press(page, "Allow full access")
        page.wait_for_url(f"https://{FORGEJO}/**")

    def damaged_row(self, page: Page) -> None:
        """Nobody thought of that; the page has a number for it, and no more."""
        damaged = self.register("Example CLI", self.loopback)
        with self.store() as store:
            store.execute(
                "UPDATE clients SET metadata = '{' WHERE client_id = ?", (damaged,)
            )
        page.goto(self.authorize(damaged, self.loopback))
        self.note(page, "fault", 500, "Something went wrong here")
        text = page.locator("main").inner_text()
        self.assertNotIn("Error", text)
        self.assertNotIn("clients", text)

    def endpoint(self, page: Page) -> None:
        """The keyboard leads from there to the front page."""
        response = page.goto(f"{URL}/mcp")
        assert response is not None
        self.assertEqual(response.status, 401)
        self.assertIn("resource_metadata", response.headers["www-authenticate"])
        self.look(page, "endpoint")
        self.press(page, "How to connect your application")
        expect(page.get_by_text("Address of the server")).to_be_visible()

    def too_many(self, page: Page) -> None:
        """Somebody reloads and reloads."""
        response = None
        for _ in range(MOST_VISITS + 1):
            response = page.goto(self.authorize(self.client, WEBSITE))
            if response is None or response.status != 200:
                break
        assert response is not None
        self.assertEqual(response.status, 429)
        self.assertGreater(int(response.headers["retry-after"]), 0)
        self.note(page, "too-many", 429, "Too many sign-ins")

    # What they have in common

    def consent(self, page: Page) -> None:
        """Go on to Forgejo."""
        page.goto(self.authorize(self.client, WEBSITE))
        self.press(page, "Allow full access")

    def press(self, page: Page, name: str) -> None:
        """Reach a button or a link with the keyboard, and see where one is."""
        for _ in range(10):
            page.keyboard.press("Tab")
            if page.evaluate("document.activeElement.innerText") == name:
                break
        self.assertEqual(page.evaluate("document.activeElement.innerText"), name)
        self.assertGreaterEqual(outline(page), 3)
        page.keyboard.press("Enter")

    def note(self, page: Page, name: str, status: int, title: str) -> None:
        """Look at a page, and keep its reference."""
        expect(page.get_by_role("heading")).to_have_text(title)
        shown = page.evaluate("performance.getEntriesByType('navigation')[0]")
        self.assertEqual(shown["responseStatus"], status)
        text = page.locator("main").inner_text()
        self.assertRegex(text, "connect again")
        found = re.search(r"this reference: (.+)", text)
        assert found is not None, text
        self.references[name] = found[1]
        self.look(page, name)

    def look(self, page: Page, name: str) -> None:
        """Look at a copy, since what looks is a script."""
        self.copy.set_content(page.content())
        self.examiner.look(self.copy, name)

    def age_form(self, page: Page) -> None:
        """Eleven minutes pass for what a consent page carries."""
        keys = load_or_create_keys(
            f"{self.directory}/broker.db", (), store_has_sealed_rows=True
        )
        carried = CarriedRequests(Sealer(keys))
        pending_id = page.locator("input[name=pending]").input_value()
        field = page.locator("input[name=request]").input_value()
        asked = carried.open(field, pending_id)
        older = replace(
            asked.pending,
            created_at=asked.pending.created_at - 660,
            expires_at=asked.pending.expires_at - 660,
        )
        page.evaluate(
            "value => {document.querySelector('input[name=request]').value = value}",
            carried.seal(replace(asked, pending=older)),
        )

    def age_sign_ins(self) -> None:
        """Eleven minutes pass for all that are not finished."""
        with self.store() as store:
            changed = store.execute(
                "UPDATE pending_authorizations SET created_at = created_at - 660,"
                " expires_at = expires_at - 660"
            ).rowcount
        self.assertGreater(changed, 0)

    @contextmanager
    def store(self) -> Iterator[sqlite3.Connection]:
        """Another program on the same store."""
        path = f"{self.directory}/broker.db"
        with closing(sqlite3.connect(path, isolation_level=None)) as connection:
            yield connection
