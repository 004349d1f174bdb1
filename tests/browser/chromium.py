"""
Chromium, driven by playwright: in a thread of its own, with names that lead here.

The browser is the system's. Playwright could download one of its own, which would be
neither what users of Debian have nor what the package manager checks.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import attrs
from playwright.sync_api import (
    Browser,
    BrowserContext,
    Page,
    expect,
    sync_playwright,
)

from tests import skip_visibly
from tests.browser import axe

PROGRAMS: Final = ("chromium", "chromium-browser", "google-chrome")
TOP: Final = Path(__file__).parents[2]
WAIT_MILLISECONDS: Final = 30_000
"""For whatever a page is to do or to show, on a slow machine too."""

DESKTOP: Final = (1100, 800)
PHONE: Final = (320, 568)
"""The narrowest screen that WCAG asks for (success criterion 1.4.10)."""


def executable() -> str:
    """
    @return: the path of the browser; without one the test is skipped.
    """
    named = os.environ.get("FJMCP_TEST_CHROMIUM")
    found = named or next(filter(None, map(shutil.which, PROGRAMS)), None)
    if found is None:
        skip_visibly("pages in a real browser", "chromium is not installed")
    return found


def screenshots() -> Path:
    """
    @return: the directory that C{FJMCP_TEST_SCREENSHOTS} names, or one at the top.
    """
    directory = Path(os.environ.get("FJMCP_TEST_SCREENSHOTS") or TOP / "_screenshots")
    directory.mkdir(parents=True, exist_ok=True)
    return directory


@contextmanager
def opened(hosts: Mapping[str, int]) -> Iterator[Chromium]:
    """
    Start a browser. To be used in a thread without an event loop, and nowhere else.

    @param hosts: names whose port 443 is this loopback port.
    """
    # Of this a context knows nothing.
    expect.set_options(timeout=WAIT_MILLISECONDS)
    rules = ",".join(f"MAP {name}:443 127.0.0.1:{port}" for name, port in hosts.items())
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=executable(),
            args=[f"--host-resolver-rules={rules}", "--disable-gpu"],
        )
        try:
            yield Chromium(browser)
        finally:
            browser.close()


@attrs.frozen
class Chromium:
    """A running browser."""

    browser: Browser

    @contextmanager
    def window(self, **options: Any) -> Iterator[Page]:
        """
        Open a window of a fresh profile, and see to it that its pages kept to their
        own policy: a browser complains of everything that it blocks.

        @param options: of playwright's C{new_context}.
        """
        width, height = DESKTOP
        context: BrowserContext = self.browser.new_context(
            ignore_https_errors=True,
            viewport={"width": width, "height": height},
            **options,
        )
        context.set_default_timeout(WAIT_MILLISECONDS)
        blocked: list[str] = []
        context.on(
            "console",
            lambda message: (
                blocked.append(message.text)
                if "Content Security Policy" in message.text
                else None
            ),
        )
        try:
            yield context.new_page()
            assert not blocked, blocked
        finally:
            context.close()


def brightest(color: str) -> int:
    """
    @param color: C{rgb(...)}, as the browser computes it.
    @return: the greatest of the three.
    """
    return max(int(value) for value in re.findall(r"\d+", color)[:3])


@attrs.define
class Examiner:
    """
    Looks at pages in every light and width, and keeps the pictures.

    @ivar source: of axe-core.
    @ivar found: what is wrong, in words.
    @ivar seen: the names of the pages.
    """

    source: str = attrs.field(factory=axe.script)
    found: list[str] = attrs.Factory(list)
    seen: list[str] = attrs.Factory(list)

    def look(self, page: Page, name: str) -> None:
        """
        @param page: as the person sees it now; it is not loaded again.
        @param name: of its pictures.
        """
        self.seen.append(name)
        for scheme in ("light", "dark"):
            page.emulate_media(color_scheme=scheme)
            for what, (width, height) in (("wide", DESKTOP), ("320px", PHONE)):
                page.set_viewport_size({"width": width, "height": height})
                picture = screenshots() / f"{name}-{what}-{scheme}.png"
                page.screenshot(path=picture, full_page=True)
                told = f"{name}, {what}, {scheme}"
                self._measure(page, told)
                if (scheme == "dark") is (what == "320px"):
                    # Two of the four have each colour and each layout once.
                    wrong = axe.complaints(page, self.source)
                    self.found += [f"{told}: {each}" for each in wrong]
        background = page.evaluate("getComputedStyle(document.body).backgroundColor")
        if background.startswith("rgba") or brightest(background) > 60:
            self.found.append(f"{name}: light in the dark, {background}")

    def _measure(self, page: Page, told: str) -> None:
        has, shown = page.evaluate(
            "[document.documentElement.scrollWidth, window.innerWidth]"
        )
        if has > shown:
            self.found.append(f"{told}: {has} pixels wide on {shown}")
