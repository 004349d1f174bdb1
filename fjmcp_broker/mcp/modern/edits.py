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


class JsonObject(msgspec.Struct, frozen=True):
    """
    A JSON object that is read once and may be edited.

    @ivar data: its bytes.
    @ivar spans: where its members stand, by decoded name.
    """

    data: bytes
    spans: Mapping[str, scanner.Span]

    @classmethod
    def read(cls, data: bytes | None) -> "JsonObject | None":
        """
        @param data: raw JSON of a peer, or None.
        @return: the object; one that repeats a key is written anew, with the last of
            each name. None when it is no JSON object.
        """
        if data is None:
            return None
        try:
            spans = scanner.member_spans(data)
            if spans is None:
                data = object_of(members_of(data) or {})
                spans = scanner.member_spans(data) or []
        except _UNREADABLE:
            return None
        return cls(data, {span.name: span for span in spans})

    def get(self, name: str) -> bytes | None:
        """
        @param name: decoded name of a member.
        @return: its raw value, or None when there is none.
        """
        span = self.spans.get(name)
        return None if span is None else self.data[span.value_start : span.end]

    def edited(
        self,
        *,
        without: Collection[str] = (),
        replaced: Mapping[str, bytes] | None = None,
    ) -> bytes:
        """
        @param without: decoded names of members that leave; others are ignored.
        @param replaced: raw values by name: a member that is there gets the value in
            its place, another one is added in front of the end.
        @return: the object, every other byte as before.
        """
        values = {} if replaced is None else dict(replaced)
        data = self.data
        position = data.index(b"{") + 1
        view = memoryview(data)  # a member may be large
        pieces: list[bytes | memoryview] = [view[:position]]
        first = True
        for span in self.spans.values():
            position = span.after
            if span.name in without:
                continue
            if not first:
                pieces.append(b",")
            first = False
            value = values.pop(span.name, None)
            if value is None:
                pieces.append(view[span.start : span.after])
            else:
                pieces.append(view[span.start : span.value_start])
                pieces += (value, view[span.end : span.after])
        for name, value in values.items():
            comma = b"" if first else b","
            pieces += (comma, msgspec.json.encode(name), b":", value)
            first = False
        pieces.append(view[position:])
        return b"".join(pieces)


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
    @param without: as for L{JsonObject.edited}.
    @param replaced: as for L{JsonObject.edited}.
    @return: the object; what is none is unchanged.
    """
    found = JsonObject.read(data)
    if found is None:
        return data
    return found.edited(without=without, replaced=replaced)


def object_of(members: Mapping[str, bytes]) -> bytes:
    """
    @param members: raw values by name.
    @return: the JSON object.
    """
    written = (
        msgspec.json.encode(name) + b":" + value for name, value in members.items()
    )
    return b"{" + b",".join(written) + b"}"


def without(data: bytes, members: Mapping[str, bytes], name: str) -> bytes:
    """
    Take a member out of an object that has been read already.

    @param data: raw JSON object that repeats no key.
    @param members: the raw value of each of its members by decoded name, in the order
        in which they stand there.
    @param name: of one of them.
    @return: the object without it, every other byte as before.
    """
    written = msgspec.json.encode(name) + b":" + members[name]
    names = list(members)
    if len(names) > 1 and name == names[-1]:
        end = b"," + written + b"}"
        if data.endswith(end):
            return data[: -len(end)] + b"}"
    elif len(names) > 1 and name == names[0]:
        start = b"{" + written + b","
        if data.startswith(start):
            return b"{" + data[len(start) :]
    return edited(data, without=(name,))
