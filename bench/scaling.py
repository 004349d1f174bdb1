"""
How cost grows with sessions and connections, and what slow readers cost the others.
"""

import json
import selectors
import socket
import time
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, Final

from bench.load import Background, run
from bench.report import Effort, interleaved, middle, table, title
from bench.targets import Broker, Target
from bench.wire import Connection

Headers = Mapping[str, str]
Figures = tuple[float, float, float]
"""Calls per second, the 99th percentile in seconds, CPU seconds for 1000 calls."""

SHAPES: Final = (
    (1, 1),
    (1, 16),
    (1, 100),
    (1, 1000),
    (16, 16),
    (100, 100),
    (300, 300),
    (1000, 1000),
)
"""Sessions and connections."""

_MIB: Final = 1024 * 1024
_SLOW_BYTES: Final = _MIB
_SLOW_TAKES: Final = 4096
_SLOW_SECONDS: Final = 0.1
_SLOW_SETTLE_SECONDS: Final = 2.0
_FLOOD_BYTES: Final = 32 * _MIB


class SlowReaders(Background):
    """
    Clients that ask for a large answer, and take 40 KiB of it in a second.
    """

    def __init__(self, target: Target, sessions: Sequence[Headers]) -> None:
        """
        @param target: runs.
        @param sessions: one for each of them.
        """
        self._target = target
        self._sessions = sessions
        self._next = 0.0
        self._sockets: list[socket.socket | None] = [None for _ in sessions]
        self._is_fed = [False for _ in sessions]
        self._fed_at = float("inf")
        self.asked = 0

    @property
    def goes_on(self) -> bool:
        """
        @return: whether the broker has handed over the answers of all of them: to make
            a hundred takes it a second, however they are read.
        """
        return self._next > self._fed_at + _SLOW_SETTLE_SECONDS

    def turn(self, now: float) -> None:
        """
        @param now: seconds.
        """
        if now < self._next:
            return
        self._next = now + _SLOW_SECONDS
        if all(self._is_fed):
            self._fed_at = min(self._fed_at, now)
        for number, reader in enumerate(self._sockets):
            if reader is None:
                self._sockets[number] = self._ask(number)
                continue
            try:
                if not reader.recv(_SLOW_TAKES):
                    raise ConnectionError
                self._is_fed[number] = True
            except BlockingIOError:
                continue
            except OSError:
                reader.close()
                self._sockets[number] = None

    def _ask(self, number: int) -> socket.socket:
        reader = socket.socket()
        reader.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16 * 1024)
        reader.settimeout(30)
        reader.connect(("127.0.0.1", self._target.port))
        body = self._target.call(number, "payload", {"bytes": _SLOW_BYTES})
        head = "".join(f"{k}: {v}\r\n" for k, v in self._sessions[number].items())
        reader.sendall(
            f"POST /mcp HTTP/1.1\r\nHost: 127.0.0.1:{self._target.port}\r\n{head}"
            f"Content-Length: {len(body)}\r\n\r\n".encode()
            + body
        )
        reader.setblocking(False)
        self.asked += 1
        return reader

    def close(self) -> None:
        """End them."""
        for reader in self._sockets:
            if reader is not None:
                reader.close()


