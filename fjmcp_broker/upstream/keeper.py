"""
Getting token sets into the store, whatever happens.

A set that Forgejo has issued has made its predecessor useless, so it must not be
lost: it is committed before anybody may use it, and when the commit fails it stays
in memory and is tried again.
"""

from collections.abc import Callable
from sqlite3 import Connection
from typing import Final

import msgspec
from msgspec.structs import replace
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from fjmcp_broker.store import upstream_tokens
from fjmcp_broker.store.database import Database
from fjmcp_broker.store.sealing import Sealer
from fjmcp_broker.store.upstream_tokens import UpstreamSet

from .interfaces import Release
from .tasks import Tasks

FIRST_RETRY_SECONDS: Final = 1.0
LAST_RETRY_SECONDS: Final = 30.0

UNKNOWN: Final = -1
"""In place of L{Keeper.mark}, for a request that an earlier process made."""

_NOBODY: Final = -1
"""A user number that Forgejo never gives."""


class _Keeping(msgspec.Struct, eq=False):
    """
    One set on its way into the store.

    @ivar since: L{Keeper.mark} from before the request that brought it.
    @ivar before: what else belongs into the same transaction, first.
    @ivar is_refreshed: whether it takes the place of a stored one.
    @ivar is_later: whether it is newer than everything that came before it.
    @ivar is_obsolete: whether something newer has come; then only C{before} is left.
    @ivar stamp: L{Keeper.mark} of its latest attempt.
    """

    set: UpstreamSet
    since: int
    before: Callable[[Connection], None]
    is_refreshed: bool = False
    is_later: bool = True
    is_obsolete: bool = False
    stamp: int | None = None


