"""Wheel and sdist out of a clean clone, the same bytes each time."""

import gzip
import io
import sys
import tarfile
from datetime import UTC, datetime
from pathlib import Path

from attrs import frozen

from release import bill
from release.commands import ReleaseError, git, run

_SDIST = "from setuptools import build_meta; build_meta.build_sdist({!r})"
_WHEEL = "from setuptools import build_meta; build_meta.build_wheel({!r})"


@frozen
class Source:
    """What is released."""

    top: Path
    """A clone of nothing but the commit."""

    revision: str
    """Of the commit."""

    epoch: int
    """When it was committed, in seconds; the time of all that is built."""

    @property
    def variables(self) -> dict[str, str]:
        """
        @return: what a build takes from the environment.
        """
        date = datetime.fromtimestamp(self.epoch, UTC)
        return {
            "SOURCE_DATE_EPOCH": str(self.epoch),
            "GIT_REVISION": self.revision,
            "BUILD_DATE": date.strftime("%Y-%m-%dT%H:%M:%SZ"),
        }


def cloned(top: Path, into: Path) -> Source:
    """
    @param top: a repository whose HEAD is to be built.
    @param into: a directory that is made.
    @return: a clone without anything that is not committed.
    @raise ReleaseError: git failed.
    """
    revision = git(top, "rev-parse", "HEAD")
    git(top, "clone", "--quiet", "--no-checkout", str(top.resolve()), str(into))
    git(into, "checkout", "--quiet", "--detach", revision)
    return Source(into, revision, int(git(into, "log", "-1", "--format=%ct")))


def environment(directory: Path, *install: str | Path) -> Path:
    """
    @param directory: of a new virtual environment.
    @param install: arguments of C{pip install}, all of one installation.
    @return: its Python.
    @raise ReleaseError: it cannot be made.
    """
    # The pip that runs this installs there as well, and saves making another.
    venv = (sys.executable, "-m", "venv", "--without-pip")
    run(*venv, directory, cwd=directory.parent)
    python = directory / "bin" / "python"
    install_into(python, *install)
    return python


def install_into(python: Path, *install: str | Path) -> None:
    """
    @param python: of a virtual environment.
    @param install: arguments of C{pip install}.
    @raise ReleaseError: it failed.
    """
    run(*_pip(python), "install", "--quiet", *install, cwd=python.parent)


def _pip(python: Path) -> tuple[str | Path, ...]:
    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check")
    return (*pip, "--python", python)


def build(source: Source, python: Path, work: Path) -> list[Path]:
    """
    Build the sdist, and the wheel out of the sdist, so that nothing can be missing in
    the one that the other has.

    @param source: what to build.
    @param python: of an environment with what builds it.
    @param work: a new directory for it.
    @return: sdist and wheel.
    @raise ReleaseError: it failed.
    """
    work.mkdir()
    variables = source.variables
    run(python, "-c", _SDIST.format(str(work)), cwd=source.top, variables=variables)
    [sdist] = work.glob("*.tar.gz")
    normalise(sdist, source.epoch)
    unpacked = work / "unpacked"
    unpacked.mkdir()
    # Debian 12's own Python 3.11.2 does not know tarfile's filters yet.
    run("tar", "-xf", sdist, "-C", unpacked, cwd=work)
    [inside] = unpacked.iterdir()
    run(python, "-c", _WHEEL.format(str(work)), cwd=inside, variables=variables)
    [wheel] = work.glob("*.whl")
    return [sdist, wheel]


def normalise(sdist: Path, epoch: int) -> None:
    """
    Take out of an archive what the machine has put in: order, owner, times, the bits
    that a umask leaves. The wheel has none of it with C{SOURCE_DATE_EPOCH}.

    @param sdist: the archive, a compressed tar file; it is replaced.
    @param epoch: the time of everything in it, in seconds.
    """
    plain = io.BytesIO()
    with (
        tarfile.open(sdist) as old,
        tarfile.open(fileobj=plain, mode="w", format=tarfile.PAX_FORMAT) as new,
    ):
        for member in sorted(old.getmembers(), key=lambda each: each.name):
            clean = tarfile.TarInfo(member.name)
            clean.type, clean.size, clean.mtime = member.type, member.size, epoch
            clean.linkname = member.linkname
            executable = member.isdir() or member.mode & 0o100
            clean.mode = 0o755 if executable else 0o644
            new.addfile(clean, old.extractfile(member) if member.isfile() else None)
    sdist.write_bytes(gzip.compress(plain.getvalue(), mtime=epoch))


def same(first: list[Path], second: list[Path]) -> None:
    """
    @param first: what was built.
    @param second: the same, built again elsewhere.
    @raise ReleaseError: a file differs.
    """
    pairs = zip(first, second, strict=True)
    differing = [
        f"{one.name} is not the same when it is built again"
        for one, other in pairs
        if one.name != other.name or one.read_bytes() != other.read_bytes()
    ]
    if differing:
        raise ReleaseError(*differing)


def verify(wheel: Path, source: Source, requirements: Path, work: Path) -> str:
    """
    Install the wheel with the requirements of the image, and use it.

    @param wheel: that is released.
    @param source: what it was built from.
    @param requirements: with hashes.
    @param work: a new directory for the environment.
    @return: what C{fjmcp-broker --version} prints.
    @raise ReleaseError: it cannot be installed, or is something else.
    """
    work.mkdir()
    pinned = ("--require-hashes", "--requirement", requirements)
    python = environment(work / "environment", *pinned)
    install_into(python, "--no-deps", wheel)
    programs = python.parent
    run(*_pip(python), "check", cwd=work)
    told = run(programs / "fjmcp-broker", "--version", cwd=work).strip()
    date = source.variables["BUILD_DATE"]
    number = wheel.name.split("-")[1]
    for part in (number, source.revision, date):
        if part not in told:
            raise ReleaseError(f"the wheel says that it is {told}, without {part}")
    listed = run(programs / "twistd", "--help", cwd=work)
    if not any(line.split()[:1] == ["fjmcp"] for line in listed.splitlines()):
        raise ReleaseError("twistd does not know fjmcp once the wheel is installed")
    return told


def checksums(directory: Path) -> str:
    """
    @param directory: with the files of a release.
    @return: a line for each that C{sha256sum --check} reads.
    """
    lines = [
        f"{bill.file_digest(path.read_bytes())}  {path.name}"
        for path in sorted(directory.iterdir())
    ]
    return "".join(f"{line}\n" for line in lines)
