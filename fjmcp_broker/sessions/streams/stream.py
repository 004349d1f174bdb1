"""
One answer to one POST: a JSON document, or a stream of server-sent events.

It is JSON when the first message is the answer itself and comes soon enough, else a
stream (MCP 2025-11-25, transports, sending messages to the server). In the stateless
revisions the HTTP status depends on that message and waits for it longer.

Whoever reads too slowly neither fills the memory nor holds up the child for long:
beyond the message that is being written a few MiB wait here; then the child's output
is paused for a few seconds, and then the stream is cut.

A stream whose events are kept
(L{fjmcp_broker.sessions.streams.events.EventStream}) goes on without its connection:
whoever sends into the answer sends into what is kept, too, and another connection may
read on.

This object is the only one that finishes its HTTP request.
"""

from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Final

from twisted.internet.interfaces import IDelayedCall, IPushProducer, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from fjmcp_broker.mcp.sse import KEEPALIVE, event_parts
from fjmcp_broker.sessions.processes.throttle import OutputThrottle
from fjmcp_broker.sessions.streams.answered import AnsweredRequest
from fjmcp_broker.sessions.streams.bounds import (
    JSON_WINDOW_SECONDS,
    KEEPALIVE_SECONDS,
    MAXIMUM_BUFFERED_BYTES,
    PAUSE_SECONDS,
    SLICE_BYTES,
    STALL_SECONDS,
)
from fjmcp_broker.sessions.streams.events import EventStream
from fjmcp_broker.sessions.streams.formats import Formats as Formats

_OVERHEAD_BYTES: Final = 50
"""What a message that waits takes beside its bytes."""

_NONE: Final[deque[bytes]] = deque(maxlen=0)
"""Of an answer that nothing waits for, shared by all of them: it takes nothing."""

_OPEN, _JSON, _EVENTS, _CLOSED = range(4)
"""What an answer is: nothing yet, a document, a stream, over."""


