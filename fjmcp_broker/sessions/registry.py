"""
All sessions of the daemon: opened, found by their owners, limited, ended.

Until a session can sleep and wake, it lives exactly as long as its child.
"""

import secrets
from base64 import urlsafe_b64encode
from collections.abc import Callable
from contextlib import suppress
from hashlib import sha256
from typing import Final, TypeVar

import attrs
from twisted.internet.defer import Deferred, TimeoutError, gatherResults
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from fjmcp_broker.logs import background
from fjmcp_broker.mcp.messages import NULL, Request, Response
from fjmcp_broker.mcp.policy import ToolCatalogue
from fjmcp_broker.mcp.versions import answered_version, revision_of_session
from fjmcp_broker.oauth.bearer import Principal
from fjmcp_broker.secret import Secret
from fjmcp_broker.sessions.child import Child
from fjmcp_broker.sessions.ending import ChildEnd, ChildObserver
from fjmcp_broker.sessions.errors import (
    SessionForbidden,
    SessionGone,
    Stopping,
    TooManySessions,
)
from fjmcp_broker.sessions.ledger import ISessionLedger
from fjmcp_broker.sessions.session import Session
from fjmcp_broker.sessions.spawn import remove_stale_working_directories
from fjmcp_broker.upstream.interfaces import IUpstreamTokens

T = TypeVar("T")

SESSION_ID_BYTES: Final = 32
MINIMUM_TOKEN_LIFE_SECONDS: Final = 120
RETRY_AFTER_SECONDS: Final = 10
STOP_RESERVE_SECONDS: Final = 3.0
"""Of the time for a stop, what the children get at the end to go by themselves."""

ChildFactory = Callable[[ChildObserver, Secret, str], Child]
"""Makes a child, not started: its observer, the user's token, its name in the log."""


@attrs.frozen
class Limits:
    """
    How many sessions with a child there may be.

    @ivar total: of all users.
    @ivar per_user: of one user.
    """

    total: int = 100
    per_user: int = 20


@attrs.frozen
class Opened:
    """
    What came of C{initialize}.

    @ivar response: for the client.
    @ivar session_id: the new session's, C{None} when the child refused.
    @ivar session: the new session, likewise.
    """

    response: Response
    session_id: str | None = None
    session: Session | None = None


