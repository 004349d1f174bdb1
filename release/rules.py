"""What has to hold before anything is built. Everything is looked at, then reported."""

import re
from pathlib import Path
from typing import Final

from release import changelog, versions
from release.commands import ReleaseError, git

_REVISION: Final = re.compile(r"\brevision ([0-9a-f]{40,64})(, changed)?\s*$")
_RESULT: Final = re.compile(r"\b(\d+) passed, (\d+) failed, (\d+) skipped\s*$")


def tree_problems(top: Path) -> list[str]:
    """
    @param top: of the repository.
    @return: a sentence if what lies there is not what is committed.
    """
    changed = git(top, "status", "--porcelain", "--untracked-files=all").splitlines()
    if not changed:
        return []
    first = changed[0][3:]
    return [f"{len(changed)} files are not as committed, the first is {first}"]


def tag_problems(top: Path, number: str) -> list[str]:
    """
    @param top: of the repository.
    @param number: the version of the package.
    @return: a sentence for each thing that is wrong with the tags of HEAD.
    """
    wanted = f"v{number}"
    tags = git(top, "tag", "--points-at", "HEAD", "--list", "v[0-9]*").splitlines()
    found = [
        f"HEAD has the tag {tag}, the package is {number}"
        for tag in tags
        if tag != wanted
    ]
    if wanted in tags:
        kind = git(top, "cat-file", "-t", f"refs/tags/{wanted}")
        if kind != "tag":
            found.append(
                f"the tag {wanted} names nobody and no date: git tag --annotate"
            )
    elif git(top, "tag", "--list", wanted):
        found.append(f"the tag {wanted} is on another commit than HEAD")
    else:
        found.append(f"HEAD has no tag {wanted}: git tag --annotate {wanted}")
    return found


def problems(top: Path) -> list[str]:
    """
    @param top: of the repository.
    @return: a sentence for each reason not to release what is there.
    """
    number = versions.current(top)
    try:
        versions.parsed(number)
    except ReleaseError as error:
        return [*error.problems]
    return [
        *tree_problems(top),
        *versions.disagreements(top),
        *changelog.problems(top, number),
        *tag_problems(top, number),
    ]


def checked(log: str, revision: str) -> str:
    """
    Read what C{.ci/run} wrote, be it with the time of a forge before each line.

    @param log: all of it.
    @param revision: the commit that is to be released.
    @return: the result, its last line.
    @raise ReleaseError: it failed, was cut off, or looked at something else.
    """
    revisions = [
        found for line in log.splitlines() if (found := _REVISION.search(line))
    ]
    results = [found for line in log.splitlines() if (found := _RESULT.search(line))]
    if not revisions or not results:
        raise ReleaseError("the log is not a whole one of .ci/run")
    seen, result = revisions[-1], results[-1]
    if seen[1] != revision:
        raise ReleaseError(f".ci/run looked at {seen[1]}, HEAD is {revision}")
    if seen[2]:
        raise ReleaseError(".ci/run looked at a work tree with changes")
    if int(result[2]) or not int(result[1]):
        raise ReleaseError(f".ci/run did not pass: {result[0].strip()}")
    return result[0].strip()
