"""
What the clients of one grant listen to (MCP 2026-07-28, subscriptions).

A stream outlives the children: one that follows is asked for the same again, and what
is different about it the client hears as if the child had said so. A child of the
stateless revisions has each stream as a request of its own; for any other the broker
hands round what the child tells everybody.
"""

from contextlib import suppress
from typing import Final, Protocol

from msgspec.structs import replace

from fjmcp_broker.mcp.correlation import Pending, TooManyPendingError
from fjmcp_broker.mcp.messages import (
    MessageError,
    Notification,
    Response,
    parse_child_line,
)
from fjmcp_broker.mcp.modern.errors import status_of_code
from fjmcp_broker.mcp.modern.listening import (
    ACKNOWLEDGED,
    UPDATED,
    Changed,
    Filter,
    Listeners,
    acknowledgement,
    completion,
    requested,
    subscription_of,
    tagged,
    tagged_result,
)
from fjmcp_broker.mcp.modern.requests import ModernRequest
from fjmcp_broker.mcp.modern.translation import code_of
from fjmcp_broker.sessions.children.attachment import Attachment
from fjmcp_broker.sessions.children.waiting import Waiter
from fjmcp_broker.sessions.errors import ChildBusy, ChildGone
from fjmcp_broker.sessions.processes.child import Child
from fjmcp_broker.sessions.stateless.calls import CallObserver

MAXIMUM_STREAMS: Final = 100
"""So many may be open for one grant."""


class SubscriptionsOwner(Protocol):
    """
    Whose clients listen.
    """

    @property
    def server_info(self) -> bytes | None:
        """
        @return: raw JSON object: who the child says it is.
        """

    @property
    def capabilities(self) -> bytes:
        """
        @return: raw JSON object: what the child declares.
        """

    @property
    def current(self) -> Attachment | None:
        """
        @return: the child that is spoken to, if there is one.
        """

    def listeners_changed(self) -> None:
        """A stream came or went."""


class Subscriptions:
    """
    The open streams.
    """

    def __init__(self, owner: SubscriptionsOwner) -> None:
        """
        @param owner: whose clients listen.
        """
        self._owner = owner
        self._streams: list[ListeningCall] = []
        self._listeners: Listeners[ListeningCall] = Listeners()

    def __len__(self) -> int:
        """
        @return: how many streams are open.
        """
        return len(self._streams)

    def begin(
        self, attachment: Attachment, modern: ModernRequest, observer: CallObserver
    ) -> "ListeningCall":
        """
        Open a stream.

        @param attachment: of the child that is spoken to.
        @param modern: the client's C{subscriptions/listen}.
        @param observer: gets the notifications.
        @return: the stream.
        @raise ModernError: the filter is malformed.
        @raise TooManyPendingError: too many streams are open.
        @raise ChildBusy: the child does not read.
        @raise ChildGone: it has ended.
        """
        stream = ListeningCall(self, modern, observer, requested(modern))
        if len(self._streams) >= MAXIMUM_STREAMS:
            raise TooManyPendingError("too many streams listen already")
        if attachment.is_stateless:
            stream.put(attachment)
        else:
            accepted = stream.wanted.supported_by(self._owner.capabilities)
            stream.acknowledged = True
            observer.notified(acknowledgement(modern.id, accepted))
            if stream.is_over:
                return stream
            self._tell(attachment, self._listeners.add(stream, modern.id, accepted))
        if not stream.is_over:
            self._streams.append(stream)
            self._owner.listeners_changed()
        return stream

    def renew(self, attachment: Attachment) -> None:
        """
        @param attachment: of the child that takes the place of another one.
        """
        self._listeners = Listeners()
        for stream in list(self._streams):
            if attachment.is_stateless:
                with suppress(ChildBusy, ChildGone, TooManyPendingError):
                    stream.put(attachment)
            else:
                accepted = stream.wanted.supported_by(self._owner.capabilities)
                self._tell(attachment, self._listeners.add(stream, stream.id, accepted))

    def takes(self, attachment: Attachment, notification: Notification) -> bool:
        """
        @param attachment: where it came from.
        @param notification: names no request.
        @return: whether it was about something to listen to, and is dealt with.
        """
        subscription = subscription_of(notification)
        if subscription is not None:
            pending = attachment.find(subscription)
            if pending is not None and isinstance(pending.waiter, _Leg):
                pending.waiter.heard(notification)
            return True
        if not _is_listened_to(notification):
            return False
        if attachment is self._owner.current and not attachment.is_stateless:
            for stream, message in self._listeners.deliveries(notification):
                stream.deliver(message)
        return True

    def announce(self, message: bytes) -> None:
        """
        @param message: an encoded notification of our own: a new child offers something
            else than the one before.
        """
        with suppress(MessageError):
            notification = parse_child_line(message)
            if isinstance(notification, Notification):
                for stream in list(self._streams):
                    if stream.acknowledged and stream.wanted.wants(notification):
                        stream.deliver(tagged(notification, stream.id))

    def end(self) -> None:
        """The child, and whoever could come after it, is no more."""
        for stream in list(self._streams):
            stream.complete()

    # From streams

    def left(self, stream: "ListeningCall") -> None:
        """
        @param stream: is over.
        """
        if stream not in self._streams:
            return
        self._streams.remove(stream)
        changed = self._listeners.remove(stream)
        current = self._owner.current
        if current is not None and not current.is_stateless:
            self._tell(current, changed)
        self._owner.listeners_changed()

    def server_info(self) -> bytes | None:
        """
        @return: raw JSON object: who the child says it is.
        """
        return self._owner.server_info

    def _tell(self, attachment: Attachment, changed: Changed) -> None:
        for uri in changed.subscribe:
            attachment.ask("resources/subscribe", {"uri": uri})
        for uri in changed.unsubscribe:
            attachment.ask("resources/unsubscribe", {"uri": uri})


