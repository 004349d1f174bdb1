"""A person signs in with Chromium: every button, no script, no mouse."""

from __future__ import annotations

import time
from typing import Any
from urllib.parse import parse_qs, urlsplit

from playwright.sync_api import Page, expect
from twisted.internet import reactor as _reactor

from tests.browser.chromium import PHONE, Chromium, Examiner
from tests.browser.world import BACK, CLIENT, DOCUMENT, WEBSITE, BrowserCase
from tests.real.daemon import pause

reactor: Any = _reactor  # a module to mypy


def answer(page: Page) -> dict[str, str]:
    """
    @return: what the client was told, once the browser is back there.
    """
    expect(page.get_by_role("heading")).to_have_text(BACK)
    query = parse_qs(urlsplit(page.url).query)
    return {name: values[0] for name, values in query.items()}


class ButtonTests(BrowserCase):
    """Each way off the consent page, to each kind of client."""

    async def test_every_button_without_script(self) -> None:
        """
        Full, read-only and cancel end at the client with what they stand for: at a
        website, which has a document, and at a program on loopback. No redirect on
        the way is blocked by the policy of the page. Script is off, the screen small.
        """
        await self.begin()
        native = self.register("Example CLI", self.loopback)
        addresses = {
            WEBSITE: self.authorize(DOCUMENT, WEBSITE),
            self.loopback: self.authorize(native, self.loopback),
        }

        def use(chromium: Chromium) -> None:
            for back, address in addresses.items():
                for button in ("Allow full", "Allow read-only", "Cancel"):
                    with chromium.window(java_script_enabled=False) as page:
                        width, height = PHONE
                        page.set_viewport_size({"width": width, "height": height})
                        page.goto(address)
                        page.get_by_role("button", name=button).click()
                        if button != "Cancel":
                            self.sign_in(page)
                        told = answer(page)
                    self.assertTrue(page.url.startswith(f"{back}?"), page.url)
                    self.assertEqual("code" in told, button != "Cancel", told)
                    wrong = None if button != "Cancel" else "access_denied"
                    self.assertEqual(told.get("error"), wrong)
                    self.assertEqual(told["iss"], "https://mcp.example.org")

        await self.browse(use)
        for policy in ("policy full", "policy read-only"):
            self.assertEqual(self.daemon.text.count(policy), 2, self.daemon.text)
        self.assertEqual(self.daemon.text.count("cancelled"), 2, self.daemon.text)

    async def test_by_keyboard(self) -> None:
        """
        The tabulator reaches the buttons in the order of the page and nothing else,
        whoever is there is shown, and Enter presses it.
        """
        await self.begin()
        address = self.authorize(DOCUMENT, WEBSITE)

        def use(chromium: Chromium) -> None:
            with chromium.window() as page:
                page.goto(address)
                names = []
                for _ in range(3):
                    page.keyboard.press("Tab")
                    names.append(page.evaluate("document.activeElement.innerText"))
                    self.assertGreaterEqual(outline(page), 3)
                self.assertEqual(
                    names,
                    ["Allow full access", "Allow read-only access", "Cancel"],
                )
                page.keyboard.press("Shift+Tab")
                page.keyboard.press("Enter")
                self.sign_in(page)
                self.assertIn("code", answer(page))

        await self.browse(use)
        self.assertIn("policy read-only", self.daemon.text)

    async def test_a_second_window_of_another_profile(self) -> None:
        """A form that one browser was shown does nothing in another."""
        await self.begin()
        address = self.authorize(DOCUMENT, WEBSITE)

        def use(chromium: Chromium) -> None:
            with chromium.window() as page, chromium.window() as other:
                page.goto(address)
                other.goto(address)
                for name in ("pending", "form_token", "request"):
                    value = page.locator(f"input[name={name}]").input_value()
                    other.evaluate(
                        "([name, value]) => "
                        "{document.querySelector(`input[name=${name}]`).value = value}",
                        [name, value],
                    )
                other.get_by_role("button", name="Allow full").click()
                expect(other.get_by_role("heading")).to_contain_text("did not come")
                names = [c.get("name", "") for c in other.context.cookies()]
                self.assertEqual(names, ["__Host-fjmcp_consent"])
                self.assertEqual(urlsplit(other.url).path, "/oauth/consent")

        await self.browse(use)


