"""
Load: closed loops, each with one request at a time on a connection of its own.
"""

import selectors
import time
from collections.abc import Mapping, Sequence
from itertools import count
from typing import Any, Final, cast

import attrs

from bench.targets import Target
from bench.wire import Connection, WireError, check_call, check_large_call

WARM_SECONDS: Final = 0.5
_PATIENCE_SECONDS: Final = 60
_NUMBERS: Final = count(1)


@attrs.frozen
class Run:
    """
    What came of a load.

    @ivar calls: how many were answered, each checked.
    @ivar seconds: how long that took.
    @ivar cpu_seconds: that the bridge itself used meanwhile.
    @ivar latencies: of each call in seconds, the shortest first.
    """

    calls: int
    seconds: float
    cpu_seconds: float
    latencies: Sequence[float]

    @property
    def rate(self) -> float:
        """
        @return: calls per second.
        """
        return self.calls / self.seconds

    @property
    def cpu_per_thousand(self) -> float:
        """
        @return: CPU seconds of the bridge per 1000 calls.
        """
        return 1000 * self.cpu_seconds / self.calls

    def percentile(self, part: float) -> float:
        """
        @param part: 0.5 for the median.
        @return: seconds.
        """
        return self.latencies[
            min(len(self.latencies) - 1, int(len(self.latencies) * part))
        ]


class Background:
    """
    Something that goes on beside a load, in its thread.
    """

    @property
    def goes_on(self) -> bool:
        """
        @return: whether its beginning, which costs something by itself, is over.
        """
        return True

    def turn(self, now: float) -> None:
        """
        @param now: seconds; called often.
        """

    def close(self) -> None:
        """The load is over."""


class _Loop:
    """One connection and the call that it waits for."""

    def __init__(self, target: Target, headers: Mapping[str, str]) -> None:
        self._target = target
        self._headers = headers
        self.connection = Connection(target.port)
        self._id = 0
        self._text = ""
        self.began = 0.0
        self.has_been_answered = False

    def begin(self) -> None:
        self._id = next(_NUMBERS)
        self._text = f"this is the text of call {self._id:>12}"
        tool = self._target.tool
        body = self._target.call(self._id, tool.name, tool.arguments(self._text))
        request = self.connection.prepare("POST", "/mcp", self._headers, body)
        self.began = time.perf_counter()
        self.connection.send(request)

    def is_answered(self) -> bool:
        answer = self.connection.receive()
        if answer is None:
            return False
        says = self._target.tool.says
        check_call(answer, self._id, None if says is None else says + self._text)
        self.has_been_answered = True
        return True


def run(
    target: Target,
    sessions: Sequence[Mapping[str, str]],
    connections: int,
    seconds: float,
    background: Background | None = None,
) -> Run:
    """
    Call the tool of a target.

    @param target: runs.
    @param sessions: the headers of its sessions, given to the connections in turn.
    @param connections: how many at once.
    @param seconds: how long, after a short time that does not count, in which each
        connection has had an answer and the background has begun.
    @param background: goes on meanwhile, and is closed.
    @return: what came of it.
    @raise WireError: an answer was wrong, or none came.
    """
    selector = selectors.DefaultSelector()
    loops = [
        _Loop(target, sessions[number % len(sessions)]) for number in range(connections)
    ]
    try:
        for loop in loops:
            selector.register(loop.connection.socket, selectors.EVENT_READ, loop)
            loop.begin()
        if background is not None:
            background.turn(time.perf_counter())
        _drive(selector, WARM_SECONDS, [], background)
        deadline = time.perf_counter() + _PATIENCE_SECONDS
        while not (
            all(loop.has_been_answered for loop in loops)
            and (background is None or background.goes_on)
        ):
            if time.perf_counter() > deadline:
                raise WireError("a connection has had no answer for a minute")
            _drive(selector, WARM_SECONDS / 5, [], background)
        latencies: list[float] = []
        cpu = target.process.cpu_seconds()
        took = _drive(selector, seconds, latencies, background)
        cpu = target.process.cpu_seconds() - cpu
    finally:
        selector.close()
        for loop in loops:
            loop.connection.close()
        if background is not None:
            background.close()
    if not latencies:
        raise WireError(f"no answer in {took:.1f} s")
    latencies.sort()
    return Run(len(latencies), took, cpu, latencies)


def _drive(
    selector: selectors.BaseSelector,
    seconds: float,
    latencies: list[float],
    background: Background | None,
) -> float:
    began = now = time.perf_counter()
    while now < began + seconds:
        ready = selector.select(_PATIENCE_SECONDS if background is None else 0.05)
        if not ready and background is None:
            raise WireError(f"no answer within {_PATIENCE_SECONDS} s")
        for key, _ in ready:
            loop = cast(_Loop, key.data)
            if loop.is_answered():
                now = time.perf_counter()
                latencies.append(now - loop.began)
                loop.begin()
        if background is not None:
            now = time.perf_counter()
            background.turn(now)
    return now - began


def payload(target: Target, headers: Mapping[str, str], size: int) -> float:
    """
    Call C{payload} once.

    @param target: runs.
    @param headers: of a session.
    @param size: how many characters the answer has.
    @return: how many seconds it took.
    @raise WireError: the answer was wrong.
    """
    id = next(_NUMBERS)
    arguments: dict[str, Any] = {"bytes": size}
    connection = Connection(target.port)
    connection.socket.settimeout(60)
    try:
        body = target.call(id, "payload", arguments)
        named = {**headers}
        if "Mcp-Name" in named:
            named["Mcp-Name"] = "payload"
        began = time.perf_counter()
        answer = connection.ask("POST", "/mcp", named, body)
        took = time.perf_counter() - began
        check_large_call(answer, id, size)
        return took
    finally:
        connection.close()
