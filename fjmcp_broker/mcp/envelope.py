"""
JSON-RPC messages as records, and the envelope that this software writes around them.

The bytes of C{params}, C{result} and C{error} pass through as they came. The records
are made for every message: those of msgspec take a sixth of the time.
"""

import re
from collections.abc import Mapping
from typing import Final

import msgspec

from fjmcp_broker.errors import BrokerError

PARSE_ERROR: Final = -32700
INVALID_REQUEST: Final = -32600
METHOD_NOT_FOUND: Final = -32601
INVALID_PARAMS: Final = -32602
INTERNAL_ERROR: Final = -32603

NULL: Final = b"null"

MAXIMUM_ID_BYTES: Final = 1024

_HEAD: Final = b'{"jsonrpc":"2.0",'

_EMPTY: Final[Mapping[str, bytes]] = {}
_INTEGER = re.compile(rb"-?(?:0|[1-9][0-9]*)")
_TOKEN_STARTS: Final = frozenset(bytes((byte,)) for byte in b'"-0123456789')
_STRING = msgspec.json.Decoder(str)
_UNREADABLE: Final = (msgspec.DecodeError, RecursionError, UnicodeDecodeError)


class MessageError(BrokerError):
    """
    A message that is not acceptable: the peer's fault. Knows its wire form.
    """

    def __init__(self, code: int, message: str, id: bytes = NULL) -> None:
        """
        @param code: the JSON-RPC error code.
        @param message: what is wrong; repeats nothing of the peer's text.
        @param id: raw JSON of the request id, C{null} when it could not be told.
        """
        super().__init__(message)
        self.code = code
        self.message = message
        self.id = id

    def to_bytes(self) -> bytes:
        """
        @return: the JSON-RPC error response.
        """
        return encode_error(self.id, self.code, self.message)


class Request(msgspec.Struct, frozen=True):
    """
    A message that wants an answer.

    @ivar id: raw JSON of the id as the peer wrote it: a string or an integer.
    @ivar method: the method, any text.
    @ivar params: raw JSON object, or None when absent.
    @ivar members: raw JSON of each member of C{params}, by decoded name.
    @ivar meta: raw JSON of each member of C{params._meta}, by decoded name.
    """

    id: bytes
    method: str
    params: bytes | None = None
    members: Mapping[str, bytes] = _EMPTY
    meta: Mapping[str, bytes] = _EMPTY


class Notification(msgspec.Struct, frozen=True):
    """
    A message that wants no answer; attributes as in L{Request}.
    """

    method: str
    params: bytes | None = None
    members: Mapping[str, bytes] = _EMPTY
    meta: Mapping[str, bytes] = _EMPTY


class Response(msgspec.Struct, frozen=True):
    """
    An answer: exactly one of C{result} and C{error} is there.

    @ivar id: raw JSON of the id; C{null} only with an error.
    @ivar result: raw JSON, or None.
    @ivar error: raw JSON object, or None.
    @ivar added: raw members, each after a comma, that the result, an object with
        members, gets at its end when it is written: a large one is then not copied
        for them.
    """

    id: bytes
    result: bytes | None = None
    error: bytes | None = None
    added: bytes = b""


Message = Request | Notification | Response


def encode_request(id: bytes, method: str, params: bytes | None = None) -> bytes:
    """
    @param id: raw JSON.
    @param method: any text.
    @param params: raw JSON object, or None.
    @return: the request, without a line end.
    """
    named = (_HEAD, b'"id":', id, b',"method":', _text(method))
    if params is None:
        return b"".join((*named, b"}"))
    return b"".join((*named, b',"params":', params, b"}"))


def encode_notification(method: str, params: bytes | None = None) -> bytes:
    """
    @param method: any text.
    @param params: raw JSON object, or None.
    @return: the notification, without a line end.
    """
    named = (_HEAD, b'"method":', _text(method))
    if params is None:
        return b"".join((*named, b"}"))
    return b"".join((*named, b',"params":', params, b"}"))


def encode_result(id: bytes, result: bytes, added: bytes = b"") -> bytes:
    """
    @param id: raw JSON.
    @param result: raw JSON; its bytes are kept.
    @param added: as in L{Response}.
    @return: the response, without a line end.
    """
    if not added:
        return b"".join((_HEAD, b'"id":', id, b',"result":', result, b"}"))
    members = memoryview(result)[: result.rindex(b"}")]
    return b"".join((_HEAD, b'"id":', id, b',"result":', members, added, b"}}"))


def encode_error(
    id: bytes, code: int, message: str, data: Mapping[str, object] | None = None
) -> bytes:
    """
    @param id: raw JSON; C{null} when the request's is not known.
    @param code: the error code.
    @param message: one sentence.
    @param data: more, as JSON values, or None.
    @return: the error response, without a line end.
    """
    error: dict[str, object] = {"code": code, "message": message}
    if data is not None:
        error["data"] = data
    return encode_error_object(id, msgspec.json.encode(error))


def encode_error_object(id: bytes, error: bytes) -> bytes:
    """
    @param id: raw JSON.
    @param error: raw JSON of the whole error object, as a child wrote it.
    @return: the error response, without a line end.
    """
    return b"".join((_HEAD, b'"id":', id, b',"error":', error, b"}"))


def encode(message: Message) -> bytes:
    """
    @param message: any message.
    @return: it under our own envelope, without a line end.
    """
    if isinstance(message, Response):
        if message.error is not None:
            return encode_error_object(message.id, message.error)
        result = NULL if message.result is None else message.result
        return encode_result(message.id, result, message.added)
    if isinstance(message, Request):
        return encode_request(message.id, message.method, message.params)
    return encode_notification(message.method, message.params)


def id_key(id: bytes) -> bytes:
    """
    @param id: raw JSON of a string or number.
    @return: what two ids share exactly when they are equal: C{1} and C{"1"} differ,
        C{"a"} and C{"\\u0061"} do not.
    """
    if id.startswith(b'"'):
        text = text_of(id)
        return id if text is None else b'"' + text.encode()
    return b"0" if id == b"-0" else id


def is_request_id(value: bytes) -> bool:
    """
    @param value: raw JSON.
    @return: whether it can be a request id: a string or an integer of bounded length
        (JSON-RPC 2.0 section 4; MCP forbids null). No fraction, no exponent.
    """
    if len(value) > MAXIMUM_ID_BYTES:
        return False
    if value.isdigit() and not value.startswith(b"0"):
        return True  # as nearly all
    return value.startswith(b'"') or _INTEGER.fullmatch(value) is not None


def is_token(value: bytes) -> bool:
    """
    @param value: raw JSON.
    @return: whether it is a string or any number, of bounded length.
    """
    return len(value) <= MAXIMUM_ID_BYTES and value[:1] in _TOKEN_STARTS


def text_of(value: bytes | None) -> str | None:
    """
    @param value: raw JSON, or None.
    @return: the text when the value is a JSON string, else None.
    """
    if value is None or not value.startswith(b'"'):
        return None
    try:
        return _STRING.decode(value)
    except _UNREADABLE:
        return None


def _text(text: str) -> bytes:
    return msgspec.json.encode(text)
