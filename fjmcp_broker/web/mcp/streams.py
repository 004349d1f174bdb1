"""
The streams of the MCP endpoint: the answers to POST, which clients may read on by GET
after they lost the connection, and what a session listens to by GET (MCP 2025-11-25,
transports, listening for messages from the server).
"""

from typing import Final

from twisted.internet.interfaces import IReactorTime

from fjmcp_broker.mcp.versions import check_header, is_modern, primes_streams
from fjmcp_broker.sessions.processes.throttle import (
    NoThrottle,
    OutputThrottle,
    PresentChild,
)
from fjmcp_broker.sessions.session import Session
from fjmcp_broker.sessions.streams.events import EventStream
from fjmcp_broker.sessions.streams.replay import Replays, names_call
from fjmcp_broker.sessions.streams.stream import Formats, ResponseStream
from fjmcp_broker.web.mcp.answers import accepted_formats, not_allowed, refusal
from fjmcp_broker.web.refusal import Refusal
from fjmcp_broker.web.request import BrokerRequest

_LAST_EVENT_ID: Final = b"last-event-id"


class Listening:
    """
    The GET streams of one session. A client may have several; each message goes to
    one of them, the newest.
    """

    def __init__(self, session: Session) -> None:
        """
        @param session: whose they are.
        """
        self._session = session
        self._streams: list[EventStream] = []

    def join(self, stream: EventStream) -> None:
        """
        @param stream: somebody reads it from now on.
        """
        self.left(stream)
        self._streams.append(stream)
        self._session.listen(self)

    def left(self, stream: EventStream) -> None:
        """
        @param stream: nobody reads it any more.
        """
        if stream in self._streams:
            self._streams.remove(stream)
            if not self._streams:
                self._session.unlisten(self)

    @property
    def is_over(self) -> bool:
        """
        @return: whether there is none.
        """
        return not self._streams

    def send(self, message: bytes) -> None:
        """
        @param message: belongs to no request.
        """
        if self._streams:
            self._streams[-1].send(message)

    def end(self) -> None:
        """The session was closed."""
        for stream in list(self._streams):
            stream.end()


class McpStreams:
    """
    Makes the streams.

    @ivar clock: for the streams, and for what may become one.
    """

    def __init__(self, clock: IReactorTime, replays: Replays) -> None:
        """
        @param clock: sets the attribute of that name.
        @param replays: keeps their events.
        """
        self.clock = clock
        self._replays = replays
        self._listening: dict[Session, Listening] = {}

    def answer(
        self,
        request: BrokerRequest,
        session: Session,
        formats: Formats,
        request_id: bytes | None = None,
        throttle: OutputThrottle | None = None,
    ) -> ResponseStream:
        """
        @param request: a POST; from here on it is the stream's.
        @param session: has taken its message.
        @param formats: what it may be answered in.
        @param request_id: raw JSON of the id of the only request in it.
        @param throttle: pauses the child that has the message; by default that to
            which messages go now.
        @return: the stream for its answer.
        """
        pauses: OutputThrottle = throttle or session.child or NoThrottle()

        def begin() -> EventStream:
            # A document needs no events.
            return self._replays.begin(
                session.digest,
                session.grant_id,
                pauses,
                is_call=True,
                request_id=request_id,
            )

        return ResponseStream(
            request,
            self.clock,
            pauses,
            formats=formats,
            events=None if formats is Formats.JSON else begin,
            primed=primes_streams(session.revision),
        )

    def single(self, request: BrokerRequest, message: bytes) -> None:
        """
        @param request: a POST that needs no child any more.
        @param message: the whole answer.
        """
        formats = _formats(request) or Formats.BOTH
        stream = ResponseStream(request, self.clock, NoThrottle(), formats=formats)
        stream.answer(message)

    def listen(self, request: BrokerRequest, session: Session) -> Refusal | None:
        """
        Answer a GET: with the rest of a stream whose connection the client lost, or
        with a new one.

        A stream that ended without an answer, because the call was cancelled or the
        daemon was restarted, is gone, and the client has to be told: an empty stream
        makes it ask again for ever, and a silent one makes its call wait.

        @param request: a GET; from here on it is the stream's.
        @param session: what it listens to.
        @return: the answer instead, if the rest of a call is not here.
        """
        last = (request.getHeader(_LAST_EVENT_ID) or b"").decode("latin-1")
        found = self._replays.find(session.digest, session.grant_id, last)
        if found is None and names_call(last):
            return refusal(410, "nothing of this stream is left", reason="stream_gone")
        if found is not None:
            events, number = found
            backlog: list[bytes] | None = events.after(number)
        else:
            events = self._replays.begin(
                session.digest,
                session.grant_id,
                PresentChild(lambda: session.child),
                is_call=False,
                on_left=lambda stream: self._left(session, stream),
            )
            backlog = None
        ResponseStream(
            request,
            self.clock,
            events.throttle,
            formats=Formats.EVENTS,
            events=events,
            primed=primes_streams(session.revision),
            backlog=backlog,
        )
        if not events.is_call:
            request.on_drain = events.end
            if session not in self._listening:
                self._listening[session] = Listening(session)
            self._listening[session].join(events)
        return None

    def forget(self, session: Session) -> None:
        """
        @param session: was closed by its client.
        """
        self._replays.forget(session.digest)

    # Inside

    def _left(self, session: Session, stream: EventStream) -> None:
        listening = self._listening.get(session)
        if listening is not None:
            listening.left(stream)
            if listening.is_over:
                del self._listening[session]


def no_session_for(request: BrokerRequest, method: str) -> Refusal | None:
    """
    GET and DELETE belong to the revisions with sessions.

    @param request: its headers count.
    @param method: its name.
    @return: the answer when it is none of those.
    @raise VersionError: its revision is unknown.
    """
    version = request.getHeader(b"mcp-protocol-version")
    text = None if version is None else version.decode("latin-1")
    if request.getHeader(b"mcp-session-id") is None or is_modern(text):
        return not_allowed(f"{method} needs the id of a session")
    check_header(text)
    return None


def no_events_for(request: BrokerRequest) -> Refusal | None:
    """
    @param request: a GET.
    @return: the answer when it does not accept what GET gives.
    """
    if _formats(request) in (Formats.BOTH, Formats.EVENTS):
        return None
    return refusal(406, "GET answers with text/event-stream")


def _formats(request: BrokerRequest) -> Formats | None:
    return accepted_formats(request.getHeader(b"accept"))
