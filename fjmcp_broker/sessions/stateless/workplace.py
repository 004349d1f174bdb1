"""
Where requests of the stateless revisions are answered: a child and its successors, for
one grant; one that all requests share, or one that a request has for itself.

A child of an older revision does not say which request a message of its own is about.
It is about the only one in flight, if there is just one; else it is about nobody.
"""

from functools import partial
from itertools import count
from typing import Final, Protocol

from twisted.internet.interfaces import IReactorTime

from fjmcp_broker.mcp.correlation import ChildNotification, ChildRequest
from fjmcp_broker.mcp.messages import (
    INTERNAL_ERROR,
    METHOD_NOT_FOUND,
    Request,
    Response,
    encode_error,
    encode_request,
    encode_result,
    parse,
)
from fjmcp_broker.mcp.modern.edits import members_of, object_of
from fjmcp_broker.mcp.modern.listening import LISTEN
from fjmcp_broker.mcp.modern.profiles import (
    ChildEra,
    ChildProfile,
    initialize_params,
)
from fjmcp_broker.mcp.modern.requests import ModernRequest
from fjmcp_broker.mcp.policy import ToolCatalogue
from fjmcp_broker.sessions.children.attachment import Attachment
from fjmcp_broker.sessions.children.greeting import STATELESS_PARAMS
from fjmcp_broker.sessions.children.ours import OurWaiter
from fjmcp_broker.sessions.children.roles import ChildrenKeeper, Resident
from fjmcp_broker.sessions.children.succession import Children
from fjmcp_broker.sessions.children.waiting import Opening, Waiter
from fjmcp_broker.sessions.errors import ChildGone, SessionGone
from fjmcp_broker.sessions.handshake import Identity, Told
from fjmcp_broker.sessions.list_changed import Sight
from fjmcp_broker.sessions.processes.stopping import at_most
from fjmcp_broker.sessions.stateless.calls import Call, CallObserver
from fjmcp_broker.sessions.stateless.parked import ParkedCalls
from fjmcp_broker.sessions.stateless.relayed import LOG_MESSAGE, RelayedCall
from fjmcp_broker.sessions.stateless.subscriptions import Subscriptions
from fjmcp_broker.version import VERSION

LOG_LEVEL_SECONDS: Final = 2.0
DOUBT_SECONDS: Final = 30.0
"""So long after a request was given up, the child may still be speaking of it."""


class WorkplaceOwner(ChildrenKeeper, Protocol):
    """
    What a place for requests of the stateless revisions needs of the registry.
    """

    def workplace_ended(self, place: Resident) -> None:
        """
        @param place: is no more.
        """


class Home(Protocol):
    """
    Whose workplace it is. Each of them keeps it alive.
    """

    def place_unused(self, place: "Workplace") -> None:
        """
        @param place: the request that it was for is over, or did not come.
        """

    def place_ended(self, place: "Workplace") -> None:
        """
        @param place: is no more.
        """


