"""
C{twistd} with something to see how long the event loop stands still, and with delays to
see whether a check notices them. Nothing of this is in the broker.

C{BENCH_STALLS} names a file for the durations; SIGUSR2 writes it and begins anew.
C{BENCH_DELAY} is how many microseconds of CPU time each request to the endpoint takes
more.
"""

import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any, Final

TURN_LIMIT: Final = 2_000_000
"""Durations that are remembered at most, so that a long run does not grow."""


class WatchedPoller:
    """
    Stands before the reactor's poller: between two waits the reactor reads nothing.

    @ivar turns: how long each was, and how long the thread worked in it, in seconds:
        on a busy machine the first has time of others in it.
    """

    def __init__(self, poller: Any) -> None:
        """
        @param poller: C{select.epoll}, which is C{Any} as all else is handed on.
        """
        self._poller = poller
        self._woke: tuple[float, float] | None = None
        self.turns: list[tuple[float, float]] = []

    def poll(self, timeout: float, most: int) -> Any:
        """
        @return: as the poller's.
        """
        if self._woke is not None and len(self.turns) < TURN_LIMIT:
            woke, worked = self._woke
            turn = time.perf_counter() - woke, time.thread_time() - worked
            self.turns.append(turn)
        ready = self._poller.poll(timeout, most)
        self._woke = time.perf_counter(), time.thread_time()
        return ready

    def __getattr__(self, name: str) -> Any:
        """
        @return: whatever else the poller has.
        """
        return getattr(self._poller, name)


def watch(reactor: Any, path: Path) -> None:
    """
    @param reactor: Twisted's, on epoll.
    @param path: for the turns, as JSON.
    """
    poller = reactor._poller = WatchedPoller(reactor._poller)

    def write(number: int, frame: object) -> None:
        turns, poller.turns = poller.turns, []
        part = path.with_suffix(".part")
        part.write_text(json.dumps(turns))
        part.rename(path)

    signal.signal(signal.SIGUSR2, write)


def delay(seconds: float) -> None:
    """
    @param seconds: that each request to the MCP endpoint takes more.
    """
    from fjmcp_broker.web.mcp.endpoint import McpEndpoint

    render = McpEndpoint.render

    def slow(self: Any, request: Any) -> Any:
        end = time.thread_time() + seconds
        while time.thread_time() < end:
            pass
        return render(self, request)

    setattr(McpEndpoint, "render", slow)  # noqa: B010 - mypy sees a method


def main() -> None:
    """Run C{twistd}."""
    from twisted.internet import reactor
    from twisted.scripts.twistd import run

    if "BENCH_STALLS" in os.environ:
        watch(reactor, Path(os.environ["BENCH_STALLS"]))
    if "BENCH_DELAY" in os.environ:
        delay(float(os.environ["BENCH_DELAY"]) / 1e6)
    sys.argv[0] = "twistd"
    run()


if __name__ == "__main__":
    main()
