"""
The MCP endpoint: POST, GET and DELETE of the revisions with sessions (MCP 2025-11-25,
transports, Streamable HTTP).

A plain twisted.web resource. L{fjmcp_broker.web.mcp_admission} has judged everything
that the headers tell before the body is there; what is left needs the message.
"""

from contextlib import suppress
from functools import partial
from typing import Final

from twisted.internet.interfaces import IReactorTime
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET

from fjmcp_broker.logs import background
from fjmcp_broker.mcp.correlation import DEFAULT_MAXIMUM_PENDING, TooManyPendingError
from fjmcp_broker.mcp.messages import (
    INVALID_REQUEST,
    NULL,
    Message,
    MessageError,
    Notification,
    Request,
    encode,
    encode_error,
    parse,
)
from fjmcp_broker.mcp.policy import Policy, Refused, decide, overlay
from fjmcp_broker.mcp.versions import (
    META_VERSION,
    Era,
    allows_batches,
    check_header,
    era,
    unsupported_version,
)
from fjmcp_broker.oauth.bearer import Principal
from fjmcp_broker.sessions.errors import SessionError, SessionGone
from fjmcp_broker.sessions.registry import SessionRegistry
from fjmcp_broker.sessions.replay import Replays
from fjmcp_broker.sessions.session import INITIALIZED, Session
from fjmcp_broker.sessions.stream import Formats
from fjmcp_broker.web.bearer import (
    BearerAuthenticator,
    BearerRefused,
    authorization_header,
)
from fjmcp_broker.web.cors import mcp_preflight
from fjmcp_broker.web.mcp_answers import (
    SERVER_ERROR,
    Batch,
    Edit,
    StreamWaiter,
    accepted_formats,
    answer_to_error,
    finish_with,
    refusal,
    unauthorized,
)
from fjmcp_broker.web.mcp_streams import McpStreams, no_events_for, no_session_for
from fjmcp_broker.web.request import BrokerRequest, Refusal

_TRUSTED_SECONDS: Final = 1.0


