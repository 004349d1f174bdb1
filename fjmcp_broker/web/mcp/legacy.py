"""
POST of the revisions with sessions (MCP 2025-11-25, transports, Streamable HTTP): the
message goes to its session, and the child's answer on a stream that may be read on.
"""

from contextlib import suppress
from functools import partial
from typing import Final

from fjmcp_broker.mcp.messages import (
    INVALID_REQUEST,
    NULL,
    Message,
    MessageError,
    Notification,
    Request,
    encode,
    encode_error,
)
from fjmcp_broker.mcp.policy import Refused, decide
from fjmcp_broker.mcp.versions import allows_batches, check_header
from fjmcp_broker.oauth.bearer import Principal
from fjmcp_broker.sessions.errors import SessionError, SessionGone
from fjmcp_broker.sessions.registry import SessionRegistry
from fjmcp_broker.sessions.session import INITIALIZED, Session
from fjmcp_broker.sessions.streams.stream import Formats
from fjmcp_broker.web.audit import ToolCall, ToolCalls
from fjmcp_broker.web.bearer import BearerAuthenticator, authorization_header
from fjmcp_broker.web.mcp.answers import (
    ACCEPTED,
    SERVER_ERROR,
    answer_to_error,
    finish_with,
    refusal,
    refused_by_policy,
)
from fjmcp_broker.web.mcp.headers import McpHeaders
from fjmcp_broker.web.mcp.recall import NOBODY, Recall, Waiting
from fjmcp_broker.web.mcp.streams import McpStreams
from fjmcp_broker.web.mcp.waiters import Batch, StreamWaiter, ToolsOverlay
from fjmcp_broker.web.mcp.waking import WakingLimit
from fjmcp_broker.web.refusal import Refusal
from fjmcp_broker.web.request import BrokerRequest


