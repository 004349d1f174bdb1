"""
The HTTP server: which endpoint judges which path, how long a client may take, and the
access log.
"""

import json
import resource
import secrets
import time
from collections.abc import Callable, Mapping
from typing import Any, Final

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from twisted.logger import Logger, LogLevel
from twisted.web.http import Request, datetimeToString
from twisted.web.resource import IResource
from twisted.web.server import Site
from zope.interface import implementer

from fjmcp_broker.limits.memory import Memory, MemoryBounds
from fjmcp_broker.logs import REQUEST_ID_FIELD
from fjmcp_broker.oauth.bearer import Principal
from fjmcp_broker.web.channel import BrokerChannel
from fjmcp_broker.web.cors import answer_all, is_open_to_all
from fjmcp_broker.web.errors import RETRY_AFTER_SECONDS
from fjmcp_broker.web.interfaces import IAdmission
from fjmcp_broker.web.refusal import Refusal
from fjmcp_broker.web.request import BrokerRequest

SETTLE_SECONDS: Final = 0.25
"""How long a connection that was accepted last has for its request."""

IDLE_SECONDS: Final = 75.0
DEFAULT_BODY_BYTES: Final = 64 * 1024
DEFAULT_MEMORY: Final = MemoryBounds(16 * 2**20, 2 * 2**20)
"""For the bodies of strangers: 256 of the longest, 32 from one network."""

MOST_CONNECTIONS: Final = 10_000
_QUIET_PATHS: Final = frozenset((b"/mcp", b"/metrics"))


