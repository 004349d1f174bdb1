"""
Who a request to the MCP endpoint comes from: the bearer token looked up, the answer
remembered for as long as it is true.
"""

from collections import OrderedDict
from collections.abc import Callable
from typing import Final

from twisted.internet.interfaces import IReactorTime
from twisted.web.iweb import IRequest

from fjmcp_broker.errors import BrokerError
from fjmcp_broker.oauth.bearer import (
    MalformedBearerError,
    Principal,
    challenge,
    judge_bearer,
    parse_authorization,
)
from fjmcp_broker.oauth.metadata import resource_metadata_url, resource_url
from fjmcp_broker.oauth.tokens import digest
from fjmcp_broker.oauth.vocabulary import ErrorCode, Scope
from fjmcp_broker.store import bearer_check, tokens
from fjmcp_broker.store.database import Database

DEFAULT_MAXIMUM_ENTRIES: Final = 10_000

#: How often a look-up starts again because the token seemed to end meanwhile.
_ATTEMPTS: Final = 3


class BearerRefused(BrokerError):  # noqa: N818 - it says what happened
    """
    The request has no valid bearer token.

    @ivar challenge: the C{WWW-Authenticate} header of the 401 answer.
    """

    status = 401

    def __init__(self, challenge: str) -> None:
        """
        @param challenge: value of the C{WWW-Authenticate} header.
        """
        super().__init__("no valid bearer token")
        self.challenge = challenge


def authorization_header(request: IRequest) -> bytes | None:
    """
    @param request: any request.
    @return: its C{Authorization} header; several are joined, which no check below
        accepts.
    """
    values = request.requestHeaders.getRawHeaders(b"authorization")
    return None if not values else b", ".join(values)


class BearerAuthenticator:
    """
    Turns C{Authorization} headers into principals. Only valid tokens are remembered;
    whoever revokes a grant or a token, or suspends a user, says so here.
    """

    def __init__(
        self,
        database: Database,
        clock: IReactorTime,
        public_url: str,
        *,
        maximum_entries: int = DEFAULT_MAXIMUM_ENTRIES,
    ) -> None:
        """
        @param database: where tokens are looked up.
        @param clock: tells the time.
        @param public_url: origin of this service, for the challenge, and because
            tokens are good for the resource that they were issued for alone (RFC 8707
            section 2; MCP 2026-07-28, authorization, token handling).
        @param maximum_entries: of the cache; the least recently used goes first.
        """
        self._database = database
        self._clock = clock
        self._metadata_url = resource_metadata_url(public_url)
        self._resource = resource_url(public_url)
        self._maximum_entries = maximum_entries
        self._principals: OrderedDict[bytes, Principal] = OrderedDict()
        self._looking_up: list[list[Callable[[Principal], bool]]] = []

    def _now(self) -> int:
        return int(self._clock.seconds())

    def cached(self, authorization: bytes | None) -> Principal | None:
        """
        Look without waiting.

        @param authorization: the header, controlled by the peer.
        @return: who it is, or C{None}: L{authenticate} has to find out.
        """
        try:
            token = parse_authorization(authorization)
        except MalformedBearerError:
            return None
        return None if token is None else self.known(digest(token))

    def known(self, token_digest: bytes) -> Principal | None:
        """
        Look without waiting, for a token that was read before.

        @param token_digest: of it.
        @return: as L{cached}.
        """
        principal = self._principals.get(token_digest)
        if principal is None:
            return None
        if principal.expires_at <= self._now():
            del self._principals[token_digest]
            return None
        self._principals.move_to_end(token_digest)
        return principal

    async def authenticate(self, authorization: bytes | None) -> Principal:
        """
        Find out who a request comes from. The first use of a token is committed
        before this returns.

        @param authorization: the header, controlled by the peer.
        @return: who it is.
        @raise BearerRefused: no credentials (RFC 6750 section 3.1: the challenge
            has no error then), or a malformed, unknown, expired or revoked token,
            or one of a user who has to sign in to Forgejo again.
        @raise StoreError: the store cannot be used now.
        """
        try:
            token = parse_authorization(authorization)
        except MalformedBearerError:
            raise self.refused("the Authorization header is malformed") from None
        if token is None:
            raise BearerRefused(self._challenge())
        token_digest = digest(token)
        remembered = self.known(token_digest)
        if remembered is not None:
            return remembered
        for _ in range(_ATTEMPTS):
            # What ends while the store is read may not be in what it says.
            ended: list[Callable[[Principal], bool]] = []
            self._looking_up.append(ended)
            try:
                principal = await self._look_up(token_digest)
            finally:
                self._looking_up = [
                    each for each in self._looking_up if each is not ended
                ]
            if not any(concerns(principal) for concerns in ended):
                self._remember(principal)
                return principal
        raise self.refused("the access token is not valid")

    def refused(self, description: str) -> BearerRefused:
        """
        @param description: why, in our own words.
        @return: the refusal of a token that is of no use.
        """
        return BearerRefused(self._challenge(ErrorCode.INVALID_TOKEN, description))

    def insufficient_scope(self) -> str:
        """
        @return: the challenge of a 403 that tells a client what to ask for (RFC
            6750 section 3.1).
        """
        return self._challenge(
            ErrorCode.INSUFFICIENT_SCOPE, "the grant does not allow writing"
        )

    def forget_grant(self, grant_id: str) -> None:
        """
        @param grant_id: a grant that has ended.
        """
        self._forget(lambda principal: principal.grant_id == grant_id)

    def forget_user(self, user_id: int) -> None:
        """
        @param user_id: a user whose upstream token set is not usable any more.
        """
        self._forget(lambda principal: principal.user_id == user_id)

    def forget_token(self, token_digest: bytes) -> None:
        """
        @param token_digest: of an access token that was revoked alone.
        """
        self._forget(lambda principal: principal.token_digest == token_digest)

    def _forget(self, ended: Callable[[Principal], bool]) -> None:
        for looking_up in self._looking_up:
            looking_up.append(ended)
        for token_digest in [
            token_digest
            for token_digest, principal in self._principals.items()
            if ended(principal)
        ]:
            del self._principals[token_digest]

    def _remember(self, principal: Principal) -> None:
        self._principals[principal.token_digest] = principal
        self._principals.move_to_end(principal.token_digest)
        while len(self._principals) > self._maximum_entries:
            self._principals.popitem(last=False)

    async def _look_up(self, token_digest: bytes) -> Principal:
        facts = await self._database.read(
            lambda connection: tokens.principal(connection, token_digest)
        )
        if facts is not None and facts.grant.resource != self._resource:
            # The store was that of a broker elsewhere, or is a copy of it.
            facts = None
        now = self._now()
        if (
            facts is not None
            and facts.token.first_used_at is None
            and judge_bearer(facts, now) is not None
        ):
            facts = await self._database.write(
                lambda connection: bearer_check.first_use(connection, token_digest, now)
            )
        principal = judge_bearer(facts, self._now())
        if principal is None:
            raise self.refused("the access token is not valid")
        return principal

    def _challenge(
        self, error: ErrorCode | None = None, description: str | None = None
    ) -> str:
        scope = " ".join(sorted((Scope.READ, Scope.WRITE)))
        return challenge(self._metadata_url, scope, error, description)
