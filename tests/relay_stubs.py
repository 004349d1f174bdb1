"""
Stubs for what the relay gets from other parts: principals, Forgejo tokens, rows.
"""

from collections.abc import Collection, Mapping

from msgspec.structs import replace
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
from fjmcp_broker.sessions.handshake import Identity, Told
from fjmcp_broker.sessions.ledger import ISessionLedger, StoredSession
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

    def known(self, token_digest: bytes) -> Principal | None:
        """As the real one."""
        for token, principal in self.principals.items():
            if digest(token) == token_digest and token not in self.uncached:
                return principal
        return None

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
        self.stored: dict[bytes, StoredSession] = {}
        self.policies: dict[str, Policy] = {}
        self.reads = 0
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
        self.activity.setdefault(digest, now)
        user = int(grant_id.removeprefix("g_")) if grant_id[2:].isdigit() else 1
        policy = self.policies.get(grant_id, Policy.FULL)
        self.stored[digest] = StoredSession(
            Identity(grant_id, user, "client", policy),
            revision,
            Told.stored(initialize, None, ()),
        )
        return True

    async def revised(self, digest: bytes, revision: str) -> bool:
        """As the real one."""
        if self.error is not None:
            raise self.error
        if self.rows.get(digest) != "open":
            return False
        self.stored[digest] = replace(self.stored[digest], revision=revision)
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
        known = self.stored[digest]
        identity = replace(known.identity, grant_id=to_grant)
        self.stored[digest] = replace(known, identity=identity)
        return True

    async def touched(
        self, activity: Mapping[bytes, int], seen: Mapping[bytes, str]
    ) -> None:
        """As the real one."""
        self.activity.update(activity)
        for key, text in seen.items():
            if key in self.stored:
                self.stored[key] = replace(self.stored[key], seen=text)

    async def found(self, digest: bytes) -> StoredSession | None:
        """As the real one."""
        if self.error is not None:
            raise self.error
        self.reads += 1
        if self.rows.get(digest) != "open":
            return None
        if self.grants[digest] in self.dead_grants:
            return None
        return self.stored[digest]

    async def told(
        self, digest: bytes, log_level: str | None, subscriptions: Collection[str]
    ) -> None:
        """As the real one."""
        known = self.stored[digest]
        told = replace(
            known.told, log_level=log_level, subscriptions=tuple(subscriptions)
        )
        self.stored[digest] = replace(known, told=told)

    async def close_unused(self, now: int, unused_since: int) -> list[bytes]:
        """As the real one."""
        closed = [
            digest
            for digest, state in self.rows.items()
            if state == "open" and self.activity.get(digest, now) <= unused_since
        ]
        for each in closed:
            self.rows[each] = "unused"
        return closed

    async def close_surplus(
        self, grant_id: str, keep: int, spared: Collection[bytes], now: int
    ) -> list[bytes]:
        """As the real one; rows are in the order of their opening."""
        dormant = [
            digest
            for digest, state in self.rows.items()
            if state == "open"
            and self.grants[digest] == grant_id
            and digest not in spared
        ]
        closed = dormant[: max(0, len(dormant) - keep)]
        for each in closed:
            self.rows[each] = "too_many_dormant"
        return closed


def key_of(session_id: str) -> bytes:
    """The key of a session's row."""
    return digest(session_id)
