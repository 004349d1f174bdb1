"""How long a session waits after children that end soon after their start."""

import math
from typing import Final

from fjmcp_broker.sessions.errors import ChildCannotStart

QUICK_SECONDS: Final = 10.0
"""A child that lived shorter than that has not been of much use."""

FIRST_SECONDS: Final = 1.0
LAST_SECONDS: Final = 30.0
READY_SECONDS: Final = 4.0
"""The longest wait after one that had answered C{initialize}: the next one works too,
most likely."""

HELD_SECONDS: Final = READY_SECONDS
"""A request waits so long by itself; beyond that it is refused."""


class Backoff:
    """
    Counts the children that ended quickly one after another. The first one may be an
    accident and is replaced at once. One that was killed by somebody else is no sign
    of anything, and is not counted.
    """

    __slots__ = ("_quick", "_said", "_until")  # thousands of sessions have one

    def __init__(self) -> None:
        """Nothing went wrong yet."""
        self._quick = 0
        self._until = 0.0
        self._said = ""

    def ended(self, now: float, lived_seconds: float | None, said: str) -> None:
        """
        @param now: seconds since the epoch.
        @param lived_seconds: from ready to end, C{None} for one that never was ready.
        @param said: its last words.
        """
        if lived_seconds is not None and lived_seconds >= QUICK_SECONDS:
            self._quick = 0
            return
        self._quick += 1
        self._said = said
        if self._quick > 1:
            longest = LAST_SECONDS if lived_seconds is None else READY_SECONDS
            wait = FIRST_SECONDS * 2 ** min(self._quick - 2, 10)
            self._until = now + min(wait, longest)

    def stopped(self, lived_seconds: float) -> None:
        """
        @param lived_seconds: of a child that was stopped or killed by somebody else,
            from ready to end.
        """
        if lived_seconds >= QUICK_SECONDS:
            self._quick = 0

    def left(self, now: float) -> float:
        """
        @param now: seconds since the epoch.
        @return: for how many seconds it is too early for the next one.
        """
        # A clock that was set back must not keep anybody waiting.
        left = self._until - now
        return left if 0 < left <= LAST_SECONDS else 0.0

    def check(self, now: float) -> None:
        """
        @param now: seconds since the epoch.
        @raise ChildCannotStart: it is too early for the next one, by more than a
            request waits.
        """
        left = self.left(now)
        if left > HELD_SECONDS:
            said = f": {self._said}" if self._said else ""
            raise ChildCannotStart(
                f"the child keeps ending, next start in {math.ceil(left)} s{said}"
            )
