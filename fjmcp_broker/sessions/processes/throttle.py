"""Holding back a child whose messages a client reads too slowly."""

from collections.abc import Callable
from typing import Protocol

from fjmcp_broker.sessions.processes.child import Child


class OutputThrottle(Protocol):
    """
    What L{fjmcp_broker.sessions.processes.child.Child} offers to a stream.
    """

    def pause_output(self, who: object) -> None:
        """
        @param who: stops the reading of the child's output.
        """

    def resume_output(self, who: object) -> None:
        """
        @param who: allows it again.
        """


class NoThrottle:
    """For a stream after whose one message nothing comes."""

    def pause_output(self, who: object) -> None:
        """
        @param who: finds nothing to pause.
        """

    def resume_output(self, who: object) -> None:
        """
        @param who: finds nothing to resume.
        """


class PresentChild:
    """Throttles whichever child there is when the reader is too slow."""

    def __init__(self, find: Callable[[], Child | None]) -> None:
        """
        @param find: gives the child, C{None} when there is none.
        """
        self._find = find
        self._paused: Child | None = None

    def pause_output(self, who: object) -> None:
        """
        @param who: pauses the child that there is now.
        """
        self._paused = self._find()
        if self._paused is not None:
            self._paused.pause_output(who)

    def resume_output(self, who: object) -> None:
        """
        @param who: lets the same child go on.
        """
        paused, self._paused = self._paused, None
        if paused is not None:
            paused.resume_output(who)
