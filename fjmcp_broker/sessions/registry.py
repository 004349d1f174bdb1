"""
All sessions of the daemon: opened, found by their owners, limited, put to sleep, ended.

The rows of the store are the truth. A session is an object here only as long as
somebody needs it: it has a child, a waiting request or an open stream. Any other is
made again from its row when its client comes back, also by a later daemon.
"""

import secrets
from base64 import urlsafe_b64encode
from collections.abc import Callable
from hashlib import sha256
from typing import Final

import msgspec
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from fjmcp_broker.key_text import KEY_BYTES
from fjmcp_broker.logs import background
from fjmcp_broker.mcp.lifecycle import State
from fjmcp_broker.mcp.messages import Request, Response
from fjmcp_broker.mcp.modern.request_state import Sealing
from fjmcp_broker.mcp.policy import ToolCatalogue
from fjmcp_broker.mcp.versions import (
    LATEST_LEGACY,
    answered_version,
    revision_of_session,
)
from fjmcp_broker.oauth.bearer import Principal
from fjmcp_broker.secret import Confidential
from fjmcp_broker.sessions.children.keeper import ChildFactory, ChildKeeper
from fjmcp_broker.sessions.children.population import DEFAULT_LIMITS, Limits
from fjmcp_broker.sessions.children.profiles import ChildProfiles
from fjmcp_broker.sessions.children.roles import Resident
from fjmcp_broker.sessions.errors import (
    InitializeRefused,
    SessionForbidden,
    SessionGone,
    Stopping,
)
from fjmcp_broker.sessions.handshake import Identity, Told
from fjmcp_broker.sessions.ledger import ISessionLedger, StoredSession
from fjmcp_broker.sessions.list_changed import Sights
from fjmcp_broker.sessions.loaded import Shelf
from fjmcp_broker.sessions.notes import Notes
from fjmcp_broker.sessions.opening import OpeningRow, Revisions
from fjmcp_broker.sessions.processes.spawn import remove_stale_working_directories
from fjmcp_broker.sessions.session import Session
from fjmcp_broker.sessions.stateless.shared import SharedSession, SharedSessions
from fjmcp_broker.store.sealing import Sealer
from fjmcp_broker.upstream.interfaces import IUpstreamTokens

SESSION_ID_BYTES: Final = 32


class Opened(Confidential, msgspec.Struct, frozen=True):
    """
    What came of C{initialize}.

    @ivar response: for the client.
    @ivar session_id: the new session's, C{None} when the child refused.
    @ivar session: the new session, likewise.
    """

    response: Response
    session_id: str | None = None
    session: Session | None = None