@implementer(IPushProducer)
class ResponseStream:
    """
    The answer to one HTTP request.
    """

    log = Logger()

    # Most answers are one document, and change none of these.
    _mode = _OPEN
    _events: EventStream | None = None
    _make_events: Callable[[], EventStream] | None = None
    _backlog = _waiting = _NONE
    _current: memoryview | None = None
    _buffered = 0
    _paused = False
    _paused_at = 0.0
    _ending = False
    _window: IDelayedCall | None = None
    _keepalive: IDelayedCall | None = None
    _cut: IDelayedCall | None = None

    def __init__(
        self,
        request: AnsweredRequest,
        clock: IReactorTime,
        throttle: OutputThrottle,
        *,
        formats: Formats = Formats.BOTH,
        events: EventStream | Callable[[], EventStream] | None = None,
        primed: bool = False,
        backlog: Sequence[bytes] | None = None,
        status_window_seconds: float | None = None,
        on_gone: Callable[[], None] | None = None,
        maximum_buffered_bytes: int = MAXIMUM_BUFFERED_BYTES,
    ) -> None:
        """
        @param request: nothing is written to it yet; from here on it is ours alone.
        @param clock: for the window, keepalives and limits.
        @param throttle: pauses whoever produces the messages.
        @param formats: what the client accepts.
        @param events: with it, events have ids and are kept, and it is read from
            here on. Or what makes it, if the answer becomes a stream.
        @param primed: whether a new stream begins with an event that has an id and no
            data (2025-11-25).
        @param backlog: for a client that came back: the events that it lacks.
        @param status_window_seconds: how long the status may wait for the first
            message, also of a client that accepts events alone; C{None}: it is 200.
        @param on_gone: called when the client left or was cut off before the end.
        @param maximum_buffered_bytes: how much may wait beyond the message being
            written.
        """
        self._request = request
        self._clock = clock
        self._throttle = throttle
        self._formats = formats
        if isinstance(events, EventStream):
            self._events = events
        elif events is not None:
            self._make_events = events
        self._primed = primed and backlog is None
        self._on_gone = on_gone
        self._maximum = maximum_buffered_bytes
        request.on_lost = self._disconnected
        if backlog is not None:
            self._backlog = deque(backlog)
            self.begin_events()
            if self._events is not None and self._events.is_finished:
                self._ending = True
            self._pump()
        elif formats is Formats.EVENTS and status_window_seconds is None:
            self.begin_events()
        elif formats is not Formats.JSON:
            seconds = status_window_seconds or JSON_WINDOW_SECONDS
            self._window = clock.callLater(seconds, self._window_over)

    # Towards the relay

    @property
    def is_open(self) -> bool:
        """
        @return: whether messages still reach the client, as far as is known.
        """
        return self._mode is not _CLOSED and not self._ending

    @property
    def takes_messages(self) -> bool:
        """
        @return: whether messages before the answer can be delivered.
        """
        if self._formats is Formats.JSON:
            return False
        if self._events is not None and self._mode is not _OPEN:
            return self._events.takes_messages
        return self.is_open

    def send(self, message: bytes) -> None:
        """
        Deliver a message that comes before the answer.

        @param message: one JSON-RPC message. Dropped when the client does not accept
            event streams, or is gone and cannot come back.
        """
        if self._formats is Formats.JSON:
            return
        if self._mode is _OPEN:
            self.begin_events()
        if self._events is not None:
            self._events.send(message)
        else:
            self.deliver(*event_parts(message))

    def answer(self, message: bytes, status: int = 200) -> None:
        """
        Deliver the answer and end.

        @param message: one JSON-RPC response.
        @param status: of HTTP, when none has been sent yet; another one than 200 comes
            with JSON whatever the client accepts.
        """
        if self._mode is _OPEN and self._formats is Formats.EVENTS and status == 200:
            self.begin_events()
        if self._mode is _OPEN and len(message) <= SLICE_BYTES:
            self._close(is_complete=True)
            self._request.answer_whole(status, message)
        elif self._mode is _OPEN:
            self._request.setResponseCode(status)
            self._begin(_JSON, b"application/json")
            length = b"%d" % len(message)
            self._request.responseHeaders.setRawHeaders(b"Content-Length", [length])
            self._ending = True
            self._write(message)
        elif self._events is not None:
            self._events.answer(message)
        else:
            self.deliver(*event_parts(message))
            self.finish()

    def end(self) -> None:
        """
        End without an answer: the client cancelled its request.
        """
        if self._mode is _OPEN:
            self._forsake()
            self._begin(_EVENTS, b"text/event-stream")
            self.finish()
        elif self._events is not None:
            self._events.end()
        elif self.is_open:
            self.finish()

    # Towards what is kept

    def deliver(self, *event: bytes) -> None:
        """
        @param event: the next one of the stream, whole or in pieces.
        """
        if not self.is_open:
            return
        if self._is_idle and sum(map(len, event)) > SLICE_BYTES:
            for piece in event:
                if self.is_open:
                    self._write(piece)
        else:
            self._write(b"".join(event))

    def finish(self) -> None:
        """Nothing follows: the request is finished when everything is written."""
        if self._mode is not _CLOSED:
            self._ending = True
            self._pump()

    def displace(self) -> None:
        """The client has come back on another connection."""
        if self._mode is not _CLOSED:
            self._abort()

    # Beginning

    def _window_over(self) -> None:
        self._window = None
        self.begin_events()

    def _begin(self, mode: int, content_type: bytes) -> None:
        self._mode = mode
        self._waiting = deque()
        if mode is _JSON:
            self._forsake()
        if self._window is not None:
            self._window.cancel()
            self._window = None
        self._request.registerProducer(self, True)
        headers = self._request.responseHeaders
        headers.setRawHeaders(b"Content-Type", [content_type])
        headers.setRawHeaders(b"Cache-Control", [b"no-store"])

    def begin_events(self) -> None:
        """Be a stream of events, of which nothing was written yet."""
        self._begin(_EVENTS, b"text/event-stream")
        self._request.responseHeaders.setRawHeaders(b"X-Accel-Buffering", [b"no"])
        self._keepalive = self._clock.callLater(KEEPALIVE_SECONDS, self._tick)
        if self._make_events is not None:
            self._events, self._make_events = self._make_events(), None
        if self._events is not None:
            self._events.attach(self)
        if self._events is not None and self._primed:
            self._write(self._events.prime())
        else:
            self._request.write(b"")  # the headers at least

    def _forsake(self) -> None:
        """No event was written: there is nothing to come back to."""
        self._make_events = None
        if self._events is not None:
            self._events.discard()
            self._events = None

    # Writing

    @property
    def _is_idle(self) -> bool:
        return (
            not self._paused
            and self._current is None
            and not self._waiting
            and not self._backlog
        )

    def _write(self, data: bytes) -> None:
        if self._is_idle and len(data) <= SLICE_BYTES:
            self._request.write(data)
            if self._ending:
                self._pump()
            return
        if self._current is None and not self._waiting and not self._backlog:
            self._current = memoryview(data)
        else:
            self._waiting.append(data)
            self._buffered += len(data) + _OVERHEAD_BYTES
        self._pump()
        if (
            self._buffered > self._maximum
            and self._cut is None
            and self._mode is not _CLOSED
        ):
            self._cut = self._clock.callLater(PAUSE_SECONDS, self._too_slow)
            self._throttle.pause_output(self)

    def _pump(self) -> None:
        while not self._paused and self._mode is not _CLOSED:
            if self._current is None:
                if self._backlog:
                    data = self._backlog.popleft()
                elif self._waiting:
                    data = self._waiting.popleft()
                    self._buffered -= len(data) + _OVERHEAD_BYTES
                else:
                    break
                self._current = memoryview(data)
            piece = self._current[:SLICE_BYTES]
            rest = self._current[SLICE_BYTES:]
            self._current = rest if len(rest) else None
            self._request.write(bytes(piece))
        if self._cut is not None and self._buffered <= self._maximum:
            self._release()
        if self._ending and self._is_idle and self._mode is not _CLOSED:
            self._close(is_complete=True)
            self._request.unregisterProducer()
            self._request.finish()
        elif self._paused and self._keepalive is None:
            self._keepalive = self._clock.callLater(KEEPALIVE_SECONDS, self._tick)

    def _tick(self) -> None:
        self._keepalive = self._clock.callLater(KEEPALIVE_SECONDS, self._tick)
        if self._paused:
            if self._clock.seconds() - self._paused_at >= STALL_SECONDS:
                self._too_slow()
        elif self._mode is _EVENTS and self._current is None:
            self._request.write(KEEPALIVE)

    # Ending

    def _release(self) -> None:
        if self._cut is not None:
            if self._cut.active():
                self._cut.cancel()
            self._cut = None
            self._throttle.resume_output(self)

    def _too_slow(self) -> None:
        self.log.info("a stream was cut, its reader is too slow")
        self._abort()

    def _abort(self) -> None:
        # ITCPTransport, which every listener of ours gives (TLS and Unix included).
        transport: Any = self._request.transport
        self._close()
        # What the transport has taken cannot be sent either; its end is reported
        # to the request, which is not touched any more.
        transport.abortConnection()

    def _disconnected(self, reason: Failure) -> None:
        self._close()

    def _close(self, *, is_complete: bool = False) -> None:
        if self._mode is _OPEN:
            self._forsake()
        self._request.on_lost = None
        gone = None if is_complete else self._on_gone
        self._on_gone = None
        self._mode = _CLOSED
        self._current = None
        self._backlog = self._waiting = _NONE
        self._buffered = 0
        for call in (self._window, self._keepalive):
            if call is not None and call.active():
                call.cancel()
        self._window = self._keepalive = None
        self._release()
        if self._events is not None:
            self._events.detach(self, is_complete=is_complete)
        if gone is not None:
            gone()

    # From Twisted

    def pauseProducing(self) -> None:
        """The client does not keep up."""
        self._paused = True
        self._paused_at = self._clock.seconds()

    def resumeProducing(self) -> None:
        """The client took everything so far."""
        self._paused = False
        if self._mode is not _CLOSED:
            self._pump()

    def stopProducing(self) -> None:
        """The connection is lost."""
        self._close()
