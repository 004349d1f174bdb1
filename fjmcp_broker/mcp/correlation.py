"""
Which answer belongs to whom: one L{Correlation} for each running child.

Requests get new ids towards the child, and progress tokens become those ids, so two
connections that share a child never collide, and C{1} and C{"1"} stay different. The
child's own questions get new ids towards the client in the same way. Nothing here does
I/O: messages come in, messages and events come out, and the caller delivers them.
"""

from collections.abc import Hashable, Iterator
from typing import Final, Generic, TypeVar

import msgspec
from msgspec.structs import replace

from fjmcp_broker.errors import BrokerError
from fjmcp_broker.mcp.correlated import (
    Answer,
    ChildNotification,
    ChildRequest,
    Dropped,
    Pending,
    Relayed,
    RequestNotification,
    TornDown,
)
from fjmcp_broker.mcp.messages import (
    NULL,
    Message,
    Notification,
    Request,
    Response,
    encode_error_object,
    encode_notification,
    encode_request,
    encode_result,
    id_key,
    with_member,
    with_progress_token,
    with_request_id,
)

__all__ = [
    "CANCELLED",
    "DEFAULT_MAXIMUM_PENDING",
    "LISTEN",
    "PROGRESS",
    "Answer",
    "ChildGoneError",
    "ChildNotification",
    "ChildRequest",
    "Correlation",
    "Dropped",
    "DuplicateIdError",
    "Pending",
    "Relayed",
    "RequestNotification",
    "TooManyPendingError",
    "TornDown",
]

T = TypeVar("T")

DEFAULT_MAXIMUM_PENDING: Final = 1000

CANCELLED: Final = "notifications/cancelled"
PROGRESS: Final = "notifications/progress"
LISTEN: Final = "subscriptions/listen"


class DuplicateIdError(BrokerError):
    """
    A session used the id of a request that it still waits for: the client's fault.
    """


class TooManyPendingError(BrokerError):
    """
    So many requests wait for this child that no other is taken.
    """


class ChildGoneError(BrokerError):
    """
    The child has ended; nothing can be asked of it.
    """


class _Question(msgspec.Struct, frozen=True):
    session: Hashable
    child_id: bytes
    progress_token: bytes | None