class SessionRegistry(ChildKeeper):
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
        limits: Limits = DEFAULT_LIMITS,
        profiles: ChildProfiles | None = None,
        sealing: Sealing | None = None,
        interactive: bool = False,
        random_bytes: Callable[[int], bytes] = secrets.token_bytes,
    ) -> None:
        """
        @param clock: tells the time; runs the end of tokens.
        @param ledger: the rows.
        @param tokens: gives users' tokens towards Forgejo.
        @param make_child: makes children.
        @param catalogue: classification of tools.
        @param limits: how many sessions there may be.
        @param profiles: what is known of children; by default that they speak the
            older revisions.
        @param sealing: for what clients of the stateless revisions repeat; by default
            with a key that ends with this object.
        @param interactive: whether children of older revisions ask their clients.
        @param random_bytes: for session ids.
        """
        super().__init__(
            clock=clock,
            tokens=tokens,
            make_child=make_child,
            limits=limits,
            profiles=profiles or ChildProfiles.of_old_children(),
        )
        self._ledger = ledger
        self._catalogue = catalogue
        self._limits = limits
        self._random_bytes = random_bytes
        self._shelf = Shelf(ledger, clock, self._from_row)
        self._sights = Sights()
        self._notes = Notes(ledger, self._sights)
        self._revisions = Revisions()
        self._opening_rows: dict[Resident, OpeningRow] = {}
        # Grants none of whose sessions has fallen asleep since they were trimmed.
        self._trimmed: set[str] = set()
        self._shared = SharedSessions(
            self,
            catalogue,
            self._sights,
            sealing or Sealer([random_bytes(KEY_BYTES)]),
            random_bytes,
            leases=interactive,
        )

    async def start(self) -> None:
        """
        Clean up what an earlier daemon left. Its sessions go on from their rows.
        """
        await self.profiles.load()
        remove_stale_working_directories()

    # For web/mcp/endpoint

    async def open(self, principal: Principal, request: Request) -> Opened:
        """
        Answer C{initialize} with a new session. Runs to its end even when the client
        has left: the caller then ends the session.

        @param principal: who asks.
        @param request: the client's C{initialize}.
        @return: the child's answer and the session, if it is a result.
        @raise TooManySessions: every child is busy.
        @raise Stopping: the daemon is going down.
        @raise UpstreamError: there is no usable token.
        @raise ChildCannotStart: no child could be made ready.
        @raise SessionGone: the grant ended meanwhile.
        @raise StoreError: the session could not be written down.
        """
        random = self._random_bytes(SESSION_ID_BYTES)
        session_id = urlsafe_b64encode(random).rstrip(b"=").decode("ascii")
        p = principal
        identity = Identity(p.grant_id, p.user_id, p.client_id, p.policy)
        session = self._from_row(
            digest_of(session_id), StoredSession(identity, LATEST_LEGACY, Told(request))
        )
        self.population.begin(session)
        row = self._opening_rows[session] = OpeningRow(
            self._ledger,
            session,
            request.params,
            self._revisions,
            self._shelf.close_row,
        )
        try:
            response = await self._answer_and_write(session, row)
        except InitializeRefused as refused:
            session.end("refused_by_child")
            row.drop("refused_by_child")
            return Opened(refused.response)
        except BaseException:
            session.end("not_opened")
            row.drop("not_opened")
            raise
        finally:
            del self._opening_rows[session]
            self.population.opened(session)
            self._check_idle()
        self._shelf.put(session)
        self._sights.mark_changed(session.digest)
        self.log.info("session {session} opened", session=session.name)
        background(self._trim(session.grant_id), "closing surplus sessions")
        return Opened(response, session_id, session)

    async def find(self, digest: bytes, principal: Principal) -> Session:
        """
        @param digest: L{digest_of} what the client says.
        @param principal: who presents it.
        @return: the session, which belongs to the principal's grant from now on.
        @raise SessionGone: nobody's, a closed one, or one of the same user's but of
            another client or of a grant that may do more.
        @raise SessionForbidden: another user's.
        @raise Stopping: the daemon is going down.
        @raise StoreError: the row cannot be read, or the move to another grant could
            not be written down.
        """
        # Nearly always it is there, and its grant's: then there is nothing to wait for.
        session = self._shelf.known(digest) or await self._shelf.find(digest)
        if self._stopping:
            raise Stopping("the service is restarting")
        if session.has_ended:
            raise SessionGone("there is no such session")
        if session.user_id != principal.user_id:
            raise SessionForbidden("the session belongs to another user")
        if session.grant_id != principal.grant_id:
            await self._shelf.adopt(session, principal)
            self._trimmed.discard(session.grant_id)
        self._notes.used(digest, self._now())
        return session

    async def delete(self, session: Session) -> None:
        """
        Close a session for good. It stays as it is until that is written down, so that
        no end of the daemon brings back what its client was told is gone.

        @param session: whose client wants it closed.
        @raise StoreError: it could not be written down.
        """
        await self._shelf.delete(session, "deleted_by_client")

    def shared(self, principal: Principal) -> SharedSession:
        """
        @param principal: who makes a request of a stateless revision.
        @return: the session of its grant, which is not written down anywhere.
        @raise SessionGone: the grant has just ended.
        @raise Stopping: the daemon is going down.
        """
        if self._stopping:
            raise Stopping("the service is restarting")
        return self._shared.of(principal)

    # For those who end things

    def close_grant(self, grant_id: str) -> None:
        """
        @param grant_id: it has ended: its children are killed at once.
        """
        self._shelf.grant_ended()
        self._trimmed.discard(grant_id)
        self._shared.close_grant(grant_id)
        for session in self._all():
            if session.grant_id == grant_id:
                session.end("grant_ended", at_once=True)

    def suspend_user(self, user_id: int) -> None:
        """
        The sessions stay, and go on after the user's next sign-in.

        @param user_id: who has to sign in again: the children are killed at once.
        """
        self.population.suspend_user(user_id)

    # For timers

    async def flush_activity(self) -> None:
        """
        Write down when sessions were last used, and what is not written yet of them.
        It is kept for the next time when that cannot be done.
        """
        await self._shelf.close_rows()
        await self._notes.flush()

    async def reap(self, idle_seconds: float, unused_seconds: int) -> None:
        """
        Put idle children to sleep and close the sessions that nobody uses.

        @param idle_seconds: without a request.
        @param unused_seconds: without any use.
        @raise StoreError: the store cannot be used.
        """
        slept = self.population.put_idle_to_sleep(self.clock.seconds() - idle_seconds)
        for grant_id in slept:
            await self._trim(grant_id)
        await self.flush_activity()
        await self._shelf.close_unused(unused_seconds)

    async def stop(self, deadline_seconds: float = 10.0) -> None:
        """
        Take nothing new, let requests in flight finish, stop the children; all of it
        within the deadline. The rows stay open, for a later start to go on with.

        @param deadline_seconds: for everything together.
        """
        self._stopping = True
        self._shared.forget_questions()
        await self._stop_children(self._all(), deadline_seconds)

    # From sessions

    def child_started(self, session: Resident) -> None:
        """
        @param session: if it is being opened, its row is written from here on.
        """
        row = self._opening_rows.get(session)
        if row is not None:
            row.begin(self._now())

    def session_changed(self, session: Resident) -> None:
        """
        @param session: it is needed now, or it is not any more.
        """
        if session.children.state is State.DORMANT:
            self._trimmed.discard(session.grant_id)
        super().session_changed(session)

    def session_told(self, session: Session) -> None:
        """
        @param session: its next child is told something else.
        """
        self._notes.told(session.digest, session.children.told)

    def session_ended(self, session: Session, reason: str) -> None:
        """
        @param session: has just ended.
        @param reason: why.
        """
        self.population.update(session)
        if not self._stopping:
            self._notes.forget(session.digest)
            self._sights.forget(session.digest)
        if self._shelf.remove(session):
            self.log.info(
                "session {session} closed: {reason}",
                session=session.name,
                reason=reason,
            )
            if not self._stopping:
                self._shelf.close_row(session.digest, reason)
        self._check_idle()

    # Inside

    def _now(self) -> int:
        return int(self.clock.seconds())

    def _all(self) -> set[Resident]:
        return {*self._shelf, *self.population}

    async def _answer_and_write(self, session: Session, row: OpeningRow) -> Response:
        await session.awake()
        response = session.children.opening
        if response is None or response.result is None or session.has_ended:
            raise SessionGone("the session was closed")
        session.revision = revision_of_session(answered_version(response.result))
        if not await row.settle(self._now()):
            raise SessionGone("the grant has ended")
        if session.has_ended:
            self._shelf.close_row(session.digest, "ended_while_opening")
            raise SessionGone("the session was closed")
        return response

    def _from_row(self, digest: bytes, stored: StoredSession) -> Session:
        sight = self._sights.of(digest, stored.seen)
        stored = self._notes.newest(digest, stored)
        return Session(digest, stored, self, self._catalogue, sight)

    async def _trim(self, grant_id: str) -> None:
        if grant_id in self._trimmed:
            return
        # What falls asleep from here on takes it out again.
        self._trimmed.add(grant_id)
        spared = self.population.digests_of(grant_id)
        try:
            await self._shelf.trim(grant_id, self._limits.dormant_per_grant, spared)
        except BaseException:
            self._trimmed.discard(grant_id)
            raise


def digest_of(session_id: str) -> bytes:
    """
    @param session_id: any text of a client.
    @return: its SHA-256: what the session is known by.
    """
    return sha256(session_id.encode("utf-8", "surrogateescape")).digest()
