"""
The answers of the MCP endpoint that need no child: JSON-RPC error bodies with their
HTTP statuses.
"""

from collections.abc import Mapping
from functools import lru_cache
from secrets import token_hex
from typing import Final

from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.server import Request as HTTPRequest

from fjmcp_broker.mcp.correlation import DuplicateIdError, TooManyPendingError
from fjmcp_broker.mcp.messages import (
    INTERNAL_ERROR,
    INVALID_REQUEST,
    NULL,
    MessageError,
    encode_error,
)
from fjmcp_broker.mcp.modern.errors import ModernError
from fjmcp_broker.mcp.policy import Refused
from fjmcp_broker.mcp.versions import VersionError
from fjmcp_broker.sessions.errors import (
    ChildBusy,
    ChildCannotStart,
    ChildGone,
    SessionForbidden,
    SessionGone,
    Stopping,
    TooManySessions,
)
from fjmcp_broker.sessions.streams.stream import Formats
from fjmcp_broker.store.errors import StoreError
from fjmcp_broker.upstream.errors import (
    SignInNeeded,
    UpstreamError,
    UpstreamUnavailable,
)
from fjmcp_broker.web.bearer import BearerAuthenticator, BearerRefused
from fjmcp_broker.web.refusal import Refusal

log = Logger()

SERVER_ERROR: Final = -32000
"""Of the range for implementations: an HTTP status says more."""

SESSION_NOT_FOUND: Final = -32001
"""What the official SDKs use with 404."""

ACCEPTED: Final = Refusal(202, {}, b"")

SHORT_RETRY_SECONDS: Final = 2
RETRY_SECONDS: Final = 5
LONG_RETRY_SECONDS: Final = 30

_REMEMBERED: Final = 64
"""So many values of a header that nearly all clients repeat are read only once."""


def refusal(
    status: int,
    message: str,
    *,
    code: int = SERVER_ERROR,
    id: bytes = NULL,
    reason: str | None = None,
    retry_after: int | None = None,
    headers: Mapping[bytes, bytes] | None = None,
) -> Refusal:
    """
    @param status: HTTP status.
    @param message: one sentence for the client; never a part of what it sent.
    @param code: JSON-RPC error code.
    @param id: raw JSON of the request's id.
    @param reason: C{data.reason}.
    @param retry_after: seconds.
    @param headers: further headers.
    @return: the answer with a JSON-RPC error as its body.
    """
    data = None if reason is None else {"reason": reason}
    all_headers = {
        b"Content-Type": b"application/json",
        b"Cache-Control": b"no-store",
        **(headers or {}),
    }
    if retry_after is not None:
        all_headers[b"Retry-After"] = b"%d" % retry_after
    return Refusal(status, all_headers, encode_error(id, code, message, data))


def unauthorized(challenge: str, message: str) -> Refusal:
    """
    @param challenge: value of C{WWW-Authenticate}.
    @param message: one sentence.
    @return: the 401.
    """
    return refusal(
        401, message, headers={b"WWW-Authenticate": challenge.encode("ascii")}
    )


def not_allowed(message: str, allowed: bytes = b"POST") -> Refusal:
    """
    @param message: one sentence.
    @param allowed: the methods that are.
    @return: the 405.
    """
    return refusal(405, message, headers={b"Allow": allowed})


def refused_by_policy(
    verdict: Refused,
    id: bytes,
    authenticator: BearerAuthenticator,
    *,
    code: int = SERVER_ERROR,
) -> Refusal:
    """
    @param verdict: why a message must not go to the child.
    @param id: raw JSON of the request's id, C{null} when there is none.
    @param authenticator: makes challenges.
    @param code: JSON-RPC error code.
    @return: the answer. When no other token would help it is an error of the call, not
        of the client.
    """
    if verdict.scope is None:
        body = encode_error(id, code, verdict.reason)
        return Refusal(200, {b"Content-Type": b"application/json"}, body)
    challenge = authenticator.insufficient_scope()
    return refusal(
        403,
        verdict.reason,
        code=code,
        id=id,
        reason="insufficient_scope",
        headers={b"WWW-Authenticate": challenge.encode("ascii")},
    )


