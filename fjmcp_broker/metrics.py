"""
What the daemon counts, in Prometheus' terms.

Labels are of small closed sets: never what a client sent, no names of people, no ids.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final

from fjmcp_broker.series import Durations, Numbers, Series, Tally, Timed, Watched

if TYPE_CHECKING:
    from fjmcp_broker.exposition import Exposition

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
"""Of the text format."""

OTHER: Final = "other"
"""The label of whatever has none of its own."""

_ANSWER_SECONDS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
_STORE_SECONDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 1, 5)
_UPSTREAM_SECONDS: Final = (0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 15)
_DELAY_SECONDS: Final = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 5)


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
        self._shown: list[Numbers | Durations] = []
        self._exposition: Exposition | None = None
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
        self._spawned = self._running = 0
        self.watch_each(
            "fjmcp_child_spawns",
            "Children that were started.",
            (),
            lambda: {(): self._spawned},
            only_grow=True,
        )
        self.watch("fjmcp_children", "Child processes that run.", lambda: self._running)
        self._delay = delay = Series(_DELAY_SECONDS)
        self._shown.append(
            Durations(
                "fjmcp_event_loop_delay_seconds",
                "How much later than asked the event loop came to a timer.",
                (),
                _DELAY_SECONDS,
                lambda: {(): [delay]},
            )
        )

    def child_spawned(self) -> None:
        """A child was started."""
        self._spawned += 1
        self._running += 1

    def child_exited(self, reason: str) -> None:
        """
        @param reason: of a fixed set.
        """
        self.exits.add(reason)
        self._running -= 1

    def delayed(self, seconds: float) -> None:
        """
        @param seconds: how late the event loop was.
        """
        self._delay.add(max(0.0, seconds))

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
        self._shown.append(Numbers(name, help, labels, read, only_grow))

    def render(self) -> bytes:
        """
        @return: everything in the text format, see L{CONTENT_TYPE}.
        """
        if self._exposition is None:
            from fjmcp_broker.exposition import Exposition

            self._exposition = Exposition(self._shown)
        return self._exposition.render()

    def _tally(self, name: str, help: str, label: str) -> Tally:
        tally = Tally()
        self.watch_each(name, help, (label,), tally.read, only_grow=True)
        return tally

    def _timed(
        self,
        what: str,
        help: str,
        help_of_seconds: str,
        bounds: Sequence[float],
        labels: Sequence[str],
    ) -> Timed:
        timed = Timed(what, help, help_of_seconds, bounds, labels)
        self._shown += timed.shown
        return timed
