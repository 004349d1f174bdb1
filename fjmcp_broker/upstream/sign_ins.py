"""
From an authorization code of Forgejo's to a stored token set and a known user.

The exchange has made the user's former refresh token useless, and nobody knows yet
whose that is. The id_token in the same answer usually says so, and the set is
committed under its C{sub} at once. Without one the set is sealed into the pending
authorization first and moved as soon as userinfo answers: a homeless set. Neither a
closed browser tab nor the end of this process loses either.
"""

from sqlite3 import Connection

import msgspec
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from fjmcp_broker.oauth.forgejo_scopes import granted_equivalent
from fjmcp_broker.store import upstream_tokens, users
from fjmcp_broker.store.database import Database
from fjmcp_broker.store.errors import StoreError
from fjmcp_broker.store.sealing import Sealer
from fjmcp_broker.store.upstream_tokens import UpstreamSet

from .access import AccessGate
from .errors import (
    IdentityMismatch,
    ScopeMismatch,
    SignInNeeded,
    UpstreamError,
    UpstreamUnavailable,
)
from .interfaces import IForgejo, SignedInUser, TokenAnswer, UserInfo
from .keeper import FIRST_RETRY_SECONDS, LAST_RETRY_SECONDS, UNKNOWN, Keeper
from .parking import HomelessTokens, Parking
from .tasks import Task, Tasks


class _Kept(msgspec.Struct, frozen=True):
    """
    A token set that is committed under its user.

    @ivar user: as userinfo says, when it was asked already.
    @ivar asked_at: L{AccessGate.moment} from before userinfo was or will be asked.
    """

    set: UpstreamSet
    user: UserInfo | None
    asked_at: int


class _Homeless(msgspec.Struct, eq=False):
    """
    A token set whose user is not known yet.

    @ivar since: L{Keeper.mark} from before the exchange, or L{UNKNOWN}.
    @ivar is_parked: whether the store has it.
    """

    pending_id: str
    tokens: HomelessTokens
    since: int
    is_parked: bool = False