def scaling(broker: Broker, effort: Effort) -> None:
    """
    Calls per second by sessions and connections, each shape alone and with one slow
    reader more for every ten connections, in sessions of their own.

    @param broker: runs.
    @param effort: how long.
    """
    title("throughput by sessions and connections; then with 10 % slow readers")
    opened: list[Headers] = []
    slow: list[Headers] = []
    measured: dict[tuple[int, int], list[Figures]] = {}

    def measure(name: str, sessions: int, connections: int) -> Figures:
        readers = None
        if name == "slow":
            readers = SlowReaders(broker, slow[: max(1, connections // 10)])
        found = run(broker, opened[:sessions], connections, effort.seconds, readers)
        return found.rate, found.percentile(0.99), found.cpu_per_thousand

    try:
        most = max(connections for _, connections in SHAPES)
        slow += broker.open_sessions(most // 10)
        for shape in SHAPES:
            sessions, connections = shape
            opened += broker.open_sessions(sessions - len(opened))

            each = interleaved(
                ["alone", "slow"],
                max(2, effort.rounds // 2),
                partial(measure, sessions=sessions, connections=connections),
            )
            measured[shape] = [_middles(runs) for runs in each.values()]
    finally:
        broker.close_sessions([*opened, *slow])
    _show(measured)


def _middles(runs: Sequence[Figures]) -> Figures:
    rates, p99s, costs = zip(*runs, strict=True)
    return middle(rates), middle(p99s), middle(costs)


def _show(measured: Mapping[tuple[int, int], Sequence[Figures]]) -> None:
    best = max(alone[0] for alone, *_ in measured.values())
    least = min(alone[2] for alone, *_ in measured.values())
    rows = []
    for (sessions, connections), (alone, *others) in measured.items():
        row = [
            str(sessions),
            str(connections),
            f"{alone[0]:.0f}",
            f"{alone[0] / best:.2f}",
            f"{1000 * alone[1]:.1f}",
            f"{alone[2]:.3f}",
            f"{alone[2] / least:.2f}",
        ]
        for slow in others:
            row += [
                f"{slow[0]:.0f}",
                f"{slow[0] / alone[0]:.2f}",
                f"{1000 * slow[1]:.1f}",
                f"{slow[2] / alone[2]:.2f}",
            ]
        rows.append(row + ["-"] * (11 - len(row)))
    table(
        [
            "sessions",
            "connections",
            "calls/s",
            "of best",
            "p99 ms",
            "CPU s per 1000",
            "to least",
            "slow: calls/s",
            "to alone",
            "p99 ms",
            "CPU",
        ],
        rows,
    )


def shared(broker: Broker) -> None:
    """
    A session with a GET stream that nobody reads, while its child logs 32 MiB, and
    calls on another connection of the same session.

    @param broker: runs; its child has C{flood}.
    """
    title("a reader of a shared session that does not read")
    headers = broker.open_session()
    stream = socket.socket()
    stream.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16 * 1024)
    stream.connect(("127.0.0.1", broker.port))
    asked = {**headers, "Accept": "text/event-stream"}
    head = "".join(f"{name}: {value}\r\n" for name, value in asked.items())
    host = f"127.0.0.1:{broker.port}"
    stream.sendall(f"GET /mcp HTTP/1.1\r\nHost: {host}\r\n{head}\r\n".encode())
    stream.recv(1024)
    flood = Connection(broker.port)
    flood.send(
        flood.prepare(
            "POST", "/mcp", headers, broker.call(1, "flood", {"bytes": _FLOOD_BYTES})
        )
    )
    waits = []
    caller = Connection(broker.port)
    selector = selectors.DefaultSelector()
    selector.register(flood.socket, selectors.EVENT_READ)
    number, is_over, deadline = 1, False, time.monotonic() + 60
    while time.monotonic() < deadline and not (is_over and number > 100):
        number += 1
        began = time.perf_counter()
        caller.ask(
            "POST", "/mcp", headers, broker.call(number, "echo", {"text": "still?"})
        )
        waits.append(time.perf_counter() - began)
        if not is_over and selector.select(0):
            is_over = flood.receive() is not None
    selector.close()
    for each in (caller, flood):
        each.close()
    stream.close()
    broker.close_session(headers)
    longer = [wait for wait in waits if wait > 0.5]
    rows = [
        ["calls", str(len(waits))],
        ["median ms", f"{1000 * middle(waits):.2f}"],
        ["calls that waited longer than 500 ms", str(len(longer))],
        ["the longest wait, s", f"{max(waits):.2f}"],
        ["the call that logged was answered", "yes" if is_over else "no"],
    ]
    table(["a stream cut", "result"], rows)


def timed_initialize(target: Target) -> tuple[float, dict[str, Any]]:
    """
    @param target: runs.
    @return: seconds from the request to its answer, and the session's headers.
    """
    connection = Connection(target.port)
    params = {
        "protocolVersion": "2025-11-25",
        "capabilities": {},
        "clientInfo": {"name": "bench", "version": "1"},
    }
    message = {"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": params}
    body = json.dumps(message).encode()
    began = time.perf_counter()
    answer = connection.ask("POST", "/mcp", target.headers(), body)
    took = time.perf_counter() - began
    connection.close()
    headers = target.headers()
    if "mcp-session-id" in answer.headers:
        headers["Mcp-Session-Id"] = answer.headers["mcp-session-id"]
    headers["MCP-Protocol-Version"] = "2025-11-25"
    return took, headers
