"""
The implicit sessions of the stateless revisions: one for each grant, in memory only.

Any number of connections share its child. A request whose child may have to ask
something, or that wants log messages, gets a child for itself where the operator says
that children ask (C{child.interactive}), because a child of an older revision does not
say which request it means.
"""

from collections.abc import Callable
from hashlib import sha256
from typing import Final
from weakref import WeakValueDictionary

import msgspec

from fjmcp_broker.mcp.modern.capabilities import interactive
from fjmcp_broker.mcp.modern.listening import LISTEN
from fjmcp_broker.mcp.modern.profiles import ChildEra
from fjmcp_broker.mcp.modern.request_state import Sealing
from fjmcp_broker.mcp.modern.requests import ModernRequest
from fjmcp_broker.mcp.policy import ToolCatalogue
from fjmcp_broker.oauth.bearer import Principal
from fjmcp_broker.sessions.errors import SessionGone
from fjmcp_broker.sessions.handshake import Identity
from fjmcp_broker.sessions.list_changed import Sight, Sights
from fjmcp_broker.sessions.stateless.calls import Call, CallObserver, Lease
from fjmcp_broker.sessions.stateless.parked import ParkedCall, ParkedCalls
from fjmcp_broker.sessions.stateless.workplace import Workplace, WorkplaceOwner

MAXIMUM_SPARE: Final = 2
"""So many children are kept for the next requests that want one for themselves."""

ENDED_SECONDS: Final = 600.0
"""So long is remembered that a grant has ended: longer than any request takes to come
from its bearer check to its child."""


class SharedSession:
    """
    What a grant's requests of the stateless revisions have in common.

    @ivar grant_id: the grant.
    @ivar name: for the log.
    """

    def __init__(
        self,
        identity: Identity,
        owner: WorkplaceOwner,
        catalogue: ToolCatalogue,
        sight: Sight,
        parked: ParkedCalls,
        *,
        leases: bool,
    ) -> None:
        """
        @param identity: whose it is.
        @param owner: the registry.
        @param catalogue: of tools, until a child has said what it is.
        @param sight: what is remembered of the children.
        @param parked: the calls that wait for their clients.
        @param leases: whether requests may get a child for themselves.
        """
        self.grant_id = identity.grant_id
        self._identity = identity
        self._owner = owner
        self._catalogue = catalogue
        self._sight = sight
        self._parked = parked
        self._leases = leases
        self._digest = digest_of_grant(identity.grant_id)
        self.name = name_of_shared(identity.grant_id)
        self._leased: set[Workplace] = set()
        self._spare: list[Workplace] = []
        self._count = 0
        self._place = self._workplace(is_shared=True)

    def take_up(self, modern: ModernRequest) -> Lease | None:
        """
        @param modern: judged.
        @return: the right to make it, as nearly all get it at once; C{None}: L{awake}
            has something to wait for, or to refuse.
        """
        known = self._owner.profiles.known()
        if known is None or self._place.failure is not None:
            return None
        if known.era is ChildEra.LEGACY and (
            modern.request_state is not None
            or (self._leases and wants_own_child(modern))
        ):
            return None
        return _Share(self._place) if self._place.children.take_up() else None

    async def awake(self, modern: ModernRequest) -> Lease:
        """
        Wait until there is a child for a request. A retry is led to the child that
        waits for it.

        @param modern: judged.
        @return: the right to make it, to be used without another wait in between.
        @raise ModernError: its C{requestState} is not acceptable, or the call behind it
            is lost.
        @raise SessionGone: the grant has ended.
        @raise Stopping: the daemon is going down.
        @raise TooManySessions: every child is busy.
        @raise ChildCannotStart: no child could be made ready.
        @raise UpstreamError: there is no usable token.
        @raise StoreError: the store cannot be used.
        """
        if self._place.failure is not None:
            raise self._place.failure
        if self._owner.profiles.known() is None:
            await self._place.children.awake()
        known = self._owner.profiles.known()
        if known is None or known.era is ChildEra.LEGACY:
            if modern.request_state is not None:
                return _Return(self._parked, self._parked.find(modern))
            if self._leases and wants_own_child(modern):
                return await self._lease(modern)
        await self._place.children.awake()
        return _Share(self._place)

    def end(self, reason: str, error: Exception, *, at_once: bool = False) -> None:
        """
        Answer nothing any more.

        @param reason: short, for the log and C{data.reason}.
        @param error: for those who wait for a child.
        @param at_once: kill the children instead of letting them finish.
        """
        for place in (self._place, *self._leased):
            place.end(reason, at_once=at_once, error=error)

    def forget_questions(self) -> None:
        """Nobody can come back with answers any more."""
        self._parked.forget_all()

    def place_unused(self, place: Workplace) -> None:
        """
        Keep a child that is done with its request for the next one that wants a child
        for itself: programs may take longer to start than clients wait. It counts as
        idle, and goes as other idle children do.

        @param place: of this session, where a request had a child for itself.
        """
        if place.is_spare and len(self._spare) < MAXIMUM_SPARE:
            self._spare.append(place)
        else:
            place.end("released")

    def place_ended(self, place: Workplace) -> None:
        """
        @param place: of this session, is no more.
        """
        self._leased.discard(place)
        if place in self._spare:
            self._spare.remove(place)

    def _workplace(self, *, is_shared: bool) -> Workplace:
        name = self.name if is_shared else f"{self.name}-{self._count}"
        self._count += 1
        return Workplace(
            self,
            self._identity,
            self._digest,
            name,
            self._owner,
            self._catalogue,
            self._sight if is_shared else Sight(backoff=self._sight.backoff),
            self._parked,
            is_shared=is_shared,
        )

    def _take_spare(self) -> Workplace | None:
        while self._spare:
            place = self._spare.pop()
            if place.is_spare:
                return place
            # Its child has gone meanwhile.
            place.end("released")
        return None

    async def _lease(self, modern: ModernRequest) -> Lease:
        place = self._take_spare() or self._workplace(is_shared=False)
        self._leased.add(place)
        try:
            await place.children.awake()
            await place.set_log_level(modern.log_level)
        except BaseException:
            place.end("not_started")
            raise
        return _Share(place)


