"""
The installer of the real forgejo-mcp: what it says and how it exits, with a stand-in
for the Go toolchain.
"""

import os
import subprocess
import sys
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

INSTALLER = Path(__file__).with_name("install_forgejo_mcp.py")

FAKE_GO = """#!/bin/sh
case "$1" in
env) echo "{version}" ;;
list) {list} ;;
install) {install} ;;
esac
"""
BUILDS = 'printf \'#!/bin/sh\\n\' > "$GOBIN/forgejo-mcp"; chmod +x "$GOBIN/forgejo-mcp"'
FAILS = "echo 'go: first line' >&2; echo 'no such thing' >&2; exit 1"


class InstallerTests(SynchronousTestCase):
    """Absence that is nobody's fault is a skip; everything else is a failure in CI."""

    def setUp(self) -> None:
        self.base = Path(self.mktemp()).absolute()
        self.base.mkdir()

    def run_installer(
        self,
        *,
        version: str = "go1.26.1",
        list: str = "true",
        install: str = BUILDS,
        ci: bool = True,
        with_go: bool = True,
    ) -> tuple[int, list[str]]:
        """
        @return: the exit status, and what it printed.
        """
        go = self.base / "bin" / "go"
        go.parent.mkdir(exist_ok=True)
        if with_go:
            go.write_text(FAKE_GO.format(version=version, list=list, install=install))
            go.chmod(0o755)
        environment = {
            "PATH": f"{go.parent}:/bin:/usr/bin" if with_go else str(go.parent),
            "HOME": str(self.base),
            "CI": "true" if ci else "",
        }
        done = subprocess.run(  # noqa: S603 - our own script
            [sys.executable, os.fspath(INSTALLER)],
            env=environment,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        self.assertNotIn("Traceback", done.stderr)
        return done.returncode, done.stdout.splitlines()

    def test_installs_into_the_cache(self) -> None:
        """Both versions, outside of the checkout; the second run finds them."""
        cache = self.base / ".cache" / "fjmcp-broker" / "forgejo-mcp"
        expected = [
            f"real forgejo-mcp {version}: {cache / version / 'forgejo-mcp'}"
            for version in ("2.18.0", "2.34.1")
        ]
        self.assertEqual(self.run_installer(), (0, expected))
        self.assertEqual(self.run_installer(install=FAILS), (0, expected))
        left = [each.name for each in (cache / "2.34.1").iterdir()]
        self.assertEqual(left, ["forgejo-mcp"])

    def test_absence_is_a_skip_with_a_reason(self) -> None:
        """No Go, an old Go, a module proxy that does not have the module."""
        for (status, lines), reason in (
            (self.run_installer(with_go=False), "there is no go"),
            (self.run_installer(version="go1.24.9"), "go is older than 1.25"),
            (self.run_installer(version="devel"), "go is older than 1.25"),
            (
                self.run_installer(list=FAILS),
                "the module proxy does not have it: no such thing",
            ),
        ):
            self.assertEqual(status, 0)
            self.assertEqual(
                lines,
                [
                    f"SKIPPED real forgejo-mcp {version}: {reason}"
                    for version in ("2.18.0", "2.34.1")
                ],
            )

    def test_failed_installation_fails_the_integration_run(self) -> None:
        """The proxy has it and it does not build: not to be skipped with CI=true."""
        status, lines = self.run_installer(install=FAILS)
        self.assertEqual(status, 1)
        reason = "real forgejo-mcp 2.18.0: go install: no such thing"
        self.assertEqual(lines[0], f"FAILED {reason}")
        status, lines = self.run_installer(install=FAILS, ci=False)
        self.assertEqual((status, lines[0]), (0, f"SKIPPED {reason}"))
        status, lines = self.run_installer(install="true")
        self.assertEqual(status, 1)