class Workplace:
    """
    Answers requests.

    @ivar digest: of the grant.
    @ivar name: for the log.
    @ivar grant_id: the grant.
    @ivar user_id: whose it is.
    @ivar children: they come and go.
    @ivar parked: the calls that wait for their clients.
    @ivar failure: why it answers nothing any more, C{None} as long as it does.
    @ivar catalogue: what is known of the tools of its child.
    @ivar server_info: raw JSON object: who its child says it is.
    @ivar capabilities: raw JSON object: what its child declares.
    """

    def __init__(
        self,
        home: Home,
        identity: Identity,
        digest: bytes,
        name: str,
        owner: WorkplaceOwner,
        catalogue: ToolCatalogue,
        sight: Sight,
        parked: ParkedCalls,
        *,
        is_shared: bool,
    ) -> None:
        """
        @param home: hears of its end.
        @param identity: whose it is.
        @param digest: of the grant.
        @param name: for the log, in url-safe characters.
        @param owner: the registry.
        @param catalogue: of tools, until the child has said what it is.
        @param sight: what is remembered of the children.
        @param parked: has the grant's calls that wait for their clients.
        @param is_shared: whether it is for many requests, and lasts.
        """
        self.digest = digest
        self.name = name
        self.grant_id = identity.grant_id
        self.user_id = identity.user_id
        self.parked = parked
        self.catalogue = self._known_tools = catalogue
        self.server_info: bytes | None = None
        self.capabilities = b"{}"
        self.children = Children(
            self,
            Told(_INITIALIZE),
            owner,
            sight.backoff,
            stateless=True,
            is_replaced=is_shared,
        )
        self._owner = owner
        self._sight = sight
        self._is_shared = is_shared
        self._subscriptions = Subscriptions(self)
        self._numbers = count(1)
        self._doubts: dict[str, float] = {}
        self._home = home
        self.failure: Exception | None = None

    @property
    def clock(self) -> IReactorTime:
        """
        @return: tells the time.
        """
        return self._owner.clock

    @property
    def current(self) -> Attachment | None:
        """
        @return: the child that is spoken to, if there is one.
        """
        return self.children.current

    @property
    def is_needed(self) -> bool:
        """
        @return: whether it is more than a memory.
        """
        return self.failure is None and bool(
            self.children.are_needed or len(self._subscriptions)
        )

    def end(
        self,
        reason: str,
        *,
        at_once: bool = False,
        told: str = "",
        error: Exception | None = None,
    ) -> None:
        """
        Answer nothing any more: whoever waits gets an error, streams end in good order,
        the children are stopped.

        @param reason: short, for the log and C{data.reason}.
        @param at_once: kill the children instead of letting them finish.
        @param told: one sentence for those who wait.
        @param error: for those who wait for a child.
        """
        if self.failure is not None:
            return
        self.failure = error or SessionGone("the connection was closed")
        self._subscriptions.end()
        self.children.close(
            reason,
            told or "the connection was closed",
            at_once=at_once,
            error=self.failure,
        )
        self._home.place_ended(self)
        self._owner.workplace_ended(self)

    async def set_log_level(self, level: str | None) -> None:
        """
        Let the child say what a request wants to hear; no other request must be here.

        @param level: the least severe, C{None} for nothing.
        @raise TooManyPendingError: too many others wait for the child.
        @raise ChildBusy: it does not read.
        @raise ChildGone: it has just ended.
        """
        attachment = self.children.current
        declared = members_of(self.capabilities) or {}
        if level is None or attachment is None or attachment.is_stateless:
            return
        if "logging" in declared:
            heard = Opening()
            request = Request(
                b"0", "logging/setLevel", b'{"level":"%s"}' % level.encode()
            )
            # In flight, so that nobody puts the child to sleep meanwhile.
            pending = attachment.relay(request, OurWaiter(heard.answered))
            await at_most(heard.response, LOG_LEVEL_SECONDS, self.clock)
            attachment.give_up(pending, "it took too long")

    @property
    def is_spare(self) -> bool:
        """
        @return: whether there is a child that is ready for a request, and is done with
            all that came before.
        """
        attachment = self.children.current
        return (
            self.failure is None
            and attachment is not None
            and attachment.usable()
            and self.children.is_idle
            and not self._doubtful(attachment)
        )

    def unused(self) -> None:
        """The request that it was for is over, or did not come."""
        if not self._is_shared:
            self._home.place_unused(self)

    def begin(self, modern: ModernRequest, observer: CallObserver) -> Call:
        """
        Relay a request.

        @param modern: judged, and allowed by the policy.
        @param observer: gets the answer.
        @return: the call.
        @raise TooManyPendingError: too many others wait for the child.
        @raise ChildBusy: the child does not read.
        @raise ChildGone: it has just ended.
        @raise ModernError: what it wants to listen to is malformed.
        """
        attachment = self.children.current
        if attachment is None:
            raise ChildGone("there is no child")
        if modern.method == LISTEN:
            return self._subscriptions.begin(attachment, modern, observer)
        number = str(next(self._numbers))
        call = RelayedCall(self, attachment, modern, observer, number)
        return call.begin(observer)

    # From children

    def child_answered(self, attachment: Attachment, result: bytes) -> None:
        """
        @param attachment: of a new child.
        @param result: its answer to C{initialize}, or to C{server/discover}.
        """
        if attachment.is_stateless:
            said = ChildProfile(ChildEra.MODERN, discover_result=result)
            info = said.server_info
            members = {} if info is None else {"serverInfo": info}
            self.catalogue = self._known_tools.for_server(object_of(members))
        else:
            said = ChildProfile(ChildEra.LEGACY, initialize_result=result)
            self.catalogue = self._known_tools.for_server(result)
        self.server_info, self.capabilities = said.server_info, said.capabilities
        self._announce(self._sight.child_said(result))

    def child_promoted(self, attachment: Attachment) -> None:
        """
        @param attachment: of the child that requests go to now.
        """
        self._subscriptions.renew(attachment)
        if len(self._subscriptions):
            params = STATELESS_PARAMS if attachment.is_stateless else {}
            for method in list(self._sight.lists):
                attachment.ask(method, params, partial(self._compare, method))

    def answering(self, waiter: Waiter) -> None:
        """
        @param waiter: is about to get its answer; nothing goes before that.
        """

    def asked(self, attachment: Attachment, asked: ChildRequest) -> None:
        """
        @param attachment: where it came from.
        @param asked: a question of the child, which waits for an answer.
        """
        id = asked.request.id
        if asked.request.method == "ping":
            attachment.tell(encode_result(id, b"{}"))
            return
        if attachment.is_stateless:
            told = "this revision has no requests to clients"
            attachment.tell(encode_error(id, METHOD_NOT_FOUND, told))
            return
        calls = [call for call in self._calls(attachment) if call.modern.may_be_asked]
        if len(calls) == 1 and not self._doubtful(attachment):
            calls[0].asked(asked.request)
            return
        told = "no client can be asked now"
        reason = {"reason": "no_single_call"}
        attachment.tell(encode_error(id, INTERNAL_ERROR, told, reason))

    def belongs_to_none(self, attachment: Attachment, event: ChildNotification) -> None:
        """
        @param attachment: where it came from.
        @param event: a notification that names no request.
        """
        notification = event.notification
        if self._subscriptions.takes(attachment, notification):
            return
        calls = self._calls(attachment)
        if attachment.is_stateless:
            if notification.method == LOG_MESSAGE:
                # It is silent about any other.
                calls = [call for call in calls if call.modern.log_level is not None]
        elif self._doubtful(attachment):
            return
        if len(calls) == 1:
            calls[0].told(notification)

    # From calls and streams

    def call_heard(self, modern: ModernRequest, result: bytes) -> None:
        """
        @param modern: what was asked.
        @param result: raw: what its client is about to see.
        """
        self._sight.client_saw(modern.request, result)

    def call_given_up(self, attachment: Attachment) -> None:
        """
        @param attachment: may still be at a call that nobody wants any more.
        """
        if not attachment.is_stateless:
            self._doubts[attachment.label] = self.clock.seconds() + DOUBT_SECONDS

    def call_over(self, call: RelayedCall) -> None:
        """
        @param call: nothing comes of it any more.
        """
        self.unused()

    def listeners_changed(self) -> None:
        """A stream came or went."""
        self._owner.session_changed(self)

    # Inside

    def _calls(self, attachment: Attachment) -> list[RelayedCall]:
        waiters = (pending.waiter for pending in attachment.calls)
        return [waiter for waiter in waiters if isinstance(waiter, RelayedCall)]

    def _doubtful(self, attachment: Attachment) -> bool:
        now = self.clock.seconds()
        self._doubts = {
            label: until for label, until in self._doubts.items() if until > now
        }
        return attachment.label in self._doubts

    def _announce(self, messages: list[bytes]) -> None:
        for message in messages:
            self._subscriptions.announce(message)

    def _compare(self, method: str, response: Response) -> None:
        """A new child was asked for what clients have seen of another one."""
        if response.result is not None:
            self._announce(self._sight.child_listed(method, response.result))


def _initialize() -> Request:
    line = encode_request(b"0", "initialize", initialize_params(VERSION))
    request = parse(line)
    assert isinstance(request, Request)  # noqa: S101 - it was made as one
    return request


_INITIALIZE: Final = _initialize()
