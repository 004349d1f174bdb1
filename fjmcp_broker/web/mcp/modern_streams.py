"""
The HTTP answer to one request of the stateless revisions (MCP 2026-07-28, transports,
Streamable HTTP, receiving messages).

The status waits for the child's first message, because 404 and 400 depend on it. Events
have no ids: nothing can be read on, and a client that closes its connection, or reads
too slowly, has taken its request back.
"""

from typing import Final

from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from fjmcp_broker.mcp.messages import Response, encode
from fjmcp_broker.mcp.modern.listening import LISTEN, ended
from fjmcp_broker.mcp.modern.requests import ModernRequest
from fjmcp_broker.sessions.children.ours import failure
from fjmcp_broker.sessions.processes.child import Child
from fjmcp_broker.sessions.processes.throttle import PresentChild
from fjmcp_broker.sessions.stateless.calls import Call
from fjmcp_broker.sessions.streams.stream import Formats, ResponseStream
from fjmcp_broker.web.mcp.waiters import Edit, edited
from fjmcp_broker.web.request import BrokerRequest

STATUS_SECONDS: Final = 5.0
"""How long a status waits. Beyond that a client is better served by a stream that is
alive than by a status that is exact."""


class ModernAnswer:
    """
    Observes one call on behalf of one HTTP request.
    """

    _log = Logger()

    _stream: ResponseStream | None = None
    _call: Call | None = None
    _gone = False

    def __init__(
        self,
        request: BrokerRequest,
        clock: IReactorTime,
        formats: Formats,
        edit: Edit | None,
        modern: ModernRequest,
    ) -> None:
        """
        @param request: nothing is written to it yet. It stays the caller's until the
            call has begun.
        @param clock: for the stream.
        @param formats: what the client accepts.
        @param edit: changes the result.
        @param modern: what the client asked.
        """
        self._request = request
        self._clock = clock
        self._formats = formats
        self._edit = edit
        self._modern = modern

    def begun(self, call: Call) -> None:
        """
        @param call: the request was taken; from here on the HTTP request is the
            stream's.
        """
        self._call = call
        self._open()
        if self._gone:
            call.abandon()
        elif self._modern.method == LISTEN:
            self._request.on_drain = self._conclude

    # From the session

    @property
    def takes_messages(self) -> bool:
        """
        @return: whether messages before the answer still reach the client.
        """
        if self._stream is None:
            # A call that cannot begin after all leaves the HTTP request alone.
            return self._formats is not Formats.JSON and self._request.is_open
        return self._stream.takes_messages

    def notified(self, message: bytes) -> None:
        """
        @param message: belongs to the request.
        """
        self._open().send(message)

    def finished(self, response: Response, status: int) -> None:
        """
        @param response: the answer.
        @param status: of HTTP, if none has been sent yet.
        """
        self._request.on_drain = None
        self._request.answered_with(response)
        try:
            message = edited(response, self._edit)
        except Exception:
            # Nobody would answer it any more.
            self._log.failure("an answer could not be edited")
            lost = failure(self._modern.id, "unexpected", "the answer was lost")
            message = encode(lost)
        self._open().answer(message, status)

    # Inside

    def _open(self) -> ResponseStream:
        if self._stream is None:
            self._stream = ResponseStream(
                self._request,
                self._clock,
                PresentChild(self._child),
                formats=self._formats,
                status_window_seconds=STATUS_SECONDS,
                on_gone=self._left,
            )
        return self._stream

    def _child(self) -> Child | None:
        return None if self._call is None else self._call.child

    def _left(self) -> None:
        self._gone = True
        self._request.ended_with("cancelled")
        if self._call is not None:
            self._call.abandon()

    def _conclude(self) -> None:
        """
        The daemon stops: what would last for ever ends in good order (MCP 2026-07-28,
        subscriptions, graceful closure).
        """
        self._open().answer(ended(self._modern.id))
        if self._call is not None:
            self._call.abandon()
