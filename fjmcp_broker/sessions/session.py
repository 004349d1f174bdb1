"""
One legacy session: what a client sees behind its C{Mcp-Session-Id}, and the relay
between that client and the session's children.

The session is the lasting thing. Its children come and go
(L{fjmcp_broker.sessions.children.succession}); the client notices nothing but time.
"""

from functools import partial
from typing import Final, Protocol

from fjmcp_broker.mcp.correlation import (
    CANCELLED,
    PROGRESS,
    ChildNotification,
    ChildRequest,
    DuplicateIdError,
    TooManyPendingError,
)
from fjmcp_broker.mcp.messages import (
    INTERNAL_ERROR,
    Notification,
    Request,
    Response,
    encode_error,
    encode_result,
)
from fjmcp_broker.mcp.policy import ToolCatalogue
from fjmcp_broker.rights import Policy, hides_writing
from fjmcp_broker.sessions.children.attachment import INITIALIZED, Attachment
from fjmcp_broker.sessions.children.roles import ChildrenKeeper
from fjmcp_broker.sessions.children.succession import Children
from fjmcp_broker.sessions.children.waiting import Listener, Waiter
from fjmcp_broker.sessions.errors import ChildGone, SessionGone
from fjmcp_broker.sessions.handshake import TELLING, WatchedWaiter, telling_params
from fjmcp_broker.sessions.ledger import StoredSession
from fjmcp_broker.sessions.list_changed import LISTS, Sight, changed
from fjmcp_broker.sessions.processes.child import Child

__all__ = ["INITIALIZED", "WATCHED", "Session"]

WATCHED: Final = TELLING | LISTS
"""Methods whose answers the session reads, too."""


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


