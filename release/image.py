"""The image of a release, made by C{make image}, and what is taken out of it."""

import os
import shlex
from pathlib import Path

from release.building import Source
from release.commands import run


def build(source: Source, number: str, archive: Path, binary: Path) -> str:
    """
    @param source: what is released.
    @param number: its version.
    @param archive: where the image goes, as one file.
    @param binary: where a copy of its forgejo-mcp goes.
    @return: the id of the image, a digest of its configuration.
    @raise ReleaseError: podman failed, or is not there.
    """
    podman = shlex.split(os.environ.get("PODMAN") or "podman")
    name = f"{os.environ.get('IMAGE') or 'localhost/fjmcp-broker'}:{number}"
    variables = source.variables
    run("make", "--no-print-directory", "image", cwd=source.top, variables=variables)
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
