"""How many requests may wait until one child is there."""

from collections.abc import Awaitable, Callable, Hashable
from typing import TypeVar

from fjmcp_broker.mcp.correlation import DEFAULT_MAXIMUM_PENDING, TooManyPendingError

T = TypeVar("T")


class WakingLimit:
    """
    Counts those who wait, for each session by itself.

    @ivar maximum: how many may wait for one session.
    """

    def __init__(self, maximum: int = DEFAULT_MAXIMUM_PENDING) -> None:
        """
        @param maximum: how many may wait for one session.
        """
        self.maximum = maximum
        self._waiting: dict[Hashable, int] = {}

    async def wait(self, session: Hashable, awake: Callable[[], Awaitable[T]]) -> T:
        """
        @param session: what is counted against.
        @param awake: waits for its child.
        @return: what that gave.
        @raise TooManyPendingError: so many requests wait for a child already.
        """
        waiting = self._waiting.get(session, 0)
        if waiting >= self.maximum:
            raise TooManyPendingError("too many requests wait for a child")
        self._waiting[session] = waiting + 1
        try:
            return await awake()
        finally:
            self._waiting[session] -= 1
            if not self._waiting[session]:
                del self._waiting[session]
