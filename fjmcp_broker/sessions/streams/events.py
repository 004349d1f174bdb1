"""
One stream of events, which may outlive the connection that carries it.
"""

from collections import deque
from collections.abc import Callable
from typing import Final, Protocol

import msgspec

from fjmcp_broker.mcp.messages import INTERNAL_ERROR, encode_error
from fjmcp_broker.mcp.sse import encode_event, event_parts
from fjmcp_broker.sessions.processes.throttle import NoThrottle, OutputThrottle

RETRY_MILLISECONDS: Final = 3000
EVENT_OVERHEAD_BYTES: Final = 600
"""What an event takes beside its bytes, so that small ones are bounded as well."""


class Event(msgspec.Struct, eq=False):
    """
    One kept event.

    @ivar stream: whose it is.
    @ivar number: in its stream.
    @ivar data: as it is written.
    @ivar kept_at: since when it is kept as it is now.
    @ivar is_answer: whether it ends its stream.
    """

    stream: "EventStream"
    number: int
    data: bytes
    kept_at: float
    is_answer: bool = False

    @property
    def cost(self) -> int:
        """
        @return: how many bytes it counts for.
        """
        return len(self.data) + EVENT_OVERHEAD_BYTES


class StreamReader(Protocol):
    """
    Writes a stream to a connection.
    """

    def deliver(self, *event: bytes) -> None:
        """
        @param event: the next one, whole or in pieces.
        """

    def finish(self) -> None:
        """Nothing follows."""

    def displace(self) -> None:
        """Another connection reads on."""


class Keeper(Protocol):
    """
    Keeps the events of one session's streams.
    """

    @property
    def maximum_bytes(self) -> int:
        """
        @return: the highest cost that an event may have.
        """

    def now(self) -> float:
        """
        @return: the time.
        """

    def keep(self, event: Event) -> None:
        """
        @param event: kept from now on, as long as there is room.
        """

    def mark_read(self, events: "deque[Event]") -> None:
        """
        @param events: they were written out.
        """

    def remove(self, stream: "EventStream", events: "deque[Event]") -> None:
        """
        @param stream: it is over.
        @param events: what is kept of it.
        """


class EventStream:
    """
    One stream of events: the answer to a POST, or what a session listens to by GET. It
    has at most one reader, whose connection may end before the stream does.

    @ivar name: what its event ids begin with.
    @ivar throttle: pauses whoever produces the messages.
    @ivar is_call: whether it ends with the answer to a request.
    @ivar is_finished: whether nothing follows.
    """

    def __init__(
        self,
        keeper: Keeper,
        name: str,
        throttle: OutputThrottle,
        *,
        is_call: bool,
        request_id: bytes | None = None,
        on_left: "Callable[[EventStream], None] | None" = None,
    ) -> None:
        """
        @param keeper: keeps the events.
        @param name: what its event ids begin with.
        @param throttle: pauses whoever produces the messages.
        @param is_call: whether it ends with the answer to a request.
        @param request_id: raw JSON of that request's id, if it is only one.
        @param on_left: told when nobody reads any more.
        """
        self.name = name
        self.throttle = throttle
        self.is_call = is_call
        self.is_finished = False
        self._keeper: Keeper | None = keeper
        self._request_id = request_id
        self._on_left = on_left
        self._last = 0
        self._kept: deque[Event] = deque()
        self._reader: StreamReader | None = None

    # For those who have something to say

    @property
    def takes_messages(self) -> bool:
        """
        @return: whether somebody reads now, as far as is known.
        """
        return self._reader is not None and not self.is_finished

    def send(self, message: bytes) -> None:
        """
        Deliver a message, or keep it for later.

        @param message: one JSON-RPC message. Dropped when the stream is finished.
        """
        self._append(message, is_answer=False)

    def answer(self, message: bytes) -> None:
        """
        Deliver the answer, or keep it for later, and finish.

        @param message: one JSON-RPC response.
        """
        self._append(message, is_answer=True)
        self.end()

    def end(self) -> None:
        """Finish: nothing follows."""
        if self.is_finished:
            return
        self.is_finished = True
        # What is kept for a client to come back to must not keep an old child.
        self.throttle = NoThrottle()
        if self._reader is not None:
            self._reader.finish()
        self._tidy()

    # For readers

    def prime(self) -> bytes:
        """
        @return: an event without data, which only tells its id; it is not kept. On a
            GET stream it also says how long to wait before the next try: official
            SDKs give up after two, which has to be later than a restart takes.
        """
        retry = None if self.is_call else RETRY_MILLISECONDS
        return encode_event(b"", self._next_id(), retry_milliseconds=retry)

    def attach(self, reader: StreamReader) -> None:
        """
        @param reader: reads from now on; whoever did before is cut off.
        """
        before, self._reader = self._reader, reader
        if before is not None:
            before.displace()

    def after(self, number: int) -> list[bytes]:
        """
        @param number: of an event.
        @return: the events behind it that are kept.
        """
        return [event.data for event in self._kept if event.number > number]

    def detach(self, reader: StreamReader, *, is_complete: bool) -> None:
        """
        @param reader: reads no more.
        @param is_complete: whether it wrote everything to the end of the stream.
        """
        if self._reader is not reader:
            return
        self._reader = None
        if self._keeper is not None:
            if is_complete:
                self._keeper.mark_read(self._kept)
            elif self._last == 0:
                # Its client knows no id to come back with.
                self.discard()
        self._tidy()
        if self._on_left is not None:
            self._on_left(self)

    def discard(self) -> None:
        """Keep nothing of it any more; a reader reads on."""
        keeper, self._keeper = self._keeper, None
        if keeper is not None:
            keeper.remove(self, self._kept)
            self._kept.clear()

    # For the keeper

    def drop_oldest(self, *, leave_error: bool) -> None:
        """
        Give up the oldest event, which is kept no more.

        @param leave_error: whether an error takes the place of an answer.
        """
        event = self._kept.popleft()
        if leave_error and event.is_answer and self._keeper is not None:
            error = self._lost(event.number)
            if error is not None and error.cost < event.cost:
                self._kept.append(error)
                self._keeper.keep(error)
        self._tidy()

    # Inside

    def _next_id(self) -> str:
        self._last += 1
        return f"{self.name}-{self._last}"

    def _append(self, message: bytes, *, is_answer: bool) -> None:
        if self.is_finished:
            return
        parts = event_parts(message, self._next_id())
        event = None
        if self._keeper is not None:
            size = sum(map(len, parts)) + EVENT_OVERHEAD_BYTES
            if size <= self._keeper.maximum_bytes:
                parts = [b"".join(parts)]
                now = self._keeper.now()
                event = Event(self, self._last, parts[0], now, is_answer)
            elif is_answer:
                event = self._lost(self._last)
            if event is not None:
                self._kept.append(event)
                self._keeper.keep(event)
        if self._reader is not None:
            self._reader.deliver(*parts)

    def _lost(self, number: int) -> Event | None:
        if self._request_id is None or self._keeper is None:
            return None
        error = encode_error(
            self._request_id,
            INTERNAL_ERROR,
            "the answer could not be kept until the client came back",
            {"reason": "answer_not_kept"},
        )
        data = encode_event(error, f"{self.name}-{number}")
        return Event(self, number, data, self._keeper.now())

    def _tidy(self) -> None:
        """A call runs until it is answered, a listener as long as it is read."""
        running = not self.is_finished if self.is_call else self._reader is not None
        if not running and not self._kept:
            self.discard()
