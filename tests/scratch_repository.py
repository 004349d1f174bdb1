"""Repositories to release from, that are no longer there afterwards."""

import shutil
from pathlib import Path
from typing import Final

from release.commands import git

TOP: Final = Path(__file__).parents[1]

_WHO: Final = (
    *("-c", "user.name=Example", "-c", "user.email=example@example.org"),
    *("-c", "commit.gpgSign=false", "-c", "tag.gpgSign=false"),
    *("-c", "core.hooksPath=/dev/null"),
)


class ScratchRepository:
    """
    A repository with one commit.

    @ivar top: its work tree.
    """

    def __init__(self, top: Path) -> None:
        """
        @param top: a directory that is there, with the files of the first commit.
        """
        self.top = top
        git(top, "init", "--quiet", "--initial-branch=main")
        self.commit()

    def write(self, name: str, text: str) -> None:
        """
        @param name: of a file, from the top.
        @param text: all of it.
        """
        path = self.top / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")

    def commit(self) -> str:
        """
        @return: the revision with everything that lies there.
        """
        git(self.top, "add", "--all")
        git(self.top, *_WHO, "commit", "--quiet", "--allow-empty", "--message=Change")
        return git(self.top, "rev-parse", "HEAD")

    def tag(self, name: str, *, annotated: bool = True) -> None:
        """
        @param name: of a tag on HEAD.
        @param annotated: whether it has an author, a date and a message.
        """
        kind = ("--annotate", f"--message={name}") if annotated else ()
        git(self.top, *_WHO, "tag", *kind, name)


def small(top: Path, number: str = "1.2.3") -> ScratchRepository:
    """
    @param top: a directory that is made.
    @param number: of the version.
    @return: as little as rules and numbers are about, ready for its tag.
    """
    files = {
        "fjmcp_broker/version.py": f'"""Version."""\n\nVERSION: Final = "{number}"\n',
        "deploy/a.container": f"Image=localhost/fjmcp-broker:{number}\n",
        "deploy/b.toml": f'image = "fjmcp-broker:v{number}"\n',
        "docs/page.md": f"    localhost/fjmcp-broker:{number} restore\n",
        "changelog.d/.gitignore": "!.gitignore\n",
        "CHANGELOG.md": (
            "# Changelog\n\n<!-- towncrier release notes start -->\n\n"
            f"## {number} (2026-01-02)\n\n### Features\n\n- New. (#1)\n\n"
            "## 1.0.0 (2025-12-31)\n\n### Features\n\n- Old. (#1)\n"
        ),
    }
    for name, text in files.items():
        (top / name).parent.mkdir(parents=True, exist_ok=True)
        (top / name).write_text(text, encoding="utf-8")
    return ScratchRepository(top)


def whole(top: Path) -> ScratchRepository:
    """
    @param top: a directory that is made.
    @return: everything that lies in this checkout and is not ignored.
    """
    for name in git(TOP, "ls-files", "-co", "--exclude-standard").splitlines():
        if (TOP / name).is_file():
            (top / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(TOP / name, top / name)
    return ScratchRepository(top)
