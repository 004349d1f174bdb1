"""The pinned requirements of the image, as its bill of materials needs them."""

import re
from collections.abc import Mapping
from typing import Final

from attrs import frozen
from packaging.markers import Marker
from packaging.utils import canonicalize_name

from release.commands import ReleaseError

_ENTRY: Final = re.compile(
    r"(?P<name>[A-Za-z0-9._-]+)==(?P<version>[^\s;]+)\s*(?:;(?P<marker>.*?))?"
    r"(?P<hashes>(?:\s--hash=sha256:[0-9a-f]{64})+)\s*"
)
_BASE: Final = re.compile(r"^FROM \S*/python:(\d+\.\d+)\S* AS runtime$", re.MULTILINE)


@frozen
class Pin:
    """One package."""

    name: str
    """Normalised (PyPA, names and normalization)."""

    version: str
    """Exactly this."""

    hashes: tuple[str, ...]
    """SHA-256, hexadecimal, of each file that may be installed."""


def image_environment(containerfile: str) -> dict[str, str]:
    """
    @param containerfile: the text of the Containerfile.
    @return: markers of the environment (PyPA, dependency specifiers) that the image is.
    @raise ReleaseError: it does not say which Python it has.
    """
    found = _BASE.search(containerfile)
    if found is None:
        raise ReleaseError("the Containerfile does not say which Python it has")
    return {
        "implementation_name": "cpython",
        "platform_python_implementation": "CPython",
        "os_name": "posix",
        "sys_platform": "linux",
        "platform_system": "Linux",
        "python_version": found[1],
        "python_full_version": f"{found[1]}.0",
    }


def parse(text: str, environment: Mapping[str, str]) -> list[Pin]:
    """
    @param text: a file of requirements, each pinned and with hashes.
    @param environment: what markers are compared with.
    @return: what is installed in that environment, in the order of the file.
    @raise ReleaseError: an entry has another form.
    """
    joined = re.sub(r"\s*\\\n\s*", " ", text)
    pins = []
    for line in joined.splitlines():
        if not line.strip() or line.startswith("#"):
            continue
        found = _ENTRY.fullmatch(line)
        if found is None:
            raise ReleaseError(f"not a pin with hashes: {line[:60]}")
        marker = (found["marker"] or "").strip()
        if marker and not Marker(marker).evaluate(dict(environment)):
            continue
        hashes = re.findall(r"sha256:([0-9a-f]{64})", found["hashes"])
        name = canonicalize_name(found["name"])
        pins.append(Pin(name, found["version"], tuple(sorted(hashes))))
    return pins
