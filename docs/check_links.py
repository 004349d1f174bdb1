"""
Checks the links between the Markdown pages of this repository.

Every relative link must name a file that exists, and every fragment a heading of it.
Links to other hosts are not fetched. Prints each broken link and exits 1.
"""

import re
import subprocess
import sys
from pathlib import Path
from typing import Final
from urllib.parse import unquote

TOP: Final = Path(__file__).resolve().parent.parent
_FENCE: Final = re.compile(r"^(```|~~~).*?^\1", re.MULTILINE | re.DOTALL)
_LINK: Final = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
#: Pages of the forge beside the files of the repository, from a page at its top.
_FORGE: Final = ("../../../actions", "../../../badges/")
_HEADING: Final = re.compile(r"^#+ +(.+?) *$", re.MULTILINE)


def anchors(text: str) -> set[str]:
    """
    @param text: a page.
    @return: the fragments that its headings can be reached by.
    """
    found: set[str] = set()
    for heading in _HEADING.findall(_FENCE.sub("", text)):
        plain = re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
        found.add(plain)
    return found


def broken_links(page: Path) -> list[str]:
    """
    @param page: a Markdown file.
    @return: one sentence for each link in it that leads nowhere.
    """
    text = page.read_text(encoding="utf-8")
    problems = []
    for target in _LINK.findall(_FENCE.sub("", text)):
        if re.match(r"[a-z][a-z0-9+.-]*:", target):
            continue
        if page.parent == TOP and target.startswith(_FORGE):
            continue
        name, _hash, fragment = unquote(target).partition("#")
        path = (page.parent / name).resolve() if name else page
        where = f"{page.relative_to(TOP)}: {target}"
        if not path.is_relative_to(TOP) or not path.exists():
            problems.append(f"{where}: no such file")
        elif fragment and path.suffix == ".md":
            if fragment not in anchors(path.read_text(encoding="utf-8")):
                problems.append(f"{where}: no such heading")
    return problems


def pages() -> list[Path]:
    """
    @return: the Markdown files of the repository.
    """
    git = ["git", "-C", str(TOP), "ls-files", "-co", "--exclude-standard", "*.md"]
    listed = subprocess.run(git, capture_output=True, text=True, check=True)  # noqa: S603 - a fixed command
    return [TOP / name for name in listed.stdout.splitlines() if (TOP / name).exists()]


def main() -> int:
    """
    @return: the exit status.
    """
    found = pages()
    problems = [problem for page in found for problem in broken_links(page)]
    for problem in problems:
        sys.stderr.write(f"{problem}\n")
    sys.stdout.write(f"{len(found)} pages, {len(problems)} broken links\n")
    return 1 if problems or not found else 0


if __name__ == "__main__":
    sys.exit(main())
