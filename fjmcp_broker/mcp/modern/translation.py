"""
The edits between a client of the stateless revisions and a child of the older ones.

A request loses what those revisions added to it. A result gets C{resultType}, the
caching hints and the name of the server; C{tools/list} is sorted. An error gets another
number where the old one is gone. Every other byte passes as it came.
"""

from typing import Final

import msgspec

from fjmcp_broker.mcp.envelope import (
    INTERNAL_ERROR,
    INVALID_PARAMS,
    NULL,
    Notification,
    Request,
    encode_notification,
    text_of,
)
from fjmcp_broker.mcp.modern.edits import (
    JsonObject,
    edited,
    members_of,
    object_of,
    without,
)
from fjmcp_broker.mcp.modern.errors import (
    HEADER_MISMATCH,
    status_of_code,
)
from fjmcp_broker.mcp.modern.requests import (
    LOG_LEVELS,
    META_CAPABILITIES,
    META_CLIENT,
    META_LOG_LEVEL,
    NAMED,
    ModernRequest,
)
from fjmcp_broker.mcp.plain import plain_names
from fjmcp_broker.mcp.versions import META_VERSION

META_SERVER: Final = "io.modelcontextprotocol/serverInfo"
COMPLETE: Final = b'"complete"'
PRIVATE: Final = b'"private"'
LIST_TTL_MILLISECONDS: Final = 300_000
READ_TTL_MILLISECONDS: Final = 0
TTL_MILLISECONDS: Final = {
    "prompts/list": LIST_TTL_MILLISECONDS,
    "resources/list": LIST_TTL_MILLISECONDS,
    "resources/read": READ_TTL_MILLISECONDS,
    "resources/templates/list": LIST_TTL_MILLISECONDS,
    "tools/list": LIST_TTL_MILLISECONDS,
}
"""
How long a client may keep a result, for the methods whose results must say so
(MCP 2026-07-28, caching). Lists change when the child's program does or a person's
rights do, which is rare, and C{subscriptions/listen} tells a listening client at once;
five minutes bound it for all others. What C{resources/read} gives can be another thing
at any moment, and no child of the older revisions says how long it is good.
"""

LARGE_RESULT_BYTES: Final = 256 * 1024

_COMPLETE_MEMBER: Final = b',"resultType":' + COMPLETE
_SERVER_MEMBER: Final = b',"_meta":{"%b":' % META_SERVER.encode()

URL_ELICITATION_REQUIRED: Final = -32042
RESOURCE_NOT_FOUND: Final = -32002

_META_NAMES: Final = frozenset(
    (META_CAPABILITIES, META_CLIENT, META_LOG_LEVEL, META_VERSION)
)
_META: Final = frozenset(("_meta",))
_RETRY_NAMES: Final = frozenset(("inputResponses", "requestState"))
_RESERVED: Final = range(-32099, HEADER_MISMATCH + 1)
"""Numbers that only the specification gives a meaning."""

_UNREADABLE: Final = (msgspec.DecodeError, RecursionError, UnicodeDecodeError)
_ARRAY: Final = msgspec.json.Decoder(list[msgspec.Raw])
_REMOVED_NOTIFICATIONS: Final = frozenset(
    ("notifications/cancelled", "notifications/elicitation/complete")
)


def to_legacy(modern: ModernRequest) -> Request:
    """
    @param modern: what the client sent.
    @return: the request for a child of the older revisions, under the same id. The
        protocol's own members leave C{_meta}, which leaves with the last of them;
        C{inputResponses} and C{requestState} leave the methods that have them.
    """
    request = modern.request
    params, members, meta = request.params, request.members, request.meta
    if params is None:
        return request
    retries = request.method in NAMED and not _RETRY_NAMES.isdisjoint(members)
    if meta and not retries and meta.keys() <= _META_NAMES:
        # As nearly all: nothing is left of the one member that changes.
        kept = dict(members)
        del kept["_meta"]
        return Request(
            request.id, request.method, without(params, members, "_meta"), kept
        )
    gone = set(_RETRY_NAMES & members.keys()) if request.method in NAMED else set()
    replaced: dict[str, bytes] = {}
    if _META_NAMES & meta.keys():
        meta = {name: raw for name, raw in meta.items() if name not in _META_NAMES}
        if meta:
            replaced["_meta"] = edited(members["_meta"], without=_META_NAMES)
        else:
            gone.add("_meta")
    if gone == _META and not replaced:
        params = without(params, members, "_meta")
    elif gone or replaced:
        params = edited(params, without=gone, replaced=replaced)
    kept = {name: raw for name, raw in members.items() if name not in gone}
    kept.update(replaced)
    return Request(request.id, request.method, params, kept, meta)


def result_to_modern(
    method: str, result: bytes, server_info: bytes | None = None
) -> bytes:
    """
    @param method: of the request that it answers.
    @param result: raw JSON, as the child wrote it.
    @param server_info: raw JSON object: who the child says it is; None to leave it out.
    @return: the result with C{resultType} C{complete}, C{_meta} naming the server, and
        for the methods of L{TTL_MILLISECONDS} the caching hints: C{ttlMs} as the child
        gave it if it did, C{cacheScope} always C{private}, because every child acts for
        one person. Tools are sorted by name. What is no object passes as it is, except
        for C{null}, which stands for an empty one.
    """
    found = JsonObject.read(b"{}" if result == NULL else result)
    if found is None:
        return result
    replaced = {"resultType": COMPLETE}
    if method in TTL_MILLISECONDS:
        if not _is_ttl(found.get("ttlMs")):
            replaced["ttlMs"] = b"%d" % TTL_MILLISECONDS[method]
        replaced["cacheScope"] = PRIVATE
    if method == "tools/list":
        tools = found.get("tools")
        if tools is not None:
            replaced["tools"] = sorted_by_name(tools)
    meta = with_meta(found.get("_meta"), META_SERVER, server_info)
    if meta is not None:
        replaced["_meta"] = meta
    return found.edited(replaced=replaced)


