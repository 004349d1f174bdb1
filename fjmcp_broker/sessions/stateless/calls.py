"""
Who waits for the answer to a request of the stateless revisions, and what the waiting
one may do. Sessions give out L{Lease}s and L{Call}s; the endpoint watches.
"""

from typing import Protocol

from fjmcp_broker.mcp.messages import Response
from fjmcp_broker.mcp.modern.requests import ModernRequest
from fjmcp_broker.mcp.policy import ToolCatalogue
from fjmcp_broker.sessions.processes.child import Child


class CallObserver(Protocol):
    """
    Who made a request.
    """

    @property
    def takes_messages(self) -> bool:
        """
        @return: whether messages before the answer still reach the client.
        """

    def notified(self, message: bytes) -> None:
        """
        @param message: an encoded notification in the form of the client's revision,
            with the client's own progress token or subscription id.
        """

    def finished(self, response: Response, status: int) -> None:
        """
        Called once, possibly before L{Lease.begin} returns; nothing follows.

        @param response: the answer in the form of the client's revision, under the
            client's id. It may be an C{input_required} result.
        @param status: the HTTP status, if none has been sent yet.
        """


class Call(Protocol):
    """
    One request of a client's, as long as its HTTP request lasts.
    """

    @property
    def child(self) -> Child | None:
        """
        @return: who answers it now, for holding back its output; C{None} when there
            is nobody, as for a listener whose child sleeps.
        """

    def abandon(self) -> None:
        """
        The client is gone: the request is cancelled at the child, what it listened to
        ends. Nothing after the answer.
        """


class Lease(Protocol):
    """
    The right to make one request, from L{SharedSession.awake}. Use it at once: between
    the two there is no wait. It ends with L{begin}, or with L{release} without it.
    """

    @property
    def catalogue(self) -> ToolCatalogue:
        """
        @return: what is known of the tools of its child, for the policy.
        """

    def begin(self, modern: ModernRequest, observer: CallObserver) -> Call:
        """
        Relay the request. Whatever it raises, the lease is over.

        @param modern: judged, and allowed by the policy; the one that the lease was
            given for.
        @param observer: gets the answer.
        @return: the call.
        @raise TooManyPendingError: too many others wait for the child.
        @raise ChildBusy: the child does not read.
        @raise ChildGone: it has just ended.
        @raise ModernError: its C{requestState} is not acceptable, or what it names is
            lost (C{data.reason} is C{generation_lost}).
        """

    def release(self) -> None:
        """
        Give it back unused, as when the policy refuses the request. Nothing after
        L{begin}, and nothing the second time.
        """
