"""
What the daemon counts, in Prometheus' terms.

Labels are of small closed sets: never what a client sent, no names of people, no ids.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Final

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    generate_latest,
)
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
"""Of the text format."""

OTHER: Final = "other"

_METHODS: Final = frozenset(("GET", "HEAD", "POST", "DELETE", "OPTIONS"))
_RPC_METHODS: Final = frozenset(
    (
        "initialize",
        "ping",
        "server/discover",
        "subscriptions/listen",
        "logging/setLevel",
        "completion/complete",
        "tools/list",
        "tools/call",
        "prompts/list",
        "prompts/get",
        "resources/list",
        "resources/read",
        "resources/templates/list",
        "resources/subscribe",
        "resources/unsubscribe",
    )
)
_HTTP_SECONDS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
_STORE_SECONDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 1, 5)
_UPSTREAM_SECONDS: Final = (0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 15)
_DELAY_SECONDS: Final = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 5)


class Metrics:
    """
    The counters of one daemon.
    """

    def __init__(self, version: str = "", revision: str = "") -> None:
        """
        @param version: of this software.
        @param revision: that it was built from.
        """
        self._registry = registry = CollectorRegistry(auto_describe=True)
        ProcessCollector(registry=registry)
        build = Gauge(
            "fjmcp_build_info",
            "The version that runs; always 1.",
            ["version", "revision"],
            registry=registry,
        )
        build.labels(version, revision).set(1)
        self._http = Counter(
            "fjmcp_http_requests",
            "HTTP requests that were answered.",
            ["endpoint", "method", "status"],
            registry=registry,
        )
        self._http_seconds = Histogram(
            "fjmcp_http_request_duration_seconds",
            "From the headers of a request to the end of its answer; streams that last "
            "as long as their client likes are left out.",
            ["endpoint"],
            buckets=_HTTP_SECONDS,
            registry=registry,
        )
        self._mcp = Counter(
            "fjmcp_mcp_requests",
            "JSON-RPC messages posted to the MCP endpoint, by what became of them.",
            ["method", "outcome", "status"],
            registry=registry,
        )
        self._mcp_seconds = Histogram(
            "fjmcp_mcp_request_duration_seconds",
            "From the headers of a posted JSON-RPC message to the end of its answer.",
            ["method"],
            buckets=_HTTP_SECONDS,
            registry=registry,
        )
        self._sign_ins = Counter(
            "fjmcp_sign_ins",
            "Sign-ins that came back from Forgejo, by what the client was told.",
            ["outcome"],
            registry=registry,
        )
        self._refused = Counter(
            "fjmcp_rate_limited",
            "Requests that were refused because their network asked too much.",
            ["limit"],
            registry=registry,
        )
        self._child_starts = Counter(
            "fjmcp_child_starts", "Children that were started.", registry=registry
        )
        self._child_ends = Counter(
            "fjmcp_child_ends",
            "Children that have ended; child_stopped is the daemon's own doing.",
            ["reason"],
            registry=registry,
        )
        self._children = Gauge(
            "fjmcp_children", "Child processes that run.", registry=registry
        )
        self._transitions = Counter(
            "fjmcp_session_transitions",
            "Changes of the state of sessions, by what caused them.",
            ["event"],
            registry=registry,
        )
        self._upstream = Counter(
            "fjmcp_upstream_requests",
            "Calls to Forgejo's OAuth endpoints.",
            ["call", "outcome"],
            registry=registry,
        )
        self._upstream_seconds = Histogram(
            "fjmcp_upstream_request_duration_seconds",
            "How long Forgejo's OAuth endpoints took.",
            ["call"],
            buckets=_UPSTREAM_SECONDS,
            registry=registry,
        )
        self._store = Counter(
            "fjmcp_store_transactions",
            "Transactions of the store.",
            ["kind", "outcome"],
            registry=registry,
        )
        self._store_seconds = Histogram(
            "fjmcp_store_transaction_duration_seconds",
            "How long they took, the wait for their turn included.",
            ["kind"],
            buckets=_STORE_SECONDS,
            registry=registry,
        )
        self._delay = Histogram(
            "fjmcp_event_loop_delay_seconds",
            "How much later than asked the event loop came to a timer.",
            buckets=_DELAY_SECONDS,
            registry=registry,
        )

    def answered(
        self, endpoint: str, method: str, status: int, seconds: float | None
    ) -> None:
        """
        @param endpoint: one of the daemon's own paths, or L{OTHER}.
        @param method: as sent.
        @param status: of the answer.
        @param seconds: how long it took, C{None} for a stream.
        """
        known = method if method in _METHODS else OTHER
        self._http.labels(endpoint, known, str(status)).inc()
        if seconds is not None:
            self._http_seconds.labels(endpoint).observe(seconds)

    def posted(
        self, method: str | None, outcome: str, status: int, seconds: float
    ) -> None:
        """
        @param method: of the JSON-RPC message, as sent; C{None} when there was none.
        @param outcome: C{result}, C{error} or C{accepted}.
        @param status: of the answer.
        @param seconds: how long it took.
        """
        known = method if method in _RPC_METHODS else OTHER
        self._mcp.labels(known, outcome, str(status)).inc()
        self._mcp_seconds.labels(known).observe(seconds)

    def signed_in(self, outcome: str) -> None:
        """
        @param outcome: C{success}, C{page}, or an error code of ours.
        """
        self._sign_ins.labels(outcome).inc()

    def expect(
        self,
        *,
        limits: Iterable[str] = (),
        child_ends: Iterable[str] = (),
        events: Iterable[str] = (),
        calls: Iterable[str] = (),
        sign_ins: Iterable[str] = (),
    ) -> None:
        """
        Show these from the beginning, at nought: what appears only with its first
        event has no rate then.

        @param limits: for L{refused}.
        @param child_ends: for L{child_ended}.
        @param events: for L{session_moved}.
        @param calls: for L{called_upstream}, with outcome C{ok}.
        @param sign_ins: for L{signed_in}.
        """
        for counter, values in (
            (self._refused, limits),
            (self._child_ends, child_ends),
            (self._transitions, events),
            (self._sign_ins, sign_ins),
        ):
            for value in values:
                counter.labels(value)
        for call in calls:
            self._upstream.labels(call, "ok")
            self._upstream_seconds.labels(call)
        for kind in ("write", "read"):
            self._store_seconds.labels(kind)
            for outcome in ("ok", "unavailable", "failed"):
                self._store.labels(kind, outcome)

    def refused(self, limit: str) -> None:
        """
        @param limit: the name of its key.
        """
        self._refused.labels(limit).inc()

    def child_started(self) -> None:
        """A child was started."""
        self._child_starts.inc()
        self._children.inc()

    def child_ended(self, reason: str) -> None:
        """
        @param reason: of a fixed set.
        """
        self._child_ends.labels(reason).inc()
        self._children.dec()

    def session_moved(self, event: str) -> None:
        """
        @param event: an input of the session's state machine.
        """
        self._transitions.labels(event).inc()

    def called_upstream(self, call: str, outcome: str, seconds: float) -> None:
        """
        @param call: which endpoint.
        @param outcome: C{ok} or the name of an error class of ours.
        @param seconds: how long it took.
        """
        self._upstream.labels(call, outcome).inc()
        self._upstream_seconds.labels(call).observe(seconds)

    def stored(self, kind: str, outcome: str, seconds: float) -> None:
        """
        @param kind: C{write} or C{read}.
        @param outcome: C{ok}, C{unavailable} or C{failed}.
        @param seconds: how long it took.
        """
        self._store.labels(kind, outcome).inc()
        self._store_seconds.labels(kind).observe(seconds)

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
        Gauge(name, help, registry=self._registry).set_function(read)

    def watch_states(
        self, name: str, help: str, read: Callable[[], Mapping[str, int]]
    ) -> None:
        """
        Show how many there are in each state.

        @param name: of the gauge.
        @param help: what is counted.
        @param read: gives the numbers of all states, also of empty ones.
        """
        self._registry.register(_States(name, help, read))

    def render(self) -> bytes:
        """
        @return: everything in the text format, see L{CONTENT_TYPE}.
        """
        return generate_latest(self._registry)


class _States(Collector):
    """A gauge with one label that is read when it is asked for."""

    def __init__(
        self, name: str, help: str, read: Callable[[], Mapping[str, int]]
    ) -> None:
        self._name = name
        self._help = help
        self._read = read

    def collect(self) -> list[GaugeMetricFamily]:
        """
        @return: the one gauge.
        """
        family = GaugeMetricFamily(self._name, self._help, labels=["state"])
        for state, count in self._read().items():
            family.add_metric([state], count)
        return [family]
