"""
The sessions that are more than their rows: how many there may be, and which of them
sleep first.
"""

from collections.abc import Callable, Collection, Iterator
from enum import StrEnum, unique
from typing import Final

import msgspec

from fjmcp_broker.mcp.lifecycle import State
from fjmcp_broker.sessions.children.roles import Resident
from fjmcp_broker.sessions.errors import ChildGone, TooManySessions
from fjmcp_broker.upstream.errors import SignInNeeded

RETRY_AFTER_SECONDS: Final = 10

_WITH_CHILD: Final = (State.STARTING, State.LIVE, State.ROTATING)


@unique
class Reaped(StrEnum):
    """
    Why a child was put to sleep that nobody used.

    @cvar IDLE: for too long.
    @cvar ROOM: somebody else needed one.
    """

    IDLE = "idle"
    ROOM = "room"


@unique
class Full(StrEnum):
    """
    Which limit left no room although nobody idles.

    @cvar TOTAL: of all users together.
    @cvar OF_USER: of one user.
    """

    TOTAL = "total"
    OF_USER = "of_user"


class Limits(msgspec.Struct, frozen=True):
    """
    How many sessions there may be.

    @ivar total: with a child, of all users.
    @ivar per_user: with a child, of one user.
    @ivar dormant_per_grant: without a child, of one grant.
    """

    total: int = 100
    per_user: int = 20
    dormant_per_grant: int = 50


DEFAULT_LIMITS: Final = Limits()


class Population:
    """
    Sessions with a child, a waiting request or an open stream, and those that are
    being opened.

    @ivar on_reaped: called when an idle child is put to sleep.
    @ivar on_full: called when somebody gets no child.
    """

    def __init__(self, limits: Limits) -> None:
        """
        @param limits: how many there may be.
        """
        self._limits = limits
        self._needed: set[Resident] = set()
        self._of_users: dict[int, set[Resident]] = {}
        self._opening: set[Resident] = set()
        self.on_reaped: Callable[[Reaped], None] = lambda why: None
        self.on_full: Callable[[Full], None] = lambda limit: None

    def __len__(self) -> int:
        """
        @return: how many there are.
        """
        return len(self._needed | self._opening)

    def __iter__(self) -> Iterator[Resident]:
        """
        @return: all of them, as of now.
        """
        return iter(self._needed | self._opening)

    def begin(self, session: Resident) -> None:
        """
        @param session: is being opened.
        """
        self._opening.add(session)

    def opened(self, session: Resident) -> None:
        """
        @param session: is not being opened any more.
        """
        self._opening.discard(session)

    def update(self, session: Resident) -> None:
        """
        @param session: it is needed now, or it is not any more.
        """
        if session.is_needed:
            self._needed.add(session)
            self._of_users.setdefault(session.user_id, set()).add(session)
        elif session in self._needed:
            self._needed.remove(session)
            theirs = self._of_users[session.user_id]
            theirs.remove(session)
            if not theirs:
                del self._of_users[session.user_id]

    def make_room(self, session: Resident) -> None:
        """
        Put the longest idle child to sleep when there are too many: of the same user
        first, then of anybody.

        @param session: is about to get a child.
        @raise TooManySessions: all of them are busy.
        """
        theirs = self._of_users.get(session.user_id, ())
        if (
            len(theirs) < self._limits.per_user
            and len(self._needed) < self._limits.total
        ):
            # However many of them have a child: nobody has to be looked at.
            return
        own = _with_child(theirs, session)
        others = _with_child(self._needed, session)
        if len(own) >= self._limits.per_user:
            candidates: tuple[list[Resident], ...] = (own,)
            limit, full = Full.OF_USER, "every session of this user is in use"
        elif len(others) >= self._limits.total:
            candidates = (own, others)
            limit, full = Full.TOTAL, "every session is in use"
        else:
            return
        for group in candidates:
            idle = [other for other in group if other.children.is_idle]
            if idle:
                oldest = min(idle, key=lambda other: other.children.used_at)
                self._put_to_sleep(oldest, Reaped.ROOM)
                return
        self.on_full(limit)
        raise TooManySessions(full, RETRY_AFTER_SECONDS)

    def put_idle_to_sleep(self, before: float) -> set[str]:
        """
        @param before: seconds since the epoch; children not used since then go.
        @return: the grants whose sessions they were.
        """
        grants = set()
        for session in list(self._needed):
            if session.children.is_idle and session.children.used_at <= before:
                self._put_to_sleep(session, Reaped.IDLE)
                grants.add(session.grant_id)
        return grants

    async def look_after_children(self) -> None:
        """
        The body of a timer: give up children that will not answer.
        """
        for session in self:
            session.children.look()

    def suspend_user(self, user_id: int) -> None:
        """
        @param user_id: who has to sign in again: the children are killed at once.
        """
        error = SignInNeeded("the user has to sign in through Forgejo again")
        for session in self:
            if session.user_id == user_id:
                session.children.sleep(
                    "user_suspended",
                    "the user has to sign in to Forgejo again",
                    at_once=True,
                    error=error,
                )

    def users_with_expiring_children(self, before: float) -> set[int]:
        """
        @param before: seconds since the epoch.
        @return: the users who have a child whose token expires before.
        """
        return {
            session.user_id
            for session in self._needed
            if session.children.expires_at is not None
            and session.children.expires_at < before
        }

    def rotate_user(self, user_id: int, expires_at: int) -> None:
        """
        @param user_id: who has a newer token.
        @param expires_at: of that token: children with older ones are replaced.
        """
        for session in list(self._needed):
            held = session.children.expires_at
            if session.user_id == user_id and held is not None and held < expires_at:
                session.children.rotate()

    def digests_of(self, grant_id: str) -> frozenset[bytes]:
        """
        @param grant_id: of a grant.
        @return: the digests of its sessions that are needed.
        """
        return frozenset(s.digest for s in self._needed if s.grant_id == grant_id)

    def _put_to_sleep(self, session: Resident, why: Reaped) -> None:
        self.on_reaped(why)
        session.children.sleep("idle", error=ChildGone("the child was put to sleep"))


def _with_child(sessions: Collection[Resident], but: Resident) -> list[Resident]:
    return [
        session
        for session in sessions
        if session is not but and session.children.state in _WITH_CHILD
    ]
