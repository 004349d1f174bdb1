"""
JSON-RPC messages: classified, and parsed just enough to route them.

The records and their encoding are in L{fjmcp_broker.mcp.envelope} and importable from
here. What arrives from a client is judged strictly, because the program behind reads
keys without regard to case (see L{fjmcp_broker.mcp.scanner}); what arrives from a child
is read leniently and fast.
"""

import codecs
import json
import re
from collections.abc import Callable, Mapping
from functools import partial
from typing import Final, Literal, overload

import msgspec
from msgspec import UNSET

from fjmcp_broker.mcp import scanner
from fjmcp_broker.mcp.envelope import (
    INTERNAL_ERROR,
    INVALID_PARAMS,
    INVALID_REQUEST,
    METHOD_NOT_FOUND,
    NULL,
    PARSE_ERROR,
    Message,
    MessageError,
    Notification,
    Request,
    Response,
    encode,
    encode_error,
    encode_error_object,
    encode_notification,
    encode_request,
    encode_result,
    id_key,
    is_request_id,
    is_token,
    text_of,
)
from fjmcp_broker.mcp.metas import read_meta
from fjmcp_broker.mcp.plain import MAXIMUM_METHOD_CHARACTERS, read_plain
from fjmcp_broker.mcp.replacing import (
    with_member,
    with_progress_token,
    with_request_id,
)

__all__ = [
    "INTERNAL_ERROR",
    "INVALID_PARAMS",
    "INVALID_REQUEST",
    "MAXIMUM_BATCH_MESSAGES",
    "MAXIMUM_METHOD_CHARACTERS",
    "METHOD_NOT_FOUND",
    "NULL",
    "PARSE_ERROR",
    "Message",
    "MessageError",
    "Notification",
    "Request",
    "Response",
    "encode",
    "encode_error",
    "encode_error_object",
    "encode_notification",
    "encode_request",
    "encode_result",
    "id_key",
    "is_request_id",
    "is_token",
    "parse",
    "parse_child_line",
    "text_of",
    "with_member",
    "with_progress_token",
    "with_request_id",
]

MAXIMUM_BATCH_MESSAGES: Final = 100

_EMPTY: Final[Mapping[str, bytes]] = {}

_BLANK: Final = b" \t\n\r"
_UTF8_STEP_BYTES: Final = 1024 * 1024
_ANSWER_START: Final = re.compile(
    rb'\s*\{\s*"jsonrpc"\s*:\s*"2\.0"\s*,\s*"id"\s*:\s*(\d{1,18})\s*,'
    rb'\s*"(?:result|error)"\s*:'
)
"""How children begin an answer to a request of ours."""

_UNREADABLE: Final = (msgspec.DecodeError, RecursionError, UnicodeDecodeError)

_ENVELOPE_NAMES: Final = scanner.Names(
    "jsonrpc", "id", "method", "params", "result", "error"
)
_PARAMS_NAMES: Final = scanner.Names(
    "_meta",
    "arguments",
    "capabilities",
    "clientInfo",
    "cursor",
    "inputResponses",
    "level",
    "name",
    "notifications",
    "progressToken",
    "protocolVersion",
    "reason",
    "requestId",
    "requestState",
    "task",
    "uri",
)


_Reader = Callable[[bytes], Mapping[str, bytes]]
_read_members: Final[_Reader] = partial(scanner.read_object, names=_ENVELOPE_NAMES)
_read_params: Final[_Reader] = partial(scanner.read_object, names=_PARAMS_NAMES)


class _Envelope(msgspec.Struct, gc=False):
    """The members of a message that are read; the rest is skipped."""

    jsonrpc: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    id: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    method: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    params: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    result: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    error: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


_CHILD = msgspec.json.Decoder(_Envelope)
_OBJECT = msgspec.json.Decoder(dict[str, msgspec.Raw])
_ARRAY = msgspec.json.Decoder(list[msgspec.Raw])
_ANY = msgspec.json.Decoder(msgspec.Raw)


@overload
def parse(body: bytes, *, allow_batch: Literal[False] = False) -> Message: ...


@overload
def parse(
    body: bytes, *, allow_batch: bool
) -> Message | tuple[Message | MessageError, ...]: ...


