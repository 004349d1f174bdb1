"""
Attacks on what a daemon has only so much of. Each test prints its figures.
"""

from __future__ import annotations

import contextlib
import json
import socket
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor

from twisted.internet.threads import deferToThread

from tests.real.broker_case import BrokerCase
from tests.real.client import FORM, McpClient
from tests.real.daemon import Daemon
from tests.real.test_slow_reader import resident_bytes

MIB = 2**20
PROMPT_SECONDS = 2.0
"""What others may wait for while somebody attacks, on a machine that is busy."""


def figure(text: str) -> None:
    """Print what was measured."""
    sys.stderr.write(f"FIGURE {text}\n")


def raw(
    daemon: Daemon, head: str, body: bytes = b"", seconds: float = 20
) -> socket.socket:
    """A connection on which something was sent."""
    connection = socket.create_connection(("127.0.0.1", daemon.port), seconds)
    try:
        connection.sendall(head.encode() + body)
    except OSError:
        connection.close()
        raise
    return connection


def status_of(connection: socket.socket) -> int:
    """The status of the answer, read to the end of the connection; 0: none came."""
    data = b""
    with connection, contextlib.suppress(OSError):
        while piece := connection.recv(65536):
            data += piece
    return int(data.split()[1]) if data.startswith(b"HTTP/1.1 ") else 0


def head(path: str, headers: Mapping[str, str], method: str = "POST") -> str:
    """The head of a request."""
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    return f"{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n{lines}\r\n"


def timed(work: Callable[[], object]) -> float:
    """How long something took."""
    began = time.monotonic()
    work()
    return time.monotonic() - began


