"""
The answers of the MCP endpoint: JSON-RPC error bodies with their HTTP statuses, and
the waiters that turn a child's answers into response streams.
"""

from collections.abc import Callable, Mapping
from secrets import token_hex
from typing import Final

import attrs
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.server import Request as HTTPRequest

from fjmcp_broker.mcp.correlation import DuplicateIdError, TooManyPendingError
from fjmcp_broker.mcp.messages import (
    INTERNAL_ERROR,
    INVALID_REQUEST,
    NULL,
    MessageError,
    Response,
    encode,
    encode_error,
)
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
from fjmcp_broker.sessions.stream import Formats, ResponseStream
from fjmcp_broker.store.errors import StoreError
from fjmcp_broker.upstream.errors import (
    SignInNeeded,
    UpstreamError,
    UpstreamUnavailable,
)
from fjmcp_broker.web.request import Refusal

log = Logger()

SERVER_ERROR: Final = -32000
"""Of the range for implementations: an HTTP status says more."""

SESSION_NOT_FOUND: Final = -32001
"""What the official SDKs use with 404."""

SHORT_RETRY_SECONDS: Final = 2
RETRY_SECONDS: Final = 5
LONG_RETRY_SECONDS: Final = 30


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


def answer_to_error(
    error: Exception, id: bytes, sign_in_challenge: str, request_id: str
) -> Refusal:
    """
    @param error: what was raised on the way to the child.
    @param id: raw JSON of the request's id, C{null} when there is none.
    @param sign_in_challenge: C{WWW-Authenticate} for a user who has to sign in again.
    @param request_id: for the log.
    @return: the answer of design section 4, status codes.
    """
    match error:
        case MessageError():
            return refusal(400, error.message, code=error.code, id=error.id)
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
            return unauthorized(sign_in_challenge, "sign in to Forgejo again")
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


Edit = Callable[[bytes], bytes]
"""Changes the raw result of one answer."""


class StreamWaiter:
    """
    Waits for one answer on behalf of one HTTP request.
    """

    def __init__(
        self, make_stream: Callable[[], ResponseStream], edit: Edit | None = None
    ) -> None:
        """
        @param make_stream: makes the response stream, once the request was taken.
        @param edit: changes the result.
        """
        self._make_stream = make_stream
        self._edit = edit
        self._stream: ResponseStream | None = None

    def begin(self) -> ResponseStream:
        """
        @return: the stream; from here on the HTTP request is the stream's.
        """
        if self._stream is None:
            self._stream = self._make_stream()
        return self._stream

    @property
    def takes_messages(self) -> bool:
        """
        @return: whether messages before the answer still reach the client.
        """
        return self.begin().takes_messages

    def notified(self, message: bytes) -> None:
        """
        @param message: belongs to the request.
        """
        self.begin().send(message)

    def answered(self, response: Response) -> None:
        """
        @param response: the answer.
        """
        self.begin().answer(edited(response, self._edit))

    def cancelled(self) -> None:
        """The client took the request back."""
        self.begin().end()


def edited(response: Response, edit: Edit | None) -> bytes:
    """
    @param response: an answer of the child.
    @param edit: changes its result, if it has one.
    @return: the message for the client.
    """
    if edit is not None and response.result is not None:
        response = attrs.evolve(response, result=edit(response.result))
    return encode(response)


class Batch:
    """
    The answers to one batch (2025-03-26): on a stream each by itself, in JSON all in
    one array.
    """

    def __init__(self, stream: ResponseStream, expected: int, as_array: bool) -> None:
        """
        @param stream: the response stream.
        @param expected: how many answers there will be, at least one.
        @param as_array: whether the client accepts JSON alone.
        """
        self._stream = stream
        self._expected = expected
        self._as_array = as_array
        self._answers: list[bytes] = []

    def add(self, message: bytes | None) -> None:
        """
        @param message: one answer, C{None} for one that will not come.
        """
        self._expected -= 1
        if message is not None:
            if self._as_array:
                self._answers.append(message)
            else:
                self._stream.send(message)
        if self._expected == 0:
            if self._as_array:
                self._stream.answer(b"[" + b",".join(self._answers) + b"]")
            else:
                self._stream.end()

    def waiter(self, edit: Edit | None) -> "BatchWaiter":
        """
        @param edit: changes the result.
        @return: the waiter for one request of the batch.
        """
        return BatchWaiter(self, self._stream, edit)


class BatchWaiter:
    """
    Waits for one answer of a batch.
    """

    def __init__(self, batch: Batch, stream: ResponseStream, edit: Edit | None) -> None:
        """
        @param batch: collects the answers.
        @param stream: takes what comes before them.
        @param edit: changes the result.
        """
        self._batch = batch
        self._stream = stream
        self._edit = edit

    @property
    def takes_messages(self) -> bool:
        """
        @return: whether messages before the answer still reach the client.
        """
        return self._stream.takes_messages

    def notified(self, message: bytes) -> None:
        """
        @param message: belongs to the request.
        """
        self._stream.send(message)

    def answered(self, response: Response) -> None:
        """
        @param response: the answer.
        """
        self._batch.add(edited(response, self._edit))

    def cancelled(self) -> None:
        """The client took the request back."""
        self._batch.add(None)
