"""
Refusals of the stateless revisions: each knows its JSON-RPC form and its HTTP status
(MCP 2026-07-28, basic, error codes; transports, Streamable HTTP, server validation).
"""

from collections.abc import Mapping, Sequence
from typing import Final

import msgspec

from fjmcp_broker.errors import BrokerError
from fjmcp_broker.mcp.envelope import (
    INTERNAL_ERROR,
    INVALID_PARAMS,
    METHOD_NOT_FOUND,
    NULL,
    Response,
    encode,
)

HEADER_MISMATCH: Final = -32020
MISSING_CAPABILITY: Final = -32021
UNSUPPORTED_VERSION: Final = -32022

_STATUSES: Final[Mapping[int, int]] = {
    METHOD_NOT_FOUND: 404,
    HEADER_MISMATCH: 400,
    MISSING_CAPABILITY: 400,
    UNSUPPORTED_VERSION: 400,
}


class ModernError(BrokerError):
    """
    A request of the stateless revisions that is refused, mostly the client's fault.

    @ivar status: the HTTP status.
    @ivar code: the JSON-RPC error code.
    @ivar message: one sentence; repeats nothing of the client's text.
    @ivar data: more, as JSON values, or None.
    @ivar id: raw JSON of the request's id, C{null} when there is none.
    """

    def __init__(
        self,
        status: int,
        code: int,
        message: str,
        data: Mapping[str, object] | None = None,
        id: bytes = NULL,
    ) -> None:
        """
        @param status: the HTTP status.
        @param code: the JSON-RPC error code.
        @param message: what is wrong; repeats nothing of the client's text.
        @param data: more, as JSON values, or None.
        @param id: raw JSON of the request's id.
        """
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.data = data
        self.id = id

    def to_response(self) -> Response:
        """
        @return: the JSON-RPC error response as a record.
        """
        error: dict[str, object] = {"code": self.code, "message": self.message}
        if self.data is not None:
            error["data"] = self.data
        return Response(self.id, None, msgspec.json.encode(error))

    def to_bytes(self) -> bytes:
        """
        @return: the JSON-RPC error response.
        """
        return encode(self.to_response())


def status_of_code(code: int) -> int:
    """
    @param code: of a JSON-RPC error that answers a request.
    @return: the HTTP status of that answer. Only what the specification gives a status
        has one; other errors are answers like any other, so 200.
    """
    return _STATUSES.get(code, 200)


def header_mismatch(id: bytes, message: str) -> ModernError:
    """
    @param id: raw JSON of the request's id.
    @param message: which header is missing or differs; none of its value.
    @return: the refusal.
    """
    return ModernError(400, HEADER_MISMATCH, message, None, id)


def invalid_params(id: bytes, message: str) -> ModernError:
    """
    @param id: raw JSON of the request's id.
    @param message: what is missing or malformed.
    @return: the refusal of a request that the protocol calls malformed.
    """
    return ModernError(400, INVALID_PARAMS, message, None, id)


def method_not_found(id: bytes) -> ModernError:
    """
    @param id: raw JSON of the request's id.
    @return: the refusal of a method that this revision does not have.
    """
    message = "this method does not exist in the stateless revisions"
    return ModernError(404, METHOD_NOT_FOUND, message, None, id)


def unsupported_version(
    id: bytes, requested: str, supported: Sequence[str]
) -> ModernError:
    """
    @param id: raw JSON of the request's id.
    @param requested: the revision that the client named, repeated to it.
    @param supported: the revisions that are spoken here, the newest first.
    @return: the refusal; a client chooses from the list.
    """
    data = {"supported": list(supported), "requested": requested}
    message = "Unsupported protocol version"
    return ModernError(400, UNSUPPORTED_VERSION, message, data, id)


def internal_error(id: bytes, message: str) -> ModernError:
    """
    @param id: raw JSON of the request's id.
    @param message: what went wrong.
    @return: a failure that is not the client's, as an answer like any other.
    """
    return ModernError(200, INTERNAL_ERROR, message, None, id)


def missing_capability(id: bytes, required: Mapping[str, object]) -> ModernError:
    """
    @param id: raw JSON of the request's id.
    @param required: the capabilities that the client would have to declare, in the
        shape of C{ClientCapabilities}: C{{"elicitation": {"url": {}}}}.
    @return: the refusal.
    """
    data = {"requiredCapabilities": dict(required)}
    message = "the request needs a capability that the client did not declare"
    return ModernError(400, MISSING_CAPABILITY, message, data, id)
