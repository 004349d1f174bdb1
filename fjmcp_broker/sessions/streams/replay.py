"""
What is kept for a client that comes back with C{Last-Event-ID} (MCP 2025-11-25,
transports, resumability and redelivery).

Everything is in memory and bounded, for each session and for all of them together, and
nothing is kept for long. At a limit the oldest events go first, those that were written
out before those that a client still lacks. An answer that has to go leaves an error in
its place where that is shorter, so that nobody waits for it for ever.
"""

import re
import secrets
from collections import OrderedDict, deque
from collections.abc import Callable
from typing import Final

from twisted.internet.interfaces import IReactorTime

from fjmcp_broker.sessions.processes.throttle import OutputThrottle
from fjmcp_broker.sessions.streams.events import Event, EventStream

SESSION_BYTES: Final = 5 * 1024 * 1024
TOTAL_BYTES: Final = 64 * 1024 * 1024
OWED_SECONDS: Final = 300.0
READ_SECONDS: Final = 60.0
"""How long the events of a stream stay that was written out to its end: the network
may still have lost them."""

MAXIMUM_LISTENERS: Final = 4

_CALL_EVENT: Final = re.compile(r"[0-9a-f]{12}-[0-9]{1,12}-[0-9]{1,12}")


def names_call(event_id: str) -> bool:
    """
    @param event_id: C{Last-Event-ID}, controlled by the client.
    @return: whether it was given out in the answer to a POST, by whichever process.
    """
    return _CALL_EVENT.fullmatch(event_id) is not None


class _Budget:
    """Events in the order in which they go, and how much they take together."""

    def __init__(self, maximum: int) -> None:
        self.maximum = maximum
        self.size = 0
        # Plain dictionaries take longer for their first item the more were deleted.
        self._read: OrderedDict[Event, None] = OrderedDict()
        self._owed: OrderedDict[Event, None] = OrderedDict()

    def add(self, event: Event) -> None:
        self._owed[event] = None
        self.size += event.cost

    def remove(self, event: Event) -> None:
        if event in self._owed:
            del self._owed[event]
        else:
            del self._read[event]
        self.size -= event.cost

    def mark_read(self, event: Event) -> None:
        if event in self._owed:
            del self._owed[event]
            self._read[event] = None

    def excess(self) -> Event | None:
        """What has to go, if anything."""
        if self.size <= self.maximum:
            return None
        return next(iter(self._read or self._owed))

    def overdue(self, now: float) -> Event | None:
        """What has been kept long enough, if anything."""
        kinds = ((self._read, READ_SECONDS), (self._owed, OWED_SECONDS))
        for events, seconds in kinds:
            oldest = next(iter(events), None)
            if oldest is not None and oldest.kept_at + seconds <= now:
                return oldest
        return None


class _Shelf:
    """The streams of one session: their L{Keeper}."""

    def __init__(self, replays: "Replays", key: bytes, grant_id: str) -> None:
        self.key = key
        self.grant_id = grant_id
        self.budget = _Budget(replays.session_bytes)
        self.label = replays.new_label()
        self.streams: dict[str, EventStream] = {}
        self.count = 0
        self._replays = replays

    @property
    def maximum_bytes(self) -> int:
        return self.budget.maximum

    def now(self) -> float:
        return self._replays.now()

    def keep(self, event: Event) -> None:
        self._replays.keep(self, event)

    def mark_read(self, events: "deque[Event]") -> None:
        self._replays.mark_read(self, events)

    def remove(self, stream: EventStream, events: "deque[Event]") -> None:
        self._replays.remove(self, stream, events)