class LegacyPosts:
    """
    Answers POST in the era of sessions.
    """

    def __init__(
        self,
        registry: SessionRegistry,
        authenticator: BearerAuthenticator,
        streams: McpStreams,
        tools_overlay: ToolsOverlay,
        waking: WakingLimit,
        calls: ToolCalls | None = None,
    ) -> None:
        """
        @param registry: the sessions.
        @param authenticator: makes challenges.
        @param streams: makes response streams.
        @param tools_overlay: edits lists of tools.
        @param waking: bounds how many requests wait for one child.
        @param calls: for the audit trail.
        """
        self._calls = calls
        self._registry = registry
        self._authenticator = authenticator
        self._streams = streams
        self._tools_overlay = tools_overlay
        self._waking = waking
        self._recall = Recall()

    async def post(
        self,
        request: BrokerRequest,
        headers: McpHeaders,
        principal: Principal,
        message: Message | tuple[Message | MessageError, ...],
    ) -> Refusal | None:
        """
        @param request: the POST.
        @param headers: what its headers say.
        @param principal: who sent it.
        @param message: what is in it.
        @return: the answer, or C{None}: it is given by a stream, or nobody waits.
        """
        if isinstance(message, Request) and message.method == "initialize":
            await self._initialize(request, principal, message)
            return None
        if headers.session_id is None:
            if isinstance(message, Notification) and message.method == INITIALIZED:
                return ACCEPTED
            id = message.id if isinstance(message, Request) else NULL
            return refusal(
                400, "Mcp-Session-Id is missing", code=INVALID_REQUEST, id=id
            )
        check_header(headers.version)
        session = await self._registry.find(headers.session_digest, principal)
        if not request.is_open:
            return None
        waiting = NOBODY
        if _asks(message) and not session.take_up():
            # Before anything is judged: what its tools do depends on the child.
            parts = message if isinstance(message, tuple) else (message,)
            with self._recall.waiting(session, parts) as waiting:
                await self._waking.wait(session, session.awake)
            if not request.is_open:
                return None
        if isinstance(message, tuple):
            return self._batch(request, headers, principal, session, message, waiting)
        verdict = decide(principal.policy, message, session.catalogue)
        if isinstance(verdict, Refused):
            id = message.id if isinstance(message, Request) else NULL
            return refused_by_policy(verdict, id, self._authenticator)
        if isinstance(message, Request):
            self._relay(request, headers, principal, session, message, waiting)
            return None
        self._deliver(session, message)
        return ACCEPTED

    async def _initialize(
        self, request: BrokerRequest, principal: Principal, message: Request
    ) -> None:
        refused = self._authenticator.refused("the access token is not valid")
        request.on_ended = lambda: finish_with(
            request,
            answer_to_error(
                refused, message.id, self._authenticator, request.request_id
            ),
        )
        try:
            opened = await self._registry.open(principal, message)
        except SessionGone:
            # Nearly always its grant has ended meanwhile: 401, not 404.
            await self._authenticator.authenticate(authorization_header(request))
            raise
        finally:
            request.on_ended = None
        if not request.is_open:
            if opened.session is not None:
                opened.session.end("client_left")
            return
        if opened.session_id is not None:
            request.setHeader(b"Mcp-Session-Id", opened.session_id.encode("ascii"))
        request.answered_with(opened.response)
        self._streams.single(request, encode(opened.response))

    def _relay(
        self,
        request: BrokerRequest,
        headers: McpHeaders,
        principal: Principal,
        session: Session,
        message: Request,
        waiting: Waiting,
    ) -> None:
        edit = self._tools_overlay.edit(message, principal, session.catalogue)
        waiter = StreamWaiter(
            request=request,
            clock=self._streams.clock,
            formats=headers.formats,
            streams=self._streams,
            session=session,
            id=message.id,
            edit=edit,
        )
        if waiting.has_lost(message):
            waiter.cancelled()
            return
        session.request(message, waiter)
        request.relayed(session.name)
        waiter.begin()

    def _audited(
        self, request: BrokerRequest, principal: Principal, message: Request
    ) -> ToolCall | None:
        if self._calls is None:
            return None
        session_id = request.getHeader(b"mcp-session-id")
        return self._calls.begin(message, principal, session_id, request.started_at)

    def _deliver(self, session: Session, message: Message) -> None:
        if self._recall.takes(session, message):
            return
        if isinstance(message, Notification):
            session.notify(message)
        elif not isinstance(message, Request):
            session.respond(message)

    def _batch(
        self,
        request: BrokerRequest,
        headers: McpHeaders,
        principal: Principal,
        session: Session,
        messages: tuple[Message | MessageError, ...],
        waiting: Waiting,
    ) -> Refusal | None:
        """
        A batch is split; each part goes its own way.
        """
        if not allows_batches(session.revision):
            raise MessageError(INVALID_REQUEST, "this protocol revision has no batches")
        expected = sum(isinstance(m, Request | MessageError) for m in messages)
        batch = None
        if expected:
            accepted = headers.formats
            formats = Formats.JSON if accepted is Formats.JSON else Formats.EVENTS
            stream = self._streams.answer(request, session, formats)
            batch = Batch(stream, expected, formats is Formats.JSON)
        for message in messages:
            if isinstance(message, MessageError):
                assert batch is not None  # noqa: S101 - it was counted
                batch.add(message.to_bytes())
                continue
            verdict = decide(principal.policy, message, session.catalogue)
            if not isinstance(message, Request):
                if not isinstance(verdict, Refused):
                    # Nobody can be told when the child does not take it.
                    with suppress(SessionError):
                        self._deliver(session, message)
                continue
            assert batch is not None  # noqa: S101 - it was counted
            call = self._audited(request, principal, message)
            if isinstance(verdict, Refused):
                _over(call, "refused")
                batch.add(encode_error(message.id, SERVER_ERROR, verdict.reason))
            elif message.method == "initialize":
                batch.add(_ALONE(message.id))
            elif waiting.has_lost(message):
                _over(call, "cancelled")
                batch.add(None)
            else:
                edit = self._tools_overlay.edit(message, principal, session.catalogue)
                try:
                    session.request(message, batch.waiter(edit, call))
                except Exception as error:
                    _over(call, "failed")
                    answer = answer_to_error(
                        error, message.id, self._authenticator, request.request_id
                    )
                    batch.add(answer.body)
        return None if expected else ACCEPTED


def _asks(message: Message | tuple[Message | MessageError, ...]) -> bool:
    if isinstance(message, tuple):
        return any(isinstance(part, Request) for part in message)
    return isinstance(message, Request)


def _over(call: ToolCall | None, outcome: str) -> None:
    if call is not None:
        call.over(outcome)


_ALONE: Final = partial(
    encode_error, code=INVALID_REQUEST, message="initialize is sent alone"
)