def answer_to_error(
    error: Exception, id: bytes, authenticator: BearerAuthenticator, request_id: str
) -> Refusal:
    """
    @param error: what was raised on the way to the child.
    @param id: raw JSON of the request's id, C{null} when there is none.
    @param authenticator: makes the challenge for a user who has to sign in again.
    @param request_id: for the log.
    @return: the answer of design section 4, status codes.
    """
    match error:
        case BearerRefused():
            return unauthorized(error.challenge, "a valid access token is needed")
        case MessageError():
            return refusal(400, error.message, code=error.code, id=error.id)
        case ModernError():
            return Refusal(
                error.status,
                {
                    b"Content-Type": b"application/json",
                    b"Cache-Control": b"no-store",
                },
                error.to_bytes(),
            )
        case VersionError():
            return refusal(400, str(error), code=INVALID_REQUEST, id=id)
        case SessionGone():
            return refusal(
                404, "there is no such session", code=SESSION_NOT_FOUND, id=id
            )
        case SessionForbidden():
            return refusal(403, "the session belongs to another user", id=id)
        case DuplicateIdError():
            return refusal(409, str(error), code=INVALID_REQUEST, id=id)
        case SignInNeeded():
            again = "sign in to Forgejo again"
            return unauthorized(authenticator.refused(again).challenge, again)
        case _:
            return _trouble(error, id, request_id)


def _trouble(error: Exception, id: bytes, request_id: str) -> Refusal:
    """The answers with 5xx: it is not the client's fault."""

    def trouble(status: int, message: str, reason: str, retry_after: int) -> Refusal:
        log.warn(
            "MCP request refused with {status}: {message}",
            status=status,
            message=message,
            request_id=request_id,
        )
        return refusal(
            status,
            message,
            code=INTERNAL_ERROR,
            id=id,
            reason=reason,
            retry_after=retry_after,
        )

    match error:
        case TooManySessions():
            return trouble(
                503, str(error), "too_many_sessions", error.retry_after_seconds
            )
        case Stopping():
            return trouble(503, str(error), "stopping", RETRY_SECONDS)
        case ChildBusy() | ChildGone() | TooManyPendingError():
            return trouble(503, str(error), "child_busy", SHORT_RETRY_SECONDS)
        case ChildCannotStart():
            return trouble(502, str(error), "child_cannot_start", RETRY_SECONDS)
        case UpstreamUnavailable():
            return trouble(
                503, str(error), "forgejo_unavailable", error.retry_after_seconds
            )
        case UpstreamError():
            return trouble(502, str(error), "forgejo_misconfigured", LONG_RETRY_SECONDS)
        case StoreError():
            return trouble(
                503, "the service is busy", "store_unavailable", RETRY_SECONDS
            )
    incident = token_hex(8)
    log.failure(
        "MCP request failed, incident {incident}",
        Failure(error),
        incident=incident,
        request_id=request_id,
    )
    return refusal(
        500,
        f"an unexpected error; the log has it under {incident}",
        code=INTERNAL_ERROR,
        id=id,
        reason="unexpected",
    )


@lru_cache(maxsize=_REMEMBERED)
def accepted_formats(header: bytes | None) -> Formats | None:
    """
    What a client accepts. The specification wants both formats in every C{Accept}
    header (MUST of clients); one of them is enough here, and so is none at all.

    @param header: C{Accept}, controlled by the client.
    @return: the formats, or C{None}: 406.
    """
    if header is None:
        return Formats.BOTH
    offered = set()
    for part in header.lower().split(b","):
        kind, *parameters = (piece.strip() for piece in part.split(b";"))
        if any(p.replace(b" ", b"") in (b"q=0", b"q=0.0") for p in parameters):
            continue
        offered.add(kind)
    json = not offered.isdisjoint((b"*/*", b"application/*", b"application/json"))
    events = not offered.isdisjoint((b"*/*", b"text/*", b"text/event-stream"))
    if json and events:
        return Formats.BOTH
    if json:
        return Formats.JSON
    return Formats.EVENTS if events else None


@lru_cache(maxsize=_REMEMBERED)
def is_json(header: bytes | None) -> bool:
    """
    @param header: C{Content-Type}, controlled by the client.
    @return: whether it is C{application/json}.
    """
    if header is None:
        return False
    return header.split(b";")[0].strip().lower() == b"application/json"


def finish_with(request: HTTPRequest, answer: Refusal) -> None:
    """
    @param request: nothing is written to it yet, and its client is there.
    @param answer: the whole answer.
    """
    request.setResponseCode(answer.status)
    for name, value in answer.headers.items():
        request.responseHeaders.setRawHeaders(name, [value])
    request.responseHeaders.setRawHeaders(b"Content-Length", [b"%d" % len(answer.body)])
    request.write(answer.body)
    request.finish()
