"""
HTTP requests that are judged before their body is read.

twisted.web buffers a whole body before it renders anything. Here the endpoint's
L{IAdmission} is asked as soon as the headers are complete, and the body is counted as
it comes, so that 401 and 413 leave without reading it.
"""

from collections.abc import Callable
from io import BytesIO
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.http import parse_qs

from fjmcp_broker.limits.memory import Held
from fjmcp_broker.mcp.messages import Response
from fjmcp_broker.oauth.bearer import Principal
from fjmcp_broker.web.audit import ToolCall
from fjmcp_broker.web.channel import LINGER_SECONDS
from fjmcp_broker.web.heads import Head
from fjmcp_broker.web.quick_request import QuickRequest
from fjmcp_broker.web.refusal import Refusal
from fjmcp_broker.web.whole import server_name


class BrokerRequest(QuickRequest):
    """
    A request whose body is in memory and no longer than its endpoint allows.

    @ivar principal: who sent it, set by the endpoint's admission.
    @ivar rpc_method: of the JSON-RPC message in its body, as sent.
    @ivar has_failed: whether the answer to that message was an error; C{None}: it
        was answered in another way.
    @ivar tool_call: the call of a tool that is in its body, for the audit trail.
    @ivar sign_in_step: the step of a sign-in that it is, for its trace.
    @ivar started_at: when its headers were complete.
    @ivar came_whole: whether its body came with them and was taken at once.
    @ivar on_drain: ends an answer that would last as long as its client likes, when
        the daemon stops.
    @ivar on_ended: answers it when the right that it came with ends.
    @ivar on_lost: is told that the client has gone before it was answered.
    @ivar number: of this process's requests; L{request_id} shows it.
    """

    # What is set in every call.
    __slots__ = (
        "_admission",
        "_at_leaf",
        "_connected",
        "_held_memory",
        "_is_taken",
        "_query",
        "came_whole",
        "has_failed",
        "number",
        "on_lost",
        "principal",
        "rpc_method",
        "started_at",
        "tool_call",
    )

    _log = Logger()

    sign_in_step: Any = None  # a SignInStep, which knows this class
    on_drain: Callable[[], None] | None = None
    on_ended: Callable[[], None] | None = None

    # Typed too narrowly or not at all by Twisted.
    content: Any = None
    _received_bytes = 0
    _checking = False
    _is_complete = False
    _refusal: Refusal | None = None
    _answered_early = False
    _too_long = False
    _no_room = False
    _linger: IDelayedCall | None = None

    def __init__(self, channel: Any, queued: bool = False) -> None:
        """As L{QuickRequest}."""
        super().__init__(channel, queued)
        self.number = 0
        self.started_at = 0.0
        self.came_whole = False
        self.principal: Principal | None = None
        self.rpc_method: str | None = None
        self.has_failed: bool | None = None
        self.tool_call: ToolCall | None = None
        self.on_lost: Callable[[Failure], None] | None = None
        self._query = b""
        self._at_leaf = False
        self._connected = True
        self._is_taken = False
        self._admission: Any = None  # IAdmission
        self._held_memory: Held | None = None

    def take_body(self) -> bytes:
        """
        @return: the whole body, not copied; the request does not keep it while its
            answer takes its time. Whoever takes it says L{release_body} when it is
            of no use any more.
        """
        whole: bytes = self.content.getvalue()
        self.content.close()
        self.content = BytesIO()
        self._is_taken = True
        return whole

    def answered_with(self, response: Response) -> None:
        """
        @param response: the answer to the JSON-RPC message in its body.
        """
        self.has_failed = response.error is not None
        if self.tool_call is not None:
            self.tool_call.answered(response)

    def relayed(self, session: str) -> None:
        """
        A child has the message in its body: whoever waits for it tells the end.

        @param session: what the log calls the session.
        """
        if self.tool_call is not None:
            self.tool_call.relayed(session)

    def ended_with(self, outcome: str) -> None:
        """
        @param outcome: of the message in its body, when it was not answered.
        """
        if self.tool_call is not None:
            self.tool_call.over(outcome)

    def release_body(self) -> None:
        """Give the memory of the body back."""
        if self._held_memory is not None:
            self._held_memory.release()

    @property
    def is_open(self) -> bool:
        """
        @return: whether it can still be answered: its client is there, and nobody
            has finished it.
        """
        return not self.finished and self._connected

    @property
    def request_id(self) -> str:
        """
        @return: what the log calls this request.
        """
        site: Any = self.site
        return f"{site.instance}-{self.number:x}"

    @property
    def trace_id(self) -> str | None:
        """
        @return: what the trace of the sign-in is called that it belongs to.
        """
        step = self.sign_in_step
        trace_id: str | None = None if step is None else step.trace_id
        return trace_id

    def gotLength(self, length: int | None) -> None:
        """
        The headers are complete.

        @param length: of the body; C{None}: chunked.
        """
        channel: Any = self.channel
        self._begin(*channel.request_line())
        self.content = BytesIO()
        outcome = self._admission.admit(self, self.method, length)
        if outcome is not None and isinstance(outcome, Deferred):
            self._check(outcome, length)
        else:
            self._judge(outcome, length)

    def got_whole(self, head: Head, length: bytes, body: bytes) -> None:
        """
        The headers are complete, and the body is there, too: as L{gotLength} and
        L{handleContentChunk}, in one step where nothing is in the way.

        @param head: that of a request before.
        @param length: what C{Content-Length} says in this one.
        @param body: all of it.
        """
        self.take_head(head, length)
        self._begin(*head.line)
        admission = self._admission
        size = len(body)
        outcome = admission.admit(self, self.method, size)
        if outcome is None and size <= admission.maximum_body_bytes:
            held = self._held_memory
            if held is not None and held.hold(admission.holder(self), size):
                self.content = BytesIO(body)
                self.came_whole = True
                return
            self._no_room = True
        self.content = BytesIO()
        if isinstance(outcome, Deferred):
            self._check(outcome, size)
        else:
            self._judge(outcome, size)
        self.handleContentChunk(body)

    def handleContentChunk(self, data: bytes) -> None:
        """
        @param data: the next bytes of the body.
        """
        if self._answered_early or self._too_long or self._no_room:
            return
        self._received_bytes += len(data)
        if self._received_bytes > self._admission.maximum_body_bytes:
            self._too_long = True
        elif self._held_memory is not None and self._held_memory.grow(len(data)):
            self.content.write(data)
            return
        else:
            self._no_room = True
        self.content.truncate(0)
        self.release_body()
        if not self._checking:
            self._answer_early(self._refuse_body())

    def requestReceived(self, command: bytes, path: bytes, version: bytes) -> None:
        """
        The body is complete.

        @param command: the method.
        @param path: the target.
        @param version: of HTTP.
        """
        if self.came_whole:
            self._received()
        elif self._answered_early:
            self._close_connection()
        elif self._checking:
            self._is_complete = True
        elif self._refusal is not None:
            self._answer(self._refusal)
        else:
            self._received()

    def _received(self) -> None:
        """Twisted's own would look for a form in the body."""
        self.args = parse_qs(self._query, True) if self._query else {}
        self.content.seek(0)
        self.process()

    def process(self) -> None:
        """The body is complete, and the resource is to answer."""
        site: Any = self.site
        leaf = site.leaf(self.path)
        if leaf is None:
            super().process()
            return
        self._at_leaf = True
        try:
            leaf.render(self)  # which answers later
        except BaseException:
            self.processingFailed(Failure())

    def write(self, data: bytes) -> None:
        """
        @param data: the next bytes of the answer. Its headers leave with the first of
            them.
        """
        if not self.startedWriting:
            headers = self.responseHeaders
            headers.setRawHeaders(b"X-Content-Type-Options", [b"nosniff"])
            if self._at_leaf:
                headers.setRawHeaders(b"Server", [server_name])
                headers.setRawHeaders(b"Date", [self.site.date()])
        super().write(data)
        channel: Any = self.channel
        if channel is not None:
            channel.flush()

    def connectionLost(self, reason: Failure) -> None:
        """
        @param reason: why the client is gone.
        """
        if self._linger is not None and self._linger.active():
            self._linger.cancel()
        self._connected = False
        if not self._is_taken:
            self.release_body()
        super().connectionLost(reason)
        on_lost, self.on_lost = self.on_lost, None
        if on_lost is not None:
            on_lost(reason)

    def finish(self) -> None:
        """The answer is complete."""
        self.release_body()
        super().finish()

    # Inside

    def _begin(self, method: bytes, target: bytes, version: bytes) -> None:
        channel: Any = self.channel
        self.site = site = channel.site
        self.number = site.next_number()
        self.started_at = site.reactor.seconds()
        # Twisted sets these only when the whole request is there; an early answer and
        # the log need them now.
        self.method, self.uri, self.clientproto = method, target, version
        self.path, _, self._query = target.partition(b"?")
        self._admission = site.admission_for(self.path)
        self._held_memory = Held(self._admission.memory)

    def _check(self, outcome: "Deferred[Refusal | None]", length: int | None) -> None:
        """
        The bearer is looked up in the store: no more than one read of the body comes
        meanwhile.
        """
        self._checking = True
        self.transport.pauseProducing()

        def checked(refusal: Refusal | None) -> None:
            self._checking = False
            channel: Any = self.channel
            if channel is None or channel.is_refused:
                return
            self.transport.resumeProducing()
            self._judge(refusal, length)

        def failed(failure: Failure) -> None:
            self._log.failure("an admission failed", failure)
            if self.channel is not None:
                self.channel.loseConnection()

        outcome.addCallback(checked).addErrback(failed)

    def _judge(self, refusal: Refusal | None, length: int | None) -> None:
        if refusal is None:
            admission, held, size = self._admission, self._held_memory, length or 0
            self._too_long = self._too_long or size > admission.maximum_body_bytes
            if not self._too_long and not self._no_room and held is not None:
                self._no_room = not held.belongs_to(admission.holder(self), size)
            if self._too_long or self._no_room:
                refusal = self._refuse_body()
        if refusal is None:
            if self._is_complete:
                self._received()
        elif self._is_complete:
            self._answer(refusal)
        elif length == 0:
            # Nothing to save; and the channel counts on a request to give this to.
            self._refusal = refusal
        else:
            self._answer_early(refusal)

    def _refuse_body(self) -> Refusal:
        admission = self._admission
        answer: Refusal = (
            admission.too_large(self) if self._too_long else admission.no_room(self)
        )
        return answer

    def _answer(self, refusal: Refusal) -> None:
        self._write_answer(refusal)
        self.finish()

    def _answer_early(self, refusal: Refusal) -> None:
        """
        Answer in the middle of a body. The request is not finished: then its channel
        would take the rest of the body for the next one.
        """
        self._answered_early = True
        self.release_body()
        channel: Any = self.channel
        self.requestHeaders.removeHeader(b"expect")  # no 100 Continue behind this
        self.responseHeaders.setRawHeaders(b"Connection", [b"close"])
        self._write_answer(refusal)
        site: Any = self.site
        site.log(self)
        self._linger = channel.callLater(LINGER_SECONDS, self._close_connection)

    def _write_answer(self, refusal: Refusal) -> None:
        self.setResponseCode(refusal.status)
        for name, value in refusal.headers.items():
            self.responseHeaders.setRawHeaders(name, [value])
        self.responseHeaders.setRawHeaders(
            b"Content-Length", [b"%d" % len(refusal.body)]
        )
        self.write(refusal.body)

    def _close_connection(self) -> None:
        if self.channel is not None:
            self.channel.loseConnection()
