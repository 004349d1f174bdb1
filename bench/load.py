"""
Load: closed loops, each with one request at a time on a connection of its own.
"""

import select
import time
from collections.abc import Mapping, Sequence
from itertools import count
from typing import Any, Final

import attrs

from bench.targets import Target
from bench.wire import Connection, Repeated, WireError, check_call, check_large_call

WARM_SECONDS: Final = 0.5
_PATIENCE_SECONDS: Final = 60
_NUMBERS: Final = count(10**11)
"""Of calls; all have as many digits, so that calls are as long as each other."""


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


@attrs.define
class _Checked:
    """
    The last answer that has been parsed, if there is one. Nearly always those to other
    connections are the same but for their number: when C{Date} is another one, not
    each of a thousand has to be parsed again.
    """

    answer: Repeated | None = None


class _Loop:
    """
    One connection and the call that it waits for.

    Calls are the same but for their number, which is their id and in their text. So
    are answers: one that has been checked is compared with the next ones, which costs
    less than to parse them, and misses nothing.

    @ivar began: when the call was sent.
    @ivar ended: when its answer had come, before it was checked.
    @ivar has_been_answered: whether any call was.
    """

    def __init__(
        self, target: Target, headers: Mapping[str, str], checked: _Checked
    ) -> None:
        """
        @param target: runs.
        @param headers: of its session.
        @param checked: shared by all connections.
        """
        self._says = target.tool.says
        self._number = b""
        self.connection = Connection(target.port)
        number = next(_NUMBERS)
        body = target.call(
            number, target.tool.name, target.tool.arguments(_text(b"%d" % number))
        )
        request = self.connection.prepare("POST", "/mcp", headers, body)
        self._request = Repeated(request, b"%d" % number)
        self._checked = checked
        self._answer: Repeated | None = None
        self._is_cut = False
        self.began = self.ended = 0.0
        self.has_been_answered = False

    def begin(self) -> None:
        """Send the next call."""
        self._number = number = b"%d" % next(_NUMBERS)
        request = self._request.with_number(number)
        self.began = time.perf_counter()
        self.connection.send(request)

    def is_answered(self) -> bool:
        """
        Read what has come.

        @return: whether the answer is complete, and is the right one.
        @raise WireError: it is not.
        """
        data = self.connection.read()
        self.ended = time.perf_counter()
        if not self._is_cut:
            for checked in (self._answer, self._checked.answer):
                if checked is not None and checked.is_with_number(data, self._number):
                    self._answer = checked
                    self.has_been_answered = True
                    return True
        answer = self.connection.take(data)
        if answer is None:
            self._answer = None
            self._is_cut = True
            return False
        text = None if self._says is None else self._says + _text(self._number)
        check_call(answer, int(self._number), text)
        if not self._is_cut:
            self._answer = self._checked.answer = Repeated(data, self._number)
        self._is_cut = False
        self.has_been_answered = True
        return True


def _text(number: bytes) -> str:
    return f"this is the text of call {number.decode()}"


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
    poller = select.epoll()
    checked = _Checked()
    loops = {
        loop.connection.socket.fileno(): loop
        for loop in (
            _Loop(target, sessions[number % len(sessions)], checked)
            for number in range(connections)
        )
    }
    try:
        for descriptor, loop in loops.items():
            poller.register(descriptor, select.EPOLLIN)
            loop.begin()
        if background is not None:
            background.turn(time.perf_counter())
        _drive(poller, loops, WARM_SECONDS, [], background)
        deadline = time.perf_counter() + _PATIENCE_SECONDS
        while not (
            all(loop.has_been_answered for loop in loops.values())
            and (background is None or background.goes_on)
        ):
            if time.perf_counter() > deadline:
                raise WireError("a connection has had no answer for a minute")
            _drive(poller, loops, WARM_SECONDS / 5, [], background)
        latencies: list[float] = []
        cpu = target.process.cpu_seconds()
        took = _drive(poller, loops, seconds, latencies, background)
        cpu = target.process.cpu_seconds() - cpu
    finally:
        poller.close()
        for loop in loops.values():
            loop.connection.close()
        if background is not None:
            background.close()
    if not latencies:
        raise WireError(f"no answer in {took:.1f} s")
    latencies.sort()
    return Run(len(latencies), took, cpu, latencies)


def _drive(
    poller: select.epoll,
    loops: Mapping[int, _Loop],
    seconds: float,
    latencies: list[float],
    background: Background | None,
) -> float:
    began = now = time.perf_counter()
    while now < began + seconds:
        ready = poller.poll(_PATIENCE_SECONDS if background is None else 0.05)
        if not ready and background is None:
            raise WireError(f"no answer within {_PATIENCE_SECONDS} s")
        for descriptor, _ in ready:
            loop = loops[descriptor]
            if loop.is_answered():
                latencies.append(loop.ended - loop.began)
                loop.begin()
        now = time.perf_counter()
        if background is not None:
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
