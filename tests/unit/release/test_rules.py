"""When a release is refused, in repositories where it should be."""

from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from release import rules
from release.commands import ReleaseError
from tests.scratch_repository import ScratchRepository, small

REVISION = "0123456789abcdef0123456789abcdef01234567"
LOG = f"== [9s] seed 1\nrevision {REVISION}\n\n1234 passed, 0 failed, 2 skipped\n"


class ProblemTests(SynchronousTestCase):
    """What stands in the way."""

    def repository(self) -> ScratchRepository:
        """
        @return: one that lacks nothing but its tag.
        """
        return small(Path(self.mktemp()).absolute())

    def assert_refused(self, repository: ScratchRepository, *sentences: str) -> None:
        """
        @param repository: where a release is asked for.
        @param sentences: a part of each reason that is given, in their order.
        """
        found = rules.problems(repository.top)
        self.assertEqual(len(found), len(sentences), found)
        for told, sentence in zip(found, sentences, strict=True):
            self.assertIn(sentence, told)

    def test_nothing(self) -> None:
        """The tag of the version, and all is committed and collected."""
        repository = self.repository()
        repository.tag("v1.2.3")
        self.assertEqual(rules.problems(repository.top), [])

    def test_another_tag_beside_it(self) -> None:
        """Tags of other things are nobody's business."""
        repository = self.repository()
        repository.tag("v1.2.3")
        repository.tag("deployed", annotated=False)
        self.assertEqual(rules.problems(repository.top), [])

    def test_a_changed_file(self) -> None:
        """What would be built is not what lies there."""
        repository = self.repository()
        repository.tag("v1.2.3")
        repository.write("docs/page.md", "changed")
        self.assert_refused(repository, "not as committed, the first is docs/page.md")

    def test_a_new_file(self) -> None:
        """It was forgotten, or does not belong there."""
        repository = self.repository()
        repository.tag("v1.2.3")
        repository.write("deploy/new.toml", "")
        self.assert_refused(repository, "not as committed, the first is deploy/new")

    def test_no_tag(self) -> None:
        """It says which one, and how."""
        self.assert_refused(self.repository(), "no tag v1.2.3: git tag --annotate")

    def test_the_tag_of_another_version(self) -> None:
        """The package would say something else than its tag."""
        repository = self.repository()
        repository.tag("v1.2.4")
        self.assert_refused(repository, "v1.2.4, the package is 1.2.3", "no tag v1.2.3")

    def test_the_tag_on_another_commit(self) -> None:
        """Something was committed after it."""
        repository = self.repository()
        repository.tag("v1.2.3")
        repository.commit()
        self.assert_refused(repository, "v1.2.3 is on another commit")

    def test_a_tag_that_is_only_a_name(self) -> None:
        """git describe passes over it, and nobody answers for it."""
        repository = self.repository()
        repository.tag("v1.2.3", annotated=False)
        self.assert_refused(repository, "v1.2.3 names nobody")

    def test_fragments_are_left_over(self) -> None:
        """The changelog does not have them."""
        repository = self.repository()
        repository.write("changelog.d/6-last.feature.md", "Late.\n")
        repository.commit()
        repository.tag("v1.2.3")
        self.assert_refused(repository, "1 fragments that are not collected")

    def test_the_changelog_lacks_the_version(self) -> None:
        """Nothing was collected."""
        repository = self.repository()
        repository.write(
            "CHANGELOG.md", "# Changelog\n\n## 1.0.0 (2025-12-31)\n\n- a\n"
        )
        repository.commit()
        repository.tag("v1.2.3")
        self.assert_refused(repository, "no section for 1.2.3: make changelog")

    def test_the_changelog_says_nothing(self) -> None:
        """A title alone tells nobody anything."""
        repository = self.repository()
        repository.write("CHANGELOG.md", "# Changelog\n\n## 1.2.3 (2026-01-02)\n")
        repository.commit()
        repository.tag("v1.2.3")
        self.assert_refused(repository, "says nothing of 1.2.3")

    def test_a_file_with_another_version(self) -> None:
        """Somebody who copies it gets the image before."""
        repository = self.repository()
        repository.write("deploy/a.container", "Image=localhost/fjmcp-broker:1.2.2\n")
        repository.commit()
        repository.tag("v1.2.3")
        self.assert_refused(repository, "deploy/a.container names version 1.2.2")

    def test_a_version_of_another_form(self) -> None:
        """There is no tag for it."""
        repository = self.repository()
        repository.write("fjmcp_broker/version.py", 'VERSION: Final = "1.2rc1"\n')
        repository.commit()
        self.assert_refused(repository, "'1.2rc1' is no version")

    def test_everything_at_once(self) -> None:
        """Nobody has to come back for each."""
        repository = self.repository()
        repository.write("changelog.d/6-last.feature.md", "Late.\n")
        repository.write("deploy/b.toml", 'image = "fjmcp-broker:v9.9.9"\n')
        self.assert_refused(
            repository, "not as committed", "names version 9.9.9", "fragments", "no tag"
        )


class LogTests(SynchronousTestCase):
    """The log of the checks."""

    def assert_refused(self, log: str, sentence: str) -> None:
        """
        @param log: that does not do.
        @param sentence: a part of the reason.
        """
        with self.assertRaises(ReleaseError) as caught:
            rules.checked(log, REVISION)
        self.assertIn(sentence, str(caught.exception))

    def test_passed(self) -> None:
        """The last line is the result."""
        self.assertEqual(
            rules.checked(LOG, REVISION), "1234 passed, 0 failed, 2 skipped"
        )

    def test_as_a_forge_gives_it(self) -> None:
        """With the time of each line."""
        log = "".join(f"2026-01-02T03:04:05.678Z {line}\n" for line in LOG.split("\n"))
        result = rules.checked(log, REVISION)
        self.assertEqual(result, "1234 passed, 0 failed, 2 skipped")

    def test_failed(self) -> None:
        """One is enough."""
        self.assert_refused(LOG.replace("0 failed", "1 failed"), "did not pass: 1234")

    def test_nothing_was_run(self) -> None:
        """That is not what is asked for."""
        self.assert_refused(
            LOG.replace("1234 passed", "0 passed"), "did not pass: 0 passed"
        )

    def test_another_commit(self) -> None:
        """The one before, as a rule."""
        other = REVISION[::-1]
        self.assert_refused(LOG.replace(REVISION, other), f"looked at {other}")

    def test_a_changed_work_tree(self) -> None:
        """Nobody knows what was looked at."""
        log = LOG.replace(REVISION, f"{REVISION}, changed")
        self.assert_refused(log, "with changes")

    def test_cut_off(self) -> None:
        """Without its end it says nothing."""
        self.assert_refused(LOG[: LOG.index("1234 passed")], "not a whole one")
        self.assert_refused("", "not a whole one")
