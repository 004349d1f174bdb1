"""
One child of a session, from its start to its end: what was asked of it, and for how
long its token is good. A session has several one after another, for a while even two
at once.

What has been written to a child is never written to another one: whoever waits for an
answer that will not come gets an error.
"""

import json
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Final

from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger

from fjmcp_broker.mcp.correlation import (
    Answer,
    ChildNotification,
    ChildRequest,
    Correlation,
    Pending,
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
    encode_notification,
    id_key,
    parse_child_line,
)
from fjmcp_broker.sessions.child import Child
from fjmcp_broker.sessions.ending import ChildEnd
from fjmcp_broker.sessions.errors import ChildBusy, ChildCannotStart, ChildGone
from fjmcp_broker.sessions.waiting import (
    AttachmentOwner,
    ChildHearer,
    Opening,
    Waiter,
)

INITIALIZED: Final = "notifications/initialized"
_OURS: Final = b"ours"
"""In place of a session's digest: the requests that we make ourselves."""


class Attachment:
    """
    A child and the requests that it has.

    @ivar label: different for each child that a session ever has.
    @ivar expires_at: when its token expires, seconds since the epoch.
    @ivar expiry: the call that ends it before that.
    @ivar ready_at: when it had answered C{initialize}, or C{None}.
    """

    log = Logger()

    def __init__(
        self, owner: AttachmentOwner, session: ChildHearer, label: str
    ) -> None:
        """
        @param owner: keeps the session's children.
        @param session: hears what the child says beside its answers.
        @param label: part of the ids of the child's questions, different for each
            child that the session ever has.
        """
        self.label = label
        self.expires_at = 0
        self.expiry: IDelayedCall | None = None
        self.ready_at: float | None = None
        self._owner = owner
        self._session = session
        self._digest = session.digest
        self._name = session.name
        self._child: Child | None = None
        self._correlation: Correlation[Waiter] = Correlation(label)
        self._asked = 0
        self._ours = 0
        self._unreadable = 0

    @property
    def child(self) -> Child | None:
        """
        @return: the child, C{None} before L{attach}.
        """
        return self._child

    @property
    def usable(self) -> bool:
        """
        @return: whether the child takes messages.
        """
        return self._child is not None and self._child.usable

    @property
    def in_flight(self) -> int:
        """
        @return: how many of the client's requests wait for the child.
        """
        return len(self._correlation) - self._ours

    def attach(self, child: Child, expires_at: int) -> None:
        """
        @param child: made for this attachment, its observer; not started.
        @param expires_at: when its token expires, seconds since the epoch.
        """
        self._child = child
        self.expires_at = expires_at

    # The handshake

    async def open(self, initialize: Request) -> Response:
        """
        Start the child and let it answer C{initialize}. On a result it has also been
        told C{notifications/initialized}.

        @param initialize: the client's request, or the same again.
        @return: the child's answer: a result, or an error.
        @raise ChildCannotStart: it ended or took too long.
        """
        child = self._child
        if child is None:
            raise ChildCannotStart("there is no child")
        opening = Opening()
        try:
            child.start()
            self._send(initialize, _OURS, _Ours(self, opening.answered))
            response: Response | None = await opening.response
        except ChildGone:
            # Between start and send; what it said is still on its way.
            await child.when_ended()
            response = None
        if response is None or not child.usable:
            said = f": {child.last_stderr}" if child.last_stderr else ""
            raise ChildCannotStart(f"the child ended before it was ready{said}")
        if response.result is not None:
            child.mark_ready()
            child.send(encode_notification(INITIALIZED))
        return response

    def replay(self, log_level: str | None, subscriptions: Sequence[str]) -> None:
        """
        Tell the child what its predecessors were told; nobody hears the answers.

        @param log_level: as the client set it.
        @param subscriptions: URIs of resources.
        """
        if log_level is not None:
            self.ask("logging/setLevel", {"level": log_level})
        for uri in subscriptions:
            self.ask("resources/subscribe", {"uri": uri})

    def ask(
        self,
        method: str,
        params: dict[str, str],
        then: Callable[[Response], None] = lambda _: None,
    ) -> None:
        """
        Make a request of our own, which does not count as in flight. One that the
        child cannot take is left out.

        @param method: the method.
        @param params: its params.
        @param then: hears the answer.
        """
        self._asked += 1
        request = Request(
            b"%d" % self._asked, method, json.dumps(params).encode("utf-8")
        )
        with suppress(ChildBusy, ChildGone, TooManyPendingError):
            self._send(request, _OURS, _Ours(self, then))

    # The client's side

    def holds(self, id: bytes) -> bool:
        """
        @param id: raw JSON of the id of a request of the client's.
        @return: whether it is in flight here.
        """
        key = id_key(id)
        return any(
            id_key(pending.id) == key
            for pending in self._correlation.pending(self._digest)
        )

    def request(self, request: Request, waiter: Waiter) -> None:
        """
        Relay a request.

        @param request: from the client.
        @param waiter: gets the answer.
        @raise DuplicateIdError: its id is in flight.
        @raise TooManyPendingError: so are too many others.
        @raise ChildBusy: the child does not read.
        @raise ChildGone: it has ended.
        """
        self._send(request, self._digest, waiter)

    def notify(self, notification: Notification) -> bool:
        """
        Relay a notification, if it concerns something here or everything.

        @param notification: from the client.
        @return: whether it was for this child.
        @raise ChildBusy: the child does not read.
        """
        relayed = self._correlation.notify(notification, self._digest)
        if relayed.message is None:
            return False
        try:
            if self.usable and self._child is not None:
                self._child.send(relayed.message)
        finally:
            # The call is forgotten already, whether its child hears of it or not.
            if relayed.cancelled is not None:
                relayed.cancelled.waiter.cancelled()
                self._owner.answered(self)
        return True

    def respond(self, response: Response) -> bool:
        """
        Relay the client's answer to a question of this child.

        @param response: from the client.
        @return: whether this child has asked for it.
        @raise ChildBusy: the child does not read.
        """
        message = self._correlation.respond(response, self._digest)
        if message is None:
            return False
        if self.usable and self._child is not None:
            self._child.send(message)
        return True

    def sole_pending(self) -> Pending[Waiter] | None:
        """
        @return: the session's only request in flight, if there is exactly one.
        """
        return self._correlation.sole_pending(self._digest)

    def ask_client(self, asked: ChildRequest) -> bytes:
        """
        Take a question of the child, for the session's client.

        @param asked: the question.
        @return: it under an id of our own; L{respond} takes the answer.
        @raise TooManyPendingError: too many are open.
        """
        return self._correlation.ask(asked, self._digest)

    def tell(self, message: bytes) -> None:
        """
        @param message: encoded, for the child. One that it cannot take is left out.
        """
        if self._child is not None:
            with suppress(ChildBusy, ChildGone):
                self._child.send(message)

    def fail_all(self, reason: str, told: str) -> None:
        """
        Nobody gets an answer from this child any more.

        @param reason: short, C{data.reason}.
        @param told: one sentence.
        """
        for pending in self._correlation.drain():
            pending.waiter.answered(failure(pending.id, reason, told))

    # The child's side

    def child_line(self, line: bytes) -> None:
        """
        @param line: what the child said.
        """
        try:
            message = parse_child_line(line)
        except MessageError as error:
            self._unreadable += 1
            if self._unreadable.bit_count() == 1:
                # 1, 2, 4, 8 …: however much it is, the log stays readable.
                self.log.warn(
                    "session {session}: child wrote what is no message: {error}"
                    " ({count} so far)",
                    session=self._name,
                    error=error.message,
                    count=self._unreadable,
                )
            if error.id == NULL:
                return
            # An answer to somebody, who must not wait for ever.
            message = failure(error.id, "unreadable", "the answer could not be read")
        event = self._correlation.receive(message)
        if isinstance(event, Answer):
            self._answer(event)
        elif isinstance(event, RequestNotification):
            event.pending.waiter.notified(event.message)
        elif isinstance(event, ChildRequest):
            self._session.asked(self, event)
        elif isinstance(event, ChildNotification):
            self._session.belongs_to_none(self, event)

    def child_ended(self, end: ChildEnd) -> None:
        """
        @param end: how the child ended.
        """
        if self.expiry is not None and self.expiry.active():
            self.expiry.cancel()
        self.expiry = None
        self.fail_all(end.reason.value, "the child process ended")
        self._owner.ended(self, end)

    # Inside

    def _send(self, request: Request, session: bytes, waiter: Waiter) -> None:
        child = self._child
        if child is None or not child.usable:
            raise ChildGone("the child has ended")
        line = self._correlation.request(request, session, waiter)
        self._ours += session is _OURS
        try:
            child.send(line)
        except ChildBusy:
            # Never sent, so that it does not wait.
            self._ours -= session is _OURS
            for pending in self._correlation.pending(session):
                if pending.waiter is waiter and pending.id == request.id:
                    self._correlation.withdraw(pending, "")
            raise

    def _answer(self, event: Answer[Waiter]) -> None:
        waiter = event.pending.waiter
        try:
            waiter.answered(event.response)
        except Exception:
            self.log.failure("session {session}: an answer failed", session=self._name)
            waiter.answered(
                failure(event.pending.id, "unexpected", "the answer was lost")
            )
        finally:
            self._owner.answered(self)


class _Ours:
    """
    Waits for the answer to a request of our own.
    """

    takes_messages = False

    def __init__(self, attachment: Attachment, then: Callable[[Response], None]):
        """
        @param attachment: where it is made.
        @param then: hears the answer.
        """
        self._attachment = attachment
        self._then = then

    def notified(self, message: bytes) -> None:
        """
        @param message: dropped: no client knows of the request.
        """

    def answered(self, response: Response) -> None:
        """
        @param response: the answer.
        """
        self._attachment._ours -= 1
        self._then(response)

    def cancelled(self) -> None:
        """Cannot happen: no client knows its id."""


def failure(id: bytes, reason: str, told: str) -> Response:
    """
    @param id: raw JSON of the request's id.
    @param reason: short, C{data.reason}.
    @param told: one sentence.
    @return: an answer of our own where the child gives none.
    """
    error = {"code": INTERNAL_ERROR, "message": told, "data": {"reason": reason}}
    return Response(id, error=json.dumps(error).encode())
