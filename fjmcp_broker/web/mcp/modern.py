"""
POST of the stateless revisions (MCP 2026-07-28, transports, Streamable HTTP): each
request for itself, answered by a child that all clients of a grant share.
"""

from functools import partial
from typing import Final

from twisted.internet.interfaces import IReactorTime

from fjmcp_broker.mcp.messages import (
    INVALID_REQUEST,
    Message,
    Notification,
    Request,
    Response,
    encode_error,
    encode_result,
)
from fjmcp_broker.mcp.modern.listening import LISTEN, requested
from fjmcp_broker.mcp.modern.profiles import DISCOVER, discover_result, supported_by
from fjmcp_broker.mcp.modern.requests import (
    ModernRequest,
    judge,
    judge_notification,
)
from fjmcp_broker.mcp.policy import Refused, decide
from fjmcp_broker.oauth.bearer import Principal
from fjmcp_broker.sessions.errors import ChildGone, SessionGone
from fjmcp_broker.sessions.registry import SessionRegistry
from fjmcp_broker.sessions.stateless.calls import Lease
from fjmcp_broker.sessions.stateless.shared import SharedSession
from fjmcp_broker.sessions.streams.stream import Formats
from fjmcp_broker.web.bearer import BearerAuthenticator, authorization_header
from fjmcp_broker.web.mcp.answers import (
    ACCEPTED,
    refusal,
    refused_by_policy,
)
from fjmcp_broker.web.mcp.headers import McpHeaders
from fjmcp_broker.web.mcp.modern_streams import ModernAnswer
from fjmcp_broker.web.mcp.parameters import ListsTools, ToolParameters
from fjmcp_broker.web.mcp.streams import McpStreams
from fjmcp_broker.web.mcp.waiters import Edit, ToolsOverlay
from fjmcp_broker.web.mcp.waking import WakingLimit
from fjmcp_broker.web.refusal import Refusal
from fjmcp_broker.web.request import BrokerRequest

REFUSED_BY_POLICY: Final = 403
"""Codes of our own stand outside the range that JSON-RPC reserves (MCP 2026-07-28,
basic, error codes)."""


class ModernPosts:
    """
    Answers POST in the era without sessions.
    """

    def __init__(
        self,
        registry: SessionRegistry,
        authenticator: BearerAuthenticator,
        clock: IReactorTime,
        streams: McpStreams,
        tools_overlay: ToolsOverlay,
        waking: WakingLimit,
    ) -> None:
        """
        @param registry: has the child of each grant.
        @param authenticator: makes challenges.
        @param clock: for the streams.
        @param streams: answers what needs no child.
        @param tools_overlay: edits lists of tools.
        @param waking: bounds how many requests wait for one child.
        """
        self._registry = registry
        self._authenticator = authenticator
        self._clock = clock
        self._streams = streams
        self._tools_overlay = tools_overlay
        self._waking = waking
        self._parameters = ToolParameters(clock)

    async def post(
        self,
        request: BrokerRequest,
        headers: McpHeaders,
        principal: Principal,
        message: Message,
    ) -> Refusal | None:
        """
        @param request: the POST. An C{Mcp-Session-Id} in it means nothing.
        @param headers: what its headers say.
        @param principal: who sent it.
        @param message: what is in it.
        @return: the answer, or C{None}: it is given by a stream, or nobody waits.
        @raise ModernError: the message is not as this era asks.
        """
        if isinstance(message, Response):
            return refusal(
                400,
                "clients send requests and notifications only",
                code=INVALID_REQUEST,
                id=message.id,
            )
        identity = self._registry.profiles.identity()
        profile = self._registry.profiles.known(identity)
        supported = supported_by(profile)
        if isinstance(message, Notification):
            # None is defined for this transport, and closing the stream cancels.
            judge_notification(message, headers.named, supported=supported)
            return ACCEPTED
        modern = judge(message, headers.named, supported=supported)
        if modern.method == DISCOVER:
            result = discover_result(profile)
            self._streams.single(request, encode_result(modern.id, result))
            return None
        formats = headers.formats
        if modern.method == LISTEN and formats is Formats.JSON:
            return refusal(
                406,
                "subscriptions are answered with text/event-stream",
                code=INVALID_REQUEST,
                id=modern.id,
            )
        try:
            return await self._relay(request, principal, identity, modern, formats)
        except SessionGone as gone:
            # Nearly always its grant has ended meanwhile: 401. Never 404, which says
            # that there is no such method.
            await self._authenticator.authenticate(authorization_header(request))
            raise ChildGone("the child has ended") from gone

    async def _relay(
        self,
        request: BrokerRequest,
        principal: Principal,
        identity: bytes,
        modern: ModernRequest,
        formats: Formats,
    ) -> Refusal | None:
        session = self._registry.shared(principal)
        lease = None
        if self._parameters.fit(session, identity, modern):
            lease = session.take_up(modern)
        if lease is None:
            lease_child = partial(self._lease_child, session, identity, modern)
            lease = await self._waking.wait(session, lease_child)
        try:
            if not request.is_open:
                return None
            part = _judged_part(modern)
            if part is not None:
                verdict = decide(principal.policy, part, lease.catalogue)
                if isinstance(verdict, Refused):
                    return self._refused(request, verdict, modern)
            edit = self._tools_overlay.edit(modern.request, principal, lease.catalogue)
            if edit is not None:
                edit = partial(self._heard, session, identity, modern.request, edit)
            answer = ModernAnswer(
                request=request,
                clock=self._clock,
                formats=formats,
                edit=edit,
                modern=modern,
            )
            call = lease.begin(modern, answer)
            request.relayed(session.name)
            answer.begun(call)
        finally:
            lease.release()
        return None

    async def _lease_child(
        self, session: SharedSession, identity: bytes, modern: ModernRequest
    ) -> Lease:
        await self._parameters.check(session, identity, modern)
        return await session.awake(modern)

    def _heard(
        self,
        session: ListsTools,
        identity: bytes,
        request: Request,
        edit: Edit,
        result: bytes,
    ) -> bytes:
        self._parameters.heard(session, identity, request, result)
        return edit(result)

    def _refused(
        self, request: BrokerRequest, verdict: Refused, modern: ModernRequest
    ) -> Refusal | None:
        if verdict.scope is None:
            request.ended_with("refused")
            body = encode_error(modern.id, REFUSED_BY_POLICY, verdict.reason)
            self._streams.single(request, body)
            return None
        return refused_by_policy(
            verdict, modern.id, self._authenticator, code=REFUSED_BY_POLICY
        )


def _judged_part(modern: ModernRequest) -> Request | None:
    """
    What the policy has to allow, if there is anything. To be told that a list has
    changed is as free as the list; to be told that a resource has changed is part of
    reading it.
    """
    if modern.method != LISTEN:
        return modern.request
    return Request(modern.id, "resources/read") if requested(modern).uris else None
