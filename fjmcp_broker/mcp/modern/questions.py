"""
The child's own requests as C{input_required} results, and the client's retry as the
child's answer (MCP 2026-07-28, multi round-trip requests).
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Final

import msgspec

from fjmcp_broker.mcp.envelope import (
    METHOD_NOT_FOUND,
    NULL,
    Request,
    encode_error,
    encode_result,
    text_of,
)
from fjmcp_broker.mcp.modern.capabilities import (
    ELICITATION,
    ROOTS,
    SAMPLING,
    Required,
    declares,
    required_for,
)
from fjmcp_broker.mcp.modern.edits import edited, members_of, object_of
from fjmcp_broker.mcp.modern.requests import ModernRequest
from fjmcp_broker.mcp.modern.translation import META_SERVER

_GONE: Final = {ELICITATION: ("elicitationId", "task"), SAMPLING: ("task",)}
"""Members of the questions' params that these revisions do not have."""

_META_GONE: Final = ("io.modelcontextprotocol/related-task", "progressToken")


class Question(msgspec.Struct, frozen=True):
    """
    A request of the child that a client is to answer.

    @ivar key: what names it in C{inputRequests}: the child's own id, as a text.
    @ivar request: as the child sent it, under the child's own id.
    """

    key: str
    request: Request

    def answered(self, result: bytes) -> bytes:
        """
        @param result: raw JSON that L{is_answer} accepts.
        @return: the encoded answer for the child.
        """
        return encode_result(self.request.id, result)

    def failed(self, message: str, code: int = METHOD_NOT_FOUND) -> bytes:
        """
        @param message: why there will be no answer; our own words.
        @param code: the JSON-RPC error code.
        @return: the encoded answer for the child.
        """
        return encode_error(self.request.id, code, message)


class Sorted(msgspec.Struct, frozen=True):
    """
    What a retry brought.

    @ivar answered: each question that has an answer, and the encoded answer for the
        child.
    @ivar open: the questions that are to be asked again, in their order.
    """

    answered: tuple[tuple[Question, bytes], ...]
    open: tuple[Question, ...]


def question_of(request: Request, taken: Collection[str] = ()) -> Question:
    """
    @param request: what the child asks.
    @param taken: the keys of the questions that are open on the same call.
    @return: the question, under a key of its own: C{1} and C{"1"} can both be open.
    """
    text = text_of(request.id)
    key = request.id.decode() if text is None else text
    while key in taken:
        key += "'"
    return Question(key, request)


class Refusal(msgspec.Struct, frozen=True):
    """
    A question that does not reach the client.

    @ivar answer: the encoded error for the child.
    @ivar missing: what the client would have had to declare, for
        L{fjmcp_broker.mcp.modern.answers.answer_to_modern}; None when that is not why.
    """

    answer: bytes
    missing: Required | None = None


def refusal(asked: Request, modern: ModernRequest) -> Refusal | None:
    """
    @param asked: what the child asks.
    @param modern: the call on which it asks.
    @return: why the client must not be asked: it did not declare that it can be, the
        question is none of those that these revisions have, or the method is none of
        those whose answer may be a question. None when it may be asked.
    """
    required = required_for(asked)
    if required is None or not modern.may_be_asked:
        message = "this cannot be asked of the client here"
        return Refusal(encode_error(asked.id, METHOD_NOT_FOUND, message))
    if declares(modern.capabilities, required):
        return None
    message = "the client did not declare support for this"
    return Refusal(encode_error(asked.id, METHOD_NOT_FOUND, message), required)


def input_request(request: Request) -> bytes:
    """
    @param request: what the child asks.
    @return: the question as it stands in C{inputRequests}: its method and params,
        without what these revisions took from them. The progress token leaves too,
        since a client cannot report on what is no request to it.
    """
    members = {"method": msgspec.json.encode(request.method)}
    params = request.params
    if params is not None:
        gone = [
            name for name in _GONE.get(request.method, ()) if name in request.members
        ]
        replaced: dict[str, bytes] = {}
        if any(name in request.meta for name in _META_GONE):
            if set(request.meta) <= set(_META_GONE):
                gone.append("_meta")
            else:
                meta = edited(request.members["_meta"], without=_META_GONE)
                replaced["_meta"] = meta
        if gone or replaced:
            params = edited(params, without=gone, replaced=replaced)
        members["params"] = params
    return object_of(members)


def input_required(
    questions: Iterable[Question],
    request_state: str | None,
    server_info: bytes | None = None,
) -> bytes:
    """
    @param questions: what is open on the call.
    @param request_state: from L{fjmcp_broker.mcp.modern.request_state}; None when the
        retry is to be a call like any other.
    @param server_info: raw JSON object: who the child says it is; None to leave it out.
    @return: the raw result. It has no caching hints, because it is not complete.
    """
    asked = {question.key: input_request(question.request) for question in questions}
    members = {
        "resultType": b'"input_required"',
        "inputRequests": object_of(asked),
    }
    if request_state is not None:
        members["requestState"] = msgspec.json.encode(request_state)
    if server_info is not None:
        members["_meta"] = object_of({META_SERVER: server_info})
    return object_of(members)


def sort_answers(
    responses: Mapping[str, bytes] | None, questions: Sequence[Question]
) -> Sorted:
    """
    @param responses: C{inputResponses} of a request, raw JSON by key, or None.
    @param questions: what is open on the call.
    @return: who is answered and who is not. Keys that name no question are ignored; an
        answer of the wrong shape counts as none, so that it is asked for again.
    """
    given = {} if responses is None else responses
    answered: list[tuple[Question, bytes]] = []
    still: list[Question] = []
    for question in questions:
        result = given.get(question.key)
        if result is not None and is_answer(question.request, result):
            answered.append((question, question.answered(result)))
        else:
            still.append(question)
    return Sorted(tuple(answered), tuple(still))


def is_answer(request: Request, result: bytes) -> bool:
    """
    @param request: what the child asked.
    @param result: raw JSON that a client gave.
    @return: whether it has the shape of the method's result (MCP 2026-07-28, schema,
        C{InputResponse}). What the person typed is the child's business.
    """
    members = members_of(result)
    if members is None:
        return False
    if request.method == ELICITATION:
        content = members.get("content")
        return text_of(members.get("action")) in ("accept", "cancel", "decline") and (
            content is None or members_of(content) is not None
        )
    if request.method == SAMPLING:
        return (
            text_of(members.get("role")) in ("assistant", "user")
            and text_of(members.get("model")) is not None
            and members.get("content", NULL)[:1] in (b"{", b"[")
        )
    if request.method == ROOTS:
        try:
            _ROOTS.decode(result)
        except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
            return False
    return True


class _Root(msgspec.Struct):
    uri: str


class _Roots(msgspec.Struct):
    roots: list[_Root]


_ROOTS: Final = msgspec.json.Decoder(_Roots)
