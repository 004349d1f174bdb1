"""The changelog."""

from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from release import changelog
from release.commands import ReleaseError
from tests.scratch_repository import small


class NotesTests(SynchronousTestCase):
    """What is said of one version."""

    def setUp(self) -> None:
        """A changelog with two versions."""
        self.top = small(Path(self.mktemp()).absolute()).top

    def test_one_section(self) -> None:
        """From its title to the next one."""
        self.assertEqual(
            changelog.notes(self.top, "1.2.3"),
            "## 1.2.3 (2026-01-02)\n\n### Features\n\n- New. (#1)\n",
        )

    def test_the_last_section(self) -> None:
        """To the end."""
        last = changelog.notes(self.top, "1.0.0") or ""
        self.assertTrue(last.endswith("- Old. (#1)\n"))

    def test_no_section(self) -> None:
        """A part of a number is another number."""
        for number in ("1.2", "2.3", "1.2.30", ".*"):
            self.assertIsNone(changelog.notes(self.top, number))


class CollectTests(SynchronousTestCase):
    """Collecting, where it is refused; the whole is in the slow tests."""

    def setUp(self) -> None:
        """A repository of version 1.2.3, which its changelog has."""
        self.repository = small(Path(self.mktemp()).absolute())
        self.top = self.repository.top

    def assert_refused(self, *sentences: str) -> None:
        """
        @param sentences: a part of each reason.
        """
        before = (self.top / changelog.PAGE).read_text()
        with self.assertRaises(ReleaseError) as caught:
            changelog.collect(self.top, Path("towncrier"), "2026-01-02")
        told = caught.exception.problems
        self.assertEqual(len(told), len(sentences), told)
        for problem, sentence in zip(told, sentences, strict=True):
            self.assertIn(sentence, problem)
        self.assertEqual((self.top / changelog.PAGE).read_text(), before)

    def test_without_fragments(self) -> None:
        """There is nothing to release."""
        self.repository.write("CHANGELOG.md", "# Changelog\n")
        self.assert_refused("no fragments")

    def test_twice(self) -> None:
        """The version was not bumped."""
        self.repository.write("changelog.d/6-more.feature.md", "More.\n")
        self.assert_refused("has 1.2.3 already")
