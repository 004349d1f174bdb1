"""
The keys of one JSON object, read so that no second reader can read them otherwise.

The program behind matches keys without regard to case and lets the last of two equal
keys win, as Go's decoder does. A policy that reads C{"name"} would then be bypassed by
C{"Name"}, by a second C{"name"}, by C{"\\u006eame"} or by a key with a long s or a
Kelvin sign. So every object that decides where a message goes is walked key by key,
and refused when it can be read in two ways.

The walk takes one step per member of the object, however large the values are: msgspec
checks the syntax and gives the bytes of each value. It keeps only the last value of a
repeated key, so where the bytes after a key do not begin with the value that msgspec
gave for it, or what follows is neither a comma nor the end, the key is repeated.
"""

import re
from typing import Final

import msgspec

from fjmcp_broker.errors import BrokerError

MAXIMUM_MEMBERS: Final = 1000
"""A walk takes about a microsecond per member; nobody needs more in these objects."""

_OBJECT = msgspec.json.Decoder(dict[str, msgspec.Raw])
_STRING = msgspec.json.Decoder(str)
_KEY = re.compile(
    rb'[ \t\n\r]*("[^"\\]*(?:\\.[^"\\]*)*")[ \t\n\r]*:[ \t\n\r]*', re.DOTALL
)
_AFTER_VALUE = re.compile(rb"[ \t\n\r]*([,}])")


class AmbiguousKeysError(BrokerError):
    """
    An object that two readers could read in two ways: the peer's fault.
    """


class Names:
    """
    The names that decide where a message goes. No other spelling of one is accepted.

    @ivar all: those in ASCII.
    """

    def __init__(self, *names: str) -> None:
        """
        @param names: the names, in their only accepted spelling.
        """
        self._by_folded: Final = {name.casefold(): name for name in names}
        self.all: Final = frozenset(name for name in names if name.isascii())

    def refuses(self, name: str, folded: str) -> bool:
        """
        @param name: a key of a peer.
        @param folded: the same under Unicode case folding.
        @return: whether the key is another spelling of one of the names.
        """
        return self._by_folded.get(folded, name) != name


def read_object(data: bytes, names: Names) -> dict[str, bytes]:
    """
    Read the members of an object without looking into their values.

    @param data: one JSON object in UTF-8, white space around it allowed.
    @param names: the names that are accepted in one spelling only.
    @return: the raw bytes of each value by the decoded name, in the order they came.
    @raise AmbiguousKeysError: when two keys are equal under Unicode case folding, a
        key is another spelling of one of C{names} or holds NUL, or there are more
        than L{MAXIMUM_MEMBERS}.
    @raise msgspec.DecodeError: when it is not a JSON object; C{RecursionError} and
        C{UnicodeDecodeError} come in some such cases instead.
    """
    found = _OBJECT.decode(data)
    if len(found) > MAXIMUM_MEMBERS:
        raise AmbiguousKeysError("an object has too many members")
    # Nothing to walk where every byte is accounted for: L{fjmcp_broker.mcp.plain}.
    values: dict[str, bytes] = {}
    size = 1  # two braces, and one comma less than there are members
    for name, raw in found.items():
        values[name] = value = bytes(raw)
        size += len(name) + len(value) + 4  # quotes, colon and comma
    if size == len(data) and found.keys() <= names.all:
        return values
    members: dict[str, bytes] = {}
    seen: set[str] = set()
    position = data.index(b"{") + 1
    while (key := _KEY.match(data, position)) is not None:
        name = _name(key[1])
        folded = name.casefold()
        if folded in seen:
            raise AmbiguousKeysError(
                "two keys of an object are equal but for their case"
            )
        if names.refuses(name, folded):
            raise AmbiguousKeysError("a key is a case variant of one with a meaning")
        if "\0" in name:
            raise AmbiguousKeysError("a key holds NUL")
        seen.add(folded)
        value = values[name]
        end = key.end()
        if not data.startswith(value, end):
            raise AmbiguousKeysError("a key of an object is repeated")
        after = _AFTER_VALUE.match(data, end + len(value))
        if after is None:
            raise AmbiguousKeysError("a key of an object is repeated")
        members[name] = value
        position = after.end()
        if after[1] == b"}":
            break
    return members


def value_span(data: bytes, name: str) -> tuple[int, int]:
    """
    Where the value of a member stands.

    @param data: one JSON object that L{read_object} accepts.
    @param name: the decoded name of a member.
    @return: the first index of the value and the one after its last.
    @raise KeyError: when there is no such member, or the object repeats a key.
    """
    found = _OBJECT.decode(data)
    if name not in found:
        raise KeyError(name)
    position = data.index(b"{") + 1
    while (key := _KEY.match(data, position)) is not None:
        current = _name(key[1])
        value = bytes(found[current])
        end = key.end() + len(value)
        after = _AFTER_VALUE.match(data, end)
        if after is None or not data.startswith(value, key.end()):
            break
        if current == name:
            return key.end(), end
        position = after.end()
    raise KeyError(name)


class Span(msgspec.Struct, frozen=True):
    """
    Where one member of an object stands, as indices.

    @ivar name: its decoded name.
    @ivar start: the first byte after the brace or comma before it.
    @ivar value_start: the first byte of its value.
    @ivar end: the first byte after its value.
    @ivar after: the comma or brace behind it.
    """

    name: str
    start: int
    value_start: int
    end: int
    after: int


def member_spans(data: bytes) -> list[Span] | None:
    """
    Where all the members stand.

    @param data: one JSON object in UTF-8, white space around it allowed.
    @return: the members in their order, or None when the object repeats a key.
    @raise msgspec.DecodeError: when it is not a JSON object; C{RecursionError} and
        C{UnicodeDecodeError} come in some such cases instead.
    """
    found = _OBJECT.decode(data)
    spans: list[Span] = []
    seen: set[str] = set()
    position = data.index(b"{") + 1
    while (key := _KEY.match(data, position)) is not None:
        name = _name(key[1])
        value = bytes(found[name])
        end = key.end() + len(value)
        after = _AFTER_VALUE.match(data, end)
        if name in seen or after is None or not data.startswith(value, key.end()):
            return None
        seen.add(name)
        spans.append(Span(name, position, key.end(), end, after.end() - 1))
        position = after.end()
        if after[1] == b"}":
            break
    return spans


def _name(quoted: bytes) -> str:
    """The text of a key, from its bytes with the quotes."""
    if b"\\" in quoted:
        return _STRING.decode(quoted)
    return quoted[1:-1].decode()