class Replays:
    """
    The streams of all sessions, as far as clients may come back to them.
    """

    def __init__(
        self,
        clock: IReactorTime,
        *,
        session_bytes: int = SESSION_BYTES,
        total_bytes: int = TOTAL_BYTES,
        random_bytes: Callable[[int], bytes] = secrets.token_bytes,
    ) -> None:
        """
        @param clock: tells the time.
        @param session_bytes: how much is kept for one session.
        @param total_bytes: how much is kept for all.
        @param random_bytes: so that no event id of this process is one of an earlier
            process.
        """
        self.session_bytes = session_bytes
        self._clock = clock
        self._random_bytes = random_bytes
        self._budget = _Budget(total_bytes)
        self._shelves: dict[bytes, _Shelf] = {}
        self._of_event: dict[EventStream, _Shelf] = {}

    @property
    def kept_bytes(self) -> int:
        """
        @return: how much is kept now.
        """
        return self._budget.size

    def __len__(self) -> int:
        """
        @return: how many streams there are, those being read included.
        """
        return len(self._of_event)

    def begin(
        self,
        session: bytes,
        grant_id: str,
        throttle: OutputThrottle,
        *,
        is_call: bool,
        request_id: bytes | None = None,
        on_left: Callable[[EventStream], None] | None = None,
    ) -> EventStream:
        """
        @param session: the session's digest.
        @param grant_id: whose stream it is; what another grant left is dropped.
        @param throttle: pauses whoever produces the messages.
        @param is_call: whether it ends with the answer to a request; otherwise it
            lasts as long as somebody reads, and of too many the oldest ends.
        @param request_id: raw JSON of that request's id, if it is only one.
        @param on_left: told when nobody reads it any more.
        @return: a new stream.
        """
        self.expire()
        shelf = self._shelf(session, grant_id)
        if shelf is not None and not is_call:
            listening = [s for s in shelf.streams.values() if not s.is_call]
            for old in listening[: max(0, len(listening) - MAXIMUM_LISTENERS + 1)]:
                old.end()
                old.discard()
        if shelf is None or self._shelves.get(session) is not shelf:
            shelf = self._shelves[session] = _Shelf(self, session, grant_id)
        shelf.count += 1
        stream = EventStream(
            shelf,
            f"{shelf.label}-{'' if is_call else 'get'}{shelf.count}",
            throttle,
            is_call=is_call,
            request_id=request_id,
            on_left=on_left,
        )
        shelf.streams[stream.name] = stream
        self._of_event[stream] = shelf
        return stream

    def find(
        self, session: bytes, grant_id: str, event_id: str
    ) -> tuple[EventStream, int] | None:
        """
        @param session: the session's digest.
        @param grant_id: who asks; what another grant left is dropped.
        @param event_id: C{Last-Event-ID}, controlled by the client.
        @return: the stream and the event's number; C{None} when nothing of it is here,
            as after a restart.
        """
        self.expire()
        shelf = self._shelf(session, grant_id)
        name, _, number = event_id.rpartition("-")
        if shelf is None or not 0 < len(number) <= 12 or not number.isdecimal():
            return None
        stream = shelf.streams.get(name)
        return None if stream is None else (stream, int(number))

    def forget(self, session: bytes) -> None:
        """
        @param session: digest of a session whose streams nobody may come back to.
            Those that listen end; the others are read to their end.
        """
        shelf = self._shelves.get(session)
        if shelf is not None:
            for stream in list(shelf.streams.values()):
                if not stream.is_call:
                    stream.end()
                stream.discard()

    def expire(self) -> None:
        """Drop what has been kept long enough."""
        now = self.now()
        while (event := self._budget.overdue(now)) is not None:
            self._drop(event, leave_error=False)

    # For the shelves

    def now(self) -> float:
        """
        @return: the time.
        """
        return self._clock.seconds()

    def new_label(self) -> str:
        """
        @return: text that no other shelf has.
        """
        return self._random_bytes(6).hex()

    def keep(self, shelf: _Shelf, event: Event) -> None:
        """
        @param shelf: of the event's session.
        @param event: kept from now on, as long as there is room.
        """
        budgets = (shelf.budget, self._budget)
        for budget in budgets:
            budget.add(event)
        for budget in budgets:
            while (excess := budget.excess()) is not None:
                self._drop(excess, leave_error=True)

    def mark_read(self, shelf: _Shelf, events: "deque[Event]") -> None:
        """
        @param shelf: of the events' session.
        @param events: they were written out.
        """
        for event in events:
            event.kept_at = self.now()
            event.is_answer = False  # nobody waits for it any more
            shelf.budget.mark_read(event)
            self._budget.mark_read(event)

    def remove(
        self, shelf: _Shelf, stream: EventStream, events: "deque[Event]"
    ) -> None:
        """
        @param shelf: of the stream's session.
        @param stream: it is over.
        @param events: what is kept of it.
        """
        for event in events:
            shelf.budget.remove(event)
            self._budget.remove(event)
        shelf.streams.pop(stream.name, None)
        self._of_event.pop(stream, None)
        if not shelf.streams and self._shelves.get(shelf.key) is shelf:
            del self._shelves[shelf.key]

    # Inside

    def _shelf(self, session: bytes, grant_id: str) -> _Shelf | None:
        shelf = self._shelves.get(session)
        if shelf is not None and shelf.grant_id != grant_id:
            self.forget(session)
            return None
        return shelf

    def _drop(self, event: Event, *, leave_error: bool) -> None:
        shelf = self._of_event[event.stream]
        shelf.budget.remove(event)
        self._budget.remove(event)
        event.stream.drop_oldest(leave_error=leave_error)