class SharedSessions:
    """
    The implicit sessions that exist as objects: as long as somebody needs them.
    """

    def __init__(
        self,
        owner: WorkplaceOwner,
        catalogue: ToolCatalogue,
        sights: Sights,
        sealing: Sealing,
        random_bytes: Callable[[int], bytes],
        *,
        leases: bool,
    ) -> None:
        """
        @param owner: the registry.
        @param catalogue: of tools.
        @param sights: what is remembered of sessions.
        @param sealing: with the store's key.
        @param random_bytes: for what is good once.
        @param leases: whether requests may get a child for themselves.
        """
        self._owner = owner
        self._catalogue = catalogue
        self._sights = sights
        self._sealing = sealing
        self._random_bytes = random_bytes
        self._leases = leases
        self._known: WeakValueDictionary[str, SharedSession] = WeakValueDictionary()
        self._ended: dict[str, float] = {}

    def of(self, principal: Principal) -> SharedSession:
        """
        @param principal: who makes a request.
        @return: the session of its grant.
        @raise SessionGone: the grant has just ended.
        """
        grant_id = principal.grant_id
        if grant_id in self._ended:
            raise SessionGone("the grant has ended")
        session = self._known.get(grant_id)
        if session is None:
            p = principal
            session = SharedSession(
                Identity(p.grant_id, p.user_id, p.client_id, p.policy),
                self._owner,
                self._catalogue,
                self._sights.of(digest_of_grant(grant_id)),
                ParkedCalls(
                    grant_id, self._sealing, self._owner.clock, self._random_bytes
                ),
                leases=self._leases,
            )
            self._known[grant_id] = session
        return session

    def close_grant(self, grant_id: str) -> None:
        """
        @param grant_id: it has ended: its children are killed at once.
        """
        now = self._owner.clock.seconds()
        self._ended = {
            grant: at
            for grant, at in self._ended.items()
            if 0 <= now - at < ENDED_SECONDS
        }
        self._ended[grant_id] = now
        self._sights.forget(digest_of_grant(grant_id))
        session = self._known.pop(grant_id, None)
        if session is not None:
            error = SessionGone("the grant has ended")
            session.end("grant_ended", error, at_once=True)

    def forget_questions(self) -> None:
        """The daemon stops: nobody can come back with answers any more."""
        for session in list(self._known.values()):
            session.forget_questions()


class _Share(msgspec.Struct, eq=False):
    """The right to make a request at a workplace."""

    place: Workplace
    used: bool = False

    @property
    def catalogue(self) -> ToolCatalogue:
        """
        @return: what is known of the tools of its child.
        """
        return self.place.catalogue

    def begin(self, modern: ModernRequest, observer: CallObserver) -> Call:
        """
        @param modern: the request.
        @param observer: gets the answer.
        @return: the call.
        """
        call = self.place.begin(modern, observer)
        self.used = True
        return call

    def release(self) -> None:
        """It is not needed any more."""
        if not self.used:
            self.used = True
            self.place.unused()


class _Return:
    """The right to go on with a call."""

    def __init__(self, parked: ParkedCalls, call: ParkedCall) -> None:
        self._parked = parked
        self._call = call

    @property
    def catalogue(self) -> ToolCatalogue:
        """
        @return: what is known of the tools of its child.
        """
        return self._call.catalogue

    def begin(self, modern: ModernRequest, observer: CallObserver) -> Call:
        """
        @param modern: the retry.
        @param observer: gets the answer.
        @return: the call.
        """
        return self._parked.take(modern).resume(modern, observer)

    def release(self) -> None:
        """The call goes on waiting."""


def digest_of_grant(grant_id: str) -> bytes:
    """
    @param grant_id: of a grant.
    @return: what its implicit session is known by.
    """
    return sha256(b"the implicit session of\0" + grant_id.encode()).digest()


def name_of_shared(grant_id: str) -> str:
    """
    @param grant_id: of a grant.
    @return: what the log calls its implicit session.
    """
    return f"g{digest_of_grant(grant_id).hex()[:9]}"


def wants_own_child(modern: ModernRequest) -> bool:
    """
    @param modern: a request.
    @return: whether a child of an older revision could say something about it that
        names no request: a question, or a log message.
    """
    if modern.method == LISTEN:
        return False
    return modern.log_level is not None or (
        modern.may_be_asked and interactive(modern.capabilities)
    )
