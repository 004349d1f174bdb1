"""
Token buckets: so many requests in so much time, and as many at once.

A bucket is one number, the moment at which it will be full again. One that is full
needs no memory, so that forgetting it changes nothing.
"""

from collections import OrderedDict
from typing import Final

import msgspec

DEFAULT_MAXIMUM_BUCKETS: Final = 10_000
"""Each has some 240 bytes."""


class Rate(msgspec.Struct, frozen=True):
    """
    So many requests at once, and as many again in each period.

    @ivar count: tokens in a full bucket, 1 or more.
    @ivar period_seconds: how long an empty bucket takes to fill, 1 or more.
    """

    count: int
    period_seconds: int

    def times(self, factor: int) -> "Rate":
        """
        @param factor: 1 or more.
        @return: that many times as much.
        """
        return Rate(self.count * factor, self.period_seconds)


class Bucket:
    """
    One bucket.

    @ivar full_at: when it is full, in units of C{1 / rate.count} seconds since the
        epoch: then a token is C{rate.period_seconds} of them, and nothing is rounded.
    """

    __slots__ = ("full_at",)

    def __init__(self) -> None:
        """A full one."""
        self.full_at = 0

    def wait_seconds(self, rate: Rate, now: int) -> int:
        """
        @param rate: of the bucket, always the same.
        @param now: whole seconds since the epoch; may be less than before.
        @return: how long until it has a token, 0 when it has one.
        """
        missing = self._missing(rate, now)
        excess = missing + rate.period_seconds - rate.count * rate.period_seconds
        return max(0, -(-excess // rate.count))

    def take(self, rate: Rate, now: int) -> None:
        """
        Take a token; L{wait_seconds} has said that there is one.

        @param rate: of the bucket.
        @param now: whole seconds since the epoch.
        """
        missing = self._missing(rate, now) + rate.period_seconds
        self.full_at = now * rate.count + missing

    def give_back(self, rate: Rate, now: int) -> None:
        """
        @param rate: of the bucket, which gets one token more than it has.
        @param now: whole seconds since the epoch.
        """
        missing = self._missing(rate, now) - rate.period_seconds
        self.full_at = now * rate.count + max(0, missing)

    def is_full(self, rate: Rate, now: int) -> bool:
        """
        @param rate: of the bucket.
        @param now: whole seconds since the epoch.
        @return: whether it is as good as a new one.
        """
        return self.full_at <= now * rate.count

    def _missing(self, rate: Rate, now: int) -> int:
        missing = max(0, self.full_at - now * rate.count)
        # A clock that was set back must not keep a bucket empty for a year.
        return min(missing, rate.count * rate.period_seconds)


class Buckets:
    """
    A bucket for each key, up to a number of them. The one that was asked about
    longest ago is forgotten first: whoever brings many keys has forgotten only what
    would have held somebody up.
    """

    def __init__(
        self, rate: Rate, maximum_buckets: int = DEFAULT_MAXIMUM_BUCKETS
    ) -> None:
        """
        @param rate: of each.
        @param maximum_buckets: that are remembered.
        """
        self.rate = rate
        self._maximum_buckets = maximum_buckets
        self._buckets: OrderedDict[str, Bucket] = OrderedDict()

    def __len__(self) -> int:
        """
        @return: how many are remembered.
        """
        return len(self._buckets)

    def wait_seconds(self, key: str, now: int) -> int:
        """
        @param key: whose bucket.
        @param now: whole seconds since the epoch.
        @return: how long until it has a token, 0 when it has one.
        """
        bucket = self._buckets.get(key)
        if bucket is None:
            return 0
        if bucket.is_full(self.rate, now):
            del self._buckets[key]
            return 0
        self._buckets.move_to_end(key)
        return bucket.wait_seconds(self.rate, now)

    def take(self, key: str, now: int) -> None:
        """
        Take a token; L{wait_seconds} has said that there is one.

        @param key: whose bucket.
        @param now: whole seconds since the epoch.
        """
        bucket = self._buckets.get(key)
        if bucket is None:
            self._make_room(now)
            bucket = self._buckets[key] = Bucket()
        bucket.take(self.rate, now)

    def give_back(self, key: str, now: int) -> None:
        """
        @param key: whose bucket gets one token more than it has.
        @param now: whole seconds since the epoch.
        """
        bucket = self._buckets.get(key)
        if bucket is not None:
            bucket.give_back(self.rate, now)
            if bucket.is_full(self.rate, now):
                del self._buckets[key]

    def _make_room(self, now: int) -> None:
        # Two for each that comes, so that full ones do not pile up.
        for _ in range(2):
            if not self._buckets:
                return
            oldest = next(iter(self._buckets))
            is_crowded = len(self._buckets) >= self._maximum_buckets
            if is_crowded or self._buckets[oldest].is_full(self.rate, now):
                del self._buckets[oldest]