class McpEndpoint(Resource):
    """
    The resource at C{/mcp}.
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
    ) -> None:
        """
        @param registry: the sessions.
        @param authenticator: knows bearer tokens.
        @param clock: for the streams.
        @param replays: what is kept of the streams; its own by default.
        @param annotate: whether lists of tools get our annotations.
        """
        super().__init__()
        self._registry = registry
        self._authenticator = authenticator
        self._clock = clock
        if replays is None:
            replays = Replays(clock)
        self._streams = McpStreams(clock, replays)
        self._annotate = annotate
        self._waking: dict[Session, int] = {}

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
                session = await self._find(request, principal)
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
                session.end("deleted_by_client")
                self._streams.forget(session)
                answer = Refusal(204, {}, b"")
        except Exception as error:
            answer = self._answer_to(error, NULL, request)
        self._finish(request, answer)

    async def _find(self, request: BrokerRequest, principal: Principal) -> Session:
        session_id = request.getHeader(b"mcp-session-id") or b""
        return await self._registry.find(session_id.decode("latin-1"), principal)

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
            principal = await self._still(request, principal)
            session_id = request.getHeader(b"mcp-session-id")
            message = parse(body, allow_batch=session_id is not None)
            if isinstance(message, Request):
                id = message.id
            answer = await self._route(request, principal, message, session_id)
        except Exception as error:
            answer = self._answer_to(error, id, request)
        if answer is not None:
            self._finish(request, answer)

    async def _route(
        self,
        request: BrokerRequest,
        principal: Principal,
        message: Message | tuple[Message | MessageError, ...],
        session_id: bytes | None,
    ) -> Refusal | None:
        """
        @return: the answer, or C{None}: it is given by a stream.
        """
        version = _text_header(request, b"mcp-protocol-version")
        named = message if isinstance(message, Request | Notification) else None
        if (
            era(
                named.method if named is not None else None,
                has_session_id=session_id is not None,
                has_meta_version=named is not None and META_VERSION in named.meta,
                version_header=version,
                has_method_header=request.getHeader(b"mcp-method") is not None,
            )
            is Era.MODERN
        ):
            id = message.id if isinstance(message, Request) else NULL
            body = unsupported_version(id, version)
            return Refusal(400, {b"Content-Type": b"application/json"}, body)
        if isinstance(message, Request) and message.method == "initialize":
            await self._initialize(request, principal, message)
            return None
        if session_id is None:
            if isinstance(message, Notification) and message.method == INITIALIZED:
                return _ACCEPTED
            id = message.id if isinstance(message, Request) else NULL
            return refusal(
                400, "Mcp-Session-Id is missing", code=INVALID_REQUEST, id=id
            )
        check_header(version)
        session = await self._find(request, principal)
        if not request.is_open:
            return None
        parts = message if isinstance(message, tuple) else (message,)
        if any(isinstance(part, Request) for part in parts):
            # Before anything is judged: what its tools do depends on the child.
            await self._awake(session)
            if not request.is_open:
                return None
        if isinstance(message, tuple):
            return self._batch(request, principal, session, message)
        verdict = decide(principal.policy, message, session.catalogue)
        if isinstance(verdict, Refused):
            return self._refused(verdict, message)
        if isinstance(message, Request):
            self._relay(request, principal, session, message)
            return None
        self._deliver(session, message)
        return _ACCEPTED

    async def _awake(self, session: Session) -> None:
        """
        @raise TooManyPendingError: so many requests wait for a child already.
        """
        waiting = self._waking.get(session, 0)
        if waiting >= DEFAULT_MAXIMUM_PENDING:
            raise TooManyPendingError("too many requests wait for a child")
        self._waking[session] = waiting + 1
        try:
            await session.awake()
        finally:
            self._waking[session] -= 1
            if not self._waking[session]:
                del self._waking[session]

    async def _initialize(
        self, request: BrokerRequest, principal: Principal, message: Request
    ) -> None:
        try:
            opened = await self._registry.open(principal, message)
        except SessionGone:
            # Nearly always its grant has ended meanwhile: 401, not 404.
            await self._authenticator.authenticate(authorization_header(request))
            raise
        if not request.is_open:
            if opened.session is not None:
                opened.session.end("client_left")
            return
        if opened.session_id is not None:
            request.setHeader(b"Mcp-Session-Id", opened.session_id.encode("ascii"))
        self._streams.single(request, encode(opened.response))

    def _relay(
        self,
        request: BrokerRequest,
        principal: Principal,
        session: Session,
        message: Request,
    ) -> None:
        waiter = StreamWaiter(
            partial(self._streams.answer, request, session, request_id=message.id),
            self._edit(principal, session, message),
        )
        session.request(message, waiter)
        waiter.begin()

    def _deliver(self, session: Session, message: Message) -> None:
        if isinstance(message, Notification):
            session.notify(message)
        elif not isinstance(message, Request):
            session.respond(message)

    def _batch(
        self,
        request: BrokerRequest,
        principal: Principal,
        session: Session,
        messages: tuple[Message | MessageError, ...],
    ) -> Refusal | None:
        """
        A batch is split; each part goes its own way.
        """
        if not allows_batches(session.revision):
            raise MessageError(INVALID_REQUEST, "this protocol revision has no batches")
        expected = sum(isinstance(m, Request | MessageError) for m in messages)
        batch = None
        if expected:
            accepted = accepted_formats(request.getHeader(b"accept"))
            formats = Formats.JSON if accepted is Formats.JSON else Formats.EVENTS
            stream = self._streams.answer(request, session, formats=formats)
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
            if isinstance(verdict, Refused):
                batch.add(encode_error(message.id, SERVER_ERROR, verdict.reason))
            elif message.method == "initialize":
                batch.add(
                    encode_error(
                        message.id, INVALID_REQUEST, "initialize is sent alone"
                    )
                )
            else:
                edit = self._edit(principal, session, message)
                try:
                    session.request(message, batch.waiter(edit))
                except Exception as error:
                    batch.add(self._answer_to(error, message.id, request).body)
        return None if expected else _ACCEPTED

    # Inside

    def _edit(
        self, principal: Principal, session: Session, message: Request
    ) -> Edit | None:
        if message.method != "tools/list":
            return None
        return partial(
            overlay,
            catalogue=session.catalogue,
            hide_writes=str(principal.policy) == Policy.READ_ONLY,
            annotate=self._annotate,
        )

    def _refused(self, verdict: Refused, message: Message) -> Refusal:
        id = message.id if isinstance(message, Request) else NULL
        if verdict.scope is None:
            # No other token would help: an error of the call, not of the client.
            body = encode_error(id, SERVER_ERROR, verdict.reason)
            return Refusal(200, {b"Content-Type": b"application/json"}, body)
        challenge = self._authenticator.insufficient_scope()
        return refusal(
            403,
            verdict.reason,
            id=id,
            reason="insufficient_scope",
            headers={b"WWW-Authenticate": challenge.encode("ascii")},
        )

    def _answer_to(
        self, error: Exception, id: bytes, request: BrokerRequest
    ) -> Refusal:
        if isinstance(error, BearerRefused):
            return unauthorized(error.challenge, "a valid access token is needed")
        challenge = self._authenticator.refused("sign in to Forgejo again").challenge
        return answer_to_error(error, id, challenge, request.request_id)


_ACCEPTED: Final = Refusal(202, {}, b"")


def _text_header(request: BrokerRequest, name: bytes) -> str | None:
    value = request.getHeader(name)
    return None if value is None else value.decode("latin-1")
