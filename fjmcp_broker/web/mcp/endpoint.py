"""
The MCP endpoint: POST of either era, GET and DELETE of the revisions with sessions
(MCP 2025-11-25 and 2026-07-28, transports, Streamable HTTP).

A plain twisted.web resource. L{fjmcp_broker.web.mcp.admission} has judged everything
that the headers tell before the body is there; what is left needs the message.
"""

from collections.abc import Mapping
from typing import Final

from twisted.internet.interfaces import IReactorTime
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET

from fjmcp_broker.logs import background
from fjmcp_broker.mcp.messages import (
    NULL,
    Message,
    MessageError,
    Notification,
    Request,
    parse,
)
from fjmcp_broker.mcp.versions import META_VERSION, Era, era
from fjmcp_broker.oauth.bearer import Principal
from fjmcp_broker.sessions.registry import SessionRegistry
from fjmcp_broker.sessions.session import Session
from fjmcp_broker.sessions.streams.replay import Replays
from fjmcp_broker.web.audit import ToolCalls
from fjmcp_broker.web.bearer import BearerAuthenticator, authorization_header
from fjmcp_broker.web.cors import mcp_preflight
from fjmcp_broker.web.limiting import SessionLimiter
from fjmcp_broker.web.mcp.answers import answer_to_error, finish_with, refusal
from fjmcp_broker.web.mcp.headers import McpHeaders, headers_of
from fjmcp_broker.web.mcp.legacy import LegacyPosts
from fjmcp_broker.web.mcp.modern import ModernPosts
from fjmcp_broker.web.mcp.streams import McpStreams, no_events_for, no_session_for
from fjmcp_broker.web.mcp.waiters import ToolsOverlay
from fjmcp_broker.web.mcp.waking import WakingLimit
from fjmcp_broker.web.refusal import Refusal
from fjmcp_broker.web.request import BrokerRequest

_TRUSTED_SECONDS: Final = 1.0
_NOTHING: Final[Mapping[str, bytes]] = {}


