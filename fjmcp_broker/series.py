"""
Counters and histograms that cost next to nothing where things happen.

The library's own take a lock and look for their series with each event, and go through
the buckets one by one. Here an event is two additions to numbers of the event loop, and
Prometheus' samples are made of them when somebody looks.
"""

from bisect import bisect_left
from collections.abc import Callable, Iterable, Mapping, Sequence

import msgspec

Values = tuple[str, ...]
"""Of the labels of one sample."""

Watched = Mapping[Values, float]
"""Numbers that somebody keeps, by the values of their labels."""


class Numbers(msgspec.Struct, frozen=True):
    """
    A gauge or a counter, for L{fjmcp_broker.exposition}.

    @ivar name: without what is appended to names of counters.
    @ivar help: what it is.
    @ivar labels: their names.
    @ivar read: gives the numbers, those at nought too.
    @ivar only_grow: whether it is a counter.
    """

    name: str
    help: str
    labels: Sequence[str]
    read: Callable[[], Watched]
    only_grow: bool = False


class Durations(msgspec.Struct, frozen=True):
    """
    A histogram, for L{fjmcp_broker.exposition}.

    @ivar name: of it.
    @ivar help: what it is.
    @ivar labels: their names.
    @ivar bounds: of its buckets, ascending.
    @ivar read: gives what counts together, by the values of the labels.
    """

    name: str
    help: str
    labels: Sequence[str]
    bounds: Sequence[float]
    read: "Callable[[], Mapping[Values, Sequence[Series]]]"


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


class Tally:
    """
    How often things of some kind have happened.
    """

    def __init__(self) -> None:
        """Nothing has happened."""
        self._counts: dict[Values, int] = {}

    def add(self, kind: str, times: int = 1) -> None:
        """
        @param kind: the value of the label.
        @param times: how often it has happened.
        """
        self._counts[kind,] = self._counts.get((kind,), 0) + times

    def expect(self, kinds: Iterable[str]) -> None:
        """
        Show these from the beginning, at nought: what appears only with its first
        event has no rate then.

        @param kinds: values of the label.
        """
        for kind in kinds:
            self.add(kind, 0)

    def read(self) -> Mapping[Values, int]:
        """
        @return: how often, by kind.
        """
        return self._counts


class Timed:
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
        self._bounds = tuple(bounds)
        self._labels = tuple(labels)
        self._series: dict[Values, Series] = {}

    @property
    def shown(self) -> tuple[Numbers, Durations]:
        """
        The counter and the histogram.
        """
        return (
            Numbers(f"{self._what}s", self._help, self._labels, self._counts, True),
            Durations(
                f"{self._what}_duration_seconds",
                self._help_of_seconds,
                self._labels[:1],
                self._bounds,
                self._by_first_label,
            ),
        )

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

    def _counts(self) -> Watched:
        return {labels: series.count for labels, series in self._series.items()}

    def _by_first_label(self) -> Mapping[Values, Sequence[Series]]:
        found: dict[Values, list[Series]] = {}
        for labels, series in self._series.items():
            found.setdefault(labels[:1], []).append(series)
        return found

    def _make(self, labels: Values) -> Series:
        if len(labels) != len(self._labels):
            raise ValueError(f"{self._what} has {len(self._labels)} labels")
        made = self._series[labels] = Series(self._bounds)
        return made