class Correlation(Generic[T]):
    """
    The requests between one child and the sessions that use it, in both directions.

    @ivar late_answers: how many answers came after their request was given up.
    """

    def __init__(
        self, label: str, *, maximum_pending: int = DEFAULT_MAXIMUM_PENDING
    ) -> None:
        """
        @param label: prefix of the ids that the child's questions get; our own text in
            url-safe characters, different for each child that a session ever has.
        @param maximum_pending: how many requests may wait, in each direction.
        """
        self._label = label
        self._maximum_pending = maximum_pending
        self._last_id = 0
        self._last_question = 0
        self._pending: dict[bytes, Pending[T]] = {}
        self._by_client: dict[tuple[Hashable, bytes], Pending[T]] = {}
        self._questions: dict[bytes, _Question] = {}
        self._ended = False
        self.late_answers = 0

    def __len__(self) -> int:
        """
        @return: how many requests wait for the child.
        """
        return len(self._pending)

    def pending(self, session: Hashable | None = None) -> Iterator[Pending[T]]:
        """
        @param session: only the requests of this session, or None for all.
        @return: the waiting requests, oldest first.
        """
        for pending in list(self._pending.values()):
            if session is None or pending.session == session:
                yield pending

    def holds(self, session: Hashable, id: bytes) -> bool:
        """
        @param session: of a client.
        @param id: raw JSON of the id of a request of that client's.
        @return: whether it waits here.
        """
        return (session, id_key(id)) in self._by_client

    @property
    def open_questions(self) -> int:
        """
        @return: how many questions of the child wait for a client.
        """
        return len(self._questions)

    def find(self, child_id: bytes) -> Pending[T] | None:
        """
        @param child_id: raw JSON of an id as the child wrote it.
        @return: the waiting request that it names, or None.
        """
        return self._pending.get(child_id)

    def sole_pending(self, session: Hashable | None = None) -> Pending[T] | None:
        """
        @param session: only the requests of this session, or None for all.
        @return: the waiting request when there is exactly one, else None.
        """
        found = list(self.pending(session))
        return found[0] if len(found) == 1 else None

    def request(self, request: Request, session: Hashable, waiter: T) -> bytes:
        """
        @param request: as for L{take}, which says what is raised.
        @param session: likewise.
        @param waiter: likewise.
        @return: the request for the child.
        """
        return self.take(request, session, waiter)[0]

    def take(
        self, request: Request, session: Hashable, waiter: T
    ) -> tuple[bytes, Pending[T]]:
        """
        Take a client's request.

        @param request: the request, under the client's id.
        @param session: whose it is; any value but None.
        @param waiter: what comes back with its answer.
        @return: the request for the child, and what it waits as.
        @raise DuplicateIdError: when a request of the session with an equal id waits.
        @raise TooManyPendingError: when the limit is reached.
        @raise ChildGoneError: after L{drain}.
        """
        if self._ended:
            raise ChildGoneError("the child has ended")
        key = id_key(request.id)
        if (session, key) in self._by_client:
            raise DuplicateIdError("a request with this id is still in flight")
        if len(self._pending) >= self._maximum_pending:
            raise TooManyPendingError("too many requests wait for this child")
        self._last_id += 1
        child_id = b"%d" % self._last_id
        params, token = request.params, request.meta.get("progressToken")
        if params is not None and token is not None:
            params = with_progress_token(params, child_id)
        id, method = request.id, request.method
        pending = Pending(child_id, session, id, key, method, token, waiter)
        self._pending[child_id] = self._by_client[session, key] = pending
        return encode_request(child_id, method, params), pending

    def readdress(
        self, pending: Pending[T], id: bytes, progress_token: bytes | None
    ) -> Pending[T]:
        """
        Let a request wait under another id, and its progress go under another token.
        A token for a request that had none comes too late: the child reports nothing.

        @param pending: the request. One that no longer waits is left alone.
        @param id: raw JSON of its id towards the client from now on.
        @param progress_token: raw JSON of the client's token from now on, or None.
        @return: the request as it waits now.
        """
        if self._pending.get(pending.child_id) is not pending:
            return pending
        self._forget(pending)
        key = id_key(id)
        new = replace(pending, id=id, key=key, progress_token=progress_token)
        self._pending[new.child_id] = self._by_client[new.session, key] = new
        return new

    def notify(self, notification: Notification, session: Hashable) -> Relayed[T]:
        """
        Take a client's notification. A cancellation of nothing that waits, and progress
        on nothing that was asked, are dropped (MCP 2025-11-25, cancellation: may be
        ignored); so is the cancellation of C{initialize}, which a client must not send.

        @param notification: the notification.
        @param session: whose it is.
        @return: what goes to the child, and the request that ended.
        """
        params = notification.params
        if notification.method == CANCELLED:
            id = notification.members.get("requestId", NULL)
            pending = self._by_client.get((session, id_key(id)))
            if pending is None or params is None or pending.method == "initialize":
                return Relayed(None)
            self._forget(pending)
            params = with_request_id(params, pending.child_id)
            return Relayed(encode_notification(CANCELLED, params), pending)
        if notification.method == PROGRESS:
            token = notification.members.get("progressToken", NULL)
            question = self._questions.get(id_key(token))
            if (
                params is None
                or question is None
                or question.session != session
                or question.progress_token is None
            ):
                return Relayed(None)
            params = with_member(params, "progressToken", question.progress_token)
        return Relayed(encode_notification(notification.method, params))

    def respond(self, response: Response, session: Hashable) -> bytes | None:
        """
        Take a client's answer to a question of the child.

        @param response: the answer, under the id that L{ask} gave.
        @param session: whose it is.
        @return: the answer for the child, or None when this session was asked no such
            question or has answered it.
        """
        key = id_key(response.id)
        question = self._questions.get(key)
        if question is None or question.session != session:
            return None
        del self._questions[key]
        if response.error is not None:
            return encode_error_object(question.child_id, response.error)
        return encode_result(question.child_id, response.result or NULL)

    def ask(self, asked: ChildRequest, session: Hashable) -> bytes:
        """
        Hand a question of the child to a client. Only that session can answer it.

        @param asked: the question.
        @param session: who is asked.
        @return: the question for the client, under an id of our own.
        @raise TooManyPendingError: when the limit is reached.
        @raise ChildGoneError: after L{drain}.
        """
        if self._ended:
            raise ChildGoneError("the child has ended")
        if len(self._questions) >= self._maximum_pending:
            raise TooManyPendingError("too many questions of the child are open")
        request = asked.request
        self._last_question += 1
        id = b'"%s-%d"' % (self._label.encode(), self._last_question)
        params, token = request.params, request.meta.get("progressToken")
        if params is not None and token is not None:
            params = with_progress_token(params, id)
        self._questions[id_key(id)] = _Question(session, request.id, token)
        return encode_request(id, request.method, params)

    def receive(
        self, message: Message
    ) -> (
        Answer[T]
        | RequestNotification[T]
        | ChildRequest
        | ChildNotification
        | TornDown[T]
        | Dropped
    ):
        """
        Take what the child said.

        An error without an id (a parse error, or forgejo-mcp 2.34 after a panic in a
        tool) answers the only request in flight, which would wait for ever otherwise.

        @param message: a message of the child.
        @return: what it means and whom it concerns.
        """
        if isinstance(message, Response):
            return self._answer(message)
        if isinstance(message, Request):
            return ChildRequest(message)
        params = message.params
        if message.method == PROGRESS:
            owner = self._pending.get(message.members.get("progressToken", NULL))
            if params is None or owner is None or owner.progress_token is None:
                return Dropped("progress on no request in flight")
            params = with_member(params, "progressToken", owner.progress_token)
            return RequestNotification(owner, encode_notification(PROGRESS, params))
        if message.method == CANCELLED:
            return self._withdrawn(message)
        return ChildNotification(
            message, None, encode_notification(message.method, params)
        )

    def withdraw(self, pending: Pending[T], reason: str) -> bytes | None:
        """
        Give up a request: its client is gone or its time is over. A later answer is
        counted and dropped.

        @param pending: the request.
        @param reason: our own words for the child's log.
        @return: the cancellation for the child; None when the request no longer waits.
        """
        if self._pending.get(pending.child_id) is not pending:
            return None
        self._forget(pending)
        text = msgspec.json.encode(reason)
        params = (b'{"requestId":', pending.child_id, b',"reason":', text, b"}")
        return encode_notification(CANCELLED, b"".join(params))

    def drain(self) -> list[Pending[T]]:
        """
        The child has ended: forget everything, and take nothing more.

        @return: all requests that waited, oldest first; none will be answered.
        """
        self._ended = True
        waiting = list(self._pending.values())
        self._pending.clear()
        self._by_client.clear()
        self._questions.clear()
        return waiting

    def _answer(self, response: Response) -> Answer[T] | Dropped:
        pending = self._pending.get(response.id)
        if pending is None:
            if response.id != NULL:
                self.late_answers += 1
                return Dropped("an answer to no request in flight")
            pending = self.sole_pending()
            if pending is None:
                return Dropped("an error that names no request")
        self._forget(pending)
        return Answer(pending, Response(pending.id, response.result, response.error))

    def _withdrawn(
        self, message: Notification
    ) -> ChildNotification | TornDown[T] | Dropped:
        """
        The child gives up a question of its own, or ends what listens to it (MCP
        2026-07-28, cancellation).
        """
        child_id = message.members.get("requestId", NULL)
        listening = self._pending.get(child_id)
        if listening is not None and listening.method == LISTEN:
            self._forget(listening)
            return TornDown(listening)
        for key, question in self._questions.items():
            if question.child_id == child_id and message.params is not None:
                del self._questions[key]
                params = with_request_id(message.params, key + b'"')
                encoded = encode_notification(CANCELLED, params)
                return ChildNotification(message, question.session, encoded)
        return Dropped("the end of no open question")

    def _forget(self, pending: Pending[T]) -> None:
        del self._pending[pending.child_id]
        del self._by_client[pending.session, pending.key]
