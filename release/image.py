"""The image of a release, made by C{make image}, and what is taken out of it."""

import shlex
from pathlib import Path

from release.building import Source
from release.commands import run


def build(
    source: Source,
    number: str,
    archive: Path,
    binary: Path,
    *,
    program: str = "podman",
    image: str = "localhost/fjmcp-broker",
) -> str:
    """
    @param source: what is released.
    @param number: its version.
    @param archive: where the image goes, as one file.
    @param binary: where a copy of its forgejo-mcp goes.
    @param program: podman, and arguments of its own.
    @param image: the name, without the version.
    @return: the id of the image, a digest of its configuration.
    @raise ReleaseError: podman failed, or is not there.
    """
    podman = shlex.split(program)
    name = f"{image}:{number}"
    # VERSION_TAG too: whoever calls may have set another one for this make.
    settings = (f"PODMAN={program}", f"IMAGE={image}", f"VERSION_TAG={number}")
    make = ("make", "--no-print-directory", "image", *settings)
    run(*make, cwd=source.top, variables=source.variables)
    run(*podman, "save", "--output", archive, name, cwd=source.top)
    # Made and never started: for its files.
    container = run(*podman, "create", name, cwd=source.top).strip()
    try:
        inside = f"{container}:/usr/local/bin/forgejo-mcp"
        run(*podman, "cp", inside, binary, cwd=source.top)
    finally:
        run(*podman, "rm", container, cwd=source.top)
    shown = run(
        *podman, "image", "inspect", "--format", "{{.Id}}", name, cwd=source.top
    )
    return shown.strip()
