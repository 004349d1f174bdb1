"""
What the daemon counts, in Prometheus' terms.

Labels are of small closed sets: never what a client sent, no names of people, no ids.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
)
from prometheus_client.registry import Collector

from fjmcp_broker.series import Timed

# Else every counter is shown with a gauge of when it was made, which nothing reads.
disable_created_metrics()

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
"""Of the text format."""

OTHER: Final = "other"
"""The label of whatever has none of its own."""

_ANSWER_SECONDS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
_STORE_SECONDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 1, 5)
_UPSTREAM_SECONDS: Final = (0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 15)
_DELAY_SECONDS: Final = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 5)

Watched = Mapping[tuple[str, ...], float]
"""Numbers that somebody else keeps, by the values of their labels."""


class Tally:
    """
    How often things of some kind have happened.
    """

    def __init__(self, counter: Counter) -> None:
        """
        @param counter: with one label.
        """
        self._counter = counter

    def add(self, kind: str, times: int = 1) -> None:
        """
        @param kind: the value of the label.
        @param times: how often it has happened.
        """
        self._counter.labels(kind).inc(times)

    def expect(self, kinds: Iterable[str]) -> None:
        """
        Show these from the beginning, at nought: what appears only with its first
        event has no rate then.

        @param kinds: values of the label.
        """
        for kind in kinds:
            self._counter.labels(kind)


class Metrics:
    """
    The numbers of one daemon.

    @ivar http: requests, by endpoint, method and status of the answer.
    @ivar mcp: JSON-RPC messages, by method, outcome and status of the answer.
    @ivar sign_ins: by what the client was told.
    @ivar rate_limited: by the name of a key under C{[limits]}.
    @ivar limits_hit: by the whole name of a key.
    @ivar exits: of children, by reason.
    @ivar reaps: of children, by reason.
    @ivar rotations: of children, by outcome.
    @ivar transitions: of sessions, by the input of their state machine.
    @ivar upstream: calls to Forgejo, by endpoint and outcome.
    @ivar documents: requests for client ID metadata documents, by outcome.
    @ivar store: transactions, by kind and outcome.
    """

    def __init__(self, version: str = "", revision: str = "") -> None:
        """
        @param version: of this software.
        @param revision: that it was built from.
        """
        self._registry = CollectorRegistry(auto_describe=True)
        ProcessCollector(registry=self._registry)
        self.watch_each(
            "fjmcp_build_info",
            "The version that runs; always 1.",
            ("version", "revision"),
            lambda: {(version, revision): 1},
        )
        self.http = self._timed(
            "fjmcp_http_request",
            "HTTP requests that were answered.",
            "From the headers of a request to the end of its answer; streams that last "
            "as long as their client likes are left out.",
            _ANSWER_SECONDS,
            ("endpoint", "method", "status"),
        )
        self.mcp = self._timed(
            "fjmcp_mcp_request",
            "JSON-RPC messages posted to the MCP endpoint, by what became of them.",
            "From the headers of a posted JSON-RPC message to the end of its answer.",
            _ANSWER_SECONDS,
            ("method", "outcome", "status"),
        )
        self.upstream = self._timed(
            "fjmcp_upstream_request",
            "Calls to Forgejo's OAuth endpoints.",
            "How long Forgejo's OAuth endpoints took.",
            _UPSTREAM_SECONDS,
            ("call", "outcome"),
        )
        self.documents = self._timed(
            "fjmcp_document_request",
            "Requests for client ID metadata documents that were not at hand.",
            "How long it took until they were there, or found to be of no use.",
            _UPSTREAM_SECONDS,
            ("outcome",),
        )
        self.store = self._timed(
            "fjmcp_store_transaction",
            "Transactions of the store.",
            "How long they took, the wait for their turn included.",
            _STORE_SECONDS,
            ("kind", "outcome"),
        )
        self.sign_ins = self._tally(
            "fjmcp_sign_ins",
            "Sign-ins that came back from Forgejo, by what the client was told.",
            "outcome",
        )
        self.rate_limited = self._tally(
            "fjmcp_rate_limited",
            "Requests that were refused because their network asked too much.",
            "limit",
        )
        self.limits_hit = self._tally(
            "fjmcp_limits_hit",
            "How often there was no room below a limit of the daemon, a user, a grant "
            "or a request, by the key that sets it.",
            "limit",
        )
        self.exits = self._tally(
            "fjmcp_child_exits",
            "Children that have ended; child_stopped is the daemon's own doing.",
            "reason",
        )
        self.reaps = self._tally(
            "fjmcp_child_reaps",
            "Children that were stopped because nobody used them: for too long (idle), "
            "or while somebody else needed one (room).",
            "reason",
        )
        self.rotations = self._tally(
            "fjmcp_child_rotations",
            "Attempts to replace a child by one with a newer token that are over.",
            "outcome",
        )
        self.transitions = self._tally(
            "fjmcp_session_transitions",
            "Changes of the state of sessions, by what caused them.",
            "event",
        )
        self._spawns = Counter(
            "fjmcp_child_spawns", "Children that were started.", registry=self._registry
        )
        self._children = Gauge(
            "fjmcp_children", "Child processes that run.", registry=self._registry
        )
        self._delay = Histogram(
            "fjmcp_event_loop_delay_seconds",
            "How much later than asked the event loop came to a timer.",
            buckets=_DELAY_SECONDS,
            registry=self._registry,
        )

    def child_spawned(self) -> None:
        """A child was started."""
        self._spawns.inc()
        self._children.inc()

    def child_exited(self, reason: str) -> None:
        """
        @param reason: of a fixed set.
        """
        self.exits.add(reason)
        self._children.dec()

    def delayed(self, seconds: float) -> None:
        """
        @param seconds: how late the event loop was.
        """
        self._delay.observe(max(0.0, seconds))

    def watch(self, name: str, help: str, read: Callable[[], float]) -> None:
        """
        Show a number that somebody else keeps.

        @param name: of the gauge.
        @param help: what it is.
        @param read: gives it, whenever it is asked for.
        """
        self.watch_each(name, help, (), lambda: {(): read()})

    def watch_each(
        self,
        name: str,
        help: str,
        labels: Sequence[str],
        read: Callable[[], Watched],
        *,
        only_grow: bool = False,
    ) -> None:
        """
        Show several such numbers under one name.

        @param name: of the gauge or the counter.
        @param help: what they are.
        @param labels: their names.
        @param read: gives all of them, those at nought too.
        @param only_grow: whether it is a counter.
        """
        family = CounterMetricFamily if only_grow else GaugeMetricFamily
        self._registry.register(_Watch(family, name, help, labels, read))

    def render(self) -> bytes:
        """
        @return: everything in the text format, see L{CONTENT_TYPE}.
        """
        return generate_latest(self._registry)

    def _tally(self, name: str, help: str, label: str) -> Tally:
        return Tally(Counter(name, help, [label], registry=self._registry))

    def _timed(
        self,
        what: str,
        help: str,
        help_of_seconds: str,
        bounds: Sequence[float],
        labels: Sequence[str],
    ) -> Timed:
        timed = Timed(what, help, help_of_seconds, bounds, labels)
        self._registry.register(timed)
        return timed


class _Watch(Collector):
    """A family whose numbers are read when they are asked for."""

    def __init__(
        self,
        family: type[GaugeMetricFamily] | type[CounterMetricFamily],
        name: str,
        help: str,
        labels: Sequence[str],
        read: Callable[[], Watched],
    ) -> None:
        self._family = family
        self._name = name
        self._help = help
        self._labels = labels
        self._read = read

    def collect(self) -> list[GaugeMetricFamily | CounterMetricFamily]:
        """
        @return: the one family.
        """
        family = self._family(self._name, self._help, labels=self._labels)
        for values, number in self._read().items():
            family.add_metric(values, number)
        return [family]
