"""
The one token set per Forgejo user: handed out fresh, refreshed once, judged late.

Forgejo keeps one refresh token per user and application, and every code exchange
and every refresh makes the one before it useless. So all sessions of a user share
one set, refreshes of a user never run side by side, and a refresh token that Forgejo
refuses is judged only when nothing that could have replaced it is still under way.
"""

from collections.abc import Callable, Iterable
from typing import Final
from weakref import WeakValueDictionary

import msgspec
from twisted.internet.defer import Deferred, DeferredSemaphore, gatherResults
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from zope.interface import implementer

from fjmcp_broker.errors import BrokerError
from fjmcp_broker.oauth.access import EVERYBODY, AccessRules
from fjmcp_broker.secret import Secret
from fjmcp_broker.store.database import Database
from fjmcp_broker.store.sealing import Sealer
from fjmcp_broker.store.upstream_tokens import UpstreamSet

from .access import AccessGate
from .errors import IdentityMismatch, SignInNeeded, UpstreamUnavailable
from .interfaces import (
    IForgejo,
    IUpstreamTokens,
    SignedInUser,
    TokenAnswer,
    UpstreamAccessToken,
)
from .keeper import Keeper
from .sign_ins import SignIns, new_set
from .tasks import Task, Tasks

STOP_TIMEOUT_SECONDS: Final = 10.0

_ROUNDS: Final = 4
"""How often the set may be replaced under a caller before that looks wrong."""

_REFRESHES_AT_ONCE: Final = 8


class _Refreshed(msgspec.Struct, frozen=True):
    """
    How a refresh ended: with the newest set, or with one to look at again.
    """

    set: UpstreamSet
    is_fresh: bool