class SignIns:
    """
    The code exchanges in flight and the homeless sets.
    """

    _log = Logger()

    def __init__(
        self,
        database: Database,
        sealer: Sealer,
        forgejo: IForgejo,
        clock: IReactorTime,
        keeper: Keeper,
        gate: AccessGate,
        tasks: Tasks,
        *,
        requested_scope: str,
    ) -> None:
        """
        @param database: the store.
        @param sealer: for parked sets.
        @param forgejo: the other side.
        @param clock: the time.
        @param keeper: commits the sets.
        @param gate: judges users.
        @param tasks: where the work runs.
        @param requested_scope: the configured scopes, space separated.
        """
        self._database = database
        self._parking = Parking(database, sealer)
        self._forgejo = forgejo
        self._clock = clock
        self._keeper = keeper
        self._gate = gate
        self._tasks = tasks
        self._requested_scope = requested_scope
        self._exchanges: set[Task[_Kept]] = set()
        self._homeless: dict[str, _Homeless] = {}

    @property
    def has_homeless(self) -> bool:
        """
        @return: whether some set may belong to any user.
        """
        return bool(self._homeless)

    async def start(self) -> None:
        """
        Take up the sets that an earlier process parked.

        @raise StoreError: the store cannot be read.
        """
        for pending_id, tokens in await self._parking.all():
            homeless = _Homeless(pending_id, tokens, UNKNOWN, is_parked=True)
            self._homeless[pending_id] = homeless
            self._tasks.start(self._house_later(homeless, 0), "moving parked tokens")

    def start_one(
        self, pending_id: str, code: str, verifier: str
    ) -> Task[SignedInUser]:
        """
        As L{fjmcp_broker.upstream.interfaces.IUpstreamTokens.sign_in}.

        @param pending_id: the pending authorization.
        @param code: from the callback.
        @param verifier: for PKCE.
        @return: the sign-in, under way.
        """
        return self._tasks.start(
            self._sign_in(pending_id, code, verifier), "a sign-in through Forgejo"
        )

    async def settled(self) -> None:
        """
        Wait until every exchange that is in flight now has committed its tokens or
        failed. Each is bounded by the timeouts of L{IForgejo}.
        """
        for exchange in list(self._exchanges):
            await exchange.ended()

    async def _sign_in(self, pending_id: str, code: str, verifier: str) -> SignedInUser:
        exchange = self._tasks.start(
            self._exchange(pending_id, code, verifier), "a code exchange"
        )
        if not exchange.is_done:
            self._exchanges.add(exchange)
        try:
            kept = await exchange.join()
        finally:
            self._exchanges.discard(exchange)
        user = kept.user or await self._learn(kept.set)
        release = await self._gate.judge(kept.set, user, kept.asked_at)
        seen = await self._forgejo.introspect(kept.set.access_token)
        if not seen.active:
            raise UpstreamUnavailable(
                "Forgejo does not confirm the token it has issued"
            )
        signed_in = SignedInUser(
            user.user_id, user.login, user.name, seen.scope, release
        )
        if not granted_equivalent(self._requested_scope, seen.scope):
            now = self._now()
            await self._database.write(lambda c: note_user(c, signed_in, now))
            raise ScopeMismatch(self._requested_scope, seen.scope)
        return signed_in

    async def _exchange(self, pending_id: str, code: str, verifier: str) -> _Kept:
        # That the store can be written is proven: the callback has just committed.
        since = self._keeper.mark()
        now = self._now()
        answer = await self._forgejo.exchange_code(code, verifier)
        user_id = answer.user_id
        if user_id is not None:
            new = new_set(answer, user_id, now)
            await self._keeper.keep(
                new, since, lambda c: _introduce(c, user_id, answer, now)
            )
            return _Kept(new, None, self._gate.moment)
        homeless = _Homeless(pending_id, HomelessTokens.of(answer, now), since)
        self._homeless[pending_id] = homeless
        await self._park(homeless)
        try:
            return await self._house(homeless)
        except (UpstreamError, StoreError):
            if pending_id in self._homeless:
                self._tasks.start(self._house_later(homeless), "moving parked tokens")
            raise

    async def _learn(self, kept: UpstreamSet) -> UserInfo:
        """
        Ask who the user is; the id_token has said so already.
        """
        user = await self._forgejo.userinfo(kept.access_token)
        if user.user_id != kept.user_id:
            await self._keeper.suspend(kept)
            self._log.error(
                "an id_token of Forgejo's names user {user_id}, its userinfo user "
                "{other_id}",
                user_id=kept.user_id,
                other_id=user.user_id,
            )
            raise IdentityMismatch("Forgejo contradicts itself about the user")
        return user

    async def _house(self, homeless: _Homeless) -> _Kept:
        """
        Ask whose tokens they are and move them there.

        @raise SignInNeeded: they are dead and have been dropped.
        """
        try:
            if homeless.tokens.expires_at <= self._now():
                await self._renew(homeless)
            asked_at = self._gate.moment
            user = await self._forgejo.userinfo(homeless.tokens.access_token)
        except SignInNeeded:
            await self._drop(homeless)
            raise
        now = self._now()
        new = homeless.tokens.at_home(user.user_id, now)

        def move(connection: Connection) -> None:
            users.upsert_user(connection, user.user_id, user.login, user.name, now)
            self._parking.clear(connection, homeless.pending_id)

        try:
            await self._keeper.keep(new, homeless.since, move)
        finally:
            # If it is not committed, the keeper has it under its user.
            self._homeless.pop(homeless.pending_id, None)
        return _Kept(new, user, asked_at)

    async def _renew(self, homeless: _Homeless) -> None:
        """
        The access token has expired meanwhile, and only a live one names its user.
        """
        await self._keeper.prove_writable()
        now = self._now()
        answer = await self._forgejo.refresh(homeless.tokens.refresh_token)
        homeless.tokens = HomelessTokens.of(answer, now)
        homeless.is_parked = False
        await self._park(homeless)

    async def _house_later(
        self, homeless: _Homeless, delay: float = FIRST_RETRY_SECONDS
    ) -> None:
        """
        Try until it is settled whose tokens they are, or until the stop: the next
        start goes on with those that are parked.
        """
        while homeless.pending_id in self._homeless:
            if not await self._keeper.pause(delay):
                break
            try:
                await self._house(homeless)
            except (UpstreamError, StoreError) as error:
                self._log.warn(
                    "it is not known yet whose tokens a sign-in brought: {error}",
                    error=str(error),
                )
            delay = min(max(delay * 2, FIRST_RETRY_SECONDS), LAST_RETRY_SECONDS)
        if homeless.pending_id in self._homeless and not homeless.is_parked:
            await self._park(homeless)

    async def _park(self, homeless: _Homeless) -> None:
        """
        Seal the set into its pending authorization. A failure is not the end: the
        set is in memory, and moving it to its user is the next thing anyway.
        """
        try:
            await self._parking.park(homeless.pending_id, homeless.tokens)
            homeless.is_parked = True
        except StoreError as error:
            self._log.error(
                "tokens of a user not known yet could not be stored: {error}",
                error=str(error),
            )

    async def _drop(self, homeless: _Homeless) -> None:
        self._homeless.pop(homeless.pending_id, None)
        try:
            await self._database.write(
                lambda c: self._parking.clear(c, homeless.pending_id)
            )
        except StoreError as error:
            self._log.warn("dead tokens stay parked: {error}", error=str(error))

    def _now(self) -> int:
        return int(self._clock.seconds())


def note_user(connection: Connection, user: SignedInUser, now: int) -> None:
    """
    Note what Forgejo said of a user who has signed in and may go on.

    @param connection: in a transaction that may write: the one that makes the grant.
    @param user: whose token set is committed.
    @param now: seconds since the epoch.
    """
    users.upsert_user(connection, user.user_id, user.login, user.display_name, now)
    upstream_tokens.set_scope(connection, user.user_id, user.scope)
    if user.release is not None:
        user.release(connection)


def new_set(answer: TokenAnswer, user_id: int, asked_at: int) -> UpstreamSet:
    """
    @param answer: of the token endpoint.
    @param user_id: whose it is.
    @param asked_at: when the request began, so that the life is never overrated.
    @return: the set to store; its scope is not known yet.
    """
    return HomelessTokens.of(answer, asked_at).at_home(user_id, asked_at)


def _introduce(
    connection: Connection, user_id: int, answer: TokenAnswer, now: int
) -> None:
    """
    The row that the token set refers to, as far as the id_token tells.
    """
    known = users.find_user(connection, user_id)
    login = answer.login or (known.login if known else "")
    name = answer.display_name or (known.display_name if known else "")
    users.upsert_user(connection, user_id, login, name, now)
