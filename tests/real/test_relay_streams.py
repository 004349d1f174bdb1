"""JSON or events, and readers of every pace, over real sockets."""

import re
import time
from typing import Any

from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.task import deferLater

from tests.real.relay import RelayTestCase, call, reactor
from tests.real.test_relay import arrived


class StreamTests(RelayTestCase):
    """JSON or events."""

    async def test_quick_answer_is_json(self) -> None:
        """One document, not cacheable."""
        session = await self.open()
        for _ in range(5):
            # A busy machine may need more than a quarter of a second, but not always.
            answer = await self.send(call(1, "echo"), session)
            if answer.headers["content-type"] == "application/json":
                break
        self.assertEqual(answer.headers["content-type"], "application/json")
        self.assertEqual(answer.headers["cache-control"], "no-store")

    async def test_slow_answer_is_a_stream(self) -> None:
        """It begins after a quarter of a second, unbuffered by proxies."""
        session = await self.open()
        answer = await self.begin(call(1, "sleep", {"seconds": 2}), session)
        before = time.monotonic()
        await answer.until(lambda: b"\r\n\r\n" in answer.raw)
        self.assertLess(time.monotonic() - before, 1.8)
        self.assertEqual(answer.headers["content-type"], "text/event-stream")
        self.assertEqual(answer.headers["x-accel-buffering"], "no")
        self.assertEqual(answer.headers["cache-control"], "no-store")
        await answer.closed
        self.assertEqual([event["id"] for event in answer.events], [1])
        self.assertRegex(answer.body.decode(), r"^id: [0-9a-f]+-1-1\ndata: \{")

    async def test_newest_revision_is_primed(self) -> None:
        """Only 2025-11-25 gets an empty first event."""
        session = await self.open(version="2025-11-25")
        answer = await self.send(call(1, "sleep", {"seconds": 0.4}), session)
        first, second = answer.body.strip().split(b"\n\n")
        self.assertRegex(first.decode(), r"^id: [0-9a-f]+-1-1\ndata: ?$")
        self.assertRegex(second.decode(), r"^id: [0-9a-f]+-1-2\ndata: \{")

    async def test_progress_goes_to_its_own_stream(self) -> None:
        """Under the client's own token, even when two clients chose the same."""
        session = await self.open()
        answers = await gatherResults(
            [
                Deferred.fromCoroutine(
                    self.send(
                        call(n, "progress", {"steps": 20, "note": n}, progress=token),
                        session,
                    )
                )
                for n, token in ((1, "t"), (2, 7), (3, "t"), (4, "7"))
            ]
        )
        for number, token, answer in zip(
            (1, 2, 3, 4), ("t", 7, "t", "7"), answers, strict=True
        ):
            *progress, last = answer.events
            self.assertEqual(last["id"], number)
            self.assertEqual([p["params"]["progress"] for p in progress], [*range(20)])
            for event in progress:
                self.assertEqual(event["params"]["note"], number)
                self.assertEqual(event["params"]["progressToken"], token)

    async def test_client_that_takes_json_alone(self) -> None:
        """It waits, gets one document and no notification."""
        session = await self.open()
        answer = await self.send(
            call(1, "progress", {"steps": 3, "note": 0}, progress=1),
            session,
            headers={"Accept": "application/json"},
        )
        self.assertEqual(answer.json["id"], 1)

    async def test_child_asks_the_client(self) -> None:
        """The question goes to the only request in flight, the answer goes back."""
        session = await self.open()
        answer = await self.begin(call(1, "ask"), session)
        await answer.until(lambda: b"sampling" in answer.raw)
        question = answer.events[-1]
        wrong = {"jsonrpc": "2.0", "id": "q0", "result": {"n": 0}}
        self.assertEqual((await self.send(wrong, session)).status, 202)
        reply = {"jsonrpc": "2.0", "id": question["id"], "result": {"n": 1}}
        self.assertEqual((await self.send(reply, session)).status, 202)
        await answer.closed
        self.assertEqual(answer.message["result"], {"value": {"n": 1}})

    async def test_child_asks_nobody_in_particular(self) -> None:
        """With two requests in flight it gets an error, and goes on."""
        session = await self.open()
        other = await self.begin(call(1, "sleep", {"seconds": 2}), session)
        await arrived(self, session)
        answer = await self.send(call(2, "ask"), session)
        self.assertEqual(
            answer.message["result"]["value"]["data"], {"reason": "no_stream"}
        )
        await other.closed

    async def test_cancelled_request(self) -> None:
        """Its stream ends without an answer, and its id may be used again."""
        session = await self.open()
        answer = await self.begin(call(1, "mute"), session)
        await arrived(self, session)
        note = {
            "jsonrpc": "2.0",
            "method": "notifications/cancelled",
            "params": {"requestId": 1},
        }
        self.assertEqual((await self.send(note, session)).status, 202)
        await answer.closed
        self.assertEqual((answer.status, answer.events), (200, []))
        seen = await self.send(call(1, "seen"), session)
        self.assertIn("notifications/cancelled", seen.message["result"]["value"])

    async def test_departed_client_leaves_the_child_alone(self) -> None:
        """The child goes on, and so does the session."""
        session = await self.open()
        answer = await self.begin(call(1, "sleep", {"seconds": 0.6}), session)
        await answer.until(lambda: b"\r\n\r\n" in answer.raw)
        transport: Any = answer.transport
        transport.abortConnection()
        again = await self.send(call(2, "sleep", {"seconds": 0.5}), session)
        self.assertEqual(again.message["id"], 2)
        self.assertTrue(self.children[0].usable())

    async def test_batch_of_the_revision_that_has_them(self) -> None:
        """2025-03-26 must accept batches: split, every part answered."""
        session = await self.open(version="2025-03-26")
        batch = [
            call(1, "echo", {"n": 1}),
            {"jsonrpc": "2.0", "method": "notifications/initialized"},
            call(2, "nothing"),
            {"jsonrpc": "1.0", "id": 3, "method": "ping"},
            {"jsonrpc": "2.0", "id": 4, "method": "initialize"},
            call(1, "echo"),
        ]
        for accept in ("application/json", "text/event-stream", "*/*"):
            answer = await self.send(batch, session, headers={"Accept": accept})
            self.assertEqual(answer.status, 200)
            parts = answer.json if accept == "application/json" else answer.events
            kinds = sorted((p["id"], "result" in p) for p in parts)
            self.assertEqual(
                kinds, [(1, False), (1, True), (2, False), (3, False), (4, False)]
            )
        notes = [{"jsonrpc": "2.0", "method": "notifications/initialized"}]
        self.assertEqual((await self.send(notes, session)).status, 202)
        newer = await self.open(version="2025-06-18")
        self.assertEqual((await self.send(batch, newer)).status, 400)
        self.assertEqual((await self.send(batch)).status, 400)


