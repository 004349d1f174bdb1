"""axe-core, which finds what people cannot see, read or reach on a page."""

from __future__ import annotations

from importlib.resources import files
from typing import Any, Final

from playwright.sync_api import Page

GRAVE: Final = ("serious", "critical")


def script() -> str:
    """
    @return: axe-core, as the package brings it.
    """
    return (files("axe_playwright_python") / "axe.min.js").read_text("utf-8")


def complaints(page: Page, source: str) -> list[str]:
    """
    @param source: from L{script}.
    @return: what is wrong with the page as it is shown, seriously or worse.
    """
    # Not a script of the page: its policy would not let one in.
    page.evaluate(source)
    found: Any = page.evaluate("axe.run(document, {resultTypes: ['violations']})")
    assert found["passes"], "axe-core looked at nothing"
    return [
        f"{rule['id']} ({rule['impact']}): {node['html'][:200]}"
        for rule in found["violations"]
        if rule["impact"] in GRAVE
        for node in rule["nodes"]
    ]
