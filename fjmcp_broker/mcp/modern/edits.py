"""
Minimal edits of a JSON object: members leave, change or come, and every other byte
stays where it was.
"""

from collections.abc import Collection, Mapping
from typing import Final

import msgspec

from fjmcp_broker.mcp import scanner

_OBJECT: Final = msgspec.json.Decoder(dict[str, msgspec.Raw])
_UNREADABLE: Final = (msgspec.DecodeError, RecursionError, UnicodeDecodeError)


def members_of(data: bytes | None) -> dict[str, bytes] | None:
    """
    @param data: raw JSON of a peer, or None.
    @return: the raw value of each member by decoded name, the last of equal names;
        None when it is no JSON object.
    """
    if data is None:
        return None
    try:
        found = _OBJECT.decode(data)
    except _UNREADABLE:
        return None
    return {name: bytes(value) for name, value in found.items()}


def edited(
    data: bytes,
    *,
    without: Collection[str] = (),
    replaced: Mapping[str, bytes] | None = None,
) -> bytes:
    """
    @param data: raw JSON object.
    @param without: decoded names of members that leave; others are ignored.
    @param replaced: raw values by name: a member that is there gets the value in its
        place, another one is added in front of the end.
    @return: the object, every other byte as before. One that repeats a key cannot be
        edited in place; it comes back written anew, with the last of each name.
    @raise msgspec.DecodeError: when it is no JSON object; C{RecursionError} and
        C{UnicodeDecodeError} come in some such cases instead.
    """
    values = {} if replaced is None else dict(replaced)
    spans = scanner.member_spans(data)
    if spans is None:
        found = {name: bytes(value) for name, value in _OBJECT.decode(data).items()}
        kept = {name: raw for name, raw in found.items() if name not in without}
        return object_of({**kept, **values})
    pieces: list[bytes] = []
    position = data.index(b"{") + 1
    head, kept_any = data[:position], False
    for span in spans:
        if span.name in without:
            continue
        # What stands between the comma before and the key belongs to the member.
        value = values.pop(span.name, None)
        if kept_any:
            pieces.append(b",")
        pieces.append(data[span.start : span.value_start])
        pieces.append(data[span.value_start : span.end] if value is None else value)
        pieces.append(data[span.end : span.after])
        kept_any = True
    tail = data[spans[-1].after :] if spans else data[position:]
    for name, value in values.items():
        comma = b"," if kept_any else b""
        pieces += (comma, msgspec.json.encode(name), b":", value)
        kept_any = True
    return b"".join((head, *pieces, tail))


def object_of(members: Mapping[str, bytes]) -> bytes:
    """
    @param members: raw values by name.
    @return: the JSON object.
    """
    written = (
        msgspec.json.encode(name) + b":" + value for name, value in members.items()
    )
    return b"{" + b",".join(written) + b"}"
