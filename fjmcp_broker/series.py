"""
Counters and histograms that cost next to nothing where things happen.

The library's own take a lock and look for their series with each event, and go through
the buckets one by one. Here an event is two additions to numbers of the event loop, and
Prometheus' samples are made of them when somebody looks.
"""

from bisect import bisect_left
from collections.abc import Sequence
from itertools import accumulate

from prometheus_client.core import (
    CounterMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString


class Series:
    """
    How often things of one kind were done, and how long they took. It belongs to the
    event loop.

    @ivar count: how often.
    @ivar seconds: how long those together took whose time is known.
    @ivar by_bucket: how many of these took up to each of the bounds and more than the
        one before; the last ones took more than all of them.
    """

    __slots__ = ("_bounds", "by_bucket", "count", "seconds")

    def __init__(self, bounds: Sequence[float]) -> None:
        """
        @param bounds: of the buckets, ascending.
        """
        self._bounds = bounds
        self.count = 0
        self.seconds = 0.0
        self.by_bucket = [0] * (len(bounds) + 1)

    def add(self, seconds: float | None) -> None:
        """
        @param seconds: how long it took; C{None}: that says nothing.
        """
        self.count += 1
        if seconds is not None:
            self.seconds += seconds
            self.by_bucket[bisect_left(self._bounds, seconds)] += 1


class Timed(Collector):
    """
    How often things of some kind were done, by some labels, and how long they took, by
    the first of them: a counter and a histogram.
    """

    def __init__(
        self,
        what: str,
        help: str,
        help_of_seconds: str,
        bounds: Sequence[float],
        labels: Sequence[str],
    ) -> None:
        """
        @param what: is done; the beginning of both names.
        @param help: what the counter is.
        @param help_of_seconds: what the histogram is.
        @param bounds: of its buckets, ascending.
        @param labels: their names, one or more.
        """
        self._what = what
        self._help = help
        self._help_of_seconds = help_of_seconds
        self._bounds = tuple(map(float, bounds))
        self._labels = tuple(labels)
        self._series: dict[tuple[str, ...], Series] = {}

    def of(self, *labels: str) -> Series:
        """
        @param labels: values that go together.
        @return: what is counted for them. Whoever has it needs not look for it again.
        """
        return self._series.get(labels) or self._make(labels)

    def add(self, seconds: float | None, *labels: str) -> None:
        """
        @param seconds: how long it took; C{None}: that says nothing.
        @param labels: their values.
        """
        self.of(*labels).add(seconds)

    def expect(self, *labels: str) -> None:
        """
        Show these from the beginning, at nought.

        @param labels: values that go together.
        """
        self.of(*labels)

    def collect(self) -> list[Metric]:
        """
        @return: the counter and the histogram.
        """
        counter = CounterMetricFamily(f"{self._what}s", self._help, labels=self._labels)
        histogram = HistogramMetricFamily(
            f"{self._what}_duration_seconds",
            self._help_of_seconds,
            labels=self._labels[:1],
        )
        by_first: dict[str, list[Series]] = {}
        for labels, series in self._series.items():
            counter.add_metric(labels, series.count)
            by_first.setdefault(labels[0], []).append(series)
        bounds = [*map(floatToGoString, self._bounds), "+Inf"]
        for first, some in by_first.items():
            columns = zip(*(series.by_bucket for series in some), strict=True)
            up_to = map(float, accumulate(map(sum, columns)))
            histogram.add_metric(
                [first],
                buckets=list(zip(bounds, up_to, strict=True)),
                sum_value=sum(series.seconds for series in some),
            )
        return [counter, histogram]

    def _make(self, labels: tuple[str, ...]) -> Series:
        if len(labels) != len(self._labels):
            raise ValueError(f"{self._what} has {len(self._labels)} labels")
        made = self._series[labels] = Series(self._bounds)
        return made
