"""The number of the version, and its copies."""

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from fjmcp_broker.version import VERSION
from release import versions
from release.commands import ReleaseError
from tests.scratch_repository import TOP, small

NUMBERS = st.integers(0, 10**9)


class CheckoutTests(SynchronousTestCase):
    """This checkout."""

    def test_the_script_reads_what_the_program_says(self) -> None:
        """The same number, without importing it."""
        self.assertEqual(versions.current(TOP), VERSION)

    def test_all_copies_agree(self) -> None:
        """Whatever names an image names the one of this version."""
        self.assertEqual(versions.disagreements(TOP), [])

    def test_the_copies_that_there_are(self) -> None:
        """Service definitions and a command of a page are among them."""
        found = {str(path) for path, _number in versions.copies(TOP)}
        for name in (
            "deploy/podman/fjmcp-broker.container",
            "deploy/metacircular/service-l4.toml",
            "deploy/metacircular/service-l7.toml",
            "docs/deploy-podman.md",
        ):
            self.assertIn(name, found)


class BumpTests(SynchronousTestCase):
    """The next version."""

    def setUp(self) -> None:
        """A repository of version 1.2.3."""
        self.top = small(Path(self.mktemp()).absolute()).top

    def test_changes_everything(self) -> None:
        """And says what it has changed."""
        changed = versions.bump(self.top, "1.3.0")
        self.assertEqual(
            {str(path) for path in changed},
            {
                "fjmcp_broker/version.py",
                "deploy/a.container",
                "deploy/b.toml",
                "docs/page.md",
            },
        )
        self.assertEqual(versions.current(self.top), "1.3.0")
        self.assertEqual({number for _, number in versions.copies(self.top)}, {"1.3.0"})
        self.assertEqual(versions.disagreements(self.top), [])
        toml = (self.top / "deploy" / "b.toml").read_text()
        self.assertEqual(toml, 'image = "fjmcp-broker:v1.3.0"\n')

    def test_leaves_other_numbers_alone(self) -> None:
        """Other programs, placeholders and what is no release."""
        text = "forgejo-mcp:1.2.3 fjmcp-broker:NEW fjmcp-broker:1.2.3-rc1 x:1.2.3\n"
        (self.top / "docs" / "page.md").write_text(text)
        versions.bump(self.top, "1.3.0")
        self.assertEqual((self.top / "docs" / "page.md").read_text(), text)

    def test_leaves_records_alone(self) -> None:
        """What was printed once keeps its numbers."""
        record = self.top / versions.RECORD
        record.write_text("fjmcp-broker:1.0.0\n")
        self.assertEqual(versions.disagreements(self.top), [])
        versions.bump(self.top, "1.3.0")
        self.assertEqual(record.read_text(), "fjmcp-broker:1.0.0\n")

    def test_at_the_end_of_a_sentence(self) -> None:
        """A full stop is no part of a number."""
        (self.top / "docs" / "page.md").write_text("Run fjmcp-broker:1.2.3.\n")
        versions.bump(self.top, "1.3.0")
        page = (self.top / "docs" / "page.md").read_text()
        self.assertEqual(page, "Run fjmcp-broker:1.3.0.\n")

    def test_never_backwards(self) -> None:
        """Nor to where it is: nothing is changed then."""
        for number in ("1.2.3", "1.2.2", "0.9.9"):
            with self.assertRaises(ReleaseError):
                versions.bump(self.top, number)
        self.assertEqual(versions.current(self.top), "1.2.3")

    def test_other_forms(self) -> None:
        """A letter before it belongs to tags."""
        for number in ("v1.3.0", "1.3", "1.3.0rc1", "1.03.0", "", "1.3.0\n"):
            with self.assertRaises(ReleaseError):
                versions.bump(self.top, number)

    def test_a_source_without_the_line(self) -> None:
        """It says which file."""
        (self.top / versions.SOURCE).write_text("")
        with self.assertRaises(ReleaseError) as caught:
            versions.current(self.top)
        self.assertIn("version.py has 0 lines", str(caught.exception))


class OrderTests(SynchronousTestCase):
    """Which of two versions is the later one."""

    @given(st.tuples(NUMBERS, NUMBERS, NUMBERS))
    def test_as_numbers(self, parts: tuple[int, int, int]) -> None:
        """1.10.0 is after 1.9.0."""
        self.assertEqual(versions.parsed(".".join(map(str, parts))), parts)
