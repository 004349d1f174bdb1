"""Requests that the broker makes of a child for itself, and answers of its own."""

import json
from collections.abc import Callable

from fjmcp_broker.mcp.messages import INTERNAL_ERROR, Response


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


def failure(id: bytes, reason: str, told: str) -> Response:
    """
    @param id: raw JSON of the request's id.
    @param reason: short, C{data.reason}.
    @param told: one sentence.
    @return: an answer of our own where the child gives none.
    """
    error = {"code": INTERNAL_ERROR, "message": told, "data": {"reason": reason}}
    return Response(id, error=json.dumps(error).encode())
