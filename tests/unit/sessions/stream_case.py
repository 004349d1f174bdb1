"""Connections in memory whose clients read at any pace, for tests of streams."""

from collections.abc import Callable
from typing import Any

from twisted.internet.error import ConnectionLost
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from twisted.web.http import HTTPChannel
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Request, Site


class SlowTransport(StringTransport):
    """
    A connection whose client reads only when the test says so: like Twisted's, it
    takes what it is given and pauses its producer beyond 64 KiB.
    """

    def __init__(self) -> None:
        """The client reads everything at first."""
        super().__init__()
        self.slow = False
        self.unsent = 0
        self.most_unsent = 0
        self.aborted = False

    def write(self, data: bytes) -> None:
        """Take data."""
        super().write(data)
        self._count(len(data))

    def writeSequence(self, data: Any) -> None:  # noqa: N802 - Twisted's
        """Take data."""
        self.write(b"".join(data))

    def _count(self, size: int) -> None:
        if self.slow:
            self.unsent += size
            self.most_unsent = max(self.unsent, self.most_unsent)
            if self.unsent > 65536 and self.producer is not None:
                self.producer.pauseProducing()

    def read_all(self) -> None:
        """The client has read what there was."""
        self.unsent = 0
        if self.producer is not None:
            self.producer.resumeProducing()

    def abortConnection(self) -> None:  # noqa: N802 - Twisted's
        """Remember."""
        self.aborted = True


class Throttle:
    """Counts who pauses."""

    def __init__(self) -> None:
        """Nobody."""
        self.pausers: list[object] = []

    def pause_output(self, who: object) -> None:
        """One more."""
        self.pausers.append(who)

    def resume_output(self, who: object) -> None:
        """One less."""
        if who in self.pausers:
            self.pausers.remove(who)


class HeardRequest(Request):
    """A request as the broker's own, in the plainest way."""

    on_lost: Callable[[Failure], None] | None = None

    def connectionLost(self, reason: Failure) -> None:
        """The client has gone."""
        super().connectionLost(reason)
        if self.on_lost is not None:
            self.on_lost(reason)

    def answer_whole(self, status: int, document: bytes) -> None:
        """All at once."""
        self.setResponseCode(status)
        self.setHeader(b"Content-Type", b"application/json")
        self.setHeader(b"Content-Length", b"%d" % len(document))
        self.write(document)
        self.finish()


class QuietSite(Site):
    """A site without an access log."""

    protocol = HTTPChannel  # type: ignore[assignment]
    requestFactory = HeardRequest  # noqa: N815 - Twisted's

    def log(self, request: Any) -> None:
        """Nothing."""


class Connection:
    """
    A connection with one request that waits for its answer.

    @ivar request: the request.
    @ivar transport: what the client reads.
    """

    def __init__(self, clock: Clock) -> None:
        """
        @param clock: of the site.
        """
        requests: list[Any] = []

        class Keeper(Resource):
            isLeaf = True

            def render(self, request: Any) -> int:
                # Two answers that are compared may begin in two seconds.
                request.setHeader(b"Date", b"Thu, 01 Jan 1970 00:00:00 GMT")
                requests.append(request)
                return NOT_DONE_YET

        self.transport = SlowTransport()
        site = QuietSite(Keeper(), reactor=clock, timeout=None)
        self._channel: Any = site.buildProtocol(None)
        self._channel.makeConnection(self.transport)
        self._channel.dataReceived(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        self.request = requests[0]

    def depart(self) -> None:
        """The client leaves."""
        self._channel.connectionLost(Failure(ConnectionLost()))

    def text(self) -> bytes:
        """The body so far, without the marks of chunks."""
        value: bytes = self.transport.value()
        return unchunked(value)

    def received(self, length: int | None = None) -> list[tuple[str, bytes]]:
        """
        What a client has got that lost everything behind some byte of the body: ids
        and data of the whole events.
        """
        found = []
        for block in self.text()[:length].split(b"\n\n")[:-1]:
            fields = dict(line.split(b": ", 1) for line in block.split(b"\n"))
            if b"id" in fields:
                found.append((fields[b"id"].decode(), fields[b"data"]))
        return found


def unchunked(value: bytes) -> bytes:
    """The body of a response, without the marks of chunks."""
    head, _, rest = value.partition(b"\r\n\r\n")
    if b"chunked" not in head:
        return rest
    pieces = []
    while rest:
        size, _, rest = rest.partition(b"\r\n")
        pieces.append(rest[: int(size, 16)])
        rest = rest[int(size, 16) + 2 :]
    return b"".join(pieces)