def parse(
    body: bytes, *, allow_batch: bool = False
) -> Message | tuple[Message | MessageError, ...]:
    """
    Read what a client sent.

    @param body: the body of a request, controlled by the client.
    @param allow_batch: whether an array of messages is accepted.
    @return: the message; for a batch a tuple that holds, in order, each message or
        the error that stands for it.
    @raise MessageError: when the body, or the only message in it, is refused:
        -32700 for what is not JSON in UTF-8 (lone surrogate escapes and nesting beyond
        the interpreter's recursion limit included), -32600 for what is no JSON-RPC
        message or can be read in two ways, -32602 for unsuitable C{params}.
    """
    if not body.isascii():
        _check_utf8(body)
    if body.startswith(b"{"):
        return _parse_one(body)
    start = body.lstrip(_BLANK)[:1]
    if start == b"[":
        if not allow_batch:
            _refuse_syntax(body)
            raise MessageError(INVALID_REQUEST, "this protocol revision has no batches")
        return _parse_batch(body)
    if start != b"{":
        _refuse_syntax(body)
        raise MessageError(INVALID_REQUEST, "a message is a JSON object")
    return _parse_one(body)


def _parse_batch(body: bytes) -> tuple[Message | MessageError, ...]:
    try:
        items = _ARRAY.decode(body)
    except _UNREADABLE as error:
        raise MessageError(PARSE_ERROR, "the body is not JSON") from error
    if not items:
        raise MessageError(INVALID_REQUEST, "a batch holds at least one message")
    if len(items) > MAXIMUM_BATCH_MESSAGES:
        raise MessageError(
            INVALID_REQUEST, f"a batch holds at most {MAXIMUM_BATCH_MESSAGES} messages"
        )
    messages: list[Message | MessageError] = []
    for item in items:
        raw = bytes(item)
        try:
            if not raw.startswith(b"{"):
                raise MessageError(INVALID_REQUEST, "a message is a JSON object")
            messages.append(_parse_one(raw))
        except MessageError as error:
            messages.append(error)
    return tuple(messages)


def _parse_one(body: bytes) -> Message:
    """Judge one JSON object of a client."""
    plain = read_plain(body)
    if plain is None:
        asked = _read_envelope(body)
        if isinstance(asked, Response):
            return asked
        id, method, params = asked
    else:
        id, method, params = plain
    known = NULL if id is None else id
    members = meta = _EMPTY
    if params == NULL:
        # Some libraries write what they leave out; JSON-RPC knows no such params.
        params = None
    if params is not None:
        if not params.startswith(b"{"):
            raise MessageError(INVALID_PARAMS, "params is an object", known)
        members = _read(params, _read_params, known)
        raw_meta = members.get("_meta", NULL)
        if raw_meta != NULL:
            if not raw_meta.startswith(b"{"):
                raise MessageError(INVALID_PARAMS, "_meta is an object", known)
            meta = _read(raw_meta, read_meta, known)
            token = meta.get("progressToken")
            if token is not None and not is_token(token):
                raise MessageError(
                    INVALID_PARAMS, "progressToken is a string or a number", known
                )
    if id is None:
        return Notification(method, params, members, meta)
    return Request(id, method, params, members, meta)


def _read_envelope(body: bytes) -> tuple[bytes | None, str, bytes | None] | Response:
    """
    @return: as L{read_plain} of a request or a notification, or an answer.
    """
    envelope = _read(body, _read_members, NULL)
    id = envelope.get("id")
    if id is not None and not is_request_id(id):
        raise MessageError(INVALID_REQUEST, "id is a string or an integer")
    known = NULL if id is None else id
    if envelope.get("jsonrpc") != b'"2.0"':
        raise MessageError(INVALID_REQUEST, 'jsonrpc is "2.0"', known)
    answers = "result" in envelope or "error" in envelope
    if "method" not in envelope:
        return _parse_response(envelope, known)
    if answers:
        raise MessageError(
            INVALID_REQUEST, "a message has a method or an answer, not both", known
        )
    method = text_of(envelope["method"])
    if not method or "\0" in method or len(method) > MAXIMUM_METHOD_CHARACTERS:
        raise MessageError(INVALID_REQUEST, "method is a short text", known)
    return id, method, envelope.get("params")


