"""
Sign-ins and refreshes with few and with many tokens in the store, which commits each of
them to the disk (C{synchronous=FULL}).
"""

import json
import os
import re
import selectors
import sqlite3
import time
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any, Final, cast
from urllib.parse import urlencode

from bench.load import Run
from bench.report import Effort, middle, say, table, title
from bench.targets import Broker
from bench.wire import Connection, WireError
from tests.real.client import McpClient

ROWS: Final = (1_000, 100_000)
PARALLEL: Final = 16
COLLECTOR: Final = "192.0.2.1"
"""Who reads the metrics, by way of a proxy on loopback."""

_PER_GRANT: Final = 10
_SIGN_INS: Final = 20
_FORM: Final = {"Content-Type": "application/x-www-form-urlencoded"}
_WRITES = re.compile(
    r'^fjmcp_store_transactions_total\{[^}]*kind="write"[^}]*\} ([0-9.e+]+)$', re.M
)


class _Chain:
    """One client that refreshes its tokens, again and again."""

    def __init__(self, broker: Broker, client: McpClient) -> None:
        self.connection = Connection(broker.port)
        self._client = client
        self.began = 0.0

    def begin(self) -> None:
        form = {
            "client_id": self._client.client_id,
            "grant_type": "refresh_token",
            "refresh_token": self._client.refresh_token,
        }
        body = urlencode(form).encode()
        request = self.connection.prepare("POST", "/oauth/token", _FORM, body)
        self.began = time.perf_counter()
        self.connection.send(request)

    def is_answered(self) -> bool:
        answer = self.connection.receive()
        if answer is None:
            return False
        if answer.status != 200:
            raise WireError(f"refresh: {answer.status} {answer.body[:200]!r}")
        tokens: dict[str, Any] = json.loads(answer.body)
        if tokens["refresh_token"] == self._client.refresh_token:
            raise WireError("the refresh token is the same")
        self._client.refresh_token = tokens["refresh_token"]
        return True


def fsync_seconds(directory: Path, times: int = 50) -> float:
    """
    @param directory: of the store.
    @param times: how often it is tried.
    @return: how long the disk takes for 4 KiB, the median.
    """
    path = directory / "fsync-probe"
    taken = []
    with path.open("wb", buffering=0) as file:
        for _ in range(times):
            file.write(b"x" * 4096)
            began = time.perf_counter()
            os.fsync(file.fileno())
            taken.append(time.perf_counter() - began)
    path.unlink()
    return middle(taken)


def signing(broker: Broker, effort: Effort) -> None:
    """
    Sign-ins of registered clients one after another, refreshes one after another and of
    16 clients at once.

    @param broker: runs with C{metrics.allow}; it is started again.
    @param effort: how long.
    """
    title("sign-ins and refreshes, by tokens in the store")
    rows = []
    for count in ROWS:
        broker.process.stop()
        fill(broker.store, count)
        broker.restart()
        clients = []
        for _ in range(max(PARALLEL, _SIGN_INS)):
            client = McpClient(broker.client.url)
            # What is measured begins with the authorization request.
            client.register()
            clients.append(client)
        writes, cpu = _writes(broker), broker.process.cpu_seconds()
        began = time.perf_counter()
        for client in clients:
            client.sign_in("alice", broker.people["alice"])
        took = time.perf_counter() - began
        cpu = broker.process.cpu_seconds() - cpu
        cells = [
            f"{count:,}",
            f"{len(clients) / took:.1f}",
            f"{1000 * cpu / len(clients):.1f}",
            f"{(_writes(broker) - writes) / len(clients):.2f}",
        ]
        for parallel in (1, PARALLEL):
            writes = _writes(broker)
            found = _refresh(broker, clients[:parallel], effort.seconds)
            cells += [
                f"{found.rate:.0f}",
                f"{1000 * found.percentile(0.5):.2f}",
                f"{(_writes(broker) - writes) / found.calls:.2f}",
            ]
        rows.append(cells)
    table(
        [
            "rows",
            "sign-ins/s",
            "CPU ms",
            "commits",
            "refreshes/s",
            "p50 ms",
            "commits",
            f"{PARALLEL} at once: refreshes/s",
            "p50 ms",
            "commits",
        ],
        rows,
    )
    took = fsync_seconds(broker.directory)
    say(
        f"\nfsync of 4 KiB beside the store: {1000 * took:.2f} ms. Commits of all kinds"
        " are counted, those of the audit trail and of traces, too."
    )