class SessionRegistry:
    """
    The sessions and who may use them.
    """

    log = Logger()

    def __init__(
        self,
        *,
        clock: IReactorTime,
        ledger: ISessionLedger,
        tokens: IUpstreamTokens,
        make_child: ChildFactory,
        catalogue: ToolCatalogue,
        limits: Limits = Limits(),
        random_bytes: Callable[[int], bytes] = secrets.token_bytes,
    ) -> None:
        """
        @param clock: tells the time; runs the end of tokens.
        @param ledger: the rows.
        @param tokens: gives users' tokens towards Forgejo.
        @param make_child: makes children.
        @param catalogue: classification of tools.
        @param limits: how many sessions there may be.
        @param random_bytes: for session ids.
        """
        self._clock = clock
        self._ledger = ledger
        self._tokens = tokens
        self._make_child = make_child
        self._catalogue = catalogue
        self._limits = limits
        self._random_bytes = random_bytes
        self._sessions: set[Session] = set()
        self._by_digest: dict[bytes, Session] = {}
        self._ending: set[Child] = set()
        self._activity: dict[bytes, int] = {}
        self._stopping = False
        self._idle: Deferred[None] | None = None

    def __len__(self) -> int:
        """
        @return: how many sessions there are, those being opened included.
        """
        return len(self._sessions)

    async def start(self) -> None:
        """
        Close what an earlier daemon left open: its children are gone.

        @raise StoreError: the store cannot be used.
        """
        remove_stale_working_directories()
        await self._ledger.close_all_open(self._now(), "daemon_restarted")

    # For web/mcp

    async def open(self, principal: Principal, request: Request) -> Opened:
        """
        Answer C{initialize} with a new session. Runs to its end even when the client
        has left: the caller then ends the session.

        @param principal: who asks.
        @param request: the client's C{initialize}.
        @return: the child's answer and the session, if it is a result.
        @raise TooManySessions: no place is free.
        @raise Stopping: the daemon is going down.
        @raise UpstreamError: there is no usable token.
        @raise ChildCannotStart: no child could be made ready.
        @raise SessionGone: the grant ended meanwhile.
        @raise StoreError: the session could not be written down.
        """
        self._check_room(principal)
        random = self._random_bytes(SESSION_ID_BYTES)
        session_id = urlsafe_b64encode(random).rstrip(b"=").decode("ascii")
        session = Session(_digest(session_id), principal, self, self._catalogue)
        self._sessions.add(session)
        try:
            response = await self._open(session, request)
            result = response.result
            if result is None:
                session.end("refused_by_child")
                return Opened(response)
            session.revision = revision_of_session(answered_version(result))
            session.catalogue = self._catalogue.for_server(result)
            written = await self._ledger.opened(
                session.digest,
                session.grant_id,
                session.revision,
                request.params or NULL,
                self._now(),
            )
            if not written:
                raise SessionGone("the grant has ended")
            if session.has_ended:
                self._write_closed(session, "ended_while_opening")
                raise SessionGone("the session was closed")
        except BaseException:
            session.end("not_opened")
            raise
        self._by_digest[session.digest] = session
        self.log.info("session {session} opened", session=session.name)
        return Opened(response, session_id, session)

    async def find(self, session_id: str, principal: Principal) -> Session:
        """
        @param session_id: from the client.
        @param principal: who presents it.
        @return: the session, which belongs to the principal's grant from now on.
        @raise SessionGone: nobody's, a closed one, or one of another client or policy
            of the same user.
        @raise SessionForbidden: another user's.
        @raise Stopping: the daemon is going down.
        @raise StoreError: the move to another grant could not be written down.
        """
        if self._stopping:
            raise Stopping("the service is restarting")
        session = self._by_digest.get(_digest(session_id))
        if session is None or session.has_ended:
            raise SessionGone("there is no such session")
        if session.user_id != principal.user_id:
            raise SessionForbidden("the session belongs to another user")
        if session.grant_id != principal.grant_id:
            await self._adopt(session, principal)
        self._activity[session.digest] = self._now()
        return session

    # For those who end things

    def close_grant(self, grant_id: str) -> None:
        """
        @param grant_id: it has ended: its children are killed at once.
        """
        self._close_where(lambda session: session.grant_id == grant_id, "grant_ended")

    def close_user(self, user_id: int) -> None:
        """
        @param user_id: who has to sign in again: the children are killed at once.
        """
        self._close_where(lambda session: session.user_id == user_id, "user_suspended")

    async def flush_activity(self) -> None:
        """
        Write down when sessions were last used: for a timer, off the path of calls.
        """
        if self._activity:
            activity, self._activity = self._activity, {}
            await self._ledger.touched(activity)

    async def stop(self, deadline_seconds: float = 10.0) -> None:
        """
        Take nothing new, let requests in flight finish, stop the children; all of it
        within the deadline.

        @param deadline_seconds: for everything together.
        """
        self._stopping = True
        ends_at = self._clock.seconds() + deadline_seconds
        for session in list(self._sessions):
            if not session.in_flight:
                session.end("daemon_stopping")
        reserve = min(STOP_RESERVE_SECONDS, deadline_seconds / 2)
        if self._sessions:
            self._idle = Deferred()
            await self._at_most(self._idle, deadline_seconds - reserve)
            for session in list(self._sessions):
                session.end("daemon_stopping", told="the service is restarting")
        left = max(0.0, ends_at - self._clock.seconds())
        for child in self._ending:
            background(child.stop(min(left, reserve) / 3), "stopping a child")
        await self._at_most(self._all_ended(), left)
        for child in self._ending:
            child.kill()
        await self._all_ended()

    # From sessions

    def session_answered(self, session: Session) -> None:
        """
        @param session: has one request less in flight.
        """
        if self._stopping and not session.in_flight:
            session.end("daemon_stopping")

    def session_ended(self, session: Session, reason: str) -> None:
        """
        @param session: has just ended.
        @param reason: why.
        """
        self._sessions.discard(session)
        self._activity.pop(session.digest, None)
        if self._by_digest.pop(session.digest, None) is not None:
            self.log.info(
                "session {session} closed: {reason}",
                session=session.name,
                reason=reason,
            )
            if not self._stopping:
                # A stop leaves the rows open, for a later start to go on with.
                self._write_closed(session, reason)
        child = session.child
        if child is not None and child.pid is not None:
            self._ending.add(child)
            background(self._stop_child(child), "stopping a child")
        if self._idle is not None and not self._sessions:
            idle, self._idle = self._idle, None
            idle.callback(None)

    # Inside

    def _now(self) -> int:
        return int(self._clock.seconds())

    async def _stop_child(self, child: Child) -> None:
        await child.stop()
        self._ending.discard(child)

    def _all_ended(self) -> "Deferred[list[ChildEnd]]":
        return gatherResults(
            [child.when_ended() for child in self._ending], consumeErrors=True
        )

    async def _at_most(self, waiting: "Deferred[T]", seconds: float) -> None:
        with suppress(TimeoutError):
            await waiting.addTimeout(seconds, self._clock)

    def _check_room(self, principal: Principal) -> None:
        if self._stopping:
            raise Stopping("the service is restarting")
        if len(self._sessions) >= self._limits.total:
            raise TooManySessions("every session is in use", RETRY_AFTER_SECONDS)
        own = sum(s.user_id == principal.user_id for s in self._sessions)
        if own >= self._limits.per_user:
            raise TooManySessions(
                "every session of this user is in use", RETRY_AFTER_SECONDS
            )

    async def _open(self, session: Session, request: Request) -> Response:
        token = await self._tokens.access_token(
            session.user_id, MINIMUM_TOKEN_LIFE_SECONDS
        )
        if session.has_ended:
            raise SessionGone("the session was closed")
        session.attach(self._make_child(session, token.text, session.name))
        session.expiry = self._clock.callLater(
            max(1.0, token.expires_at - self._clock.seconds()),
            session.end,
            "token_expired",
        )
        return await session.open(request)

    async def _adopt(self, session: Session, principal: Principal) -> None:
        """
        Clients sign in again and keep their session: it moves to the new grant, which
        lives, since its token was accepted.
        """
        if (session.client_id, session.policy) != (
            principal.client_id,
            principal.policy,
        ):
            raise SessionGone("there is no such session")
        before = session.grant_id
        moved = await self._ledger.moved(
            session.digest, before, principal.grant_id, self._now()
        )
        if session.has_ended:
            raise SessionGone("there is no such session")
        if moved:
            session.grant_id = principal.grant_id
        elif session.grant_id == before:
            raise SessionGone("there is no such session")
        elif session.grant_id != principal.grant_id:
            # Somebody else was faster, and may be the next to lose it.
            await self._adopt(session, principal)

    def _close_where(self, ends: Callable[[Session], bool], reason: str) -> None:
        for session in list(self._sessions):
            if ends(session):
                session.end(reason, at_once=True)

    def _write_closed(self, session: Session, reason: str) -> None:
        background(
            self._ledger.closed(session.digest, self._now(), reason),
            "writing down the end of a session",
        )


def _digest(session_id: str) -> bytes:
    return sha256(session_id.encode("utf-8", "surrogateescape")).digest()
