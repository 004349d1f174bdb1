"""
One child of a session, from its start to its end. What has been written to it is never
written to another one: whoever waits for an answer that will not come gets an error.
"""

import json
from collections.abc import Callable, Hashable, Mapping
from contextlib import suppress
from typing import Final

from msgspec.structs import replace
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
    TornDown,
)
from fjmcp_broker.mcp.messages import (
    NULL,
    MessageError,
    Notification,
    Request,
    Response,
    encode_notification,
    parse_child_line,
)
from fjmcp_broker.sessions.children.ours import OurWaiter, Unreadable, failure
from fjmcp_broker.sessions.children.roles import AttachmentOwner, Resident
from fjmcp_broker.sessions.children.waiting import Waiter
from fjmcp_broker.sessions.errors import ChildBusy, ChildGone
from fjmcp_broker.sessions.processes.child import Child
from fjmcp_broker.sessions.processes.ending import ChildEnd

INITIALIZED: Final = "notifications/initialized"
_OURS: Final = b"ours"
"""In place of a session's digest: the requests that we make ourselves."""


class Attachment:
    """
    A child and the requests that it has.

    @ivar session: whose child it is.
    @ivar label: different for each child that a session ever has.
    @ivar expires_at: when its token expires, seconds since the epoch.
    @ivar expiry: the call that ends it before that.
    @ivar is_stateless: whether it is spoken to in the stateless revisions.
    @ivar open_questions: of the child, that whoever shares it answers.
    @ivar has_failed: whether nobody gets an answer of the child's any more.
    @ivar ready_at: when it had answered C{initialize}, or C{None}.
    """

    log = Logger()

    def __init__(self, owner: AttachmentOwner, session: Resident, label: str) -> None:
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
        self.is_stateless = self.has_failed = False
        self.open_questions = 0
        self._owner = owner
        self.session = session
        self._digest = session.digest
        self._name = session.name
        self._child: Child | None = None
        self._correlation: Correlation[Waiter] = Correlation(label)
        self._started = False
        self._asked = 0
        self._ours = 0
        self._unreadable = Unreadable(session.name)

    @property
    def child(self) -> Child | None:
        """
        @return: the child, C{None} before L{attach}.
        """
        return self._child

    def usable(self) -> bool:
        """
        @return: whether the child takes messages.
        """
        return self._child is not None and self._child.usable()

    @property
    def in_flight(self) -> int:
        """
        @return: how many of the client's requests wait for the child.
        """
        return len(self._correlation) - self._ours

    @property
    def awaits_client(self) -> bool:
        """
        @return: whether it has asked a client something, and may be silent itself.
        """
        return bool(self.open_questions or self._correlation.open_questions)

    def attach(self, child: Child, expires_at: int) -> None:
        """
        @param child: made for this attachment, its observer; not started.
        @param expires_at: when its token expires, seconds since the epoch.
        """
        self._child = child
        self.expires_at = expires_at

    # The handshake

    def start(self) -> None:
        """
        Start the child, the first time.

        @raise ChildCannotStart: it could not even be launched.
        """
        if self._child is not None and not self._started:
            self._started = True
            self._child.start()

    def begin_session(self) -> None:
        """It has answered C{initialize}: the deadline of its start is met."""
        if self._child is not None:
            self._child.mark_ready()
            self._child.send(encode_notification(INITIALIZED))

    def begin_stateless(self) -> None:
        """It speaks the stateless revisions, and is spoken to in them."""
        self.is_stateless = True
        if self._child is not None:
            self._child.mark_ready()

    def put(self, request: Request, then: Callable[[Response], None]) -> None:
        """
        Make a request of our own, which does not count as in flight.

        @param request: the request, under any id that no other of ours has.
        @param then: hears the answer.
        @raise ChildGone: the child has ended.
        @raise ChildBusy: the child does not read.
        """
        self._send(request, _OURS, OurWaiter(then))

    def ask(
        self,
        method: str,
        params: Mapping[str, object],
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
            self.put(request, then)

    # The client's side

    def holds(self, id: bytes) -> bool:
        """
        @param id: raw JSON of the id of a request of the client's.
        @return: whether it is in flight here.
        """
        return self._correlation.holds(self._digest, id)

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

    # Clients that share it

    @property
    def calls(self) -> list[Pending[Waiter]]:
        """
        @return: the requests in flight that are not ours, oldest first.
        """
        return [p for p in self._correlation.pending() if p.session is not _OURS]

    def find(self, id: bytes) -> Pending[Waiter] | None:
        """
        @param id: raw JSON, as the child knows it.
        @return: the request in flight, ours or a client's.
        """
        return self._correlation.find(id)

    def relay(
        self, request: Request, waiter: Waiter, *, counts: bool = True
    ) -> Pending[Waiter]:
        """
        Relay a request of one of many connections: none collide, whatever their ids.

        @param request: from the client.
        @param waiter: gets the answer.
        @param counts: whether it is in flight; one that only listens is not.
        @return: the request in flight.
        @raise TooManyPendingError: too many are.
        @raise ChildBusy: the child does not read.
        @raise ChildGone: it has ended.
        """
        if counts:
            return self._send(request, object(), waiter)
        self._asked += 1
        return self._send(replace(request, id=b"%d" % self._asked), _OURS, waiter)

    def readdress(
        self, pending: Pending[Waiter], id: bytes, progress_token: bytes | None
    ) -> Pending[Waiter]:
        """
        @param pending: in flight; its client asks for the answer under another id.
        @param id: raw JSON of that id.
        @param progress_token: raw JSON of the token now, or C{None}.
        @return: the same request from now on.
        """
        return self._correlation.readdress(pending, id, progress_token)

    def give_up(self, pending: Pending[Waiter], reason: str) -> None:
        """
        Cancel a request; its waiter hears nothing more.

        @param pending: in flight, else nothing happens.
        @param reason: our own words for the child's log.
        """
        message = self._correlation.withdraw(pending, reason)
        if message is not None:
            self._ours -= pending.session is _OURS
            self.tell(message)
            self._owner.answered(self)

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
            if self.usable() and self._child is not None:
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
        if self.usable() and self._child is not None:
            self._child.send(message)
        return True

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
        @param message: for the child, left out if it cannot take it.
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
        self.has_failed = True
        self._ours = 0
        for pending in self._correlation.drain():
            if pending.session is not _OURS:
                self.session.answering(pending.waiter)
            pending.waiter.answered(failure(pending.id, reason, told))

    # The child's side

    def child_line(self, line: bytes) -> None:
        """
        @param line: what the child said.
        """
        try:
            message = parse_child_line(line)
        except MessageError as error:
            self._unreadable.add(error)
            if error.id == NULL:
                return
            # An answer to somebody, who must not wait for ever.
            message = failure(error.id, "unreadable", "the answer could not be read")
        del line  # its parts are in the message, and either may be large
        event = self._correlation.receive(message)
        if isinstance(event, Answer):
            self._answer(event.pending, event.response)
        elif isinstance(event, RequestNotification):
            event.pending.waiter.notified(event.message)
        elif isinstance(event, TornDown):
            self._ours -= event.pending.session is _OURS
            event.pending.waiter.cancelled()
        elif isinstance(event, ChildRequest):
            self.session.asked(self, event)
        elif isinstance(event, ChildNotification):
            self.session.belongs_to_none(self, event)

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

    def _send(
        self, request: Request, session: Hashable, waiter: Waiter
    ) -> Pending[Waiter]:
        child = self._child
        if child is None or not child.usable():
            raise ChildGone("the child has ended")
        line, pending = self._correlation.take(request, session, waiter)
        self._ours += session is _OURS
        try:
            child.send(line)
        except ChildBusy:
            # Never sent, so that it does not wait.
            self._ours -= session is _OURS
            self._correlation.withdraw(pending, "")
            raise
        return pending

    def _answer(self, pending: Pending[Waiter], response: Response) -> None:
        waiter = pending.waiter
        try:
            if pending.session is _OURS:
                self._ours -= 1
            else:
                self.session.answering(waiter)
            waiter.answered(response)
        except Exception:
            self.log.failure("session {session}: an answer failed", session=self._name)
            waiter.answered(failure(pending.id, "unexpected", "the answer was lost"))
        finally:
            self._owner.answered(self)
