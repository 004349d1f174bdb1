"""
Who waits for a child's answers on behalf of HTTP requests of the revisions with
sessions, and turns them into response streams.
"""

from collections.abc import Callable
from functools import partial

from fjmcp_broker.mcp.messages import Request, Response, encode, encode_result
from fjmcp_broker.mcp.policy import ToolCatalogue, overlay
from fjmcp_broker.oauth.bearer import Principal
from fjmcp_broker.rights import hides_writing
from fjmcp_broker.sessions.processes.throttle import NoThrottle, OutputThrottle
from fjmcp_broker.sessions.session import Session
from fjmcp_broker.sessions.streams.bounds import JSON_WINDOW_SECONDS
from fjmcp_broker.sessions.streams.prompt import PromptAnswer
from fjmcp_broker.sessions.streams.stream import Formats, ResponseStream
from fjmcp_broker.web.audit import ToolCall
from fjmcp_broker.web.mcp.streams import McpStreams
from fjmcp_broker.web.request import BrokerRequest

Edit = Callable[[bytes], bytes]
"""Changes the raw result of one answer."""


class ToolsOverlay:
    """
    Knows which answers need an edit: lists of tools.
    """

    def __init__(self, *, annotate: bool = True) -> None:
        """
        @param annotate: whether lists of tools get our annotations.
        """
        self._annotate = annotate

    def edit(
        self, request: Request, principal: Principal, catalogue: ToolCatalogue
    ) -> Edit | None:
        """
        @param request: of the client.
        @param principal: who sent it.
        @param catalogue: what is known of the tools of its child.
        @return: what changes the result, or C{None}: nothing does.
        """
        if request.method != "tools/list":
            return None
        return partial(
            overlay,
            catalogue=catalogue,
            hide_writes=hides_writing(principal.policy),
            annotate=self._annotate,
        )


class StreamWaiter(PromptAnswer, eq=False, kw_only=True):
    """
    Waits for one answer on behalf of one HTTP request.

    @ivar request: the HTTP request.
    @ivar streams: makes the response stream, if there has to be one.
    @ivar session: takes the message in it.
    @ivar id: raw JSON of the id of that message.
    @ivar edit: changes the result.
    @ivar throttle: pauses the child that has the message.
    """

    request: BrokerRequest
    streams: McpStreams
    session: Session
    id: bytes
    edit: Edit | None
    throttle: OutputThrottle | None = None

    def begin(self) -> None:
        """The child has the message: from here on the HTTP request is the answer's."""
        self.throttle = self.session.child
        if self.formats is Formats.EVENTS and not self.is_over:
            self.open()
        else:
            self.wait(JSON_WINDOW_SECONDS)

    def make_stream(self) -> ResponseStream:
        """
        @return: the stream for the answer, whose events are kept.
        """
        throttle = self.throttle or self.session.child or NoThrottle()
        return self.streams.answer(
            self.request, self.session, self.formats, self.id, throttle
        )

    @property
    def takes_messages(self) -> bool:
        """
        @return: whether messages before the answer still reach the client.
        """
        if self.stream is not None:
            return self.stream.takes_messages
        return self.formats is not Formats.JSON and not self.is_over

    def notified(self, message: bytes) -> None:
        """
        @param message: belongs to the request.
        """
        if not self.is_over:
            self.open().send(message)

    def answered(self, response: Response) -> None:
        """
        @param response: the answer.
        """
        self.request.answered_with(response)
        self.give(edited(response, self.edit))

    def cancelled(self) -> None:
        """The client took the request back."""
        self.request.ended_with("cancelled")
        if not self.is_over:
            self.open().end()


def edited(response: Response, edit: Edit | None) -> bytes:
    """
    @param response: an answer of the child.
    @param edit: changes its result, if it has one.
    @return: the message for the client.
    """
    result = response.result
    if result is None:
        return encode(response)
    if edit is not None:
        result = edit(result)
    return encode_result(response.id, result, response.added)


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

    def waiter(self, edit: Edit | None, call: ToolCall | None = None) -> "BatchWaiter":
        """
        @param edit: changes the result.
        @param call: what the audit trail hears of it.
        @return: the waiter for one request of the batch.
        """
        return BatchWaiter(self, self._stream, edit, call)


class BatchWaiter:
    """
    Waits for one answer of a batch.
    """

    def __init__(
        self,
        batch: Batch,
        stream: ResponseStream,
        edit: Edit | None,
        call: ToolCall | None,
    ) -> None:
        """
        @param batch: collects the answers.
        @param stream: takes what comes before them.
        @param edit: changes the result.
        @param call: what the audit trail hears of it.
        """
        self._call = call
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
        if self._call is not None:
            self._call.answered(response)
        self._batch.add(edited(response, self._edit))

    def cancelled(self) -> None:
        """The client took the request back."""
        if self._call is not None:
            self._call.over("cancelled")
        self._batch.add(None)
