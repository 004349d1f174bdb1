"""
Requests that wait until their session has a child, and that their client takes back
meanwhile (MCP 2025-11-25, basic, utilities, cancellation). No child knows them yet.
"""

from collections.abc import Hashable, Iterable, Iterator
from contextlib import contextmanager
from typing import Final

from fjmcp_broker.mcp.correlation import CANCELLED
from fjmcp_broker.mcp.messages import NULL, Message, Notification, Request, id_key


class Waiting:
    """
    The requests of one POST.
    """

    def __init__(self, messages: Iterable[object]) -> None:
        """
        @param messages: what is in the POST.
        """
        self._keys = {id_key(m.id) for m in messages if isinstance(m, Request)}
        self._recalled: set[bytes] = set()

    def recall(self, key: bytes) -> bool:
        """
        @param key: of the id of a request.
        @return: whether it is one of these.
        """
        if key not in self._keys:
            return False
        self._recalled.add(key)
        return True

    def has_lost(self, request: Request) -> bool:
        """
        @param request: one of these.
        @return: whether its client has taken it back.
        """
        return bool(self._recalled) and id_key(request.id) in self._recalled


NOBODY: Final = Waiting(())
"""For a POST that did not wait."""


class Recall:
    """
    What waits for a child, in all sessions.
    """

    def __init__(self) -> None:
        """Nothing waits."""
        self._waiting: dict[Hashable, set[Waiting]] = {}

    @contextmanager
    def waiting(
        self, session: Hashable, messages: Iterable[object]
    ) -> Iterator[Waiting]:
        """
        @param session: whose requests they are.
        @param messages: what is in one POST.
        @return: to be asked at the end of the wait which of them are still wanted.
        """
        waiting = Waiting(messages)
        group = self._waiting.setdefault(session, set())
        group.add(waiting)
        try:
            yield waiting
        finally:
            group.discard(waiting)
            if not group:
                del self._waiting[session]

    def takes(self, session: Hashable, message: Message) -> bool:
        """
        @param session: where it comes from.
        @param message: a message of its client.
        @return: whether it takes back a request that waits, so that it concerns no
            child.
        """
        if not isinstance(message, Notification) or message.method != CANCELLED:
            return False
        key = id_key(message.members.get("requestId", NULL))
        return any([each.recall(key) for each in self._waiting.get(session, ())])
