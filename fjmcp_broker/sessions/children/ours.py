"""Requests that the broker makes of a child for itself, and answers of its own."""

import json
from collections.abc import Callable

from twisted.logger import Logger

from fjmcp_broker.mcp.messages import INTERNAL_ERROR, MessageError, Response


class OurWaiter:
    """
    Waits for the answer to a request of our own.
    """

    takes_messages = False

    def __init__(self, then: Callable[[Response], None]):
        """
        @param then: hears the answer.
        """
        self._then = then

    def notified(self, message: bytes) -> None:
        """
        @param message: dropped: no client knows of the request.
        """

    def answered(self, response: Response) -> None:
        """
        @param response: the answer.
        """
        self._then(response)

    def cancelled(self) -> None:
        """Cannot happen: no client knows its id."""


class Unreadable:
    """
    What a child wrote that is no message.
    """

    log = Logger()

    def __init__(self, name: str) -> None:
        """
        @param name: of the session, for the log.
        """
        self._name = name
        self._count = 0

    def add(self, error: MessageError) -> None:
        """
        @param error: what is wrong with one more line.
        """
        self._count += 1
        if self._count.bit_count() == 1:
            # 1, 2, 4, 8 …: however much it is, the log stays readable.
            self.log.warn(
                "session {session}: child wrote what is no message: {error}"
                " ({count} so far)",
                session=self._name,
                error=error.message,
                count=self._count,
            )


def failure(id: bytes, reason: str, told: str) -> Response:
    """
    @param id: raw JSON of the request's id.
    @param reason: short, C{data.reason}.
    @param told: one sentence.
    @return: an answer of our own where the child gives none.
    """
    error = {"code": INTERNAL_ERROR, "message": told, "data": {"reason": reason}}
    return Response(id, error=json.dumps(error).encode())
