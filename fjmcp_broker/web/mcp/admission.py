"""
What the MCP endpoint says to a request whose body has not been read: Host and Origin,
bearer, method, formats.
"""

from typing import Any, Final

import msgspec
from twisted.internet.defer import Deferred
from zope.interface import implementer

from fjmcp_broker.limits.memory import Memory, MemoryBounds
from fjmcp_broker.limits.policy import Limited
from fjmcp_broker.mcp.messages import NULL
from fjmcp_broker.oauth.bearer import parse_authorization
from fjmcp_broker.oauth.metadata import resource_url
from fjmcp_broker.oauth.tokens import digest
from fjmcp_broker.web.bearer import (
    BearerAuthenticator,
    BearerRefused,
    authorization_header,
)
from fjmcp_broker.web.cors import MCP_METHODS, answer_origin, has_origin
from fjmcp_broker.web.interfaces import IAdmission
from fjmcp_broker.web.limiting import RateLimiter
from fjmcp_broker.web.mcp.answers import (
    SHORT_RETRY_SECONDS,
    accepted_formats,
    answer_to_error,
    is_json,
    not_allowed,
    refusal,
    unauthorized,
)
from fjmcp_broker.web.origins import OriginPolicy
from fjmcp_broker.web.pages.visitors import Visitors, prefers_html
from fjmcp_broker.web.refusal import Refusal
from fjmcp_broker.web.request import BrokerRequest

DEFAULT_MAXIMUM_REQUEST_BYTES: Final = 16 * 1024 * 1024


def body_memory(total_bytes: int) -> MemoryBounds:
    """
    @param total_bytes: for the bodies of all requests together.
    @return: half of it for one user at most, and a quarter only for short bodies, so
        that calls go on while large ones fill the rest.
    """
    return MemoryBounds(
        total_bytes, total_bytes // 2, kept_for_small_bytes=total_bytes // 4
    )


class _Good(msgspec.Struct, frozen=True):
    """
    What is found out once about a head that comes again: Host and formats are good,
    and nothing is owed to a script of another origin. Whose the token is, and whether
    it is still anybody's, is asked each time.

    @ivar token_digest: of the bearer.
    """

    token_digest: bytes


@implementer(IAdmission)
class McpAdmission:
    """
    Judges what the headers tell, so that 401 and 413 leave without the body.
    """

    def __init__(
        self,
        authenticator: BearerAuthenticator,
        origins: OriginPolicy,
        maximum_body_bytes: int = DEFAULT_MAXIMUM_REQUEST_BYTES,
        limiter: RateLimiter | None = None,
        memory: Memory | None = None,
    ) -> None:
        """
        @param authenticator: knows bearer tokens.
        @param origins: which Host and Origin are allowed.
        @param maximum_body_bytes: longest body of a POST.
        @param limiter: bounds how often somebody comes without a valid token.
        @param memory: for all bodies; the default has room for four of the longest.
        """
        self._authenticator = authenticator
        self._origins = origins
        self._limiter = limiter
        self._visitors = Visitors(resource_url(origins.public_url))
        self.memory = memory or Memory(body_memory(4 * maximum_body_bytes))
        self.maximum_body_bytes = maximum_body_bytes

    def admit(
        self, request: BrokerRequest, method: bytes, length: int | None
    ) -> "Refusal | Deferred[Refusal | None] | None":
        """
        @param request: its headers are complete.
        @param method: as sent.
        @param length: of the body.
        @return: what is wrong, if anything, or a Deferred of that.
        """
        head = request.head
        if head is not None and isinstance(head.judgment, _Good):
            request.principal = self._authenticator.known(head.judgment.token_digest)
            if request.principal is not None:
                return None
        wrong = self._judge_origin(request)
        if wrong is not None or method == b"OPTIONS":
            return wrong
        authorization = authorization_header(request)
        principal = self._authenticator.cached(authorization)
        if principal is None:
            return Deferred.fromCoroutine(
                self._authenticate(request, method, authorization)
            )
        request.principal = principal
        refused = self._judge_headers(request, method)
        if refused is None and head is not None and not has_origin(request):
            head.judgment = _Good(digest(parse_authorization(authorization) or ""))
        return refused

    def too_large(self, request: BrokerRequest) -> Refusal:
        """
        @param request: its body is too long.
        @return: 413.
        """
        return refusal(413, f"a request has at most {self.maximum_body_bytes} bytes")

    def no_room(self, request: BrokerRequest) -> Refusal:
        """
        @param request: there is no memory for its body now.
        @return: 503.
        """
        return refusal(
            503,
            "too many large requests at once",
            reason="busy",
            retry_after=SHORT_RETRY_SECONDS,
        )

    def holder(self, request: BrokerRequest) -> int | None:
        """
        @param request: it has been admitted.
        @return: its user.
        """
        principal = request.principal
        return None if principal is None else principal.user_id

    async def _authenticate(
        self, request: BrokerRequest, method: bytes, authorization: bytes | None
    ) -> Refusal | None:
        what = Limited.ANONYMOUS if authorization is None else Limited.BAD_BEARER
        wait = 0 if self._limiter is None else self._limiter.take(what, request)
        if wait:
            return refusal(
                429,
                "too many requests without a valid access token",
                reason="rate_limited",
                retry_after=wait,
            )
        try:
            request.principal = await self._authenticator.authenticate(authorization)
        except BearerRefused as error:
            answer = unauthorized(error.challenge, "a valid access token is needed")
            if (
                authorization is None
                and method == b"GET"
                and prefers_html(request.getHeader(b"accept"))
            ):
                return self._visitors.page_for(answer)
            return answer
        except Exception as error:
            refused: Refusal | None = answer_to_error(
                error, NULL, self._authenticator, request.request_id
            )
        else:
            refused = self._judge_headers(request, method)
        if self._limiter is not None:
            # A token that had only not been seen yet, or nobody's fault outside.
            self._limiter.give_back(what, request)
            if request.principal is not None:
                self._limiter.prove(request)
        return refused

    def _judge_origin(self, request: BrokerRequest) -> Refusal | None:
        anything: Any = request  # IRequest, which Request declares for itself only
        if not self._origins.allows_host(anything):
            return refusal(403, "this is not a host of this service")
        if not self._origins.allows_origin(anything):
            return refusal(403, "this origin is not allowed")
        answer_origin(request)
        return None

    def _judge_headers(self, request: BrokerRequest, method: bytes) -> Refusal | None:
        if method == b"POST":
            if not is_json(request.getHeader(b"content-type")):
                return refusal(415, "the body of a POST is application/json")
            if accepted_formats(request.getHeader(b"accept")) is None:
                return refusal(406, "answers are application/json or text/event-stream")
        elif method not in (b"GET", b"DELETE"):
            return not_allowed("this method is not used here", MCP_METHODS)
        return None
