"""
Answers of the OAuth endpoints: JSON documents and errors, as one kind of value.
"""

import json
from collections.abc import Callable, Mapping
from typing import Final

import msgspec
from twisted.web.iweb import IRequest

from fjmcp_broker.errors import BrokerError
from fjmcp_broker.oauth.errors import OAuthError
from fjmcp_broker.oauth.vocabulary import ErrorCode

#: What to wait before asking again when the store is busy, in seconds.
RETRY_AFTER_SECONDS: Final = 5

#: Answers with tokens or errors (RFC 6749 section 5.1).
NO_STORE: Final = {"Cache-Control": "no-store", "Pragma": "no-cache"}


class NotFound(BrokerError):  # noqa: N818 - it says what happened
    """
    There is nothing at this path, or nothing for this client.
    """


class ErrorAnswer(msgspec.Struct, frozen=True):
    """
    An error as it goes out, for the JSON body and for a page alike.

    @ivar status: HTTP status.
    @ivar code: an error code of L{ErrorCode}.
    @ivar description: for developers, in our own words; nothing secret.
    @ivar headers: further response headers.
    @ivar incident: the id under which our log has the cause, or C{None}.
    """

    status: int
    code: str
    description: str
    headers: Mapping[str, str] = msgspec.field(default_factory=dict)
    incident: str | None = None

    @classmethod
    def of(cls, error: OAuthError) -> "ErrorAnswer":
        """
        @param error: a refused request.
        @return: its answer.
        """
        return cls(error.status, error.code, error.description, error.headers)


#: Makes the page that a person sees instead of a JSON body: HTML, UTF-8. It may
#: set headers of its own; status and C{headers} of the answer are set already.
ErrorPage = Callable[[IRequest, ErrorAnswer], bytes]


def store_unavailable() -> ErrorAnswer:
    """
    @return: the answer while the store cannot be used: clients keep their tokens
        and try again.
    """
    return ErrorAnswer(
        503,
        ErrorCode.TEMPORARILY_UNAVAILABLE,
        "the service is busy, try again",
        {"Retry-After": str(RETRY_AFTER_SECONDS)},
    )


def answer_bytes(
    request: IRequest,
    body: bytes,
    content_type: str,
    status: int = 200,
    headers: Mapping[str, str] | None = None,
) -> bytes:
    """
    Set what belongs to a complete answer.

    @param request: gets status and headers.
    @param body: the whole body.
    @param content_type: of the body.
    @param status: HTTP status.
    @param headers: further response headers; they replace what is set.
    @return: the body, for a route to return.
    """
    request.setResponseCode(status)
    request.setHeader(b"Content-Type", content_type.encode("ascii"))
    request.setHeader(b"Content-Length", b"%d" % len(body))
    for name, value in (headers or {}).items():
        request.setHeader(name.encode("ascii"), value.encode("ascii"))
    return body


def answer_json(
    request: IRequest,
    document: object,
    status: int = 200,
    headers: Mapping[str, str] | None = None,
) -> bytes:
    """
    @param request: gets status and headers.
    @param document: JSON values.
    @param status: HTTP status.
    @param headers: further response headers; they replace what is set.
    @return: the document's bytes, for a route to return.
    """
    body = json.dumps(document, separators=(",", ":")).encode("ascii")
    return answer_bytes(request, body, "application/json", status, headers)


def answer_error(request: IRequest, answer: ErrorAnswer) -> bytes:
    """
    @param request: gets status and headers.
    @param answer: the error.
    @return: the JSON object of RFC 6749 section 5.2, for a route to return.
    """
    document = {"error": answer.code, "error_description": answer.description}
    if answer.incident is not None:
        document["incident"] = answer.incident
    return answer_json(request, document, answer.status, {**NO_STORE, **answer.headers})
