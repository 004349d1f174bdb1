"""
The HTTP answer to one request of the stateless revisions (MCP 2026-07-28, transports,
Streamable HTTP, receiving messages).

The status waits for the child's first message, because 404 and 400 depend on it. Events
have no ids: nothing can be read on, and a client that closes its connection, or reads
too slowly, has taken its request back.
"""

from typing import Final

from twisted.logger import Logger

from fjmcp_broker.mcp.messages import Response, encode
from fjmcp_broker.mcp.modern.listening import LISTEN, ended
from fjmcp_broker.mcp.modern.requests import ModernRequest
from fjmcp_broker.sessions.children.ours import failure
from fjmcp_broker.sessions.processes.child import Child
from fjmcp_broker.sessions.processes.throttle import PresentChild
from fjmcp_broker.sessions.stateless.calls import Call
from fjmcp_broker.sessions.streams.prompt import PromptAnswer
from fjmcp_broker.sessions.streams.stream import Formats, ResponseStream
from fjmcp_broker.web.mcp.waiters import Edit, edited
from fjmcp_broker.web.request import BrokerRequest

STATUS_SECONDS: Final = 5.0
"""How long a status waits. Beyond that a client is better served by a stream that is
alive than by a status that is exact."""


class ModernAnswer(PromptAnswer, eq=False, kw_only=True):
    """
    Observes one call on behalf of one HTTP request.

    @ivar request: the HTTP request. It stays the caller's until the call has begun.
    @ivar edit: changes the result.
    @ivar modern: what the client asked.
    @ivar call: the request at the child, once it has begun.
    @ivar is_given_up: whether the client has gone, or reads too slowly.
    """

    log = Logger()

    request: BrokerRequest
    edit: Edit | None
    modern: ModernRequest
    call: Call | None = None
    is_given_up: bool = False

    def begun(self, call: Call) -> None:
        """
        @param call: the request was taken; from here on the HTTP request is the
            stream's.
        """
        self.call = call
        self.wait(STATUS_SECONDS)
        if self.is_given_up:
            call.abandon()
        elif self.modern.method == LISTEN:
            self.request.on_drain = self._conclude

    # From the session

    @property
    def takes_messages(self) -> bool:
        """
        @return: whether messages before the answer still reach the client.
        """
        if self.stream is None:
            # A call that cannot begin after all leaves the HTTP request alone.
            return self.formats is not Formats.JSON and self.request.is_open
        return self.stream.takes_messages

    def notified(self, message: bytes) -> None:
        """
        @param message: belongs to the request.
        """
        if not self.is_over:
            self.open().send(message)

    def finished(self, response: Response, status: int) -> None:
        """
        @param response: the answer.
        @param status: of HTTP, if none has been sent yet.
        """
        self.request.on_drain = None
        self.request.answered_with(response)
        try:
            message = edited(response, self.edit)
        except Exception:
            # Nobody would answer it any more.
            self.log.failure("an answer could not be edited")
            lost = failure(self.modern.id, "unexpected", "the answer was lost")
            message = encode(lost)
        self.give(message, status)

    # Towards the client

    def make_stream(self) -> ResponseStream:
        """
        @return: the stream for the answer, with which the call ends.
        """
        return ResponseStream(
            self.request,
            self.clock,
            PresentChild(self._child),
            formats=self.formats,
            status_window_seconds=STATUS_SECONDS,
            on_gone=self.left,
        )

    def left(self) -> None:
        """The client has gone, or was cut off: it has taken its request back."""
        self.is_given_up = True
        self.request.ended_with("cancelled")
        if self.call is not None:
            self.call.abandon()

    # Inside

    def _child(self) -> Child | None:
        return None if self.call is None else self.call.child

    def _conclude(self) -> None:
        """
        The daemon stops: what would last for ever ends in good order (MCP 2026-07-28,
        subscriptions, graceful closure).
        """
        self.give(ended(self.modern.id))
        if self.call is not None:
            self.call.abandon()
