"""A client that stops reading, and the memory of the daemon's process."""

from __future__ import annotations

import json
import re
import socket
import time
from pathlib import Path
from typing import Any

import attrs
from twisted.internet.threads import deferToThread

from tests.real.client import McpClient
from tests.real.daemon import pause
from tests.real.relay import ECHO, call
from tests.real.test_sessions import SessionCase

MIB = 1024 * 1024
GROWTH_BYTES = 8 * MIB
"""What may be added to the message in hand."""


WATCH_SECONDS = 9.0
TAKEN = 2.0
"""Much longer than it takes to relay a large message."""

HELD = (1.0, 4.5)
"""A full stream holds its child for five seconds."""


@attrs.frozen
class Sample:
    """One look at the daemon and its child."""

    seconds: float
    grown_bytes: int
    written_bytes: int


def resident_bytes(pid: int) -> int:
    """How much memory a process has now."""
    status = Path(f"/proc/{pid}/status").read_text(encoding="ascii", errors="replace")
    found = re.search(r"VmRSS:\s+(\d+) kB", status)
    assert found is not None
    return int(found[1]) * 1024


def written_bytes(pid: int) -> int:
    """How much a process has written since it began."""
    lines = Path(f"/proc/{pid}/io").read_text(encoding="ascii").splitlines()
    return int(dict(line.split(": ") for line in lines)["wchar"])


class SlowReaderTests(SessionCase):
    """Neither the daemon nor the child runs full for it."""

    runs_alone = True

    async def begin_with_echo(self) -> McpClient:
        """A daemon with children that write as fast as anybody reads."""
        await self.begin(FJMCP_BROKER_CHILD_COMMAND=",".join(ECHO))
        client = await self.signed_in()
        # What a process needs once.
        warm = {"bytes": 100, "count": 10}
        await deferToThread(self.read_all, client, "notify", warm)
        return client

    def connect(self, client: McpClient, tool: str, arguments: Any) -> socket.socket:
        """A call on a connection of its own."""
        message = call(7, tool, arguments)
        message["params"]["_meta"] = {"progressToken": 1}
        body = json.dumps(message).encode()
        fields = {
            "Host": f"127.0.0.1:{self.port}",
            "Content-Length": str(len(body)),
            "Connection": "close",
            **client.headers(),
        }
        head = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
        connection = socket.socket()
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8192)
        connection.settimeout(30)
        connection.connect(("127.0.0.1", self.port))
        connection.sendall(f"POST /mcp HTTP/1.1\r\n{head}\r\n".encode() + body)
        return connection

    def read_all(self, client: McpClient, tool: str, arguments: Any) -> int:
        """Read an answer to its end."""
        total = 0
        with self.connect(client, tool, arguments) as connection:
            while data := connection.recv(MIB):
                total += len(data)
        return total

    async def watch(self, client: McpClient, tool: str, arguments: Any) -> list[Sample]:
        """
        Ask for something and read nothing of it until the daemon has given up.

        @return: what was seen meanwhile.
        """
        (child,) = self.children()
        before = resident_bytes(self.daemon.pid)
        samples: list[Sample] = []
        with self.connect(client, tool, arguments):
            began = time.monotonic()
            while not samples or samples[-1].seconds < WATCH_SECONDS:
                await pause(0.05)
                samples.append(
                    Sample(
                        time.monotonic() - began,
                        resident_bytes(self.daemon.pid) - before,
                        written_bytes(child),
                    )
                )
        await self.until(
            lambda: resident_bytes(self.daemon.pid) - before < GROWTH_BYTES,
            "the memory is not given back",
        )
        return samples

    async def test_many_messages(self) -> None:
        """The child is held back until the stream is cut; then it goes on, and the
        memory stays bounded all the time."""
        client = await self.begin_with_echo()
        size, count = 65536, 3000
        samples = await self.watch(client, "notify", {"bytes": size, "count": count})
        most = max(sample.grown_bytes for sample in samples)
        self.assertLess(most, GROWTH_BYTES + size)
        held = {s.written_bytes for s in samples if HELD[0] < s.seconds < HELD[1]}
        self.assertEqual(len(held), 1, samples)
        last = samples[-1].written_bytes
        self.assertGreater(last - held.pop(), size * count * 3 // 4)
        # The session is none the worse for it.
        answer = await self.call(client, "echo", text="still here")
        self.assertEqual(answer["result"], {"value": {"text": "still here"}})

    async def test_one_large_message(self) -> None:
        """It is in hand, and there is little beside it."""
        client = await self.begin_with_echo()
        size = 40 * MIB
        samples = await self.watch(client, "big", {"bytes": size})
        # While it is taken apart and put together again there are copies of it.
        self.assertLess(max(s.grown_bytes for s in samples), 4 * size + GROWTH_BYTES)
        held = [s.grown_bytes for s in samples if HELD[0] < s.seconds - TAKEN < HELD[1]]
        self.assertGreater(min(held), size // 2)
        self.assertLess(max(held), size + GROWTH_BYTES)
