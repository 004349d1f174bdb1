"""Counters and histograms of our own, beside the library's."""

import re

from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from twisted.trial.unittest import SynchronousTestCase

from fjmcp_broker.exposition import Exposition
from fjmcp_broker.series import Timed

BOUNDS = (0.25, 1, 2.5)
KINDS = st.sampled_from(["a", "b"])
OUTCOMES = st.sampled_from(["ok", 'with "quotes"', "failed"])
#: Sums of these are exact, in whichever order.
SECONDS = st.none() | st.integers(-8, 32).map(lambda eighths: eighths / 8)


class TimedTests(SynchronousTestCase):
    """What Prometheus reads."""

    @given(st.lists(st.tuples(SECONDS, KINDS, OUTCOMES), max_size=30))
    def test_as_the_library_does_it(
        self, events: list[tuple[float | None, str, str]]
    ) -> None:
        """To the byte: buckets and their bounds, sums, the order of everything."""
        theirs = CollectorRegistry()
        timed = Timed("done", "What.", "How long.", BOUNDS, ("kind", "outcome"))
        counter = Counter("dones", "What.", ["kind", "outcome"], registry=theirs)
        histogram = Histogram(
            "done_duration_seconds",
            "How long.",
            ["kind"],
            buckets=BOUNDS,
            registry=theirs,
        )
        for seconds, kind, outcome in events:
            timed.add(seconds, kind, outcome)
            counter.labels(kind, outcome).inc()
            child = histogram.labels(kind)
            if seconds is not None:
                child.observe(seconds)
        without_created = [
            line
            for line in generate_latest(theirs).splitlines()
            if b"_created" not in line
        ]
        of_the_process = re.compile(rb"(# \w+ )?process_")
        ours = [
            line
            for line in Exposition(timed.shown).render().splitlines()
            if not of_the_process.match(line)
        ]
        self.assertEqual(ours, without_created)

    def test_kept_series(self) -> None:
        """Whoever keeps one counts in the same place as whoever names it."""
        timed = Timed("done", "What.", "How long.", BOUNDS, ("kind",))
        timed.expect("a")
        kept = timed.of("a")
        kept.add(1.0)
        timed.add(None, "a")
        self.assertIs(timed.of("a"), kept)
        self.assertEqual((kept.count, kept.seconds), (2, 1.0))

    def test_labels_are_counted(self) -> None:
        """One too many or too few would be shown under wrong names."""
        timed = Timed("done", "What.", "How long.", BOUNDS, ("kind",))
        self.assertRaises(ValueError, timed.add, 1.0)
        self.assertRaises(ValueError, timed.of, "a", "b")
