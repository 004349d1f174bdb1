"""
How long sessions take to start, and what sessions that sleep cost.
"""

import sqlite3
import subprocess
import time
from collections.abc import Mapping, Sequence
from hashlib import sha256
from typing import Final

from bench.children import echo_child
from bench.load import payload
from bench.report import Effort, interleaved, middle, table, title
from bench.scaling import timed_initialize
from bench.targets import Broker

SLEEPING: Final = 10_000
CROWD: Final = 1000
PROTECTED: Final = ("setpriv", "--pdeathsig", "KILL")
"""How the broker starts children, too."""

_INITIALIZE: Final = (
    b'{"jsonrpc":"2.0","id":0,"method":"initialize","params":{"protocolVersion":'
    b'"2025-11-25","capabilities":{},"clientInfo":{"name":"bench","version":"1"}}}\n'
)


def _bare_child(before: Sequence[str] = ()) -> float:
    """
    @param before: programs that run it.
    @return: seconds from the start of a child to its answer to C{initialize}.
    """
    began = time.perf_counter()
    child = subprocess.Popen(  # noqa: S603 - our own program
        [*before, *echo_child()], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert child.stdin is not None  # noqa: S101 - asked for above
    assert child.stdout is not None  # noqa: S101 - asked for above
    child.stdin.write(_INITIALIZE)
    child.stdin.flush()
    child.stdout.readline()
    took = time.perf_counter() - began
    child.stdin.close()
    child.wait()
    child.stdout.close()
    return took


def start(broker: Broker, effort: Effort) -> None:
    """
    C{initialize} beside the start of the same child without anything around it, with no
    other sessions and with many.

    @param broker: runs.
    @param effort: how long.
    """
    title("the start of a session")

    names = ["the child alone", f"the child behind {PROTECTED[0]}", "initialize"]
    rounds = max(10, 4 * effort.rounds)

    def measure(name: str) -> float:
        if name == names[0]:
            return _bare_child()
        if name == names[1]:
            return _bare_child(PROTECTED)
        took, session = timed_initialize(broker)
        broker.close_session(session)
        return took

    rows = []
    for count in (0, CROWD):
        opened = broker.open_sessions(count)
        try:
            measured = interleaved(names, rounds, measure)
        finally:
            broker.close_sessions(opened)
        alone = middle(measured[names[0]])
        rows += [
            [
                str(count),
                name,
                f"{1000 * middle(each):.1f}",
                f"{1000 * (middle(each) - alone):.1f}",
            ]
            for name, each in measured.items()
        ]
    table(["sessions open", "start of", "ms", "more than the child alone"], rows)


def sleeping(broker: Broker, effort: Effort) -> None:
    """
    The start of a daemon and the first call of a session of before, with few sessions
    in the store and with many.

    @param broker: runs, without sessions.
    @param effort: how long.
    """
    title("sessions that sleep in the store")
    rows = []
    for count in (10, SLEEPING):
        session = broker.open_session()
        # It sleeps from here on, as all do when the daemon stops.
        broker.process.stop()
        _fill(broker, count)
        starts, wakes = [], []
        for _ in range(effort.rounds):
            starts.append(broker.restart())
            wakes.append(_wake(broker, session))
        broker.close_session(session)
        memory = broker.process.memory_kib() / 1024
        rows.append(
            [
                str(count),
                f"{1000 * middle(starts):.0f}",
                f"{1000 * middle(wakes):.1f}",
                f"{memory:.1f}",
            ]
        )
    table(["sessions", "start ms", "first call ms", "MiB then"], rows)


def _wake(broker: Broker, session: Mapping[str, str]) -> float:
    # The bearer is looked up again as well; no other request warms the daemon.
    return payload(broker, session, 1)


def _fill(broker: Broker, count: int) -> None:
    """Copy a row until there are so many. Nobody opens the copies."""
    connection = sqlite3.connect(broker.store, isolation_level=None)
    connection.execute("BEGIN IMMEDIATE")
    (have,) = connection.execute("SELECT count(*) FROM sessions").fetchone()
    names = [row[1] for row in connection.execute("PRAGMA table_info(sessions)")]
    others = ", ".join(name for name in names if name != "session_digest")
    connection.executemany(
        f"INSERT INTO sessions (session_digest, {others})"  # noqa: S608 - its own names
        f" SELECT ?, {others} FROM sessions WHERE closed_at IS NULL LIMIT 1",
        [(sha256(b"%d" % number).digest(),) for number in range(have, count)],
    )
    connection.execute("COMMIT")
    connection.close()
