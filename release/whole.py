"""A whole release, from the checks to the sums. Nothing is left of one that failed."""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from attrs import frozen

from release import building, changelog, image, rules, sbom, versions
from release.building import Source
from release.commands import ReleaseError


@frozen
class Wanted:
    """What is asked for."""

    top: Path
    """Of the repository."""

    output: Path
    """Where the directory of the version is made."""

    module: str
    """Of forgejo-mcp."""

    version: str
    """Of forgejo-mcp."""

    log: Path | None
    """What C{.ci/run} wrote for this commit; without it, it is run."""

    with_image: bool
    """Whether there is an image."""

    podman: str = "podman"
    """The program, and arguments of its own."""

    image: str = "localhost/fjmcp-broker"
    """The name of the image, without the version."""


def say(text: str) -> None:
    """
    @param text: a line for who waits.
    """
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def release(wanted: Wanted) -> Path:
    """
    @param wanted: what is asked for.
    @return: the directory with everything that is to be published.
    @raise ReleaseError: the reasons why there is none.
    """
    top = wanted.top
    number = versions.current(top)
    found = rules.problems(top)
    target = wanted.output / number
    if target.exists():
        found.append(f"{target} is there already")
    if found:
        raise ReleaseError(*found)
    with tempfile.TemporaryDirectory(prefix="fjmcp-release-") as name:
        work = Path(name)
        source = building.cloned(top, work / "source")
        say(f"fjmcp-broker {number}, revision {source.revision}")
        ready = work / number
        ready.mkdir()
        _integration(wanted, source, ready)
        wheel = _packages(source, work, ready)
        binary = _image(wanted, source, number, work, ready)
        _bill(wanted, number, source, ready, wheel, binary)
        notes = changelog.notes(top, number) or ""
        (ready / f"fjmcp-broker-{number}-notes.md").write_text(notes, encoding="utf-8")
        (ready / "SHA256SUMS").write_text(building.checksums(ready), encoding="utf-8")
        _move(ready, target)
    for path in sorted(target.iterdir()):
        say(f"  {path.name}")
    return target


def _integration(wanted: Wanted, source: Source, ready: Path) -> None:
    kept = ready / "ci.log"
    if wanted.log is None:
        say("running .ci/run on a clean clone; CI_LOG=FILE takes a log of it instead")
        clone = building.cloned(source.top, source.top.with_name("checked"))
        with kept.open("wb") as file:
            subprocess.run(  # noqa: S603 - a script of this repository
                [clone.top / ".ci" / "run"],
                cwd=clone.top,
                env=_outside_of_make(),
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                check=False,
            )
    else:
        kept.write_bytes(wanted.log.read_bytes())
    try:
        result = rules.checked(
            kept.read_text(encoding="utf-8", errors="replace"), source.revision
        )
    except ReleaseError as error:
        if wanted.log is not None:
            raise
        failed = wanted.output / "failed-ci.log"
        failed.parent.mkdir(parents=True, exist_ok=True)
        failed.write_bytes(kept.read_bytes())
        raise ReleaseError(*error.problems, f"its log is {failed}") from None
    say(f".ci/run: {result}")


def _outside_of_make() -> dict[str, str]:
    # What was given to this make is not meant for those that the script runs.
    names = ("MAKEFLAGS", "MAKEOVERRIDES", "MFLAGS", "MAKELEVEL")
    return {name: text for name, text in os.environ.items() if name not in names}


def _packages(source: Source, work: Path, ready: Path) -> Path:
    pins = source.top / "deploy" / "container"
    python = building.environment(
        work / "builder",
        *("--require-hashes", "--requirement", pins / "requirements-build.txt"),
    )
    first = building.build(source, python, work / "first")
    again = building.cloned(source.top, work / "again")
    building.same(first, building.build(again, python, work / "second"))
    say("sdist and wheel: the same bytes when built twice")
    _sdist, wheel = (path.rename(ready / path.name) for path in first)
    told = building.verify(wheel, source, pins / "requirements.txt", work / "verified")
    say(f"the wheel, installed: {told}")
    return wheel


def _image(
    wanted: Wanted, source: Source, number: str, work: Path, ready: Path
) -> Path | None:
    if not wanted.with_image:
        say("SKIPPED image: --without-image was asked for")
        return None
    archive = ready / f"fjmcp-broker-{number}-image.tar"
    binary = work / "forgejo-mcp"
    built = image.build(
        source, number, archive, binary, program=wanted.podman, image=wanted.image
    )
    say(f"image {wanted.image}:{number}, {built}")
    return binary


def _bill(
    wanted: Wanted,
    number: str,
    source: Source,
    ready: Path,
    wheel: Path,
    binary: Path | None,
) -> None:
    sbom.write(
        source.top,
        wanted.module,
        wanted.version,
        ready / f"fjmcp-broker-{number}.cdx.json",
        binary=binary,
        wheel=wheel,
    )
    say("bill of materials: valid CycloneDX")


def _move(ready: Path, target: Path) -> None:
    # Beside the target first: a directory cannot be renamed to another file system.
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".release-") as name:
        near = Path(name) / ready.name
        near.mkdir()
        for path in ready.iterdir():
            shutil.copyfile(path, near / path.name)
        near.rename(target)