def _refresh(broker: Broker, clients: list[McpClient], seconds: float) -> Run:
    selector = selectors.DefaultSelector()
    chains = [_Chain(broker, client) for client in clients]
    latencies: list[float] = []
    cpu = broker.process.cpu_seconds()
    began = now = time.perf_counter()
    waiting = set(chains)
    try:
        for chain in chains:
            selector.register(chain.connection.socket, selectors.EVENT_READ, chain)
            chain.begin()
        # To the last answer: a client that does not know its tokens is signed out.
        while waiting:
            ready = selector.select(60)
            if not ready:
                raise WireError("no answer to a refresh within 60 s")
            for key, _ in ready:
                chain = cast(_Chain, key.data)
                if chain.is_answered():
                    now = time.perf_counter()
                    latencies.append(now - chain.began)
                    if now < began + seconds:
                        chain.begin()
                    else:
                        waiting.discard(chain)
    finally:
        selector.close()
        for chain in chains:
            chain.connection.close()
    latencies.sort()
    cpu = broker.process.cpu_seconds() - cpu
    return Run(len(latencies), now - began, cpu, latencies)


def _writes(broker: Broker) -> float:
    connection = Connection(broker.port)
    answer = connection.ask("GET", "/metrics", {"X-Forwarded-For": COLLECTOR})
    connection.close()
    if answer.status != 200:
        raise WireError(f"/metrics: {answer.status}")
    return sum(float(value) for value in _WRITES.findall(answer.body.decode()))


def fill(store: Path, count: int) -> None:
    """
    Copy the grant of a store, with an access and a refresh token, until there are so
    many rows of tokens.

    @param store: of a daemon that does not run.
    @param count: of access and refresh tokens together.
    """
    connection = sqlite3.connect(store, isolation_level=None)
    connection.execute("BEGIN IMMEDIATE")
    (have,) = connection.execute(
        "SELECT (SELECT count(*) FROM access_tokens)"
        " + (SELECT count(*) FROM refresh_tokens)"
    ).fetchone()
    (grant,) = connection.execute(
        "SELECT grant_id FROM grants WHERE revoked_at IS NULL LIMIT 1"
    ).fetchone()
    missing = range(have // 2, count // 2)
    names = [f"filler-{number}" for number in {n // _PER_GRANT for n in missing}]
    _copy(connection, "grants", "grant_id", {}, [(n, grant) for n in names], "grant_id")
    for kind in ("access", "refresh"):
        rows = [
            (
                sha256(f"{kind} {number}".encode()).digest(),
                f"filler-{number // _PER_GRANT}",
                grant,
            )
            for number in missing
        ]
        extra = {"grant_id": "?"}
        _copy(connection, f"{kind}_tokens", "token_digest", extra, rows, "grant_id")
    connection.execute("COMMIT")
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()


def _copy(
    connection: sqlite3.Connection,
    name: str,
    key: str,
    extra: dict[str, str],
    rows: Sequence[tuple[object, ...]],
    where: str,
) -> None:
    """The names are the program's own."""
    columns = [row[1] for row in connection.execute(f"PRAGMA table_info({name})")]
    order = [key, *extra, *(c for c in columns if c != key and c not in extra)]
    values = ["?", *extra.values(), *order[1 + len(extra) :]]
    connection.executemany(
        f"INSERT OR IGNORE INTO {name} ({', '.join(order)})"  # noqa: S608
        f" SELECT {', '.join(values)} FROM {name} WHERE {where} = ? LIMIT 1",
        rows,
    )
