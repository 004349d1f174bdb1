"""
The last message of a call: the child's answer as a client of the stateless revisions
gets it, or the refusal that these revisions ask for in its place.
"""

from collections.abc import Sequence
from typing import Final

import msgspec

from fjmcp_broker.mcp.envelope import (
    NULL,
    Request,
    Response,
    text_of,
)
from fjmcp_broker.mcp.modern.capabilities import (
    ELICITATION,
    Required,
    declares,
    required_for,
)
from fjmcp_broker.mcp.modern.edits import JsonObject, members_of, object_of
from fjmcp_broker.mcp.modern.errors import (
    internal_error,
    missing_capability,
    status_of_code,
)
from fjmcp_broker.mcp.modern.questions import Question, input_required
from fjmcp_broker.mcp.modern.requests import ModernRequest
from fjmcp_broker.mcp.modern.translation import (
    PRIVATE,
    TTL_MILLISECONDS,
    URL_ELICITATION_REQUIRED,
    code_of,
    error_to_modern,
    members_to_add,
    result_to_modern,
)

MAXIMUM_URLS: Final = 20
"""Pages that one error may ask a person to visit."""

IS_ERROR: Final = b'"isError"'
"""Stands in every result of a tool that says that it failed. Nearly none does, and a
result may be large: in JSON, CPython looks for this from the end in a third of the time
that it takes from the beginning."""


def answer_to_modern(
    modern: ModernRequest,
    response: Response,
    server_info: bytes | None = None,
    *,
    refused: Required | None = None,
) -> tuple[Response, int]:
    """
    @param modern: the request.
    @param response: the answer of a child of the older revisions, under any id.
    @param server_info: raw JSON object: who the child says it is; None to leave it out.
    @param refused: what the client would have had to declare for the questions that
        the child was refused during the call, or None. When the call then failed, that
        is the reason, and the client MUST hear it (MCP 2026-07-28, basic, C{_meta}).
    @return: the answer under the client's id, and the HTTP status for it when it is
        the first message.
    """
    if refused and failed(response):
        error = missing_capability(modern.id, refused)
        return error.to_response(), error.status
    if response.error is None:
        result = NULL if response.result is None else response.result
        added = members_to_add(modern.method, result, server_info)
        if added is not None:
            return Response(modern.id, result, None, added), 200
        result = result_to_modern(modern.method, result, server_info)
        return Response(modern.id, result), 200
    if modern.may_be_asked and code_of(response.error) == URL_ELICITATION_REQUIRED:
        asked = _url_questions(response.error)
        if asked:
            return _ask(modern, asked, server_info)
    raw, status = error_to_modern(response.error, modern.method)
    return Response(modern.id, None, raw), status


def answer_passed_on(modern: ModernRequest, response: Response) -> tuple[Response, int]:
    """
    @param modern: the request.
    @param response: the answer of a child that speaks the stateless revisions, under
        any id.
    @return: the same under the client's id, and the HTTP status for it when it is the
        first message. A result that says it is good for everybody says so no more:
        every child acts for one person, and lists of tools differ by what a grant may.
    """
    if response.error is not None:
        code = code_of(response.error)
        status = 200 if code is None else status_of_code(code)
        return Response(modern.id, None, response.error), status
    result = NULL if response.result is None else response.result
    if modern.method in TTL_MILLISECONDS and b'"public"' in result:
        found = JsonObject.read(result)
        if found is not None and found.get("cacheScope") == b'"public"':
            result = found.edited(replaced={"cacheScope": PRIVATE})
    return Response(modern.id, result), 200


def failed(response: Response) -> bool:
    """
    @param response: the answer of a child.
    @return: whether it is an error, or the result of a tool that says C{isError}.
    """
    if response.error is not None:
        return True
    result = response.result or NULL
    if result.rfind(IS_ERROR) < 0:
        return False
    return (members_of(result) or {}).get("isError") == b"true"


def _ask(
    modern: ModernRequest, asked: Sequence[Question], server_info: bytes | None
) -> tuple[Response, int]:
    """
    The older error says that the same call may be made again once the person has been
    to a page: nothing waits in the child, so the retry is a call like any other, and
    there is no C{requestState}.
    """
    required = required_for(asked[0].request)
    if required is not None and not declares(modern.capabilities, required):
        error = missing_capability(modern.id, required)
        return error.to_response(), error.status
    given = modern.input_responses or {}
    for question in asked:
        answer = members_of(given.get(question.key)) or {}
        if text_of(answer.get("action")) in ("cancel", "decline"):
            message = "the person did not do what the call needs"
            return internal_error(modern.id, message).to_response(), 200
    return Response(modern.id, input_required(asked, None, server_info)), 200


def _url_questions(error: bytes) -> list[Question]:
    """
    The pages of an error (MCP 2025-11-25, elicitation, URL mode, required error). Those
    that cannot be read are left out.
    """
    data = (members_of(error) or {}).get("data", NULL)
    try:
        pages = _DATA.decode(data).elicitations
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        return []
    found: dict[str, Question] = {}
    for page in pages[:MAXIMUM_URLS]:
        members = {
            "mode": b'"url"',
            "message": msgspec.json.encode(page.message),
            "url": msgspec.json.encode(page.url),
        }
        id = msgspec.json.encode(page.elicitation_id)
        request = Request(id, ELICITATION, object_of(members), members)
        found.setdefault(page.elicitation_id, Question(page.elicitation_id, request))
    return list(found.values())


class _Page(msgspec.Struct, rename={"elicitation_id": "elicitationId"}):
    url: str
    message: str
    elicitation_id: str


class _Data(msgspec.Struct):
    elicitations: list[_Page]


_DATA: Final = msgspec.json.Decoder(_Data)