class ImpatientTests(BrowserCase):
    """Somebody who clicks more than once: a browser shows the last answer alone."""

    def allow(self, page: Page, address: str) -> None:
        """
        Sign in for the first time, so that Forgejo asks nothing any more.
        """
        page.goto(address)
        page.get_by_role("button", name="Allow full").click()
        self.sign_in(page)
        self.assertIn("code", answer(page))

    def heard(self, count: int, seconds: float = 20) -> bool:
        """
        @return: whether the daemon has said so often that somebody has decided.
        """
        deadline = time.monotonic() + seconds
        while self.daemon.text.count("POST /oauth/consent") < count:
            if time.monotonic() > deadline:
                return False
            time.sleep(0.02)
        return True

    async def test_double_clicks(self) -> None:
        """On every button, while Forgejo answers without a question."""
        await self.begin()
        address = self.authorize(DOCUMENT, WEBSITE)

        def use(chromium: Chromium) -> None:
            with chromium.window() as page:
                self.allow(page, address)
                for button in ("Allow full", "Allow read-only", "Cancel"):
                    page.goto(address)
                    page.get_by_role("button", name=button).dblclick(no_wait_after=True)
                    told = answer(page)
                    self.assertEqual("code" in told, button != "Cancel", told)

        await self.browse(use)

    async def test_click_while_forgejo_is_slow(self) -> None:
        """The consent page is still there; the second click ends at the client, the
        first leaves no grant behind."""
        await self.begin()
        address = self.authorize(DOCUMENT, WEBSITE)
        controls = self.forgejo.stand_in.controls
        exchange = "token:authorization_code"

        def use(chromium: Chromium) -> None:
            with chromium.window() as page:
                self.allow(page, address)
                decided = 1
                page.set_viewport_size({"width": 1000, "height": 2000})
                for name in ("Allow read-only", "Cancel"):
                    page.goto(address)
                    fault = controls.hold_answer(exchange, times=1)
                    # Playwright's own click waits for what is on its way.
                    first, second = (
                        page.get_by_role("button", name=each).bounding_box()
                        for each in ("Allow full", name)
                    )
                    assert first is not None and second is not None
                    page.mouse.click(first["x"] + 9, first["y"] + 9)
                    deadline = time.monotonic() + 20
                    while not fault.waiting and time.monotonic() < deadline:
                        time.sleep(0.02)
                    self.assertEqual(fault.waiting, 1)
                    decided += 1
                    self.assertTrue(self.heard(decided))
                    # Chromium drops a click now and then while a page is on its way.
                    for _ in range(10):
                        page.mouse.click(second["x"] + 9, second["y"] + 9)
                        if self.heard(decided + 1, 2):
                            break
                    decided += 1
                    told = answer(page)
                    self.assertEqual("code" in told, name != "Cancel", told)
                    reactor.callFromThread(fault.end)

        await self.browse(use)
        await pause(0.5)
        self.assertEqual(self.daemon.text.count("policy full"), 1, self.daemon.text)
        self.assertEqual(self.daemon.text.count("policy read-only"), 1)


class RefusedTests(BrowserCase):
    """Somebody who may not use the service."""

    async def test_the_way_back(self) -> None:
        """The page says whose account it is; its button tells the client."""
        await self.begin(FJMCP_BROKER_ACCESS_ALLOWED_USERS="bob")
        address = self.authorize(DOCUMENT, WEBSITE)
        examiner = Examiner()

        def use(chromium: Chromium) -> None:
            with chromium.window() as page:
                page.goto(address)
                page.get_by_role("button", name="Allow full").click()
                self.sign_in(page)
                expect(page.get_by_role("heading")).to_have_text(
                    "This account may not use this service"
                )
                expect(page.locator("main")).to_contain_text("alice")
                examiner.look(page, "refused")
                page.get_by_role("link", name=f"Go back to {CLIENT}").click()
                self.assertEqual(answer(page)["error"], "access_denied")

        await self.browse(use)
        self.assertEqual(examiner.found, [])


def outline(page: Page) -> float:
    """
    @return: how thick the line around the focused element is, in pixels.
    """
    style = "getComputedStyle(document.activeElement)"
    if page.evaluate(f"{style}.outlineStyle") != "solid":
        return 0
    return float(page.evaluate(f"parseFloat({style}.outlineWidth)"))
