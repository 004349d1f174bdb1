"""What sessions, their children and those who keep them are to one another."""

from typing import TYPE_CHECKING, Protocol

from twisted.internet.interfaces import IReactorTime

from fjmcp_broker.mcp.correlation import ChildNotification, ChildRequest
from fjmcp_broker.mcp.lifecycle import Change, State
from fjmcp_broker.secret import Secret
from fjmcp_broker.sessions.children.profiles import ChildProfiles
from fjmcp_broker.sessions.children.waiting import Waiter
from fjmcp_broker.sessions.processes.child import Child
from fjmcp_broker.sessions.processes.ending import ChildEnd, ChildObserver
from fjmcp_broker.upstream.interfaces import UpstreamAccessToken

if TYPE_CHECKING:
    from fjmcp_broker.sessions.children.attachment import Attachment


class AttachmentOwner(Protocol):
    """
    Who keeps the children of a session:
    L{fjmcp_broker.sessions.children.succession.Children}.
    """

    def answered(self, attachment: "Attachment") -> None:
        """
        @param attachment: has one request less in flight.
        """

    def ended(self, attachment: "Attachment", end: ChildEnd) -> None:
        """
        @param attachment: its child is no more; nobody waits for it either.
        @param end: how it ended.
        """


class ChildHearer(Protocol):
    """
    Who hears what a child says, beside those who wait for answers: a session of either
    kind.

    @ivar digest: what its requests go under, and the key of its row if it has one.
    @ivar name: for the log.
    """

    @property
    def digest(self) -> bytes:
        """
        @return: what its requests go under, and the key of its row if it has one.
        """

    @property
    def name(self) -> str:
        """
        @return: for the log.
        """

    def answering(self, waiter: Waiter) -> None:
        """
        @param waiter: of a client, is about to get its answer.
        """

    def asked(self, attachment: "Attachment", asked: ChildRequest) -> None:
        """
        @param attachment: where it came from.
        @param asked: a question of the child, which waits for an answer.
        """

    def belongs_to_none(
        self, attachment: "Attachment", event: ChildNotification
    ) -> None:
        """
        @param attachment: where it came from.
        @param event: a notification that names no request.
        """


class Household(Protocol):
    """
    The children of a session, as the limits, the timers and the stop see them:
    L{fjmcp_broker.sessions.children.succession.Children}.
    """

    @property
    def state(self) -> State:
        """
        @return: of the whole.
        """

    @property
    def is_idle(self) -> bool:
        """
        @return: whether there is a child that nobody would miss.
        """

    @property
    def is_busy(self) -> bool:
        """
        @return: whether somebody waits for an answer or a child.
        """

    @property
    def used_at(self) -> float:
        """
        @return: seconds since the epoch, of the last use.
        """

    @property
    def expires_at(self) -> int | None:
        """
        @return: when the token of the child expires, C{None} without a child.
        """

    def look(self) -> None:
        """Give up children that will not answer."""

    def rotate(self) -> None:
        """Replace the child, if there is one, by one with the newest token."""

    def sleep(
        self, reason: str, told: str = "", *, at_once: bool = False, error: Exception
    ) -> None:
        """
        @param reason: short, for the log and C{data.reason} of those who wait.
        @param told: one sentence for them.
        @param at_once: kill the children instead of letting them finish.
        @param error: for those who wait for a child.
        """


class Resident(ChildHearer, Protocol):
    """
    A session of either kind, as those see it who look after its children.
    """

    @property
    def user_id(self) -> int:
        """
        @return: whose it is.
        """

    @property
    def grant_id(self) -> str:
        """
        @return: the grant that it belongs to now.
        """

    @property
    def children(self) -> Household:
        """
        @return: its children.
        """

    @property
    def is_needed(self) -> bool:
        """
        @return: whether it is more than what of it is written down.
        """

    def child_answered(self, attachment: "Attachment", result: bytes) -> None:
        """
        @param attachment: of a new child.
        @param result: its answer to C{initialize} or, if it C{is_stateless}, to
            C{server/discover}.
        """

    def child_promoted(self, attachment: "Attachment") -> None:
        """
        @param attachment: of the child that requests go to now.
        """

    def end(
        self,
        reason: str,
        *,
        at_once: bool = False,
        told: str = "",
        error: Exception | None = None,
    ) -> None:
        """
        @param reason: short, for the store, the log and C{data.reason}.
        @param at_once: kill the children instead of letting them finish.
        @param told: one sentence for those who wait.
        @param error: for those who wait for a child.
        """


class ChildrenKeeper(Protocol):
    """
    What the children of a session need of the registry, and tell it.
    """

    @property
    def clock(self) -> IReactorTime:
        """
        @return: tells the time.
        """

    @property
    def profiles(self) -> ChildProfiles:
        """
        @return: what is known of children.
        """

    async def token_for(self, session: Resident) -> UpstreamAccessToken:
        """
        Make room for another child and get it a token.

        @param session: about to start a child.
        @return: the user's token towards Forgejo.
        @raise TooManySessions: every child is busy.
        @raise Stopping: the daemon is going down.
        @raise UpstreamError: there is no usable token.
        @raise StoreError: the store cannot be used.
        """

    def make_child(self, observer: ChildObserver, token: Secret, name: str) -> Child:
        """
        @param observer: of the child.
        @param token: the user's.
        @param name: for the log.
        @return: a child, not started.
        """

    def child_started(self, session: Resident) -> None:
        """
        @param session: its child runs, and has been asked for the first time.
        """

    def stop_child(self, child: Child, *, at_once: bool = False) -> None:
        """
        @param child: of no use any more.
        @param at_once: kill it instead of letting it finish.
        """

    def session_moved(self, change: Change) -> None:
        """
        @param change: of the state of a session.
        """

    def session_changed(self, session: Resident) -> None:
        """
        @param session: it got or lost something for which it has to be kept.
        """

    def session_answered(self, session: Resident) -> None:
        """
        @param session: one request less is in flight.
        """
