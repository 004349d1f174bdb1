"""
Messages and objects that are written as short as JSON can be, as nearly all are: the
official SDKs write so, and so does Go.

Of such an object every byte is accounted for by its members: two braces, and for each
member two quotes, a colon, a comma and what its name and its value take. A repeated key
would make it longer, as would an escape in a key, white space, or a member that was
skipped; what is decoded is never longer than what it was decoded from. So if the sum is
right there is none of that, and the walk of L{fjmcp_broker.mcp.scanner}, which takes
five times as long, would find nothing else. If it is not, nothing is known, and it is
the walk that judges.
"""

from collections.abc import Collection
from typing import Final, Literal

import msgspec

from fjmcp_broker.mcp.envelope import is_request_id

MAXIMUM_METHOD_CHARACTERS: Final = 256

_OBJECT: Final = msgspec.json.Decoder(dict[str, msgspec.Raw])
_UNREADABLE: Final = (msgspec.DecodeError, RecursionError, UnicodeDecodeError)


class _Asked(msgspec.Struct, gc=False):
    """A request or a notification."""

    jsonrpc: Literal["2.0"]
    method: str
    id: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    params: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


_ASKED: Final = msgspec.json.Decoder(_Asked)
_LEAST: Final = len(b'{"jsonrpc":"2.0","method":""}')
_WITH_ID: Final = len(b'"id":,')
_WITH_PARAMS: Final = len(b'"params":,')


def read_plain(body: bytes) -> tuple[bytes | None, str, bytes | None] | None:
    """
    @param body: one JSON object in UTF-8, controlled by the client.
    @return: the raw id, the method and the raw params of a request or a notification
        that is plainly one; C{None} for all else, which may be one as well.
    """
    try:
        asked = _ASKED.decode(body)
    except _UNREADABLE:
        return None
    id = params = None
    method = asked.method
    size = _LEAST + len(method)
    if asked.id is not msgspec.UNSET:
        id = bytes(asked.id)
        size += _WITH_ID + len(id)
    if asked.params is not msgspec.UNSET:
        params = bytes(asked.params)
        size += _WITH_PARAMS + len(params)
    if size != len(body) or not 0 < len(method) <= MAXIMUM_METHOD_CHARACTERS:
        return None
    return (id, method, params) if id is None or is_request_id(id) else None


def plain_names(data: bytes) -> Collection[str] | None:
    """
    @param data: JSON in UTF-8.
    @return: the names of the members of an object that is plainly written; C{None} for
        all else.
    """
    try:
        found = _OBJECT.decode(data)
    except _UNREADABLE:
        return None
    size = 1  # two braces, and one comma less than there are members
    for name, value in found.items():
        size += len(name) + len(memoryview(value)) + 4
    return found.keys() if size == len(data) and "".join(found).isascii() else None
