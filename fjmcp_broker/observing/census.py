"""
How many sessions there are, in which state.
"""

from collections import Counter
from collections.abc import Awaitable, Callable, Iterable
from typing import Final

from fjmcp_broker.mcp.lifecycle import State
from fjmcp_broker.observing.labels import SHOWN_STATES, SessionKind
from fjmcp_broker.series import Watched
from fjmcp_broker.sessions.children.roles import Resident
from fjmcp_broker.sessions.stateless.workplace import Workplace
from fjmcp_broker.store.errors import StoreError

COUNT_SECONDS: Final = 5.0
"""The rows are counted so often, whoever looks."""

PAUSE: Final = 100
"""After a count nothing is counted for so many times as long as it took."""


class Census:
    """
    Counts the sessions that are more than their rows whenever it is asked, the rows
    now and then.
    """

    def __init__(
        self,
        rows: Callable[[], Awaitable[int]],
        residents: Iterable[Resident],
        seconds: Callable[[], float],
    ) -> None:
        """
        @param rows: counts those of open sessions in the store.
        @param residents: the sessions that are more than their rows.
        @param seconds: the time.
        """
        self._count_rows = rows
        self._residents = residents
        self._rows: int | None = None
        self._seconds = seconds
        self._due_at = seconds()

    async def count(self) -> None:
        """
        Count the rows of open sessions, unless that would be too much of it. What
        cannot be known is not shown.
        """
        began = self._seconds()
        if began < self._due_at:
            return
        try:
            self._rows = await self._count_rows()
        except StoreError:
            # It is counted as a failed transaction, and others have logged it.
            self._rows = None
        self._due_at = began + PAUSE * (self._seconds() - began)

    def states(self) -> Watched:
        """
        @return: the numbers, by kind and state.
        """
        found = Counter((_kind(each), each.children.state) for each in self._residents)
        if self._rows is not None:
            stateful = SessionKind.STATEFUL
            awake = sum(found[stateful, state] for state in SHOWN_STATES[1:])
            # The rows may be those of a moment ago.
            asleep = max(self._rows - awake, found[stateful, State.DORMANT])
            found[stateful, State.DORMANT] = asleep
        return {
            (kind.value, state.value): found[kind, state]
            for kind in SessionKind
            for state in SHOWN_STATES
        }


def _kind(session: Resident) -> SessionKind:
    is_stateless = isinstance(session, Workplace)
    return SessionKind.STATELESS if is_stateless else SessionKind.STATEFUL
