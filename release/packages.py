"""What the Python packages of the image say of themselves, read out of their wheels."""

import re
import zipfile
from collections.abc import Mapping
from email.message import Message
from email.parser import BytesParser
from pathlib import Path
from typing import Final

from attrs import frozen
from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from release.commands import ReleaseError
from release.requirements import Pin

_CLASSIFIER: Final = "License :: OSI Approved :: "
_IDENTIFIERS: Final = {
    "Apache Software License": "Apache-2.0",
    "ISC License (ISCL)": "ISC",
    "MIT License": "MIT",
    "MIT No Attribution License (MIT-0)": "MIT-0",
    "Mozilla Public License 2.0 (MPL 2.0)": "MPL-2.0",
    "Python Software Foundation License": "PSF-2.0",
    "Zope Public License": "ZPL-2.1",
}
"""SPDX for those classifiers that mean one licence; "BSD License" means several."""

_KNOWN: Final = frozenset(_IDENTIFIERS.values())
_LONGEST_NAME: Final = 80


@frozen
class Package:
    """A pinned package and its metadata."""

    pin: Pin
    """Which one."""

    licence_expression: str = ""
    """In SPDX, or empty."""

    licence_name: str = ""
    """What it calls its licence where that is no expression, or empty."""

    asks_for: tuple[str, ...] = ()
    """The normalised names of what it needs in the image."""


def read_all(
    pins: list[Pin], wheels: Path, environment: Mapping[str, str]
) -> list[Package]:
    """
    @param pins: what the image has.
    @param wheels: a directory with a wheel of each.
    @param environment: what markers are compared with.
    @return: each pin with what its wheel says.
    @raise ReleaseError: there is no wheel of one.
    """
    found: dict[tuple[str, str], Message] = {}
    for wheel in sorted(wheels.glob("*.whl")):
        metadata = _metadata(wheel)
        key = str(canonicalize_name(metadata["Name"])), str(metadata["Version"])
        found[key] = metadata
    missing = [pin.name for pin in pins if (pin.name, pin.version) not in found]
    if missing:
        raise ReleaseError(f"no wheel of {', '.join(missing)}")
    return [
        described(pin, found[pin.name, pin.version], environment)
        for pin in sorted(pins, key=lambda each: each.name)
    ]


def described(pin: Pin, metadata: Message, environment: Mapping[str, str]) -> Package:
    """
    @param pin: of the package.
    @param metadata: of the package (PyPA, core metadata).
    @param environment: what markers are compared with.
    @return: both.
    """
    expression = str(metadata["License-Expression"] or "")
    name = ""
    if not expression:
        expression, name = _older_licence(metadata)
    asked = set()
    for text in metadata.get_all("Requires-Dist", []):
        try:
            requirement = Requirement(str(text))
        except InvalidRequirement:
            continue
        marker = requirement.marker
        if marker is None or marker.evaluate({**environment, "extra": ""}):
            asked.add(str(canonicalize_name(requirement.name)))
    return Package(pin, expression, name, tuple(sorted(asked)))


def _older_licence(metadata: Message) -> tuple[str, str]:
    # Before License-Expression (PEP 639): classifiers are checked words, the field
    # License is any text, in some packages all of the licence.
    classifiers = [
        str(value).removeprefix(_CLASSIFIER)
        for value in metadata.get_all("Classifier", [])
        if str(value).startswith(_CLASSIFIER)
    ]
    known = [_IDENTIFIERS[value] for value in classifiers if value in _IDENTIFIERS]
    if known and len(known) == len(classifiers):
        return " OR ".join(sorted(set(known))), ""
    text = str(metadata["License"] or "").strip()
    if text in _KNOWN:
        return text, ""
    if text and "\n" not in text and len(text) <= _LONGEST_NAME:
        return "", text
    return "", "; ".join(classifiers)


def _metadata(wheel: Path) -> Message:
    with zipfile.ZipFile(wheel) as archive:
        for name in archive.namelist():
            if re.fullmatch(r"[^/]+\.dist-info/METADATA", name):
                return BytesParser().parsebytes(archive.read(name))
    raise ReleaseError(f"{wheel.name} has no metadata")
