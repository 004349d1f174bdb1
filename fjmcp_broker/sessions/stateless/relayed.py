"""
One request of a stateless revision at a child, until it is answered: over several
requests of the client's, when the child of an older revision asks something.
"""

from collections.abc import Mapping, Sequence
from typing import Final, Protocol

import msgspec
from msgspec.structs import replace
from twisted.internet.interfaces import IDelayedCall, IReactorTime

from fjmcp_broker.mcp.correlation import Pending
from fjmcp_broker.mcp.messages import (
    INTERNAL_ERROR,
    Notification,
    Request,
    Response,
    encode_error,
)
from fjmcp_broker.mcp.modern.answers import answer_passed_on, answer_to_modern
from fjmcp_broker.mcp.modern.capabilities import Required, merged
from fjmcp_broker.mcp.modern.questions import (
    Question,
    input_required,
    question_of,
    refusal,
    sort_answers,
)
from fjmcp_broker.mcp.modern.request_state import LIFETIME_SECONDS
from fjmcp_broker.mcp.modern.requests import ModernRequest
from fjmcp_broker.mcp.modern.translation import (
    notification_to_modern,
    to_legacy,
    wants_log,
)
from fjmcp_broker.mcp.policy import ToolCatalogue
from fjmcp_broker.sessions.children.attachment import Attachment
from fjmcp_broker.sessions.children.waiting import Waiter
from fjmcp_broker.sessions.processes.child import Child
from fjmcp_broker.sessions.stateless.calls import Call, CallObserver
from fjmcp_broker.sessions.stateless.parked import ParkedCalls

TOGETHER_SECONDS: Final = 0.05
"""Questions that come within this time go to the client in one answer."""

MAXIMUM_QUESTIONS: Final = 100
"""So many of one call may be open."""

LOG_MESSAGE: Final = "notifications/message"

_NOTHING: Final[Mapping[str, bytes]] = {}


class CallPlace(Protocol):
    """
    Where a call is made.
    """

    @property
    def clock(self) -> IReactorTime:
        """
        @return: for the time that questions have.
        """

    @property
    def parked(self) -> ParkedCalls:
        """
        @return: the calls that wait for their clients.
        """

    @property
    def catalogue(self) -> ToolCatalogue:
        """
        @return: what is known of the tools of the child.
        """

    @property
    def server_info(self) -> bytes | None:
        """
        @return: raw JSON object: who the child says it is.
        """

    def call_heard(self, modern: ModernRequest, result: bytes) -> None:
        """
        @param modern: what was asked.
        @param result: raw: what its client is about to see.
        """

    def call_given_up(self, attachment: Attachment) -> None:
        """
        @param attachment: may still be at a call that nobody wants any more.
        """

    def call_over(self, call: "RelayedCall") -> None:
        """
        @param call: nothing comes of it any more.
        """


