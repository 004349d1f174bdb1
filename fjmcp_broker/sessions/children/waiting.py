"""Who waits for the answer to a request, or listens to what belongs to none."""

from typing import Protocol

from twisted.internet.defer import Deferred

from fjmcp_broker.mcp.messages import Response


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
