"""
Checks the links between the Markdown pages of this repository, and their pictures.

Every relative link must name a file that exists, and every fragment a heading of it.
Every picture has words in its place, every page of this directory is listed on its
first one, C{index.md}, and every picture is shown somewhere. Links to other hosts are
not fetched. Prints each problem and exits 1.
"""

import re
import subprocess
import sys
from pathlib import Path
from typing import Final
from urllib.parse import unquote

TOP: Final = Path(__file__).resolve().parent.parent
_FENCE: Final = re.compile(r"^(```|~~~).*?^\1", re.MULTILINE | re.DOTALL)
_LINK: Final = re.compile(r"\]\(([^)\s]+)\)")
_PICTURE: Final = re.compile(r"!\[([^\]]*)\]\(([^)\s]+)\)")
_ELEMENT: Final = re.compile(r"<(?:img|source)\b[^>]*>")
_ATTRIBUTE: Final = re.compile(r"\b(src|srcset|alt)=\"([^\"]*)\"")
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


def broken_links(page: Path, top: Path = TOP) -> list[str]:
    """
    @param page: a Markdown file.
    @param top: of its repository.
    @return: one sentence for each link in it that leads nowhere.
    """
    text = page.read_text(encoding="utf-8")
    problems = []
    shown = _FENCE.sub("", text)
    targets = [*_LINK.findall(shown)]
    for target, words in pictures(text):
        if not words.strip():
            told = f"{page.relative_to(top)}: {target}"
            problems.append(f"{told}: a picture without words")
        targets.append(target)
    for target in dict.fromkeys(targets):
        if re.match(r"[a-z][a-z0-9+.-]*:", target):
            continue
        if page.parent == top and target.startswith(_FORGE):
            continue
        name, _hash, fragment = unquote(target).partition("#")
        path = (page.parent / name).resolve() if name else page
        where = f"{page.relative_to(top)}: {target}"
        if not path.is_relative_to(top) or not path.exists():
            problems.append(f"{where}: no such file")
        elif fragment and path.suffix == ".md":
            if fragment not in anchors(path.read_text(encoding="utf-8")):
                problems.append(f"{where}: no such heading")
    return problems


def pictures(text: str) -> list[tuple[str, str]]:
    """
    @param text: a page.
    @return: where each picture is, and the words that stand for it.
    """
    shown = _FENCE.sub("", text)
    found = [(target, words) for words, target in _PICTURE.findall(shown)]
    for element in _ELEMENT.findall(shown):
        attributes = dict(_ATTRIBUTE.findall(element))
        source = attributes.get("src") or attributes.get("srcset", "").split(" ")[0]
        # A <source> belongs to an <img>, which has the words.
        words = attributes.get("alt", "" if element.startswith("<img") else "-")
        found.append((source, words))
    return found


def left_out(found: list[Path], top: Path = TOP) -> list[str]:
    """
    @param found: all pages.
    @param top: of their repository.
    @return: one sentence for each page and picture that nobody finds.
    """
    directory = top / "docs"
    index = (directory / "index.md").read_text(encoding="utf-8")
    listed = {(directory / target.partition("#")[0]) for target in _LINK.findall(index)}
    problems = [
        f"docs/index.md: {page.name} is not listed"
        for page in found
        if page.parent == directory and page.name != "index.md" and page not in listed
    ]
    shown = {
        (page.parent / target).resolve()
        for page in found
        for target, _words in pictures(page.read_text(encoding="utf-8"))
    }
    problems += [
        f"{picture.relative_to(top)}: no page shows it"
        for picture in sorted((directory / "images").iterdir())
        if picture not in shown
    ]
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
    problems += left_out(found)
    for problem in problems:
        sys.stderr.write(f"{problem}\n")
    sys.stdout.write(f"{len(found)} pages, {len(problems)} problems\n")
    return 1 if problems or not found else 0


if __name__ == "__main__":
    sys.exit(main())
