"""Writes the bill of materials: finds what L{release.bill} tells of."""

import configparser
import os
import re
import sys
import tempfile
from pathlib import Path
from typing import Final

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from release import bill, go_build, packages, requirements, versions
from release.commands import ReleaseError, git, run
from release.go_build import Module

_BASE: Final = re.compile(r"^FROM \S*/(python:\S+) AS runtime$", re.MULTILINE)


def source_date(top: Path) -> int:
    """
    @param top: of a checkout.
    @return: C{SOURCE_DATE_EPOCH} if it is set (reproducible-builds.org), else the time
        of the commit that is checked out, in seconds.
    @raise ReleaseError: it is no number.
    """
    text = os.environ.get("SOURCE_DATE_EPOCH") or git(top, "log", "-1", "--format=%ct")
    if not text.isdecimal():
        raise ReleaseError(f"SOURCE_DATE_EPOCH is no number of seconds: {text!r}")
    return int(text)


def cached_binary(version: str) -> Path | None:
    """
    @param version: of forgejo-mcp.
    @return: the binary that the tests have installed, or None.
    """
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    binary = cache / "fjmcp-broker" / "forgejo-mcp" / version / "forgejo-mcp"
    return binary if binary.is_file() else None


def write(
    top: Path,
    module: str,
    version: str,
    file: Path,
    *,
    binary: Path | None = None,
    wheel: Path | None = None,
) -> None:
    """
    Write the bill. Without a binary of the image the one of the tests tells which
    modules there are; without both that is said aloud.

    @param top: of the repository.
    @param module: of forgejo-mcp.
    @param version: of forgejo-mcp.
    @param file: where to; its directory is made.
    @param binary: the image's forgejo-mcp.
    @param wheel: the broker's wheel.
    @raise ReleaseError: something is not as it has to be.
    """
    containerfile = (top / "Containerfile").read_text(encoding="utf-8")
    environment = requirements.image_environment(containerfile)
    pinned = top.resolve() / "deploy" / "container" / "requirements.txt"
    pins = requirements.parse(pinned.read_text(encoding="utf-8"), environment)
    with tempfile.TemporaryDirectory() as name:
        run(
            *(sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"),
            *("--disable-pip-version-check", "--only-binary", ":all:"),
            *("--require-hashes", "--requirement", pinned, "--dest", name),
            cwd=top,
        )
        described = packages.read_all(pins, Path(name), environment)
    told = binary or cached_binary(version)
    if told is None:
        sys.stdout.write(
            f"SKIPPED the Go modules of forgejo-mcp {version}: no binary of it is at "
            "hand (tests/real/install_forgejo_mcp.py installs one)\n"
        )
    contents = bill.Contents(
        version=versions.current(top),
        base=_base(containerfile),
        packages=described,
        direct=_direct(top),
        forgejo_mcp=Module(module, f"v{version}", ""),
        build=None if told is None else go_build.read(told),
        wheel_digest="" if wheel is None else bill.file_digest(wheel.read_bytes()),
        binary_digest="" if binary is None else bill.file_digest(binary.read_bytes()),
    )
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(bill.render(contents, source_date(top)), encoding="utf-8")


def _base(containerfile: str) -> str:
    found = _BASE.search(containerfile)
    if found is None:
        raise ReleaseError("the Containerfile does not say what the image is based on")
    return found[1]


def _direct(top: Path) -> list[str]:
    setup = configparser.ConfigParser()
    setup.read(top / "setup.cfg", encoding="utf-8")
    lines = setup["options"]["install_requires"].splitlines()
    return [
        str(canonicalize_name(Requirement(line).name)) for line in lines if line.strip()
    ]
