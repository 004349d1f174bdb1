"""
The children of all sessions: who may have one, with which token, and how all of them
are stopped.
"""

from collections.abc import Callable, Iterable
from typing import Final

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime

from fjmcp_broker.mcp.lifecycle import Change, State
from fjmcp_broker.secret import Secret
from fjmcp_broker.sessions.children.population import Limits, Population
from fjmcp_broker.sessions.children.profiles import ChildProfiles
from fjmcp_broker.sessions.children.roles import Resident
from fjmcp_broker.sessions.errors import Stopping
from fjmcp_broker.sessions.processes.child import Child
from fjmcp_broker.sessions.processes.ending import ChildObserver
from fjmcp_broker.sessions.processes.stopping import Partings, at_most
from fjmcp_broker.upstream.interfaces import IUpstreamTokens, UpstreamAccessToken

MINIMUM_TOKEN_LIFE_SECONDS: Final = 120
STOP_RESERVE_SECONDS: Final = 3.0
"""Of the time for a stop, what the children get at the end to go by themselves."""

ChildFactory = Callable[[ChildObserver, Secret, str], Child]
"""Makes a child, not started: its observer, the user's token, its name in the log."""


class ChildKeeper:
    """
    Keeps children, whatever kind of session they belong to.

    @ivar clock: tells the time.
    @ivar profiles: what is known of children.
    @ivar population: the sessions that have one, or are needed without.
    @ivar on_moved: called with each change of the state of a session.
    """

    def __init__(
        self,
        *,
        clock: IReactorTime,
        tokens: IUpstreamTokens,
        make_child: ChildFactory,
        limits: Limits,
        profiles: ChildProfiles,
    ) -> None:
        """
        @param clock: tells the time; runs the end of tokens.
        @param tokens: gives users' tokens towards Forgejo.
        @param make_child: makes children.
        @param limits: how many there may be.
        @param profiles: what is known of children.
        """
        self.clock = clock
        self.profiles = profiles
        self.population = Population(limits)
        self.on_moved: Callable[[Change], None] = lambda change: None
        self._tokens = tokens
        self._make_child = make_child
        self._partings = Partings(clock)
        self._stopping = False
        self._idle: Deferred[None] | None = None

    def __len__(self) -> int:
        """
        @return: how many sessions are more than their rows.
        """
        return len(self.population)

    async def token_for(self, session: Resident) -> UpstreamAccessToken:
        """
        As L{SessionOwner.token_for}.

        @param session: about to start a child.
        @return: the user's token towards Forgejo.
        """
        if self._stopping:
            raise Stopping("the service is restarting")
        if session.children.state is not State.ROTATING:
            self.population.make_room(session)
        return await self._tokens.access_token(
            session.user_id, MINIMUM_TOKEN_LIFE_SECONDS
        )

    def make_child(self, observer: ChildObserver, token: Secret, name: str) -> Child:
        """
        @param observer: of the child.
        @param token: the user's.
        @param name: for the log.
        @return: a child, not started.
        """
        return self._make_child(observer, token, name)

    def child_started(self, session: Resident) -> None:
        """
        @param session: its child runs, and has been asked for the first time.
        """

    def stop_child(self, child: Child, *, at_once: bool = False) -> None:
        """
        @param child: of no use any more.
        @param at_once: kill it instead of letting it finish.
        """
        self._partings.stop(child, at_once=at_once)

    def session_moved(self, change: Change) -> None:
        """
        @param change: of the state of a session.
        """
        self.on_moved(change)

    def session_changed(self, session: Resident) -> None:
        """
        @param session: it is needed now, or it is not any more.
        """
        self.population.update(session)
        self._check_idle()

    def workplace_ended(self, place: Resident) -> None:
        """
        @param place: is no more.
        """
        self.population.update(place)
        self._check_idle()

    def session_answered(self, session: Resident) -> None:
        """
        @param session: has one request less in flight.
        """
        if self._stopping and not session.children.is_busy:
            self._leave(session)

    # Inside

    def _leave(self, session: Resident) -> None:
        session.end(
            "daemon_stopping",
            told="the service is restarting",
            error=Stopping("the service is restarting"),
        )

    def _check_idle(self) -> None:
        if self._idle is not None and not len(self):
            idle, self._idle = self._idle, None
            # Not at once: the session that was the last one may be about to let its
            # child go, which whoever waits here has to wait for, too.
            self.clock.callLater(0, idle.callback, None)

    async def _stop_children(
        self, sessions: Iterable[Resident], deadline_seconds: float
    ) -> None:
        """
        Let requests in flight finish, stop the children.

        @param sessions: those that exist as objects.
        @param deadline_seconds: for everything together.
        """
        ends_at = self.clock.seconds() + deadline_seconds
        reserve = min(STOP_RESERVE_SECONDS, deadline_seconds / 2)
        everybody = set(sessions)
        for session in everybody:
            if not session.children.is_busy:
                self._leave(session)
        if len(self):
            self._idle = Deferred()
            await at_most(self._idle, deadline_seconds - reserve, self.clock)
            for session in {*everybody, *self.population}:
                self._leave(session)
        left = max(0.0, ends_at - self.clock.seconds())
        await self._partings.finish(left, min(left, reserve) / 3)