class Session:
    """
    A session, with or without a child.

    @ivar digest: SHA-256 of the session id; the key of its row.
    @ivar name: for the log: the first digits of the digest.
    @ivar children: they come and go.
    @ivar grant_id: the grant that it belongs to now.
    @ivar user_id: whose it is.
    @ivar client_id: the client that opened it.
    @ivar policy: of the grant that it belongs to.
    @ivar revision: whose rules it follows.
    @ivar catalogue: what is known of the tools of its child.
    @ivar has_ended: whether it is closed: nobody finds it any more.
    """

    def __init__(
        self,
        digest: bytes,
        stored: StoredSession,
        owner: SessionOwner,
        catalogue: ToolCatalogue,
        sight: Sight,
    ) -> None:
        """
        @param digest: of the session id.
        @param stored: its row, or what that will be.
        @param owner: the registry.
        @param catalogue: of tools, until the child has said what it is.
        @param sight: what is remembered of its children.
        """
        self.digest = digest
        self.name = digest.hex()[:10]
        self.children = Children(self, stored.told, owner, sight.backoff)
        self._owner = owner
        self.has_ended = False
        identity = stored.identity
        self.grant_id = identity.grant_id
        self.user_id = identity.user_id
        self.client_id = identity.client_id
        self.policy = identity.policy
        self.revision = stored.revision
        self.catalogue = self._known_tools = catalogue
        self._listener: Listener | None = None
        self._sight = sight

    @property
    def child(self) -> Child | None:
        """
        @return: the child that requests go to, if there is one.
        """
        current = self.children.current
        return None if current is None else current.child

    def take_up(self) -> bool:
        """
        @return: whether a request may be made at once: as L{Children.take_up}.
        """
        return self.children.take_up()

    async def awake(self) -> None:
        """
        Wait until there is a child: as L{Children.awake}, which says what is raised.
        """
        await self.children.awake()

    def child_answered(self, attachment: Attachment, result: bytes) -> None:
        """
        @param attachment: of a new child.
        @param result: of C{initialize}, by a new child.
        """
        self.catalogue = self._known_tools.for_server(result)
        self._announce(self._sight.child_said(result))

    def child_promoted(self, attachment: Attachment) -> None:
        """
        @param attachment: of the child that requests go to now.
        """
        for method in list(self._sight.lists):
            attachment.ask(method, {}, partial(self._compare, method))

    @property
    def is_needed(self) -> bool:
        """
        @return: whether it is more than its row.
        """
        return not self.has_ended and (
            self.children.are_needed or self._listener is not None
        )

    @property
    def listens(self) -> bool:
        """
        @return: whether a GET stream is open.
        """
        return self._listener is not None

    def end(
        self,
        reason: str,
        *,
        at_once: bool = False,
        told: str = "",
        error: Exception | None = None,
    ) -> None:
        """
        Close the session: whoever waits gets an error, the children are stopped.

        @param reason: short, for the store, the log and C{data.reason}.
        @param at_once: kill the children instead of letting them finish.
        @param told: one sentence for those who wait.
        @param error: for those who wait for a child.
        """
        if self.has_ended:
            return
        self.has_ended = True
        listener, self._listener = self._listener, None
        if listener is not None:
            listener.end()
        self.children.close(
            reason,
            told or "the session was closed",
            at_once=at_once,
            error=error or SessionGone("the session was closed"),
        )
        self._owner.session_ended(self, reason)

    # The client

    def listen(self, stream: Listener) -> None:
        """
        Let a stream take what belongs to no request; the one before it is ended.

        @param stream: the client's newest GET stream.
        """
        before, self._listener = self._listener, stream
        if before is not None and before is not stream:
            before.end()
        self._owner.session_changed(self)
        if self._sight.untold:
            untold, self._sight.untold = self._sight.untold, []
            self._announce(untold)

    def moved(self, grant_id: str, policy: Policy) -> None:
        """
        Another grant has adopted it. Whoever listens was let in by the one before:
        the stream is ended, and its client comes back with the token that it has now.
        When the new grant shows other tools, the client is told there.

        @param grant_id: where it belongs from now on.
        @param policy: of that grant.
        """
        shows_others = hides_writing(policy) is not hides_writing(self.policy)
        self.grant_id, self.policy = grant_id, policy
        listener, self._listener = self._listener, None
        if listener is not None:
            listener.end()
            self._owner.session_changed(self)
        if shows_others:
            self._announce([changed("tools")])

    def unlisten(self, stream: Listener) -> None:
        """
        @param stream: it takes nothing any more. Another one stays.
        """
        if self._listener is stream:
            self._listener = None
            self._owner.session_changed(self)

    def undelivered(self, message: bytes) -> None:
        """
        @param message: belongs to no request: for the GET stream, else dropped.
        """
        if self._listener is not None:
            self._listener.send(message)

    def request(self, request: Request, waiter: Waiter) -> None:
        """
        Relay a request.

        @param request: from the client; allowed by its policy.
        @param waiter: gets the answer.
        @raise DuplicateIdError: its id is in flight.
        @raise TooManyPendingError: so are too many others.
        @raise ChildBusy: the child does not read.
        @raise ChildGone: there is no child.
        @raise SessionGone: it is closed.
        """
        if self.has_ended:
            raise SessionGone("the session was closed")
        children = self.children
        for attachment in children.old:
            if attachment.holds(request.id):
                raise DuplicateIdError("a request with this id is still in flight")
        current = children.current
        if current is None:
            raise ChildGone("there is no child")
        if request.method in WATCHED:
            waiter = WatchedWaiter(waiter, partial(self._watched, current, request))
        current.request(request, waiter)

    def notify(self, notification: Notification) -> None:
        """
        Relay a notification to the child that it concerns, or to each.

        @param notification: from the client; allowed by its policy.
        @raise ChildBusy: the child does not read.
        """
        if notification.method == INITIALIZED:
            return
        for attachment in self.children.living:
            concerned = attachment.notify(notification)
            if concerned and notification.method in (CANCELLED, PROGRESS):
                return

    def respond(self, response: Response) -> None:
        """
        Relay the client's answer to a question of the child. One that nobody asked
        for is dropped.

        @param response: from the client.
        @raise ChildBusy: the child does not read.
        """
        for attachment in self.children.living:
            if attachment.respond(response):
                return

    # From attachments

    def answering(self, waiter: Waiter) -> None:
        """
        @param waiter: is about to get its answer. What its client could not be told
            when it came goes before that.
        """
        if self._sight.untold and waiter.takes_messages:
            untold, self._sight.untold = self._sight.untold, []
            for message in untold:
                waiter.notified(message)

    def belongs_to_none(self, attachment: Attachment, event: ChildNotification) -> None:
        """
        @param attachment: where it came from.
        @param event: a notification that names no request.
        """
        self.undelivered(event.message)

    def asked(self, attachment: Attachment, asked: ChildRequest) -> None:
        """
        A request of the child goes to the only request in flight, else to the GET
        stream. C{ping} is about the connection, which is ours.

        @param attachment: where it came from.
        @param asked: the request.
        """
        id = asked.request.id
        calls = attachment.calls
        sole = calls[0] if len(calls) == 1 else None
        if asked.request.method == "ping":
            attachment.tell(encode_result(id, b"{}"))
            return
        takes = sole is not None and sole.waiter.takes_messages
        if not takes and self._listener is None:
            told = "no client can be asked now"
            reason = {"reason": "no_stream"}
            attachment.tell(encode_error(id, INTERNAL_ERROR, told, reason))
            return
        try:
            question = attachment.ask_client(asked)
        except TooManyPendingError as error:
            attachment.tell(encode_error(id, INTERNAL_ERROR, str(error)))
            return
        if sole is not None and takes:
            sole.waiter.notified(question)
        else:
            self.undelivered(question)

    def _announce(self, messages: list[bytes]) -> None:
        """
        Tell the client on its GET stream, else on the stream of its next request.
        """
        if self._listener is not None:
            for message in messages:
                self._listener.send(message)
        else:
            self._sight.untold = list(dict.fromkeys([*self._sight.untold, *messages]))

    def _compare(self, method: str, response: Response) -> None:
        """A new child was asked for what the client has seen of another one."""
        if response.result is not None:
            self._announce(self._sight.child_listed(method, response.result))

    def _watched(
        self, attachment: Attachment, request: Request, response: Response
    ) -> None:
        """Something was answered that means more than its client is told."""
        if response.result is None:
            return
        self._sight.client_saw(request, response.result)
        if request.method in TELLING:
            told = self.children.told.after(request)
            if told != self.children.told:
                self.children.told = told
                self._owner.session_told(self)
                current = self.children.current
                if current is not None and current is not attachment:
                    # The newer child was told what was true before.
                    current.ask(request.method, telling_params(request))
