"""
A bound on memory that many share, such that none of them gets all of it.
"""

from collections.abc import Callable

import msgspec

Holder = str | int
"""Whose memory it is: a network, or a user."""


class MemoryBounds(msgspec.Struct, frozen=True):
    """
    How much there is.

    @ivar total_bytes: for all together.
    @ivar per_holder_bytes: for each whose name is known.
    @ivar small_bytes: the beginning of everything that is held; what goes beyond it
        is large.
    @ivar kept_for_small_bytes: of the total; nothing large gets into it.
    """

    total_bytes: int
    per_holder_bytes: int
    small_bytes: int = 64 * 1024
    kept_for_small_bytes: int = 0


class Memory:
    """
    What is held of it.
    """

    def __init__(
        self, bounds: MemoryBounds, on_full: Callable[[], None] = lambda: None
    ) -> None:
        """
        @param bounds: how much there is.
        @param on_full: called when there was no room for something.
        """
        self._bounds = bounds
        self._on_full = on_full
        self._held_bytes = 0
        self._by_holder: dict[Holder, int] = {}

    @property
    def held_bytes(self) -> int:
        """
        @return: how much is held.
        """
        return self._held_bytes

    def fits(
        self, holder: Holder | None, size_bytes: int, more_bytes: int | None = None
    ) -> bool:
        """
        @param holder: who wants to hold something; C{None}: nobody knows.
        @param size_bytes: of the whole of it.
        @param more_bytes: how much of that is not held yet, all of it by default.
        @return: whether there is room for it now.
        """
        if more_bytes is None:
            more_bytes = size_bytes
        bounds = self._bounds
        limit = bounds.total_bytes
        if size_bytes > bounds.small_bytes:
            limit -= bounds.kept_for_small_bytes
        if self._held_bytes + more_bytes <= limit and (
            holder is None
            or self._by_holder.get(holder, 0) + more_bytes <= bounds.per_holder_bytes
        ):
            return True
        self._on_full()
        return False

    def take(self, holder: Holder | None, more_bytes: int, size_bytes: int) -> bool:
        """
        @param holder: who holds it.
        @param more_bytes: to be held beside what is.
        @param size_bytes: of the thing that they belong to, these included.
        @return: whether there was room; if not, nothing has changed.
        """
        if not self.fits(holder, size_bytes, more_bytes):
            return False
        self._held_bytes += more_bytes
        if holder is not None and more_bytes:
            self._by_holder[holder] = self._by_holder.get(holder, 0) + more_bytes
        return True

    def give_back(self, holder: Holder | None, fewer_bytes: int) -> None:
        """
        @param holder: as when they were taken.
        @param fewer_bytes: no more than were taken.
        """
        self._held_bytes -= fewer_bytes
        if holder is not None:
            left = self._by_holder[holder] - fewer_bytes
            if left:
                self._by_holder[holder] = left
            else:
                del self._by_holder[holder]


class Held:
    """
    What one thing holds while it grows.
    """

    __slots__ = ("_bytes", "_holder", "_memory")

    def __init__(self, memory: Memory) -> None:
        """
        @param memory: where it is taken from.
        """
        self._memory = memory
        self._holder: Holder | None = None
        self._bytes = 0

    def grow(self, more_bytes: int) -> bool:
        """
        @param more_bytes: that come to it.
        @return: whether there was room; if not, nothing has changed.
        """
        size = self._bytes + more_bytes
        if not self._memory.take(self._holder, more_bytes, size):
            return False
        self._bytes = size
        return True

    def hold(self, holder: Holder | None, size_bytes: int) -> bool:
        """
        Take all of it at once, of what holds nothing yet: as L{belongs_to} and L{grow}.

        @param holder: who holds it.
        @param size_bytes: of the whole.
        @return: whether there was room; if not, it holds nothing.
        """
        self._holder = holder
        if not self._memory.take(holder, size_bytes, size_bytes):
            return False
        self._bytes = size_bytes
        return True

    def belongs_to(self, holder: Holder | None, size_bytes: int) -> bool:
        """
        Say whose it is, and how large it will be.

        @param holder: who holds it from now on.
        @param size_bytes: of the whole, as far as it is known; else 0.
        @return: whether there is room for it; if not, it holds nothing any more.
        """
        already = self._bytes
        if already:
            self.release()
        self._holder = holder
        fits = self._memory.fits(holder, max(already, size_bytes))
        return fits and (not already or self.grow(already))

    def release(self) -> None:
        """Hold nothing."""
        size, self._bytes = self._bytes, 0
        if size:
            self._memory.give_back(self._holder, size)
