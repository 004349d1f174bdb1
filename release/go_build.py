"""
Which modules a Go program was linked from: what C{go version -m} prints, without Go.

The linker puts the build information into every binary. Its form is described in Go's
package C{debug/buildinfo}; here is the one with the strings in place, since Go 1.18.
"""

from pathlib import Path
from typing import Final

from attrs import frozen

from release.commands import ReleaseError

_MAGIC: Final = b"\xff Go buildinf:"
_ALIGNED: Final = 16
_HEADER_BYTES: Final = 32
_FLAGS_AT: Final = 15
_INLINE: Final = 2
_SENTINEL_BYTES: Final = 16
"""Before and after the list of modules."""


@frozen
class Module:
    """A Go module in one version."""

    path: str
    """Its name, such as C{golang.org/x/net}."""

    version: str
    """With the letter before it, or C{(devel)}."""

    sum: str
    """C{h1:} and base64 of a SHA-256 (Go modules reference, go.sum), or empty."""


@frozen
class GoBuild:
    """What a binary says of its build."""

    go: str
    """The version of Go, without the letters before it."""

    main: Module
    """The module of the program."""

    linked: tuple[Module, ...]
    """All other modules in it, in the order of their names."""

    settings: dict[str, str]
    """Of the build, C{GOARCH} and the like."""


def read(binary: Path) -> GoBuild:
    """
    @param binary: a program made by Go.
    @return: what it says.
    @raise ReleaseError: it says nothing that can be read.
    """
    return parse(binary.read_bytes())


def parse(data: bytes) -> GoBuild:
    """
    @param data: a whole binary.
    @return: what it says.
    @raise ReleaseError: it says nothing that can be read.
    """
    at = data.find(_MAGIC)
    while at % _ALIGNED and at >= 0:
        at = data.find(_MAGIC, at + 1)
    if at < 0:
        raise ReleaseError("the binary has no build information of Go")
    if len(data) < at + _HEADER_BYTES or not data[at + _FLAGS_AT] & _INLINE:
        raise ReleaseError("the binary was made by a Go before 1.18")
    version, after = _string(data, at + _HEADER_BYTES)
    modules, _after = _string(data, after)
    text = modules[_SENTINEL_BYTES:-_SENTINEL_BYTES]
    return parse_modules(
        version.decode("utf-8", "replace").removeprefix("go"),
        text.decode("utf-8", "replace"),
    )


def parse_modules(go: str, text: str) -> GoBuild:
    """
    @param go: the version of Go.
    @param text: lines of words between tabs: C{path}, C{mod}, C{dep}, what replaces
        the module above as C{=>}, and C{build}.
    @return: the same as records.
    @raise ReleaseError: there is no line C{mod}.
    """
    main: Module | None = None
    linked: list[Module] = []
    settings: dict[str, str] = {}
    for line in text.splitlines():
        kind, *words = line.split("\t")
        if kind == "build" and words:
            name, _equals, value = words[0].partition("=")
            settings[name] = value
        elif kind in ("mod", "dep", "=>") and len(words) >= 2:
            module = Module(words[0], words[1], words[2] if len(words) > 2 else "")
            if kind == "mod":
                main = module
            elif kind == "dep":
                linked.append(module)
            elif linked:
                linked[-1] = module
            else:
                main = module
    if main is None:
        raise ReleaseError("the binary does not say which module it is")
    return GoBuild(go.split()[0] if go.split() else "", main, tuple(linked), settings)


def _string(data: bytes, at: int) -> tuple[bytes, int]:
    # The length as in Go's encoding/binary, Uvarint: seven bits a byte, lowest first.
    length = 0
    for position in range(10):
        if at + position >= len(data):
            break
        byte = data[at + position]
        length |= (byte & 0x7F) << (7 * position)
        if not byte & 0x80:
            start = at + position + 1
            if start + length > len(data):
                break
            return data[start : start + length], start + length
    raise ReleaseError("the build information of the binary is cut off")
