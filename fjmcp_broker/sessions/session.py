"""
One legacy session: what a client sees behind its C{Mcp-Session-Id}, and the relay
between that client and the session's child.

The session is the lasting thing; the child is attached to it and may be absent.
"""

import json
from typing import Final

from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger

from fjmcp_broker.mcp.correlation import (
    Answer,
    ChildNotification,
    ChildRequest,
    Correlation,
    RequestNotification,
    TooManyPendingError,
)
from fjmcp_broker.mcp.messages import (
    INTERNAL_ERROR,
    NULL,
    MessageError,
    Notification,
    Request,
    Response,
    encode_error,
    encode_notification,
    encode_result,
    parse_child_line,
)
from fjmcp_broker.mcp.policy import ToolCatalogue
from fjmcp_broker.mcp.versions import LATEST_LEGACY
from fjmcp_broker.oauth.bearer import Principal
from fjmcp_broker.sessions.child import Child
from fjmcp_broker.sessions.ending import ChildEnd
from fjmcp_broker.sessions.errors import (
    ChildBusy,
    ChildCannotStart,
    ChildGone,
    SessionGone,
)
from fjmcp_broker.sessions.waiting import Listener, Opening, SessionOwner, Waiter

INITIALIZED: Final = "notifications/initialized"


class Session:
    """
    A session and its child.

    @ivar digest: SHA-256 of the session id; the key of its row.
    @ivar name: for the log: the first digits of the digest.
    @ivar grant_id: the grant that it belongs to now.
    @ivar user_id: whose it is.
    @ivar client_id: the client that opened it.
    @ivar policy: of the grant that opened it.
    @ivar revision: whose rules it follows.
    @ivar catalogue: what is known of the tools of its child.
    @ivar streams: how many response streams it has had.
    """

    log = Logger()

    def __init__(
        self,
        digest: bytes,
        principal: Principal,
        owner: SessionOwner,
        catalogue: ToolCatalogue,
    ) -> None:
        """
        @param digest: of the session id.
        @param principal: who opens it.
        @param owner: the registry.
        @param catalogue: of tools, until the child has said what it is.
        """
        self.digest = digest
        self.name = digest.hex()[:10]
        self.grant_id = principal.grant_id
        self.user_id = principal.user_id
        self.client_id = principal.client_id
        self.policy = principal.policy
        self.revision = LATEST_LEGACY
        self.catalogue = catalogue
        self.streams = 0
        self.expiry: IDelayedCall | None = None
        self._owner = owner
        self._child: Child | None = None
        self._correlation: Correlation[Waiter] | None = None
        self._children = 0
        self._opening = False
        self._listener: Listener | None = None
        self._ended: str | None = None

    @property
    def has_ended(self) -> bool:
        """
        @return: whether it is closed: nobody finds it any more.
        """
        return self._ended is not None

    @property
    def child(self) -> Child | None:
        """
        @return: the child, if there is one.
        """
        return self._child

    @property
    def in_flight(self) -> int:
        """
        @return: how many requests wait for the child.
        """
        return 0 if self._correlation is None else len(self._correlation)

    # The child

    def attach(self, child: Child) -> None:
        """
        @param child: made for this session, its observer; not started.
        """
        self._child = child
        self._children += 1
        self._correlation = Correlation(f"{self.name}-{self._children}")

    async def open(self, request: Request) -> Response:
        """
        Start the child and let it answer C{initialize}. On a result it has also been
        told C{notifications/initialized}, since some clients lose theirs; the
        client's own is not forwarded.

        @param request: the client's.
        @return: the child's answer: a result, or an error and the child stops.
        @raise ChildCannotStart: it ended or took too long.
        @raise SessionGone: the session was closed meanwhile.
        """
        child, correlation = self._child, self._correlation
        if child is None or correlation is None or self.has_ended:
            raise SessionGone("the session was closed")
        opening = Opening()
        self._opening = True
        try:
            child.start()
            child.send(correlation.request(request, self.digest, opening))
            response: Response | None = await opening.response
        except ChildGone:
            # Between start and send; what it said is still on its way.
            await child.when_ended()
            response = None
        finally:
            self._opening = False
        if self._ended is not None:
            raise SessionGone("the session was closed")
        if response is None or not child.usable:
            said = f": {child.last_stderr}" if child.last_stderr else ""
            raise ChildCannotStart(f"the child ended before it was ready{said}")
        if response.result is not None:
            child.mark_ready()
            child.send(encode_notification(INITIALIZED))
        return response

    def end(self, reason: str, *, at_once: bool = False, told: str = "") -> None:
        """
        Close the session: whoever waits gets an error, the child is stopped.

        @param reason: short, for the store, the log and C{data.reason}.
        @param at_once: kill the child instead of letting it finish.
        @param told: one sentence for those who wait.
        """
        if self._ended is not None:
            return
        self._ended = reason
        if self.expiry is not None and self.expiry.active():
            self.expiry.cancel()
        self.expiry = None
        listener, self._listener = self._listener, None
        if listener is not None:
            listener.end()
        self._fail_all(reason, told or "the session was closed")
        if at_once and self._child is not None:
            self._child.kill()
        self._owner.session_ended(self, reason)

    def child_line(self, line: bytes) -> None:
        """
        @param line: what the child said.
        """
        correlation = self._correlation
        if correlation is None:
            return
        try:
            message = parse_child_line(line)
        except MessageError as error:
            self.log.warn(
                "session {session}: child wrote what is no message: {error}",
                session=self.name,
                error=error.message,
            )
            if error.id == NULL:
                return
            # An answer to somebody, who must not wait for ever.
            message = _failure(error.id, "unreadable", "the answer could not be read")
        event = correlation.receive(message)
        if isinstance(event, Answer):
            self._answer(event)
        elif isinstance(event, RequestNotification):
            event.pending.waiter.notified(event.message)
        elif isinstance(event, ChildRequest):
            self._question(correlation, event)
        elif isinstance(event, ChildNotification):
            self.undelivered(event.message)

    def child_ended(self, end: ChildEnd) -> None:
        """
        @param end: how the child ended.
        """
        reason = end.reason.value
        if self._ended is None:
            self.log.warn(
                "session {session}: {end}", session=self.name, end=end.describe()
            )
        self._fail_all(reason, "the child process ended")
        self._child = None
        if self._opening:
            # Whoever opens the session says what becomes of it.
            return
        self.end(reason)

    # The client

    async def awake(self) -> None:
        """
        Wait until there is a child: to be awaited right before L{request}, which is
        called without another wait in between. A session with a living child needs
        no wait. Notifications and answers need no child: without one they concern
        nobody and are dropped.

        @raise SessionGone: it is closed.
        @raise Stopping: the daemon is going down.
        @raise TooManySessions: every child is busy.
        @raise ChildCannotStart: no child could be made ready.
        @raise UpstreamError: there is no usable token.
        @raise StoreError: the store cannot be used.
        """
        self._alive()

    def listen(self, stream: Listener) -> None:
        """
        Let a stream take what belongs to no request; the one before it is ended.

        @param stream: the client's newest GET stream.
        """
        before, self._listener = self._listener, stream
        if before is not None and before is not stream:
            before.end()

    def unlisten(self, stream: Listener) -> None:
        """
        @param stream: it takes nothing any more. Another one stays.
        """
        if self._listener is stream:
            self._listener = None

    def undelivered(self, message: bytes) -> None:
        """
        @param message: belongs to no request: for the GET stream, else dropped.
        """
        if self._listener is not None:
            self._listener.send(message)

    def request(self, request: Request, waiter: Waiter) -> None:
        """
        Relay a request.

        @param request: from the client; allowed by its policy.
        @param waiter: gets the answer.
        @raise DuplicateIdError: its id is in flight.
        @raise TooManyPendingError: so are too many others.
        @raise ChildBusy: the child does not read.
        @raise SessionGone: there is no child.
        """
        child, correlation = self._alive()
        line = correlation.request(request, self.digest, waiter)
        try:
            child.send(line)
        except ChildBusy:
            # Never sent, so that it does not wait.
            for pending in correlation.pending(self.digest):
                if pending.waiter is waiter and pending.id == request.id:
                    correlation.withdraw(pending, "")
            raise

    def notify(self, notification: Notification) -> None:
        """
        Relay a notification.

        @param notification: from the client; allowed by its policy.
        @raise ChildBusy: the child does not read.
        @raise SessionGone: there is no child.
        """
        if notification.method == INITIALIZED:
            return
        child, correlation = self._alive()
        relayed = correlation.notify(notification, self.digest)
        if relayed.cancelled is not None:
            relayed.cancelled.waiter.cancelled()
            self._owner.session_answered(self)
        if relayed.message is not None:
            child.send(relayed.message)

    def respond(self, response: Response) -> None:
        """
        Relay the client's answer to a question of the child. One that nobody asked
        for is dropped.

        @param response: from the client.
        @raise ChildBusy: the child does not read.
        @raise SessionGone: there is no child.
        """
        child, correlation = self._alive()
        message = correlation.respond(response, self.digest)
        if message is not None:
            child.send(message)

    # Inside

    def _alive(self) -> tuple[Child, Correlation[Waiter]]:
        child, correlation = self._child, self._correlation
        if (
            self._ended is not None
            or child is None
            or correlation is None
            or not child.usable
        ):
            raise SessionGone("the session's child has ended")
        return child, correlation

    def _answer(self, event: Answer[Waiter]) -> None:
        waiter = event.pending.waiter
        try:
            waiter.answered(event.response)
        except Exception:
            self.log.failure("session {session}: an answer failed", session=self.name)
            waiter.answered(
                _failure(event.pending.id, "unexpected", "the answer was lost")
            )
        finally:
            self._owner.session_answered(self)

    def _question(self, correlation: Correlation[Waiter], asked: ChildRequest) -> None:
        """
        A request of the child goes to the only request in flight. C{ping} is about
        the connection, which is ours.
        """
        sole = correlation.sole_pending(self.digest)
        request = asked.request
        if request.method == "ping":
            answer = encode_result(request.id, b"{}")
        elif sole is not None and sole.waiter.takes_messages:
            try:
                sole.waiter.notified(correlation.ask(asked, self.digest))
                return
            except TooManyPendingError as error:
                answer = encode_error(request.id, INTERNAL_ERROR, str(error))
        else:
            answer = encode_error(
                request.id,
                INTERNAL_ERROR,
                "no client can be asked now",
                {"reason": "no_stream"},
            )
        if self._child is not None and self._child.usable:
            self._child.send(answer)

    def _fail_all(self, reason: str, told: str) -> None:
        if self._correlation is None:
            return
        for pending in self._correlation.drain():
            pending.waiter.answered(_failure(pending.id, reason, told))


def _failure(id: bytes, reason: str, told: str) -> Response:
    """An answer of our own where the child gives none."""
    error = {"code": INTERNAL_ERROR, "message": told, "data": {"reason": reason}}
    return Response(id, error=json.dumps(error).encode())
