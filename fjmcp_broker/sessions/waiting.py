"""Who waits for a session's answers, and who hears of its end."""

from typing import TYPE_CHECKING, Protocol

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime

from fjmcp_broker.mcp.correlation import ChildNotification, ChildRequest
from fjmcp_broker.mcp.messages import Response
from fjmcp_broker.secret import Secret
from fjmcp_broker.sessions.child import Child
from fjmcp_broker.sessions.ending import ChildEnd, ChildObserver
from fjmcp_broker.sessions.profiles import ChildProfiles
from fjmcp_broker.upstream.interfaces import UpstreamAccessToken

if TYPE_CHECKING:
    from fjmcp_broker.sessions.attachment import Attachment
    from fjmcp_broker.sessions.children import Children
    from fjmcp_broker.sessions.session import Session


class Waiter(Protocol):
    """
    Who waits for the answer to one request.
    """

    @property
    def takes_messages(self) -> bool:
        """
        @return: whether messages before the answer still reach the client.
        """

    def notified(self, message: bytes) -> None:
        """
        @param message: a notification or a question that belongs to the request.
        """

    def answered(self, response: Response) -> None:
        """
        @param response: the answer, under the client's id; nothing follows.
        """

    def cancelled(self) -> None:
        """The client took its request back; nothing follows."""


class Listener(Protocol):
    """
    A client's open GET stream: takes what belongs to no request.
    """

    def send(self, message: bytes) -> None:
        """
        @param message: a notification or question of the child.
        """

    def end(self) -> None:
        """A newer stream has taken its place, or the session was closed."""


class AttachmentOwner(Protocol):
    """
    Who keeps the children of a session: L{fjmcp_broker.sessions.children.Children}.
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
    Who hears what a child says beside its answers: a session of either kind.

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
    def children(self) -> "Children":
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

    def stop_child(self, child: Child, *, at_once: bool = False) -> None:
        """
        @param child: of no use any more.
        @param at_once: kill it instead of letting it finish.
        """

    def session_moved(self, event: str) -> None:
        """
        @param event: what has changed the state of a session.
        """

    def session_changed(self, session: Resident) -> None:
        """
        @param session: it got or lost something for which it has to be kept.
        """

    def session_answered(self, session: Resident) -> None:
        """
        @param session: one request less is in flight.
        """


class SessionOwner(ChildrenKeeper, Protocol):
    """
    What a session needs of the registry, and tells it.
    """

    def session_told(self, session: "Session") -> None:
        """
        @param session: its client changed what a new child has to be told.
        """

    def session_ended(self, session: "Session", reason: str) -> None:
        """
        @param session: it has been closed.
        @param reason: short, for the store and the log.
        """


class WorkplaceOwner(ChildrenKeeper, Protocol):
    """
    What a place for requests of the stateless revisions needs of the registry.
    """

    def workplace_ended(self, place: Resident) -> None:
        """
        @param place: is no more.
        """


class Opening:
    """
    Waits for the answer to a request of our own.

    @ivar response: fires with it.
    """

    takes_messages = False

    def __init__(self) -> None:
        """No answer yet."""
        self.response: Deferred[Response] = Deferred()

    def notified(self, message: bytes) -> None:
        """
        @param message: dropped; nothing may come before the answer to initialize.
        """

    def answered(self, response: Response) -> None:
        """
        @param response: the child is there, or refused, or gone.
        """
        if not self.response.called:
            self.response.callback(response)

    def cancelled(self) -> None:
        """Cannot happen: L{Correlation} never cancels initialize."""