class FloodTests(BrokerCase):
    """Somebody asks for all of it; others go on."""

    runs_alone = True

    async def begin(self, **more: str) -> tuple[Daemon, McpClient, McpClient]:
        """A daemon, an attacker who is signed in, and somebody else."""
        daemon, forgejo = await self.launch(**more)
        attacker = await self.session(daemon, forgejo, "alice")
        other = await self.session(daemon, forgejo, "bob")
        return daemon, attacker, other

    async def test_half_bodies(self) -> None:
        """Twenty bodies of 16 MiB, each sent up to its last bytes."""
        daemon, attacker, other = await self.begin()
        before = resident_bytes(daemon.pid)
        size = 16 * MIB
        fields = {**attacker.headers(), "Content-Length": str(size)}

        def attack() -> tuple[list[socket.socket], int]:
            held, refused = [], 0
            for _ in range(20):
                try:
                    connection = raw(daemon, head("/mcp", fields), b" " * (size - 10))
                except OSError:
                    # Refused and closed while it was being sent.
                    refused += 1
                else:
                    held.append(connection)
            return held, refused

        held, refused = await deferToThread(attack)
        grown = resident_bytes(daemon.pid) - before
        took = await deferToThread(timed, lambda: other.call("get_my_user_info"))
        figure(
            f"20 half bodies of 16 MiB: memory grew by {grown // MIB} MiB, {refused} "
            f"refused while sending, another user's call took {took * 1000:.0f} ms"
        )
        # Half of 64 MiB is one user's.
        self.assertLess(grown, 60 * MIB)
        self.assertLess(took, PROMPT_SECONDS)
        answer = await deferToThread(
            lambda: status_of(raw(daemon, head("/mcp", fields)))
        )
        self.assertEqual(answer, 503)
        for connection in held:
            connection.close()

    async def test_oversized(self) -> None:
        """What is too long is answered before it was sent, and the answer arrives."""
        daemon, attacker, other = await self.begin()
        before = resident_bytes(daemon.pid)
        fields = attacker.headers()
        long = "x" * (2 * MIB)

        def attack() -> dict[str, int]:
            return {
                "body": status_of(
                    raw(
                        daemon,
                        head("/mcp", {**fields, "Content-Length": str(17 * MIB)}),
                    )
                ),
                "form": status_of(
                    raw(
                        daemon,
                        head("/oauth/token", {**FORM, "Content-Length": "100000"}),
                    )
                ),
                "line": status_of(raw(daemon, f"GET /{long} HTTP/1.1\r\n\r\n")),
                "header": status_of(raw(daemon, head("/mcp", {"X": long}))),
                "headers": status_of(
                    raw(daemon, head("/mcp", {f"X-{n}": "y" for n in range(5000)}))
                ),
            }

        found = await deferToThread(attack)
        grown = resident_bytes(daemon.pid) - before
        figure(f"oversized requests: {found}, memory grew by {grown // 1024} KiB")
        self.assertEqual(
            found,
            {"body": 413, "form": 413, "line": 414, "header": 431, "headers": 431},
        )
        self.assertLess(grown, 8 * MIB)
        await deferToThread(other.call, "get_my_user_info")

    async def test_slowloris(self) -> None:
        """Four hundred connections that send a byte now and then."""
        daemon, _attacker, other = await self.begin()
        before = resident_bytes(daemon.pid)

        def attack() -> list[socket.socket]:
            drips = [raw(daemon, "POST /mcp HTTP/1.1\r\nX: ") for _ in range(400)]
            for _ in range(5):
                time.sleep(0.2)
                for drip in drips:
                    drip.sendall(b"y")
            return drips

        drips = await deferToThread(attack)
        grown = resident_bytes(daemon.pid) - before
        took = await deferToThread(timed, lambda: other.call("get_my_user_info"))
        figure(
            f"slowloris, 400 connections: memory grew by {grown // 1024} KiB, another "
            f"user's call took {took * 1000:.0f} ms"
        )
        self.assertLess(grown, 16 * MIB)
        self.assertLess(took, PROMPT_SECONDS)

        def read_on() -> Counter[int]:
            found: Counter[int] = Counter()
            for drip in drips:
                drip.settimeout(45)
                found[status_of(drip)] += 1
            return found

        # They are told after 30 seconds, however much they drip.
        self.assertEqual(await deferToThread(read_on), Counter({408: 400}))

    async def test_registration_flood(self) -> None:
        """Three thousand registrations from as many addresses, beside refreshes."""
        daemon, attacker, other = await self.begin()
        calm = [await deferToThread(timed, other.refresh) for _ in range(10)]
        body = json.dumps(
            {
                "redirect_uris": ["https://flood.example.org/back"],
                "token_endpoint_auth_method": "none",
            }
        ).encode()
        found: Counter[int] = Counter()
        slow: list[float] = []

        def register(number: int) -> None:
            address = f"203.0.{number // 250}.{number % 250}"
            fields = {
                "Content-Type": "application/json",
                "Content-Length": str(len(body)),
                "X-Forwarded-For": address,
                "Connection": "close",
            }
            found[status_of(raw(daemon, head("/oauth/register", fields), body))] += 1

        def attack() -> float:
            began = time.monotonic()
            with ThreadPoolExecutor(16) as pool:
                list(pool.map(register, range(3000)))
            return time.monotonic() - began

        flood = deferToThread(attack)
        while not flood.called:
            slow.append(await deferToThread(timed, other.refresh))
        seconds = await flood
        calm.sort()
        slow.sort()
        figure(
            f"registration flood: {dict(found)} in {seconds:.1f} s; refresh "
            f"{calm[len(calm) // 2] * 1000:.0f} ms before, median "
            f"{slow[len(slow) // 2] * 1000:.0f} ms, longest {slow[-1] * 1000:.0f} ms "
            f"of {len(slow)} meanwhile"
        )
        # All networks together have 1200, and what comes back in that time.
        self.assertLess(found[201], 1300)
        self.assertEqual(found[201] + found[429] + found[503], 3000)
        self.assertLess(slow[-1], PROMPT_SECONDS)
        del attacker

    async def test_one_network(self) -> None:
        """Sixty registrations an hour; the next network is not concerned."""
        daemon, _attacker, _other = await self.begin()

        def register(address: str) -> int:
            fields = {"X-Forwarded-For": address, "Connection": "close"}
            return status_of(
                raw(daemon, head("/oauth/register", {**fields, "Content-Length": "0"}))
            )

        def attack() -> list[int]:
            return [register(f"2001:db8:1:2::{number:x}") for number in range(70)]

        found = Counter(await deferToThread(attack))
        self.assertEqual(found, Counter({415: 60, 429: 10}))
        self.assertEqual(await deferToThread(register, "2001:db8:1:3::1"), 415)

    async def test_initialize_flood(self) -> None:
        """Sixty sessions at once, where a user may have four children."""
        daemon, attacker, other = await self.begin(
            FJMCP_BROKER_SESSIONS_MAX_PER_USER="4",
            FJMCP_BROKER_LIMITS_INITIALIZE="30/m",
        )
        message = {
            "jsonrpc": "2.0",
            "id": 1,
            "method": "initialize",
            "params": {
                "protocolVersion": "2025-11-25",
                "capabilities": {},
                "clientInfo": {"name": "flood", "version": "1"},
            },
        }
        body = json.dumps(message).encode()
        attacker.session_id = None
        fields = {
            **attacker.headers(),
            "Content-Length": str(len(body)),
            "Connection": "close",
        }
        most = 0

        def initialize(number: int) -> int:
            return status_of(raw(daemon, head("/mcp", fields), body, 60))

        def attack() -> Counter[int]:
            with ThreadPoolExecutor(20) as pool:
                return Counter(pool.map(initialize, range(60)))

        began = time.monotonic()
        flood = deferToThread(attack)
        slow = []
        while not flood.called:
            slow.append(
                await deferToThread(timed, lambda: other.call("get_my_user_info"))
            )
            most = max(most, self.children_of(daemon))
        came_back = int((time.monotonic() - began) / 2) + 1
        found = await flood
        figure(
            f"initialize flood: {dict(found)}, at most {most} children, another user's "
            f"call took at most {max(slow) * 1000:.0f} ms"
        )
        # One session was there already; its child and the other user's are children.
        self.assertIn(60 - 29 - found[429], range(came_back + 1))
        self.assertEqual(found[200] + found[503] + found[429], 60)
        self.assertGreaterEqual(found[200], 4)
        # Those that are told to go need a moment.
        self.assertLessEqual(most, 4 + 1 + 4)
        self.assertLess(max(slow), 2 * PROMPT_SECONDS)

    def children_of(self, daemon: Daemon) -> int:
        """How many processes the daemon has started that still run."""
        path = f"/proc/{daemon.pid}/task/{daemon.pid}/children"
        with open(path, encoding="ascii") as file:
            return len(file.read().split())