class ListeningCall:
    """
    One stream.

    @ivar id: raw JSON of the client's id, which names the subscription too.
    @ivar wanted: what the client wants to hear.
    @ivar acknowledged: whether the client knows what it will hear.
    @ivar is_over: whether nothing more comes.
    """

    def __init__(
        self,
        subscriptions: Subscriptions,
        modern: ModernRequest,
        observer: CallObserver,
        wanted: Filter,
    ) -> None:
        """
        @param subscriptions: has it.
        @param modern: the client's request.
        @param observer: gets the notifications.
        @param wanted: what the client wants to hear.
        """
        self.id = modern.id
        self.wanted = wanted
        self.acknowledged = False
        self.is_over = False
        self._subscriptions = subscriptions
        self._modern = modern
        self._observer = observer
        self._leg: _Leg | None = None

    @property
    def child(self) -> Child | None:
        """
        @return: who is listened to, when it is spoken to as in this revision.
        """
        return None if self._leg is None else self._leg.attachment.child

    def put(self, attachment: Attachment) -> None:
        """
        Go on at another child.

        @param attachment: of a child that has streams as requests.
        @raise TooManyPendingError: too many others wait for it.
        @raise ChildBusy: it does not read.
        @raise ChildGone: it has ended.
        """
        self._leg = _Leg(self, attachment)
        self._leg.begin(self._modern)

    def heard(self, leg: "_Leg", notification: Notification) -> None:
        """
        @param leg: where it came from; an earlier one is not listened to any more.
        @param notification: what the child says on this stream.
        """
        if leg is not self._leg:
            return
        if notification.method == ACKNOWLEDGED:
            if self.acknowledged:
                return  # by the child before
            self.acknowledged = True
        self.deliver(tagged(notification, self.id))

    def ended(self, leg: "_Leg", response: Response | None) -> None:
        """
        @param leg: what ended.
        @param response: the child's answer, C{None} when it tore the stream down.
        """
        if leg is not self._leg or leg.attachment.has_failed:
            return  # another child follows
        self._leg = None
        if response is not None and response.error is None:
            result = tagged_result(response.result or b"{}", self.id)
            self._finish(Response(self.id, result), 200)
        elif response is None or self.acknowledged:
            self.complete()
        else:
            code = None if response.error is None else code_of(response.error)
            status = 200 if code is None else status_of_code(code)
            self._finish(replace(response, id=self.id), status)

    def deliver(self, message: bytes) -> None:
        """
        @param message: encoded, for the client.
        """
        if not self.is_over:
            self._observer.notified(message)

    def complete(self) -> None:
        """End it in good order."""
        self._finish(completion(self.id, self._subscriptions.server_info()), 200)

    def abandon(self) -> None:
        """The client is gone."""
        if self.is_over:
            return
        self.is_over = True
        leg, self._leg = self._leg, None
        if leg is not None:
            leg.give_up("the client has gone")
        self._subscriptions.left(self)

    # Inside

    def _finish(self, response: Response, status: int) -> None:
        if not self.is_over:
            self.is_over = True
            self._subscriptions.left(self)
            self._observer.finished(response, status)


class _Leg:
    """
    A stream at one child.

    @ivar attachment: of the child.
    """

    takes_messages = True

    def __init__(self, stream: ListeningCall, attachment: Attachment) -> None:
        self.attachment = attachment
        self._stream = stream
        self._pending: Pending[Waiter] | None = None

    def begin(self, modern: ModernRequest) -> None:
        """Ask the child for it."""
        request = modern.request
        self._pending = self.attachment.relay(request, self, counts=False)

    def give_up(self, reason: str) -> None:
        """Cancel it at the child."""
        if self._pending is not None:
            self.attachment.give_up(self._pending, reason)

    def heard(self, notification: Notification) -> None:
        """The child says something on it."""
        self._stream.heard(self, notification)

    def notified(self, message: bytes) -> None:
        """
        @param message: names this request by a progress token, which says nothing.
        """

    def answered(self, response: Response) -> None:
        """
        @param response: the end of the stream: of the child, or ours.
        """
        self._stream.ended(self, response)

    def cancelled(self) -> None:
        """The child tore the stream down."""
        self._stream.ended(self, None)


_EVERYTHING: Final = Filter(tools=True, prompts=True, resources=True)


def _is_listened_to(notification: Notification) -> bool:
    """
    @return: whether clients hear of this on such streams alone.
    """
    return notification.method == UPDATED or _EVERYTHING.wants(notification)