def connections_to_spare() -> int:
    """
    @return: how many of the descriptors that the process may have are for clients:
        half of them, since children, the store and Forgejo need some too.
    """
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return MOST_CONNECTIONS
    return min(soft // 2, MOST_CONNECTIONS)


@implementer(IAdmission)
class BodyLimit:
    """
    Admission of endpoints that need the body to say anything: its length alone.
    """

    def __init__(
        self,
        maximum_body_bytes: int = DEFAULT_BODY_BYTES,
        memory: Memory | None = None,
        network: Callable[[BrokerRequest], str | None] = lambda request: None,
    ) -> None:
        """
        @param maximum_body_bytes: longest body that is accepted.
        @param memory: for all bodies.
        @param network: of a request's client, C{None} when it is not known; none
            gets more than an eighth of the memory.
        """
        self.maximum_body_bytes = maximum_body_bytes
        self.memory = memory or Memory(DEFAULT_MEMORY)
        self._network = network

    def admit(self, request: BrokerRequest, method: bytes, length: int | None) -> None:
        """
        @param request: its headers are complete.
        @param method: as sent.
        @param length: of the body.
        """

    def holder(self, request: BrokerRequest) -> str | None:
        """
        @param request: its headers are complete.
        @return: the network that it comes from.
        """
        return self._network(request)

    def too_large(self, request: BrokerRequest) -> Refusal:
        """
        @param request: its body is too long.
        @return: the answer, as the OAuth endpoints give theirs.
        """
        return _refusal(request, 413, "invalid_request", "the body is too large")

    def no_room(self, request: BrokerRequest) -> Refusal:
        """
        @param request: there is no memory for its body now.
        @return: the answer, as the OAuth endpoints give theirs.
        """
        return _refusal(
            request, 503, "temporarily_unavailable", "too many requests at once"
        )


def _refusal(
    request: BrokerRequest, status: int, code: str, description: str
) -> Refusal:
    if is_open_to_all((request.path or b"").decode("latin-1")):
        answer_all(request)
    headers = {b"Content-Type": b"application/json", b"Cache-Control": b"no-store"}
    if status == 503:
        headers[b"Retry-After"] = b"%d" % RETRY_AFTER_SECONDS
    document = {"error": code, "error_description": description}
    return Refusal(status, headers, json.dumps(document).encode("ascii"))


class BrokerSite(Site):
    """
    The site of the daemon.

    @ivar instance: random; part of every request id.
    @ivar channels: the open connections, the oldest first.
    @ivar maximum_connections: how many there may be.
    @ivar is_settling: whether no connection is to have another request.
    @ivar log_every_request: whether successful calls on the MCP endpoint and readings
        of the metrics are logged too, at debug level.
    """

    log_events = Logger()
    protocol = BrokerChannel  # type: ignore[assignment]  # no HTTP/2 negotiation
    displayTracebacks = False  # noqa: N815 - Twisted's

    def __init__(
        self,
        root: IResource,
        reactor: IReactorTime,
        admissions: Mapping[bytes, object],
        *,
        idle_seconds: float = IDLE_SECONDS,
        log_every_request: bool = False,
        shown_client: Callable[[BrokerRequest], str | None] = lambda request: None,
        others: BodyLimit | None = None,
        on_answered: Callable[[BrokerRequest, float], None] = lambda *_: None,
    ) -> None:
        """
        @param root: the root resource.
        @param reactor: for timeouts and times.
        @param admissions: an L{IAdmission} for each path that has its own.
        @param idle_seconds: how long a connection may say nothing while it owes a
            request.
        @param log_every_request: sets the attribute of that name.
        @param shown_client: how much of its client's address the log has.
        @param others: the admission of all other paths.
        @param on_answered: called for each request that was answered, with the
            seconds that it took.
        """
        super().__init__(
            root,
            requestFactory=BrokerRequest,
            parsePOSTFormSubmission=False,
            timeout=idle_seconds,
            reactor=reactor,
        )
        self._find_leaf: Callable[[bytes], IResource | None] = getattr(
            root, "leaf", lambda target: None
        )
        self.instance = secrets.token_hex(3)
        self.channels: dict[BrokerChannel, None] = {}
        self.maximum_connections = connections_to_spare()
        self.is_settling = False
        self._draining = False
        self._drained: Deferred[None] | None = None
        self._number = 0
        self._date = 0, b""
        self._admissions = dict(admissions)
        self._default = others or BodyLimit()
        self.log_every_request = log_every_request
        self._shown_client = shown_client
        self._on_answered = on_answered

    def next_number(self) -> int:
        """
        @return: the number of a new request.
        """
        self._number += 1
        return self._number

    def date(self) -> bytes:
        """
        @return: now, as C{Date} has it; made once a second.
        """
        second = int(time.time())
        if second != self._date[0]:
            self._date = second, datetimeToString(second)
        return self._date[1]

    def leaf(self, target: bytes) -> IResource | None:
        """
        Twisted's way to a resource takes a tenth of a call.

        @param target: of a request, without its query.
        @return: as L{Root.leaf<fjmcp_broker.web.root.Root.leaf>}.
        """
        return self._find_leaf(target)

    def admission_for(self, path: bytes) -> Any:
        """
        @param path: as sent, without the query.
        @return: the L{IAdmission}.
        """
        return self._admissions.get(path, self._default)

    async def settle(self) -> None:
        """
        Nothing more is accepted: serve for a moment what has connected already, and
        let each connection end behind its answer. A client that was accepted last
        would be refused otherwise, and a newer daemon would have served it.
        """
        self.is_settling = True
        if self.channels:
            await deferLater(self.reactor, SETTLE_SECONDS, lambda: None)
            for channel in list(self.channels):
                channel.close_unused()

    async def drain(self, seconds: float) -> None:
        """
        The end: close every connection, those with an answer on its way when it is
        out, and all of them after a while.

        @param seconds: how long answers may take.
        """
        self._draining = True
        for channel in list(self.channels):
            channel.close_when_idle()
        if self.channels:
            self._drained = drained = Deferred[None]()
            overdue = self.reactor.callLater(seconds, self._abort_all)
            await drained
            if overdue.active():
                overdue.cancel()

    def end_streams(
        self, concerned: Callable[[Principal], bool], *, calls: bool = False
    ) -> None:
        """
        Somebody's right to be here has ended. Who was let in before keeps nothing
        open.

        @param concerned: whose right that was.
        @param calls: as for L{BrokerChannel.end_streams}.
        """
        for channel in list(self.channels):
            channel.end_streams(concerned, calls=calls)

    def channel_opened(self, channel: BrokerChannel) -> None:
        """
        @param channel: a new connection.
        """
        self.channels[channel] = None
        if len(self.channels) > self.maximum_connections:
            self._make_room()
        if self._draining:
            channel.close_when_idle()

    def channel_closed(self, channel: BrokerChannel) -> None:
        """
        @param channel: its connection is lost.
        """
        self.channels.pop(channel, None)
        if self._drained is not None and not self.channels:
            drained, self._drained = self._drained, None
            drained.callback(None)

    def _make_room(self) -> None:
        """
        Close the oldest connection that is owed no answer: whoever opens many and
        asks for nothing loses them first. With none, the newest.
        """
        oldest = next(
            (each for each in self.channels if not each.is_handling), None
        ) or next(reversed(self.channels))
        # Its end is reported later, perhaps after many others have come.
        del self.channels[oldest]
        oldest.abort()

    def _abort_all(self) -> None:
        for channel in list(self.channels):
            channel.abort()

    def startFactory(self) -> None:  # noqa: N802 - Twisted's
        """No log file, and no clock that ticks every second for its sake."""

    def stopFactory(self) -> None:  # noqa: N802 - Twisted's
        """Nothing to close."""

    def log(self, request: Request) -> None:
        """
        Write the access log: never a query, which may hold codes.

        @param request: it has been answered.
        """
        answered: Any = request  # a BrokerRequest
        seconds = self.reactor.seconds() - answered.started_at
        self._on_answered(answered, seconds)
        ok = 200 <= answered.code < 300
        if ok and answered.path in _QUIET_PATHS:
            if not self.log_every_request:
                return
            level = LogLevel.debug
        else:
            level = LogLevel.info
        fields = {
            "method": answered.method.decode("ascii", "replace")[:20],
            "path": (answered.path or b"-").decode("ascii", "backslashreplace")[:200],
            "status": answered.code,
            "size": answered.sentLength,
            "seconds": round(seconds, 4),
            REQUEST_ID_FIELD: answered.request_id,
        }
        text = "{method} {path} {status} {size} bytes in {seconds} s"
        if answered.trace_id is not None:
            fields["trace"] = answered.trace_id
            text += ", trace {trace}"
        client = self._shown_client(answered)
        if client is not None:
            fields["client"] = client
            text += " for {client}"
        self.log_events.emit(level, text, **fields)