@implementer(IUpstreamTokens)
class UpstreamTokens:
    """
    Token sets of all users (L{IUpstreamTokens}).
    """

    _log = Logger()

    def __init__(
        self,
        database: Database,
        sealer: Sealer,
        forgejo: IForgejo,
        clock: IReactorTime,
        on_user_suspended: Callable[[int], None],
        *,
        requested_scope: str,
        access: AccessRules = EVERYBODY,
    ) -> None:
        """
        @param database: the store, open before L{UpstreamTokens.start}.
        @param sealer: for the token columns.
        @param forgejo: the other side.
        @param clock: the time, and for retries.
        @param on_user_suspended: called with a user's number when only a new sign-in
            can help; the user's grants stay.
        @param requested_scope: the configured scopes, space separated.
        @param access: who may sign in.
        """
        self._forgejo = forgejo
        self._clock = clock
        self._tasks = Tasks(clock)
        self._known: WeakValueDictionary[int, Secret] = WeakValueDictionary()
        self._keeper = Keeper(
            database,
            sealer,
            clock,
            self._tasks,
            on_user_suspended,
            is_guarded=not access.let_everybody_in,
        )
        self._gate = AccessGate(access, self._keeper, forgejo, self._tasks)
        self._sign_ins = SignIns(
            database,
            sealer,
            forgejo,
            clock,
            self._keeper,
            self._gate,
            self._tasks,
            requested_scope=requested_scope,
        )
        self._refreshes: dict[int, Task[_Refreshed]] = {}
        self._stopping = False

    async def start(self) -> None:
        """
        Take up what an earlier process could not finish: token sets whose user was
        not known yet. That goes on in the background.

        @raise StoreError: the store cannot be read.
        """
        await self._sign_ins.start()

    async def stop(self, timeout_seconds: float = STOP_TIMEOUT_SECONDS) -> None:
        """
        Take no more work and let what is under way finish: an answer of Forgejo's
        that nobody stores is a user logged out.

        @param timeout_seconds: what takes longer is given up.
        """
        self._stopping = True
        self._keeper.stop()
        await self._tasks.finish(timeout_seconds)

    async def sign_in(self, pending_id: str, code: str, verifier: str) -> SignedInUser:
        """
        As L{IUpstreamTokens.sign_in}.

        @param pending_id: the pending authorization.
        @param code: from the callback.
        @param verifier: for PKCE.
        @return: the user.
        """
        self._check_running()
        return await self._sign_ins.start_one(pending_id, code, verifier).join()

    async def access_token(
        self, user_id: int, minimum_life_seconds: int = 120
    ) -> UpstreamAccessToken:
        """
        As L{IUpstreamTokens.access_token}.

        @param user_id: Forgejo's number.
        @param minimum_life_seconds: refresh first when it would expire sooner.
        @return: the token.
        """
        for _ in range(_ROUNDS):
            self._check_running()
            current = _usable(await self._keeper.find(user_id))
            now = self._clock.seconds()
            # One from the future is older than it says: the clock was set back.
            is_dated = current.updated_at <= now
            if is_dated and current.expires_at - now >= minimum_life_seconds:
                if self._gate.has_admitted(current):
                    return self._handed_out(current)
                # Perhaps a question about an older set is under way.
                await self._gate.ask(current).join()
                continue
            refreshed = await self._refresh(current).join()
            if refreshed.is_fresh:
                return self._handed_out(refreshed.set)
        raise UpstreamUnavailable("the user's tokens keep changing")

    async def refresh_due(
        self, user_ids: Iterable[int], minimum_life_seconds: int = 120
    ) -> dict[int, UpstreamAccessToken | BrokerError]:
        """
        Refresh the sets of several users that would expire soon, a few at a time.

        @param user_ids: those to look after. For dormant users, whose refresh token
            would expire, a minimum beyond any access token's life refreshes always.
        @param minimum_life_seconds: as for L{UpstreamTokens.access_token}.
        @return: for each user the token or what L{UpstreamTokens.access_token} would
            have raised.
        """
        slots = DeferredSemaphore(_REFRESHES_AT_ONCE)
        results: dict[int, UpstreamAccessToken | BrokerError] = {}

        async def one(user_id: int) -> None:
            await slots.acquire()
            try:
                results[user_id] = await self.access_token(
                    user_id, minimum_life_seconds
                )
            except BrokerError as error:
                results[user_id] = error
            finally:
                slots.release()

        await gatherResults(
            [Deferred.fromCoroutine(one(user_id)) for user_id in set(user_ids)],
            consumeErrors=True,
        )
        return results

    def _handed_out(self, tokens: UpstreamSet) -> UpstreamAccessToken:
        # One text of a token for all sessions of its user, each of which keeps it.
        text = self._known.get(tokens.user_id)
        if text is None or text != tokens.access_token:
            self._known[tokens.user_id] = text = tokens.access_token
        return UpstreamAccessToken(text, tokens.expires_at, tokens.user_id)

    def _check_running(self) -> None:
        if self._stopping:
            raise UpstreamUnavailable("the broker is stopping")

    def _refresh(self, seen: UpstreamSet) -> Task[_Refreshed]:
        """
        @return: the one refresh of this user that is under way.
        """
        user_id = seen.user_id
        running = self._refreshes.get(user_id)
        if running is not None:
            return running
        task = self._tasks.start(
            self._refresh_once(seen), f"refreshing the tokens of user {user_id}"
        )
        if not task.is_done:
            self._refreshes[user_id] = task
        return task

    async def _refresh_once(self, seen: UpstreamSet) -> _Refreshed:
        try:
            await self._keeper.prove_writable()
            spent = _usable(await self._keeper.find(seen.user_id))
            if spent.refresh_token != seen.refresh_token:
                return _Refreshed(spent, is_fresh=False)
            since = self._keeper.mark()
            try:
                answer = await self._forgejo.refresh(spent.refresh_token)
            except SignInNeeded:
                return await self._judge(spent)
            return await self._keep(spent, answer, since)
        finally:
            self._refreshes.pop(seen.user_id, None)

    async def _keep(
        self, spent: UpstreamSet, answer: TokenAnswer, since: int
    ) -> _Refreshed:
        if answer.user_id not in (None, spent.user_id):
            await self._keeper.suspend(spent)
            self._log.error(
                "Forgejo answered a refresh of user {user_id} with the tokens of user "
                "{other_id}",
                user_id=spent.user_id,
                other_id=answer.user_id,
            )
            raise IdentityMismatch("Forgejo answered with another user's tokens")
        fresh = new_set(answer, spent.user_id, int(self._clock.seconds()))
        is_newest = await self._keeper.keep(fresh, since, is_refreshed=True)
        if is_newest and not self._gate.has_admitted(fresh):
            await self._gate.ask(fresh).join()
        is_fresh = is_newest and self._gate.has_admitted(fresh)
        return _Refreshed(fresh, is_fresh)

    async def _judge(self, spent: UpstreamSet) -> _Refreshed:
        """
        Forgejo refused a refresh token. That a sign-in has replaced it is one
        reason, so those in flight come first.
        """
        await self._sign_ins.settled()
        current = _usable(await self._keeper.find(spent.user_id))
        if current.refresh_token == spent.refresh_token:
            if self._sign_ins.has_homeless:
                raise UpstreamUnavailable("it is not known yet who has just signed in")
            if await self._keeper.suspend(spent):
                raise SignInNeeded("Forgejo refuses the user's refresh token")
            current = _usable(await self._keeper.find(spent.user_id))
        return _Refreshed(current, is_fresh=False)


def _usable(found: UpstreamSet | None) -> UpstreamSet:
    if found is None:
        raise SignInNeeded("the user has not signed in through Forgejo")
    if found.state != "usable":
        raise SignInNeeded("the user has to sign in through Forgejo again")
    return found
