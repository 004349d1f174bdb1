"""
The pictures of the README: the consent page as it is, and the flow, legible in the
light and in the dark. C{make pictures} keeps what it sees of the consent page.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from playwright.sync_api import expect
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from tests.browser.chromium import Chromium, executable, opened, screenshots
from tests.browser.world import DOCUMENT, WEBSITE, BrowserCase

IMAGES: Final = Path(__file__).parents[2] / "docs" / "images"
CONSENT: Final = "consent.png"
SIZE: Final = (600, 700)
MOST_BYTES: Final = 100_000
LEAST_CONTRAST: Final = 4.5
"""Of text, WCAG 2.2 success criterion 1.4.3."""

PROBLEMS: Final = """() => {
    const found = [];
    const rgb = (text) => text.match(/[0-9.]+/g).slice(0, 3).map(Number);
    const light = (text) => {
        const [r, g, b] = rgb(text).map((value) => {
            const part = value / 255;
            return part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4;
        });
        return 0.2126 * r + 0.7152 * g + 0.0722 * b;
    };
    const texts = [...document.querySelectorAll("text")];
    const boxes = [...document.querySelectorAll("rect")];
    const inside = (inner, outer) => inner.left >= outer.left - 1 &&
        inner.right <= outer.right + 1 && inner.top >= outer.top - 1 &&
        inner.bottom <= outer.bottom + 1;
    const meet = (one, other) => one.left < other.right && other.left < one.right &&
        one.top < other.bottom && other.top < one.bottom;
    for (const text of texts) {
        const where = text.getBoundingClientRect();
        // What is painted later hides what was painted before.
        let behind = null;
        let crossed = false;
        for (const box of boxes) {
            const area = box.getBoundingClientRect();
            if (inside(where, area)) {
                [behind, crossed] = [box, false];
            } else if (meet(where, area)) {
                crossed = true;
            }
        }
        if (crossed) {
            found.push(`${text.textContent} crosses the edge of a box`);
        }
        if (behind === null) {
            found.push(`${text.textContent} is on nothing`);
            continue;
        }
        const [low, high] = [light(getComputedStyle(text).fill),
            light(getComputedStyle(behind).fill)].sort((a, b) => a - b);
        const contrast = (high + 0.05) / (low + 0.05);
        if (contrast < LEAST) {
            found.push(`${text.textContent} has a contrast of ${contrast.toFixed(1)}`);
        }
        for (const other of texts) {
            if (other !== text && meet(where, other.getBoundingClientRect())) {
                found.push(`${text.textContent} is on ${other.textContent}`);
            }
        }
    }
    return found;
}""".replace("LEAST", str(LEAST_CONTRAST))
BAD: Final = (
    '<svg xmlns="http://www.w3.org/2000/svg" width="100" height="60"><rect fill="#fff" '
    'width="100" height="60"/><text y="20" fill="#ddd">pale</text><text y="22" '
    'fill="#000">over</text><text y="50">much too long for this box</text></svg>'
)


class ConsentPictureTests(BrowserCase):
    """The consent page that the README shows."""

    async def test_consent_page(self) -> None:
        """It is committed, a picture of the whole page, and not large."""
        await self.begin()
        directory = Path(os.environ.get("FJMCP_TEST_PICTURES") or screenshots())
        address = self.authorize(DOCUMENT, WEBSITE)

        def use(chromium: Chromium) -> None:
            with chromium.window(color_scheme="light") as page:
                width, height = SIZE
                page.set_viewport_size({"width": width, "height": height})
                page.goto(address)
                expect(page.get_by_role("button", name="Cancel")).to_be_visible()
                page.locator("main").screenshot(path=directory / CONSENT)

        await self.browse(use)
        taken, shown = (path / CONSENT for path in (directory, IMAGES))
        self.assertLess(shown.stat().st_size, MOST_BYTES)
        (wide, high), (now_wide, now_high) = size(shown), size(taken)
        # Other fonts make it a little higher or lower, another page much.
        self.assertEqual(wide, now_wide, "make pictures")
        self.assertAlmostEqual(high / now_high, 1, delta=0.15, msg="make pictures")


class FlowTests(TestCase):
    """The picture of the flow."""

    timeout = 120

    async def test_legible(self) -> None:
        """In both lights: contrast, texts in their boxes, none on another."""
        executable()
        found: list[str] = []

        def use() -> None:
            with opened({}) as chromium:
                for scheme in ("light", "dark"):
                    with chromium.window(color_scheme=scheme) as page:
                        page.goto((IMAGES / "flow.svg").as_uri())
                        found.extend(page.evaluate(PROBLEMS))
                        page.screenshot(path=screenshots() / f"flow-{scheme}.png")

        await deferToThread(use)
        self.assertEqual(found, [])

    async def test_a_bad_one(self) -> None:
        """Whoever looks is able to find something."""
        executable()
        found: list[str] = []

        def use() -> None:
            with opened({}) as chromium, chromium.window() as page:
                page.set_content(BAD)
                found.extend(page.evaluate(PROBLEMS))

        await deferToThread(use)
        told = "\n".join(found)
        for words in ("a contrast of 1.", "pale is on over", "crosses the edge"):
            self.assertIn(words, told)


def size(picture: Path) -> tuple[int, int]:
    """
    @param picture: PNG.
    @return: width and height in pixels (PNG specification, 11.2.1 IHDR).
    """
    header = picture.read_bytes()[16:24]
    return int.from_bytes(header[:4], "big"), int.from_bytes(header[4:], "big")
