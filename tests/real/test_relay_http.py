"""Early answers and lost connections, over real sockets."""

import json
import time
from typing import Any

from twisted.internet.task import deferLater

from tests.real.relay import Answer, RelayTestCase, call, reactor
from tests.real.test_relay import INITIALIZE


class EarlyAnswerTests(RelayTestCase):
    """The body is never needed for them."""

    async def head(self, length: str, token: str | None, **more: str) -> Answer:
        """Send the headers of a request and nothing else."""
        answer = await self.connect()
        fields = {
            "Host": "127.0.0.1",
            "Content-Type": "application/json",
            "Content-Length": length,
            **{name.replace("_", "-"): value for name, value in more.items()},
        }
        if token is not None:
            fields["Authorization"] = f"Bearer {token}"
        lines = "".join(f"{n}: {v}\r\n" for n, v in fields.items() if v)
        transport: Any = answer.transport
        transport.write(f"POST /mcp HTTP/1.1\r\n{lines}\r\n".encode())
        return answer

    async def complete(self, answer: Answer) -> int:
        """Wait for a whole answer, and tell its status."""
        await answer.until(
            lambda: (
                b"\r\n\r\n" in answer.raw
                and len(answer.body) >= int(answer.headers["content-length"])
            )
        )
        return answer.status

    async def test_unauthorized_without_the_body(self) -> None:
        """No credentials, wrong ones, cached or not."""
        self.authenticator.uncached.add("alice")
        for token in (None, "mallory"):
            answer = await self.head("500000", token)
            self.assertEqual(await self.complete(answer), 401)
            self.assertIn(
                "Bearer resource_metadata=", answer.headers["www-authenticate"]
            )
            await answer.closed

    async def test_too_large_without_the_body(self) -> None:
        """By its length, and by its chunks as soon as there are too many."""
        answer = await self.head("1000001", "alice")
        self.assertEqual(await self.complete(answer), 413)
        answer = await self.head("", "alice", Transfer_Encoding="chunked")
        transport: Any = answer.transport
        for _ in range(20):
            transport.write(b"ffff\r\n" + b" " * 0xFFFF + b"\r\n")
        self.assertEqual(await self.complete(answer), 413)

    async def test_client_that_sends_on_still_reads_the_answer(self) -> None:
        """Closing over unread data would reset the connection and lose it."""
        answer = await self.head("900000", "mallory")
        transport: Any = answer.transport
        for _ in range(9):
            transport.write(b" " * 100_000)
            await deferLater(reactor, 0.02)
        self.assertEqual(await self.complete(answer), 401)
        await answer.closed
        self.assertEqual(answer.json["error"]["code"], -32000)

    async def test_uncached_bearer(self) -> None:
        """The look-up happens once, while the body waits in the sockets."""
        self.authenticator.uncached.add("alice")
        self.authenticator.holding = []
        answer = await self.begin({**INITIALIZE, "x": "y" * 900_000})
        while not self.authenticator.holding:
            await deferLater(reactor, 0.01)
        await deferLater(reactor, 0.2)
        self.assertEqual(answer.raw, b"")
        self.authenticator.release()
        await answer.closed
        self.assertEqual(answer.status, 200)
        self.assertEqual(self.authenticator.lookups, 1)

    async def test_keep_alive(self) -> None:
        """Many calls on one connection, each answered in its turn."""
        session = await self.open()
        answer = await self.connect()
        transport: Any = answer.transport
        for number in range(50):
            body = json.dumps(call(number, "echo", {"n": number})).encode()
            head = (
                "POST /mcp HTTP/1.1\r\nHost: 127.0.0.1\r\n"
                f"Mcp-Session-Id: {session}\r\n"
                "Authorization: Bearer alice\r\nContent-Type: application/json\r\n"
                f"Accept: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
            )
            transport.write(head.encode() + body)
        await answer.until(lambda: answer.raw.count(b"HTTP/1.1 200") == 50)
        positions = [answer.raw.find(b'"n":%d}' % n) for n in range(50)]
        if -1 in positions:
            positions = [answer.raw.find(b'"n": %d}' % n) for n in range(50)]
        self.assertEqual(positions, sorted(positions))
        self.assertNotIn(-1, positions)


class LostConnectionTests(RelayTestCase):
    """Clients that vanish at any moment."""

    timeout = 90

    async def test_vanishing_clients_leave_nothing(self) -> None:
        """The child goes on; no request, stream or timer of theirs remains."""
        session = await self.open()
        while self.site.channels:  # which have timers
            await deferLater(reactor, 0.01)
        before = len(reactor.getDelayedCalls())
        for number in range(60):
            answer = await self.begin(
                call(number, "sleep", {"seconds": (number % 6) / 10}), session
            )
            transport: Any = answer.transport
            if number % 3 == 0:
                await answer.until(lambda a=answer: b"\r\n\r\n" in a.raw)  # type: ignore[misc]
            elif number % 3 == 1:
                await deferLater(reactor, 0.01)
            transport.abortConnection()
            await answer.closed
        while self.site.channels or len(reactor.getDelayedCalls()) > before:
            await deferLater(reactor, 0.01)
        self.assertEqual(len(reactor.getDelayedCalls()), before)
        answer = await self.send(call("last", "echo"), session)
        self.assertEqual(answer.message["id"], "last")

    async def test_drain_lets_answers_out(self) -> None:
        """The last answers reach their clients, then every connection is closed."""
        session = await self.open()
        idle = await self.connect()
        answer = await self.begin(call(1, "big", {"bytes": 5_000_000}), session)
        transport: Any = answer.transport
        transport.pauseProducing()
        await deferLater(reactor, 0.5)
        before = time.monotonic()
        await self.registry.stop(5)
        reactor.callLater(0.3, transport.resumeProducing)
        await self.site.drain(10)
        self.assertLess(time.monotonic() - before, 3)
        await answer.closed
        await idle.closed
        self.assertEqual(len(answer.message["result"]["value"]), 5_000_000)
