"""
Stubs for what the relay gets from other parts: principals, Forgejo tokens, rows.
"""

from collections.abc import Mapping

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from zope.interface import implementer

from fjmcp_broker.oauth.bearer import (
    MalformedBearerError,
    Principal,
    challenge,
    parse_authorization,
)
from fjmcp_broker.oauth.tokens import digest
from fjmcp_broker.oauth.vocabulary import ErrorCode, Policy
from fjmcp_broker.secret import Secret
from fjmcp_broker.sessions.ledger import ISessionLedger
from fjmcp_broker.upstream.interfaces import UpstreamAccessToken
from fjmcp_broker.web.bearer import BearerRefused

METADATA_URL = "https://mcp.example/.well-known/oauth-protected-resource/mcp"


def principal(
    user_id: int = 1,
    grant_id: str | None = None,
    client_id: str = "client",
    policy: Policy = Policy.FULL,
) -> Principal:
    """Somebody with a valid token."""
    return Principal(
        grant_id=grant_id or f"g_{user_id}",
        user_id=user_id,
        login=f"user{user_id}",
        client_id=client_id,
        policy=policy,
        expires_at=2_000_000_000,
        token_digest=b"",
    )


class StubAuthenticator:
    """
    Knows the tokens that a test gives it; C{cached} ones at once, others after
    L{release}, or at once too when nothing holds them back.
    """

    def __init__(self) -> None:
        """Nobody is known."""
        self.principals: dict[str, Principal] = {}
        self.uncached: set[str] = set()
        self.holding: list[Deferred[None]] | None = None
        self.error: Exception | None = None
        self.lookups = 0

    def cached(self, authorization: bytes | None) -> Principal | None:
        """As the real one."""
        try:
            token = parse_authorization(authorization)
        except MalformedBearerError:
            return None
        if token is None or token in self.uncached:
            return None
        return self.principals.get(token)

    async def authenticate(self, authorization: bytes | None) -> Principal:
        """As the real one."""
        self.lookups += 1
        try:
            token = parse_authorization(authorization)
        except MalformedBearerError:
            raise self.refused("malformed") from None
        if token is None:
            raise BearerRefused(challenge(METADATA_URL, "read write"))
        if self.error is not None:
            raise self.error
        if self.holding is not None:
            held: Deferred[None] = Deferred()
            self.holding.append(held)
            await held
        if token not in self.principals:
            raise self.refused("unknown")
        return self.principals[token]

    def release(self) -> None:
        """Let the held look-ups go on."""
        held, self.holding = self.holding or [], None
        for each in held:
            each.callback(None)

    def refused(self, description: str) -> BearerRefused:
        """As the real one."""
        return BearerRefused(
            challenge(METADATA_URL, "read write", ErrorCode.INVALID_TOKEN, description)
        )

    def insufficient_scope(self) -> str:
        """As the real one."""
        return challenge(METADATA_URL, "read write", ErrorCode.INSUFFICIENT_SCOPE)


class StubTokens:
    """Forgejo tokens, one per user, for as long as a test wants."""

    def __init__(self, clock: IReactorTime) -> None:
        """
        @param clock: tells the time.
        """
        self._clock = clock
        self.life_seconds = 3600
        self.error: Exception | None = None
        self.holding: list[Deferred[None]] | None = None

    async def access_token(
        self, user_id: int, minimum_life_seconds: int = 120
    ) -> UpstreamAccessToken:
        """As the real one."""
        if self.holding is not None:
            held: Deferred[None] = Deferred()
            self.holding.append(held)
            await held
        if self.error is not None:
            raise self.error
        return UpstreamAccessToken(
            Secret(f"forgejo-token-of-{user_id}"),
            int(self._clock.seconds()) + self.life_seconds,
            user_id,
        )


@implementer(ISessionLedger)
class StubLedger:
    """Rows in a dictionary."""

    def __init__(self) -> None:
        """No rows."""
        self.rows: dict[bytes, str] = {}
        self.grants: dict[bytes, str] = {}
        self.activity: dict[bytes, int] = {}
        self.dead_grants: set[str] = set()
        self.error: Exception | None = None
        self.holding: list[Deferred[None]] | None = None

    async def opened(
        self, digest: bytes, grant_id: str, revision: str, initialize: bytes, now: int
    ) -> bool:
        """As the real one."""
        if self.holding is not None:
            held: Deferred[None] = Deferred()
            self.holding.append(held)
            await held
        if self.error is not None:
            raise self.error
        if grant_id in self.dead_grants:
            return False
        self.rows[digest] = "open"
        self.grants[digest] = grant_id
        return True

    async def closed(self, digest: bytes, now: int, reason: str) -> None:
        """As the real one."""
        if digest in self.rows:
            self.rows[digest] = reason

    async def moved(
        self, digest: bytes, from_grant: str, to_grant: str, now: int
    ) -> bool:
        """As the real one."""
        if to_grant in self.dead_grants or self.grants[digest] != from_grant:
            return False
        self.grants[digest] = to_grant
        return True

    async def touched(self, activity: Mapping[bytes, int]) -> None:
        """As the real one."""
        self.activity.update(activity)

    async def close_all_open(self, now: int, reason: str) -> None:
        """As the real one."""
        for each in self.rows:
            self.rows[each] = reason


def key_of(session_id: str) -> bytes:
    """The key of a session's row."""
    return digest(session_id)
