"""axe-core, which finds what people cannot see, read or reach on a page."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any, Final

from playwright.sync_api import Page

from tests import skip_visibly

HERE: Final = Path(__file__).parent
INSTALL_SECONDS: Final = 60
GRAVE: Final = ("serious", "critical")


def script() -> str:
    """
    @return: axe-core as the lock file has it, from the cache of the user; installed
        there with npm, by hash and without any script of it, when it is not. Where
        that cannot be the test is skipped.
    """
    lock = (HERE / "package-lock.json").read_bytes()
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    target = Path(base) / "fjmcp-broker" / "axe" / hashlib.sha256(lock).hexdigest()[:16]
    file = target / "axe.min.js"
    if not file.is_file():
        _install(file)
    return file.read_text("utf-8")


def _install(file: Path) -> None:
    what = "accessibility of the pages with axe-core"
    npm = shutil.which("npm")
    if npm is None:
        skip_visibly(what, "npm is not installed")
    file.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=file.parent) as directory:
        for name in ("package.json", "package-lock.json"):
            shutil.copy(HERE / name, directory)
        command = [npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund"]
        try:
            done = subprocess.run(  # noqa: S603 - a fixed command
                command,
                cwd=directory,
                capture_output=True,
                text=True,
                timeout=INSTALL_SECONDS,
                check=False,
            )
        except subprocess.TimeoutExpired:
            skip_visibly(what, f"npm ci took longer than {INSTALL_SECONDS} s")
        if "EINTEGRITY" in done.stderr:
            raise AssertionError(done.stderr)
        if done.returncode:
            skip_visibly(what, "npm ci does not get axe-core")
        package = Path(directory, "node_modules", "axe-core")
        # A rename, so that another run never sees half of it.
        (package / "axe.min.js").rename(file)


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
