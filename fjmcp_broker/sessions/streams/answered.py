"""What a stream needs of the HTTP request that it answers."""

from collections.abc import Callable
from typing import Any, Protocol

from twisted.python.failure import Failure
from twisted.web.http_headers import Headers


class AnsweredRequest(Protocol):
    """
    L{fjmcp_broker.web.request.BrokerRequest}, as far as a stream knows it.

    @ivar on_lost: is told that the client has gone before it was answered.
    @ivar responseHeaders: of the answer.
    @ivar transport: the connection.
    """

    on_lost: Callable[[Failure], None] | None
    responseHeaders: Headers  # noqa: N815 - Twisted's
    transport: Any

    def setResponseCode(self, code: int) -> None:  # noqa: N802 - Twisted's
        """
        @param code: the HTTP status.
        """

    def registerProducer(  # noqa: N802 - Twisted's
        self, producer: Any, streaming: bool
    ) -> None:
        """
        @param producer: hears when the client does not keep up.
        @param streaming: whether it goes on by itself.
        """

    def unregisterProducer(self) -> None:  # noqa: N802 - Twisted's
        """It hears nothing more."""

    def write(self, data: bytes) -> None:
        """
        @param data: the next bytes of the answer.
        """

    def finish(self) -> None:
        """The answer is complete."""

    def answer_whole(self, status: int, document: bytes) -> None:
        """
        Give the whole answer at once.

        @param status: of HTTP.
        @param document: JSON, its body.
        """