def _parse_response(envelope: Mapping[str, bytes], id: bytes) -> Response:
    """Judge a client's answer to a question of the child."""
    result, error = envelope.get("result"), envelope.get("error")
    if (result is None) == (error is None):
        raise MessageError(
            INVALID_REQUEST, "a message has a method, a result or an error", id
        )
    if id == NULL:
        raise MessageError(INVALID_REQUEST, "an answer names the id of its request")
    if error is not None and not error.startswith(b"{"):
        raise MessageError(INVALID_REQUEST, "error is an object", id)
    return Response(id, result, error)


def _read(data: bytes, reader: _Reader, id: bytes) -> Mapping[str, bytes]:
    try:
        return reader(data)
    except scanner.AmbiguousKeysError as error:
        raise MessageError(INVALID_REQUEST, str(error), id) from error
    except _UNREADABLE as error:
        raise MessageError(PARSE_ERROR, "the body is not JSON") from error


def _refuse_syntax(body: bytes) -> None:
    """Tell what is not JSON at all from what is JSON and no message."""
    try:
        _ANY.decode(body)
    except _UNREADABLE as error:
        raise MessageError(PARSE_ERROR, "the body is not JSON") from error


def _check_utf8(data: bytes) -> None:
    """Check piece by piece, so that no copy of the whole is made."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    view = memoryview(data)
    try:
        for start in range(0, len(view), _UTF8_STEP_BYTES):
            decoder.decode(view[start : start + _UTF8_STEP_BYTES])
        decoder.decode(b"", True)
    except UnicodeDecodeError as error:
        raise MessageError(PARSE_ERROR, "a message is not UTF-8") from error


def parse_child_line(line: bytes) -> Message:
    """
    Read what a child wrote. Unknown members are ignored.

    @param line: one line, without its ending.
    @return: the message, with the bytes of C{result} exactly as they came.
    @raise MessageError: when the line is no message. Its C{id} is that of the answer
        where that can still be told, so that a waiting request can be failed.
    """
    if not line.startswith(b"{") and not line.lstrip(_BLANK).startswith(b"{"):
        # A program that says something else may say much of it.
        raise MessageError(
            PARSE_ERROR, "a line of the child is no JSON-RPC message", NULL
        )
    try:
        if not line.isascii():
            _check_utf8(line)
        envelope = _CHILD.decode(line)
        return _from_child(envelope)
    except _UNREADABLE as error:
        raise MessageError(
            PARSE_ERROR, "a line of the child is no JSON-RPC message", _answered(line)
        ) from error
    except MessageError as error:
        raise MessageError(error.code, error.message, _answered(line)) from error


def _from_child(envelope: _Envelope) -> Message:
    id = None if envelope.id is UNSET else bytes(envelope.id)
    if id == NULL:
        id = None
    if id is not None and not is_token(id):
        raise MessageError(INVALID_REQUEST, "a child's id is no string or number")
    if envelope.method is UNSET:
        if envelope.error is not UNSET and bytes(envelope.error) != NULL:
            return Response(id or NULL, None, bytes(envelope.error))
        if envelope.result is UNSET or id is None:
            raise MessageError(INVALID_REQUEST, "a child's message says nothing")
        return Response(id, bytes(envelope.result))
    method = text_of(bytes(envelope.method))
    if method is None:
        raise MessageError(INVALID_REQUEST, "a child's method is no text")
    params = None if envelope.params is UNSET else bytes(envelope.params)
    members = meta = _EMPTY
    if params == NULL:
        params = None
    if params is not None:
        members = _members(params)
        raw_meta = members.get("_meta", NULL)
        meta = _EMPTY if raw_meta == NULL else _members(raw_meta)
    if id is None:
        return Notification(method, params, members, meta)
    return Request(id, method, params, members, meta)


def _members(data: bytes) -> dict[str, bytes]:
    return {name: bytes(value) for name, value in _OBJECT.decode(data).items()}


def _answered(line: bytes) -> bytes:
    """
    The id of an answer that is otherwise unreadable. The standard library accepts
    what msgspec does not, lone surrogate escapes above all; what breaks off or is too
    deep has at least a beginning.
    """
    try:
        value = json.loads(line.decode("utf-8", "replace"))
    except (ValueError, RecursionError):
        start = _ANSWER_START.match(line)
        return NULL if start is None else start[1]
    if not isinstance(value, dict) or "method" in value:
        return NULL
    id = value.get("id")
    if isinstance(id, bool) or not isinstance(id, int | str):
        return NULL
    return json.dumps(id).encode()