class LoadTests(RelayTestCase):
    """Big and slow."""

    runs_alone = True
    timeout = 120

    async def test_big_answer(self) -> None:
        """50 MiB pass in linear time."""
        session = await self.open()
        times = []
        for size in (5, 50):
            before = time.process_time()
            answer = await self.send(
                call(1, "big", {"bytes": size * 1024 * 1024}), session
            )
            times.append(time.process_time() - before)
            self.assertEqual(answer.message["result"]["value"], "x" * size * 1024**2)
        self.assertLess(times[1], 30 * max(times[0], 0.1))

    async def test_slow_reader(self) -> None:
        """Memory stays bounded, and the child is held up for five seconds only."""
        session = await self.open()
        answer = await self.begin(
            call(1, "notify", {"count": 2000, "bytes": 10_000}, progress=1), session
        )
        transport: Any = answer.transport
        await answer.until(lambda: b"\r\n\r\n" in answer.raw)
        transport.pauseProducing()
        child: Any = self.children[0]
        began: float | None = None
        while began is None or time.monotonic() < began + 0.4:
            # For good, not only until the sockets' buffers are full.
            if not child._pausers:
                began = None
            elif began is None:
                began = time.monotonic()
            await deferLater(reactor, 0.02)
        other = await self.send(call(2, "echo", {"n": 2}), session)
        held_up = time.monotonic() - began
        self.assertEqual(other.message["id"], 2)
        self.assertGreater(held_up, 1)
        self.assertLess(held_up, 15)
        transport.resumeProducing()
        await answer.closed
        self.assertNotIn(b'"done"', answer.raw)
        self.assertTrue(self.children[0].usable())
        # What was kept is there for a client that comes back, the answer included.
        lost = re.findall(rb"(?m)^id: (\S+)-(\d+)$", answer.body.rpartition(b"\n\n")[0])
        name, number = lost[-1]
        headers = {
            "Accept": "text/event-stream",
            "Last-Event-ID": f"{name.decode()}-{number.decode()}",
        }
        again = await self.send(b"", session, method="GET", headers=headers)
        *progress, last = again.events
        self.assertEqual(last["result"], {"value": "done"})
        steps = [each["params"]["progress"] for each in progress]
        self.assertEqual(steps, [*range(2000)][-len(steps) :])
        self.assertGreater(len(steps), 300)
