"""
The answer to one POST as long as nothing of it is written. Nearly every one is a
document, small and soon there, and needs nothing of what a stream is made of.
"""

import msgspec
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.python.failure import Failure

from fjmcp_broker.sessions.streams.answered import AnsweredRequest
from fjmcp_broker.sessions.streams.bounds import SLICE_BYTES
from fjmcp_broker.sessions.streams.formats import Formats
from fjmcp_broker.sessions.streams.stream import ResponseStream


class PromptAnswer(msgspec.Struct, eq=False, kw_only=True):
    """
    Gives a document that is the first message and comes soon enough. For anything else
    it makes a L{ResponseStream}, which has the HTTP request from then on.

    @ivar request: the HTTP request.
    @ivar clock: for the time that a document has.
    @ivar formats: what the client accepts.
    @ivar stream: the stream, once there is one.
    @ivar window: ends the time that a document has.
    @ivar is_over: whether the document was given, or its client has gone before.
    """

    request: AnsweredRequest
    clock: IReactorTime
    formats: Formats
    stream: ResponseStream | None = None
    window: IDelayedCall | None = None
    is_over: bool = False

    def make_stream(self) -> ResponseStream:
        """
        @return: a stream for this answer, of which nothing is written yet.
        """
        raise NotImplementedError

    def left(self) -> None:
        """The client has gone, and nothing was written."""

    def wait(self, seconds: float) -> None:
        """
        The child has the request, and may have answered already: the HTTP request is
        the answer's from here on.

        @param seconds: how long a document has, of a client that accepts a stream.
        """
        if self.is_over or self.stream is not None:
            return
        self.request.on_lost = self._lost
        if self.formats is not Formats.JSON:
            self.window = self.clock.callLater(seconds, self._late)

    def open(self) -> ResponseStream:
        """
        @return: the stream. Only to be asked for before the answer L{is_over}.
        """
        stream = self.stream
        if stream is None:
            self._stop_waiting()
            self.stream = stream = self.make_stream()
        return stream

    def give(self, document: bytes, status: int = 200) -> None:
        """
        @param document: the answer, one JSON-RPC response.
        @param status: of HTTP, when none has been sent yet; another one than 200 comes
            with JSON whatever the client accepts.
        """
        if self.is_over:
            return
        is_event = self.formats is Formats.EVENTS and status == 200
        if self.stream is not None or is_event or len(document) > SLICE_BYTES:
            self.open().answer(document, status)
            return
        self.is_over = True
        self._stop_waiting()
        self.request.answer_whole(status, document)

    def _stop_waiting(self) -> None:
        self.request.on_lost = None
        if self.window is not None:
            self.window.cancel()
            self.window = None

    def _late(self) -> None:
        self.window = None
        self.open().begin_events()

    def _lost(self, reason: Failure) -> None:
        self.is_over = True
        self._stop_waiting()
        self.left()