class RelayedCall:
    """
    A request at a child.

    @ivar number: names it among the calls of its child.
    @ivar modern: as the client sent it last.
    """

    # Of most calls these never change.
    _pending: Pending[Waiter] | None = None
    _open: Sequence[Question] = ()
    _missing: Required | None = None
    _late: Response | None = None
    _timer: IDelayedCall | None = None
    _over = False

    def __init__(
        self,
        place: CallPlace,
        attachment: Attachment,
        modern: ModernRequest,
        observer: CallObserver,
        number: str,
    ) -> None:
        """
        @param place: where it is made.
        @param attachment: of the child.
        @param modern: what the client wants.
        @param observer: gets the answer.
        @param number: names it among the calls of its child.
        """
        self.number = number
        self.modern = modern
        self._place = place
        self._attachment = attachment
        self._observer: CallObserver | None = observer
        self._given = modern.input_responses or _NOTHING

    @property
    def generation(self) -> str:
        """
        @return: names the child that has it, of all children ever.
        """
        return self._attachment.label

    @property
    def catalogue(self) -> ToolCatalogue:
        """
        @return: what is known of the tools of its child.
        """
        return self._place.catalogue

    @property
    def child(self) -> Child | None:
        """
        @return: the child.
        """
        return self._attachment.child

    # The client

    def begin(self, observer: CallObserver) -> Call:
        """
        Send it.

        @param observer: that of the constructor.
        @return: the call, as long as this request of the client's lasts.
        @raise TooManyPendingError: too many others wait for the child.
        @raise ChildBusy: the child does not read.
        @raise ChildGone: it has ended.
        """
        plain = self._attachment.is_stateless
        request = self.modern.request if plain else to_legacy(self.modern)
        pending = self._attachment.relay(request, self)
        if not self._over:
            self._pending = pending
        return _Handle(self, observer)

    def resume(self, modern: ModernRequest, observer: CallObserver) -> Call:
        """
        Go on with the client's answers.

        @param modern: the retry.
        @param observer: gets the answer.
        @return: the call, as long as this request of the client's lasts.
        """
        self._stop_timer()
        self.modern, self._observer = modern, observer
        late, self._late = self._late, None
        if late is not None:
            # The child's own, whatever has become of it since.
            self._finish(late, has_failed=False)
        elif self._pending is not None:
            token = modern.request.meta.get("progressToken")
            self._pending = self._attachment.readdress(self._pending, modern.id, token)
            answers = sort_answers(modern.input_responses, self._open)
            self._now_open(answers.open)
            used = {question.key for question, _ in answers.answered}
            self._given = {
                key: raw
                for key, raw in (modern.input_responses or {}).items()
                if key not in used
            }
            for _, message in answers.answered:
                self._attachment.tell(message)
            if self._open and not self._over:
                self._ask_soon()
        return _Handle(self, observer)

    def leave(self, observer: CallObserver) -> None:
        """
        @param observer: its client is gone. When the call waits for another request of
            that client's, or has another observer, nothing happens.
        """
        if self._observer is observer:
            self._give_up("the client has gone")

    def forget(self, reason: str) -> None:
        """
        @param reason: why nobody will come back for it, for the child.
        """
        if self._observer is None:
            self._give_up(reason)

    # The child

    @property
    def takes_messages(self) -> bool:
        """
        @return: whether messages before the answer still reach the client.
        """
        return self._observer is not None and self._observer.takes_messages

    def notified(self, message: bytes) -> None:
        """
        @param message: encoded: progress, under the client's own token.
        """
        if self._observer is not None:
            self._observer.notified(message)

    def told(self, notification: Notification) -> None:
        """
        @param notification: names no request, and can only belong to this one.
        """
        if notification.method == LOG_MESSAGE and not wants_log(
            self.modern, notification
        ):
            return
        message = notification_to_modern(notification)
        if message is not None and self._observer is not None:
            self._observer.notified(message)

    def asked(self, request: Request) -> None:
        """
        @param request: a question of the child that can only belong to this call.
        """
        refused = refusal(request, self.modern)
        if refused is not None:
            if refused.missing is not None:
                self._missing = merged(self._missing, refused.missing)
            self._attachment.tell(refused.answer)
            return
        if len(self._open) >= MAXIMUM_QUESTIONS:
            told = "too many questions are open"
            self._attachment.tell(encode_error(request.id, INTERNAL_ERROR, told))
            return
        question = question_of(request, [other.key for other in self._open])
        given = sort_answers(self._given, [question])
        for _, message in given.answered:
            self._given = {k: v for k, v in self._given.items() if k != question.key}
            self._attachment.tell(message)
        if given.open:
            self._now_open([*self._open, question])
            self._ask_soon()

    def answered(self, response: Response) -> None:
        """
        @param response: of the child, or ours when there will be none.
        """
        self._pending = None
        self._refuse_open("the call has ended")
        # A child that was leased for this call alone is stopped by its end.
        has_failed = self._attachment.has_failed
        if self._observer is not None:
            self._finish(response, has_failed=has_failed)
        elif has_failed:
            self._end()
        else:
            self._late = response

    def cancelled(self) -> None:
        """Cannot happen: its client has no way to say so but by leaving."""

    # Inside

    def _finish(self, response: Response, *, has_failed: bool) -> None:
        observer, self._observer = self._observer, None
        self._end()
        modern = self.modern
        if has_failed:
            answer, status = replace(response, id=modern.id), 200
        elif self._attachment.is_stateless:
            answer, status = answer_passed_on(modern, response)
        else:
            answer, status = answer_to_modern(
                modern, response, self._place.server_info, refused=self._missing
            )
        if response.result is not None:
            self._place.call_heard(modern, response.result)
        if observer is not None:
            observer.finished(answer, status)

    def _ask_soon(self) -> None:
        if self._observer is not None and self._timer is None:
            self._timer = self._place.clock.callLater(TOGETHER_SECONDS, self._ask)

    def _ask(self) -> None:
        """Hand the open questions to the client; the call waits for its retry."""
        self._timer = None
        observer, self._observer = self._observer, None
        if observer is None:
            return
        state = self._place.parked.park(self, self.modern.request)
        self._timer = self._place.clock.callLater(
            LIFETIME_SECONDS, self._give_up, "the client did not answer in time"
        )
        result = input_required(self._open, state, self._place.server_info)
        observer.finished(Response(self.modern.id, result), 200)

    def _give_up(self, reason: str) -> None:
        """Nobody wants the answer any more."""
        if self._over:
            return
        self._observer = None
        pending, self._pending = self._pending, None
        self._refuse_open(reason)
        if pending is not None:
            self._place.call_given_up(self._attachment)
            self._attachment.give_up(pending, reason)
        self._end()

    def _refuse_open(self, reason: str) -> None:
        questions = self._open
        if not questions:
            return
        self._now_open([])
        for question in questions:
            self._attachment.tell(question.failed(reason, INTERNAL_ERROR))

    def _now_open(self, questions: Sequence[Question]) -> None:
        self._attachment.open_questions += len(questions) - len(self._open)
        self._open = list(questions)

    def _end(self) -> None:
        if not self._over:
            self._over = True
            self._stop_timer()
            self._place.parked.remove(self)
            self._place.call_over(self)

    def _stop_timer(self) -> None:
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        self._timer = None


class _Handle(msgspec.Struct, eq=False):
    """
    A call, as long as one request of the client's lasts.
    """

    call: RelayedCall
    observer: CallObserver

    @property
    def child(self) -> Child | None:
        """
        @return: who answers.
        """
        return self.call.child

    def abandon(self) -> None:
        """The client is gone."""
        self.call.leave(self.observer)