def members_to_add(
    method: str, result: bytes, server_info: bytes | None = None
) -> bytes | None:
    """
    Spare a result the edit that L{result_to_modern} makes of it, and a large one the
    copy.

    @param method: as for L{result_to_modern}.
    @param result: likewise.
    @param server_info: likewise.
    @return: what makes L{result_to_modern}'s of it, as in
        L{fjmcp_broker.mcp.envelope.Response}; None when it is not plainly written and
        small, or changes in another place than at its end.
    """
    if method in TTL_MILLISECONDS:
        return None
    names = plain_names(result)
    if names is None and len(result) >= LARGE_RESULT_BYTES:
        found = JsonObject.read(result)
        names = found.spans if found is not None and found.data is result else None
    if not names or "resultType" in names or "_meta" in names:
        return None
    if server_info is None:
        return _COMPLETE_MEMBER
    return b"".join((_COMPLETE_MEMBER, _SERVER_MEMBER, server_info, b"}"))


def error_to_modern(error: bytes, method: str) -> tuple[bytes, int]:
    """
    @param error: raw JSON of the error object, as the child wrote it.
    @param method: of the request that it answers.
    @return: the error object and the HTTP status. Resource not found becomes -32602;
        a number that these revisions reserve, or that they forbid to use any more,
        becomes -32603, as what the child meant by it is not what they mean. The rest of
        the error stays.
    """
    code = code_of(error)
    if code is None:
        message = "the child answered with an error that cannot be read"
        raw = msgspec.json.encode({"code": INTERNAL_ERROR, "message": message})
        return raw, 200
    if code == RESOURCE_NOT_FOUND:
        code = INVALID_PARAMS
    elif code in _RESERVED or code == URL_ELICITATION_REQUIRED:
        code = INTERNAL_ERROR
    else:
        return error, status_of_code(code)
    return edited(error, replaced={"code": b"%d" % code}), status_of_code(code)


def code_of(error: bytes) -> int | None:
    """
    @param error: raw JSON of an error object of a child.
    @return: its number; None when it has none or is no object.
    """
    return _integer((members_of(error) or {}).get("code", NULL))


def notification_to_modern(notification: Notification) -> bytes | None:
    """
    @param notification: what the child sent.
    @return: the encoded notification for a client; None for one that these revisions
        took away. What belongs on a C{subscriptions/listen} stream is the business of
        L{fjmcp_broker.mcp.modern.listening}.
    """
    if notification.method in _REMOVED_NOTIFICATIONS:
        return None
    return encode_notification(notification.method, notification.params)


def sorted_by_name(items: bytes) -> bytes:
    """
    @param items: raw JSON array of tools.
    @return: the same entries by the code points of their names, each with its own
        bytes. Equal names keep their order; what has no name that is a text comes last,
        as it came. What is no array is unchanged.
    """
    try:
        keyed = [(_name_key(raw), bytes(raw)) for raw in _ARRAY.decode(items)]
    except _UNREADABLE:
        return items
    if all(keyed[i - 1][0] <= keyed[i][0] for i in range(1, len(keyed))):
        return items
    keyed.sort(key=lambda pair: pair[0])
    return b"[" + b",".join(entry for _key, entry in keyed) + b"]"


def wants_log(modern: ModernRequest, notification: Notification) -> bool:
    """
    @param modern: a request.
    @param notification: what the child sent while it had the request.
    @return: whether a C{notifications/message} is severe enough for the request: never,
        when it asks for none (MCP 2026-07-28, logging, per-request log level). One of a
        level that nobody knows passes.
    """
    if modern.log_level is None:
        return False
    level = text_of(notification.members.get("level"))
    if level not in LOG_LEVELS:
        return True
    return LOG_LEVELS.index(level) >= LOG_LEVELS.index(modern.log_level)


def with_meta(meta: bytes | None, name: str, value: bytes | None) -> bytes | None:
    """
    @param meta: raw JSON of a C{_meta}, or None.
    @param name: a member that it should have.
    @param value: raw JSON of that member, or None for no change.
    @return: the C{_meta} with the member unless it has it already; None when it need
        not change. What is no object gives way.
    """
    if value is None:
        return None
    found = JsonObject.read(meta)
    if found is None:
        return object_of({name: value})
    if name in found.spans:
        return None
    return found.edited(replaced={name: value})


def _name_key(entry: msgspec.Raw) -> tuple[bool, str]:
    try:
        return False, _NAMED.decode(entry).name
    except _UNREADABLE:
        return True, ""


def _integer(value: bytes | None) -> int | None:
    try:
        return _INTEGER.decode(NULL if value is None else value)
    except _UNREADABLE:
        return None


def _is_ttl(value: bytes | None) -> bool:
    ttl = _integer(value)
    return ttl is not None and ttl >= 0


class _Named(msgspec.Struct):
    name: str


_NAMED: Final = msgspec.json.Decoder(_Named)
_INTEGER: Final = msgspec.json.Decoder(int)
