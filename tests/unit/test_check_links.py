"""What is looked for in the pages of this repository."""

from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from docs.check_links import broken_links, left_out, pictures


class LinkTests(SynchronousTestCase):
    """Links and pictures of one page."""

    def problems(self, text: str) -> list[str]:
        """
        @param text: of a page, beside which are C{other.md} and C{images/a.png}.
        @return: what is wrong with it, without the name of the page.
        """
        top = Path(self.mktemp()).absolute()
        (top / "images").mkdir(parents=True)
        (top / "images" / "a.png").touch()
        (top / "other.md").write_text("# Other\n\n## A heading, here\n")
        (top / "page.md").write_text(text)
        told = broken_links(top / "page.md", top)
        return [problem.removeprefix("page.md: ") for problem in told]

    def test_nothing_wrong(self) -> None:
        """Pages, headings, pictures in both forms; other hosts are not asked."""
        text = (
            "[a](other.md#a-heading-here) [b](https://example.org/nothing)\n"
            '![words](images/a.png) <img src="images/a.png"\n alt="words">\n'
            "[![words](images/a.png)](other.md)\n"
        )
        self.assertEqual(self.problems(text), [])

    def test_links_that_lead_nowhere(self) -> None:
        """Files, headings, what is above the repository, what a picture links to."""
        text = (
            "[a](none.md) [b](other.md#none) [c](../../../etc/passwd)\n"
            "[![words](images/a.png)](gone.md)\n"
        )
        self.assertEqual(
            self.problems(text),
            [
                "none.md: no such file",
                "other.md#none: no such heading",
                "../../../etc/passwd: no such file",
                "gone.md: no such file",
            ],
        )

    def test_pictures(self) -> None:
        """They have to be there, and to have words, also as elements."""
        text = (
            '![](images/a.png)\n<img src="images/b.png" alt="words">\n'
            '<img width="9" src="images/c.png">\n<source srcset="images/d.png 2x">\n'
        )
        self.assertEqual(
            self.problems(text),
            [
                "images/a.png: a picture without words",
                "images/c.png: a picture without words",
                "images/b.png: no such file",
                "images/c.png: no such file",
                "images/d.png: no such file",
            ],
        )

    def test_fences(self) -> None:
        """What stands in them is no link."""
        self.assertEqual(self.problems("```\n![](none.png) [a](none.md)\n```\n"), [])
        self.assertEqual(pictures("```\n<img src='a'>\n```\n"), [])


class CompletenessTests(SynchronousTestCase):
    """All pages together."""

    def test_pages_and_pictures_that_nobody_finds(self) -> None:
        """Whatever is in docs has to be listed, whatever is a picture, shown."""
        top = Path(self.mktemp()).absolute()
        (top / "docs" / "images").mkdir(parents=True)
        for name in ("shown.png", "forgotten.png"):
            (top / "docs" / "images" / name).touch()
        files = {
            "README.md": "![words](docs/images/shown.png)",
            "docs/index.md": "[a](listed.md#part)",
            "docs/listed.md": "",
            "docs/forgotten.md": "",
        }
        for name, text in files.items():
            (top / name).write_text(text)
        self.assertEqual(
            left_out([top / name for name in files], top),
            [
                "docs/index.md: forgotten.md is not listed",
                "docs/images/forgotten.png: no page shows it",
            ],
        )
