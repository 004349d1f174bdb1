"""
How cost grows with sessions and connections, and what slow readers cost the others.
"""

import json
import selectors
import socket
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from bench.load import Background, run
from bench.report import Effort, interleaved, middle, say, table, title
from bench.targets import Broker, Target, bare_target
from bench.wire import Connection

Headers = Mapping[str, str]
Figures = tuple[float, float, float]
"""Calls per second, the 99th percentile in seconds, CPU seconds for 1000 calls."""

Turn = tuple[str, int, int]
"""What is under load, and how many sessions and connections."""

CONNECTIONS: Final = tuple((1, connections) for connections in (1, 16, 100, 1000))
SESSIONS: Final = tuple((sessions, sessions) for sessions in (1, 16, 100, 300, 1000))
"""Sessions and connections: many connections of one session, and many sessions with
a connection each."""

_BROKER: Final = "broker"
_SLOW: Final = "slow"
_BARE: Final = "bare"
_KINDS: Final = (_BROKER, _SLOW)
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


def scaling(broker: Broker, directory: Path, effort: Effort) -> None:
    """
    Calls per second by sessions and connections, each shape alone and with one slow
    reader more for every ten connections, in sessions of their own; and of a bare
    resource by connections. All of them take turns, so that their ratios mean
    something.

    @param broker: runs.
    @param directory: for a log.
    @param effort: how long.
    """
    title("throughput by sessions and connections; then with 10 % slow readers")
    opened: list[Headers] = []
    slow: list[Headers] = []
    bare = bare_target(directory)
    shapes = list(dict.fromkeys((*CONNECTIONS, *SESSIONS)))
    turns = {f"{kind} {a} {b}": (kind, a, b) for a, b in shapes for kind in _KINDS}
    turns |= {f"{_BARE} {a} {b}": (_BARE, a, b) for a, b in CONNECTIONS}

    def measure(name: str) -> Figures:
        kind, sessions, connections = turns[name]
        if kind == _BARE:
            found = run(bare, [bare.headers()], connections, effort.seconds)
        else:
            readers = None
            if kind == _SLOW:
                readers = SlowReaders(broker, slow[: max(1, connections // 10)])
            found = run(broker, opened[:sessions], connections, effort.seconds, readers)
        return found.rate, found.percentile(0.99), found.cpu_per_thousand

    try:
        slow += broker.open_sessions(max(b for _, b in shapes) // 10)
        opened += broker.open_sessions(max(a for a, _ in shapes))
        each = interleaved(list(turns), max(2, effort.rounds // 2), measure)
    finally:
        broker.close_sessions([*opened, *slow])
        bare.stop()
    measured = {turns[name]: _middles(runs) for name, runs in each.items()}
    _show("connections", measured, CONNECTIONS)
    say("")
    _show("sessions", measured, SESSIONS)


def _middles(runs: Sequence[Figures]) -> Figures:
    rates, p99s, costs = zip(*runs, strict=True)
    return middle(rates), middle(p99s), middle(costs)


def rows(
    measured: Mapping[Turn, Figures], shapes: Sequence[tuple[int, int]]
) -> list[list[str]]:
    """
    @param measured: what did not fail.
    @param shapes: L{CONNECTIONS} or L{SESSIONS}.
    @return: the rows of their table. Ratios are to the best of these shapes.
    """
    alone = {
        shape: measured[_BROKER, *shape]
        for shape in shapes
        if (_BROKER, *shape) in measured
    }
    best = max((rate for rate, *_ in alone.values()), default=0.0)
    least = min((cost for *_, cost in alone.values()), default=0.0)
    best_bare = max(
        (figures[0] for turn, figures in measured.items() if turn[0] == _BARE),
        default=0.0,
    )
    found = []
    for shape, (rate, p99, cost) in alone.items():
        row = [
            str(shape[1]),
            f"{rate:.0f}",
            f"{rate / best:.2f}",
            f"{1000 * p99:.1f}",
            f"{cost:.3f}",
            f"{cost / least:.2f}",
        ]
        slow = measured.get((_SLOW, *shape))
        if slow is None:
            row += ["-"] * 4
        else:
            row += [
                f"{slow[0]:.0f}",
                f"{slow[0] / rate:.2f}",
                f"{1000 * slow[1]:.1f}",
                f"{slow[2] / cost:.2f}",
            ]
        if shapes is CONNECTIONS:
            bare = measured.get((_BARE, *shape))
            row += (
                ["-"] * 2
                if bare is None
                else [
                    f"{bare[0]:.0f}",
                    f"{bare[0] / best_bare:.2f}",
                ]
            )
        found.append(row)
    return found


def _show(
    of: str, measured: Mapping[Turn, Figures], shapes: Sequence[tuple[int, int]]
) -> None:
    columns = [
        of,
        "calls/s",
        "of best",
        "p99 ms",
        "CPU s per 1000",
        "to least",
        "slow: calls/s",
        "to alone",
        "p99 ms",
        "CPU",
    ]
    if shapes is CONNECTIONS:
        columns += ["a bare resource", "of its best"]
    table(columns, rows(measured, shapes))


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