class McpEndpoint(Resource):
    """
    The resource at C{/mcp}.

    @ivar waking: bounds how many requests wait for one child.
    """

    isLeaf = True

    def __init__(
        self,
        *,
        registry: SessionRegistry,
        authenticator: BearerAuthenticator,
        clock: IReactorTime,
        replays: Replays | None = None,
        annotate: bool = True,
        session_limiter: SessionLimiter | None = None,
        calls: ToolCalls | None = None,
    ) -> None:
        """
        @param registry: the sessions.
        @param authenticator: knows bearer tokens.
        @param clock: for the streams.
        @param replays: what is kept of the streams; its own by default.
        @param annotate: whether lists of tools get our annotations.
        @param session_limiter: bounds how many sessions a user opens.
        @param calls: for the audit trail.
        """
        super().__init__()
        self._registry = registry
        self._authenticator = authenticator
        self._clock = clock
        self._session_limiter = session_limiter
        self._calls = calls
        if replays is None:
            replays = Replays(clock)
        self._streams = McpStreams(clock, replays)
        overlay = ToolsOverlay(annotate=annotate)
        self.waking = WakingLimit()
        self._legacy = LegacyPosts(
            registry, authenticator, self._streams, overlay, self.waking, calls
        )
        self._modern = ModernPosts(
            registry, authenticator, clock, self._streams, overlay, self.waking
        )

    # With the body

    def render(self, request: BrokerRequest) -> int:
        """
        @param request: complete.
        @return: that the answer will come.
        """
        principal = request.principal
        if request.method == b"OPTIONS":
            finish_with(request, Refusal(204, mcp_preflight(request), b""))
        elif principal is None:
            # Only a path that has no admission can bring it here.
            finish_with(request, refusal(404, "there is nothing at this path"))
        elif request.method == b"POST":
            background(self._post(request, principal), "an MCP request")
        elif request.method == b"DELETE":
            background(self._delete(request, principal), "the end of a session")
        else:
            background(self._get(request, principal), "a stream of a session")
        return NOT_DONE_YET

    async def _get(self, request: BrokerRequest, principal: Principal) -> None:
        try:
            answer = no_session_for(request, "GET") or no_events_for(request)
            if answer is None:
                session = await self._let_in(request, principal)
                if not request.is_open:
                    return
                answer = self._streams.listen(request, session)
                if answer is None:
                    return
        except Exception as error:
            answer = self._answer_to(error, NULL, request)
        self._finish(request, answer)

    async def _delete(self, request: BrokerRequest, principal: Principal) -> None:
        try:
            answer = no_session_for(request, "DELETE")
            if answer is None:
                principal = await self._still(request, principal)
                session = await self._find(request, principal)
                await self._registry.delete(session)
                self._streams.forget(session)
                answer = Refusal(204, {}, b"")
        except Exception as error:
            answer = self._answer_to(error, NULL, request)
        self._finish(request, answer)

    async def _let_in(self, request: BrokerRequest, principal: Principal) -> Session:
        """
        A stream has no end of its own, so the token that opens it is good at that
        very moment: it may be revoked while the session is looked for.

        @return: the session.
        @raise BearerRefused: the token has ended.
        """
        header = authorization_header(request)
        while True:
            session = await self._find(request, principal)
            await self._authenticator.authenticate(header)
            if session.grant_id == principal.grant_id and not session.has_ended:
                return session

    async def _find(self, request: BrokerRequest, principal: Principal) -> Session:
        return await self._registry.find(headers_of(request).session_digest, principal)

    def _finish(self, request: BrokerRequest, answer: Refusal) -> None:
        if not request.is_open:
            return
        if request.startedWriting:
            # Its stream has begun; an error in the middle of it only misleads.
            request.loseConnection()
        else:
            finish_with(request, answer)

    async def _still(self, request: BrokerRequest, principal: Principal) -> Principal:
        """
        A body may take minutes, and a grant may end meanwhile.

        @return: who the request comes from now.
        @raise BearerRefused: nobody any more.
        """
        if self._clock.seconds() - request.started_at < _TRUSTED_SECONDS:
            return principal
        return await self._authenticator.authenticate(authorization_header(request))

    async def _post(self, request: BrokerRequest, principal: Principal) -> None:
        body = request.take_body()
        id = NULL
        try:
            if not request.came_whole:
                principal = await self._still(request, principal)
            headers = headers_of(request)
            message = parse(body, allow_batch=headers.session_id is not None)
            if isinstance(message, Request):
                id = message.id
            answer = await self._route(request, headers, principal, message)
        except Exception as error:
            answer = self._answer_to(error, id, request)
        finally:
            request.release_body()
        if request.tool_call is not None:
            status = 0 if answer is None else answer.status
            request.tool_call.answered_at_once(status)
        if answer is not None:
            self._finish(request, answer)

    async def _route(
        self,
        request: BrokerRequest,
        headers: McpHeaders,
        principal: Principal,
        message: Message | tuple[Message | MessageError, ...],
    ) -> Refusal | None:
        """
        @return: the answer, or C{None}: it is given by a stream.
        """
        method, meta = None, _NOTHING
        if isinstance(message, (Request, Notification)):
            request.rpc_method = method = message.method
            meta = message.meta
        session_id = headers.session_id
        is_modern = (
            era(
                method,
                has_session_id=session_id is not None,
                has_meta_version=META_VERSION in meta,
                version_header=headers.version,
                has_method_header=headers.has_method,
            )
            is Era.MODERN
        )
        if self._calls is not None:
            request.tool_call = self._calls.begin(
                message,
                principal,
                None if is_modern else session_id,
                request.started_at,
            )
        if is_modern and not isinstance(message, tuple):
            return await self._modern.post(request, headers, principal, message)
        if isinstance(message, Request) and method == "initialize":
            too_many = self._too_many_sessions(principal, message)
            if too_many is not None:
                return too_many
        return await self._legacy.post(request, headers, principal, message)

    def _too_many_sessions(
        self, principal: Principal, message: Request
    ) -> Refusal | None:
        limiter = self._session_limiter
        wait = 0 if limiter is None else limiter.take(principal.user_id)
        if not wait:
            return None
        return refusal(
            429,
            "too many sessions were opened, use one again",
            id=message.id,
            reason="rate_limited",
            retry_after=wait,
        )

    def _answer_to(
        self, error: Exception, id: bytes, request: BrokerRequest
    ) -> Refusal:
        return answer_to_error(error, id, self._authenticator, request.request_id)
