"""
A bound on memory that many share, such that none of them gets all of it.
"""

from collections import Counter

from attrs import frozen


@frozen
class MemoryBounds:
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

    def __init__(self, bounds: MemoryBounds) -> None:
        """
        @param bounds: how much there is.
        """
        self._bounds = bounds
        self._held_bytes = 0
        self._by_holder: Counter[str] = Counter()

    @property
    def held_bytes(self) -> int:
        """
        @return: how much is held.
        """
        return self._held_bytes

    def fits(self, holder: str | None, size_bytes: int) -> bool:
        """
        @param holder: who wants to hold something new; C{None}: nobody knows.
        @param size_bytes: of the whole of it.
        @return: whether there is room for it now.
        """
        return self._has_room(holder, size_bytes, size_bytes)

    def take(self, holder: str | None, more_bytes: int, size_bytes: int) -> bool:
        """
        @param holder: who holds it.
        @param more_bytes: to be held beside what is.
        @param size_bytes: of the thing that they belong to, these included.
        @return: whether there was room; if not, nothing has changed.
        """
        if not self._has_room(holder, more_bytes, size_bytes):
            return False
        self._held_bytes += more_bytes
        if holder is not None:
            self._by_holder[holder] += more_bytes
        return True

    def give_back(self, holder: str | None, fewer_bytes: int) -> None:
        """
        @param holder: as when they were taken.
        @param fewer_bytes: no more than were taken.
        """
        self._held_bytes -= fewer_bytes
        if holder is not None:
            self._by_holder[holder] -= fewer_bytes
            if not self._by_holder[holder]:
                del self._by_holder[holder]

    def _has_room(self, holder: str | None, more_bytes: int, size_bytes: int) -> bool:
        bounds = self._bounds
        limit = bounds.total_bytes
        if size_bytes > bounds.small_bytes:
            limit -= bounds.kept_for_small_bytes
        if self._held_bytes + more_bytes > limit:
            return False
        if holder is None:
            return True
        return self._by_holder[holder] + more_bytes <= bounds.per_holder_bytes


class Held:
    """
    What one thing holds while it grows.
    """

    def __init__(self, memory: Memory) -> None:
        """
        @param memory: where it is taken from.
        """
        self._memory = memory
        self._holder: str | None = None
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

    def belongs_to(self, holder: str | None, size_bytes: int) -> bool:
        """
        Say whose it is, and how large it will be.

        @param holder: who holds it from now on.
        @param size_bytes: of the whole, as far as it is known; else 0.
        @return: whether there is room for it; if not, it holds nothing any more.
        """
        already = self._bytes
        self.release()
        self._holder = holder
        size = max(already, size_bytes)
        return self._memory.fits(holder, size) and self.grow(already)

    def release(self) -> None:
        """Hold nothing."""
        size, self._bytes = self._bytes, 0
        if size:
            self._memory.give_back(self._holder, size)