class Keeper:
    """
    The stored token sets, and those that could not be stored yet.

    Which of two sets of one user is the newer one: a set whose request began after
    the other was committed. Only when the requests overlapped do C{gnt} and C{cnt}
    of the refresh tokens decide, since they may go back when Forgejo is restored
    from a backup.
    """

    _log = Logger()

    def __init__(
        self,
        database: Database,
        sealer: Sealer,
        clock: IReactorTime,
        tasks: Tasks,
        on_user_suspended: Callable[[int], None],
        *,
        is_guarded: bool = False,
    ) -> None:
        """
        @param database: the store.
        @param sealer: for the token columns.
        @param clock: for time stamps and retries.
        @param tasks: where retries run.
        @param on_user_suspended: called with a user's number when the set has become
            C{needs_sign_in}.
        @param is_guarded: not everybody may sign in: a set that comes in leaves the
            state of the user as it is, and only a judgement makes it usable.
        """
        self._is_guarded = is_guarded
        self._database = database
        self._sealer = sealer
        self._clock = clock
        self._tasks = tasks
        self._on_user_suspended = on_user_suspended
        self._uncommitted: dict[int, list[_Keeping]] = {}
        self._sequence = 0
        self._last: dict[int, int] = {}
        self._refusal = 0
        self._refusals: dict[int, int] = {}
        self._pauses: set[Deferred[None]] = set()
        self._stopping = False

    def mark(self) -> int:
        """
        @return: the moment, among commits; taken before a request to Forgejo and
            handed to L{Keeper.keep} with what the request brought.
        """
        return self._sequence

    @property
    def refusal(self) -> int:
        """
        @return: the moment, among refusals; taken before Forgejo is asked about a user
            and handed to L{Keeper.admit} with its answer.
        """
        return self._refusal

    def has_refused(self, user_id: int, since: int) -> bool:
        """
        @param user_id: Forgejo's number.
        @param since: L{Keeper.refusal} from before.
        @return: whether the user, or the stored set, has been refused since.
        """
        return self._refusals.get(user_id, 0) > since

    async def prove_writable(self) -> None:
        """
        Write something and take it back, before a token or code is spent.

        @raise StoreError: it does not work.
        """
        await self._database.write(_touch)

    async def find(self, user_id: int) -> UpstreamSet | None:
        """
        @param user_id: Forgejo's number.
        @return: the newest set, committed.
        @raise StoreError: it cannot be read, or a newer one cannot be committed.
        """
        for waiting in self._waiting(user_id):
            if not waiting.is_obsolete:
                await self._commit(waiting)
        return await self._database.read(
            lambda c: upstream_tokens.find(c, self._sealer, user_id)
        )

    async def keep(
        self,
        new: UpstreamSet,
        since: int,
        before: Callable[[Connection], None] = lambda _: None,
        *,
        is_refreshed: bool = False,
    ) -> bool:
        """
        Commit a set, unless a newer one came first. When that fails, it is kept and
        tried again by L{Keeper.find} and in the background.

        @param new: the set; without a scope it takes over the stored one.
        @param since: L{Keeper.mark} from before the request; L{UNKNOWN} lets the
            order of the refresh tokens decide.
        @param before: what else belongs into the same transaction, first.
        @param is_refreshed: it takes the place of a stored one. When that has gone
            meanwhile, with the user's last grant, there is nothing to keep.
        @return: whether it is the newest.
        @raise StoreError: not committed yet.
        """
        keeping = _Keeping(new, since, before, is_refreshed)
        try:
            return await self._commit(keeping)
        except CancelledError:
            raise
        except Exception as error:
            self._retain(keeping)
            self._log.error(
                "the new tokens of user {user_id} could not be stored and are kept "
                "in memory: {error}",
                user_id=new.user_id,
                error=str(error),
            )
            raise

    async def suspend(
        self, rejected: UpstreamSet, *, is_judgement: bool = False
    ) -> bool:
        """
        Mark a user's set C{needs_sign_in}, unless it is another one by now.

        @param rejected: the set that Forgejo refused.
        @param is_judgement: it is the user who was refused, whatever the set: nothing
            that Forgejo was asked about before counts any more.
        @return: whether it was marked.
        @raise StoreError: not written.
        """
        now = int(self._clock.seconds())

        def refuse(connection: Connection) -> bool:
            user_id = rejected.user_id
            if is_judgement or upstream_tokens.is_stored(connection, rejected):
                self._refusal += 1
                self._refusals[user_id] = self._refusal
            return upstream_tokens.mark_needs_sign_in(
                connection, user_id, unless_changed_since=rejected, now=now
            )

        marked = await self._database.write(refuse)
        if marked:
            self._log.info(
                "user {user_id} has to sign in through Forgejo again",
                user_id=rejected.user_id,
            )
            self._on_user_suspended(rejected.user_id)
        return marked

    async def admit(self, user_id: int, since: int) -> Release | None:
        """
        A user has been found to be allowed. That is said of the user: a set of a
        sign-in that began later, which may be the stored one by the time of the
        release and may never be judged itself, must not shut the user out. It is
        judged before it is used.

        @param user_id: Forgejo's number.
        @param since: L{Keeper.refusal} from before Forgejo was asked: its answers may
            overtake each other.
        @return: makes the user's set usable, unless the user or the stored set has
            been refused since; C{None}: it is usable.
        @raise StoreError: it cannot be read.
        """
        if not await self._database.read(
            lambda c: upstream_tokens.state_of(c, user_id) == "needs_sign_in"
        ):
            return None

        def release(connection: Connection) -> None:
            # Written in the same order as the refusals.
            if not self.has_refused(user_id, since):
                upstream_tokens.mark_usable(connection, user_id)

        return release

    async def release(self, release: Release) -> None:
        """
        Make a user's set usable at once.

        @param release: of L{Keeper.admit}.
        @raise StoreError: not written.
        """
        await self._database.write(release)

    def stop(self) -> None:
        """
        Let the retries make their last attempt at once.
        """
        self._stopping = True
        for pause in list(self._pauses):
            pause.cancel()

    async def pause(self, seconds: float) -> bool:
        """
        Wait, but not beyond L{Keeper.stop}.

        @param seconds: how long.
        @return: whether there is time to go on waiting; false at the stop.
        """
        if self._stopping:
            return False
        pause: Deferred[None] = Deferred()
        call = self._clock.callLater(seconds, pause.callback, None)
        self._pauses.add(pause)
        try:
            await pause
        except CancelledError:
            call.cancel()
            if not self._stopping:
                raise
        finally:
            self._pauses.discard(pause)
        return not self._stopping

    def _waiting(self, user_id: int) -> list[_Keeping]:
        """
        @return: what could not be committed yet, in the order of its coming.
        """
        return list(self._uncommitted.get(user_id, ()))

    async def _commit(self, keeping: _Keeping) -> bool:
        user_id = keeping.set.user_id
        last = self._last.get(user_id, 0)
        if keeping.stamp is None:
            keeping.is_later = last <= keeping.since
            if keeping.is_later:
                # Their stamps are not above the last one.
                for waiting in self._waiting(user_id):
                    waiting.is_obsolete = True
        elif keeping.stamp != last:
            keeping.is_later = False
        if not keeping.is_obsolete:
            self._sequence += 1
            self._last[user_id] = keeping.stamp = self._sequence
        is_newest = await self._database.write(lambda c: self._save(c, keeping))
        if keeping in self._waiting(user_id):
            self._uncommitted[user_id].remove(keeping)
            if not self._uncommitted[user_id]:
                del self._uncommitted[user_id]
        return is_newest

    def _save(self, connection: Connection, keeping: _Keeping) -> bool:
        """
        The transaction.
        """
        keeping.before(connection)
        if keeping.is_obsolete:
            return False
        new = keeping.set
        state = upstream_tokens.state_of(connection, new.user_id)
        if keeping.is_refreshed and state is None:
            return False
        if self._is_guarded:
            new = replace(new, state=state or "needs_sign_in")
        if keeping.is_later:
            upstream_tokens.save(connection, self._sealer, new)
            return True
        return upstream_tokens.save_if_newer(connection, self._sealer, new)

    def _retain(self, keeping: _Keeping) -> None:
        user_id = keeping.set.user_id
        if user_id in self._uncommitted:
            self._uncommitted[user_id].append(keeping)
        else:
            self._uncommitted[user_id] = [keeping]
            self._tasks.start(self._retry(user_id), "storing tokens again")

    async def _retry(self, user_id: int) -> None:
        delay = FIRST_RETRY_SECONDS
        has_time = True
        while has_time and user_id in self._uncommitted:
            has_time = await self.pause(delay)
            delay = min(delay * 2, LAST_RETRY_SECONDS)
            try:
                for waiting in self._waiting(user_id):
                    await self._commit(waiting)
            except CancelledError:
                raise
            # Whatever it is, giving up would lose the tokens.
            except Exception as error:
                self._log.warn(
                    "the tokens of user {user_id} still cannot be stored: {error}",
                    user_id=user_id,
                    error=str(error),
                )
        if not all(waiting.is_obsolete for waiting in self._waiting(user_id)):
            self._log.error(
                "the tokens of user {user_id} are lost with this process: they could "
                "not be stored until its end",
                user_id=user_id,
            )


def _touch(connection: Connection) -> None:
    """
    Pages change and have to be written, although no row does in the end. An update
    to the same value would not: SQLite compares first.
    """
    connection.execute(
        "INSERT INTO users (user_id, login, display_name, first_seen_at, last_seen_at) "
        "VALUES (?, '', '', 0, 0)",
        (_NOBODY,),
    )
    connection.execute("DELETE FROM users WHERE user_id = ?", (_NOBODY,))
