"""GET streams, and clients that lose connections, over real sockets."""

import random
import sys
import time
import tracemalloc
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.task import deferLater

from fjmcp_broker.secret import Secret
from fjmcp_broker.sessions.processes.child import Child
from fjmcp_broker.sessions.processes.ending import ChildObserver
from fjmcp_broker.sessions.processes.spawn import ChildSettings
from fjmcp_broker.sessions.processes.transport import Spawner
from fjmcp_broker.sessions.streams.bounds import PAUSE_SECONDS
from tests.real.relay import LAUNCHER, Answer, RelayTestCase, call, reactor

MEGABYTE = 1024 * 1024
STAND_IN = (sys.executable, "-m", "fjmcp_broker.demo.child", "--transport", "stdio")


class GetCase(RelayTestCase):
    """Sessions of the newest revision, with the stand-in child."""

    def setUp(self) -> None:
        """Its output is counted."""
        super().setUp()
        self.written = Path(self.mktemp()).resolve()

    def make_child(self, observer: ChildObserver, token: Secret, name: str) -> Child:
        """A stand-in that needs no Forgejo."""
        child = Child(
            spawner=Spawner(reactor),
            clock=reactor,
            launcher=LAUNCHER,
            settings=ChildSettings(
                command=STAND_IN,
                forgejo_url="http://127.0.0.1:1",
                env={
                    "PYTHONPATH": ":".join(filter(None, sys.path)),
                    "STANDIN_CHILD_NO_API": "1",
                    "STANDIN_CHILD_WRITTEN_FILE": str(self.written),
                },
                stop_grace_seconds=1,
            ),
            token=token,
            observer=observer,
            name=name,
        )
        self.children.append(child)
        return child

    def written_bytes(self) -> int:
        """How much the child has written so far."""
        return int(self.written.read_text() or "0")

    async def open_newest(self) -> str:
        """A session of 2025-11-25."""
        return await self.open(version="2025-11-25")

    async def get(self, session: str, last: str | None = None) -> Answer:
        """GET; returns when the stream has begun."""
        headers = {"Accept": "text/event-stream"}
        if last is not None:
            headers["Last-Event-ID"] = last
        answer = await self.begin(b"", session, method="GET", headers=headers)
        await answer.until(lambda: b"\r\n\r\n" in answer.raw)
        return answer


def whole_events(body: bytes) -> list[tuple[str, bytes]]:
    """Ids and data of the events that a client has got whole."""
    found = []
    for block in body.split(b"\n\n")[:-1]:
        fields = dict(line.split(b": ", 1) for line in block.split(b"\n"))
        if b"id" in fields:
            found.append((fields[b"id"].decode(), fields.get(b"data", b"")))
    return found


def abort(answer: Answer) -> None:
    """The client's machine vanishes."""
    transport: Any = answer.transport
    transport.abortConnection()


class ListeningTests(GetCase):
    """What belongs to no request."""

    async def test_notification_and_end(self) -> None:
        """It arrives while the session lives; then the stream ends."""
        session = await self.open_newest()
        listening = await self.get(session)
        self.assertEqual(listening.status, 200)
        changed = "notifications/tools/list_changed"
        await self.send(call(1, "notify", {"method": changed}), session)
        await listening.until(lambda: b"list_changed" in listening.raw)
        self.assertEqual(listening.events[-1]["method"], changed)
        deleted = await self.send(b"", session, method="DELETE")
        self.assertEqual(deleted.status, 204)
        await listening.closed
        self.assertTrue(listening.raw.endswith(b"0\r\n\r\n"))

    async def test_stop_does_not_wait_for_listeners(self) -> None:
        """Open GET streams hold no daemon up."""
        session = await self.open_newest()
        listening = [await self.get(session) for _ in range(3)]
        before = time.monotonic()
        await self.registry.stop(5)
        await self.site.drain(5)
        self.assertLess(time.monotonic() - before, 3)
        for each in listening:
            await each.closed
            self.assertTrue(each.raw.endswith(b"0\r\n\r\n"))

    async def test_hundred_calls_at_once(self) -> None:
        """Each has a stream with its own progress; the listener hears of none."""
        session = await self.open_newest()
        listening = await self.get(session)
        arguments = {"steps": 3, "seconds": 0.01}
        answers = await gatherResults(
            [
                Deferred.fromCoroutine(
                    self.send(
                        call(number, "progress", arguments, progress=f"t{number}"),
                        session,
                        headers={"Accept": "text/event-stream"},
                    )
                )
                for number in range(100)
            ]
        )
        for number, answer in enumerate(answers):
            *progress, last = answer.events
            self.assertEqual(last["id"], number)
            self.assertEqual([p["params"]["progress"] for p in progress], [1, 2, 3])
            self.assertEqual(
                {p["params"]["progressToken"] for p in progress}, {f"t{number}"}
            )
            ids = [id for id, _ in whole_events(answer.body)]
            self.assertEqual(len(ids), 5)
        self.assertEqual(listening.events, [])
        every = [id for a in answers for id, _ in whole_events(a.body)]
        self.assertEqual(len(set(every)), 500)


class LostConnectionTests(GetCase):
    """Clients that come back."""

    async def test_cut_anywhere(self) -> None:
        """Whatever was lost, each event arrives once, and in order."""
        dice = random.Random(20251125)  # noqa: S311 - reproducible
        session = await self.open_newest()
        for number in range(5):
            answer = await self.begin(
                call(
                    number, "progress", {"steps": 60, "seconds": 0.01}, progress=number
                ),
                session,
            )
            got: list[tuple[str, bytes]] = []
            while not got or b'"result"' not in got[-1][1]:
                enough = dice.randrange(400, 6000)
                await answer.until(lambda n=enough, a=answer: len(a.raw) >= n)  # type: ignore[misc]
                abort(answer)
                await answer.closed
                body = answer.body
                if not answer.raw.endswith(b"0\r\n\r\n"):
                    body = body[: dice.randrange(len(body) + 1)]
                got += whole_events(body)
                if not got:
                    got += whole_events(answer.body)[:1]
                answer = await self.get(session, got[-1][0])
            abort(answer)
            await answer.closed
            ids = [int(id.rpartition("-")[2]) for id, _ in got]
            self.assertEqual(ids, [*range(1, 63)])

    async def test_answer_after_the_client_left(self) -> None:
        """The call runs to its end, once, and GET fetches its answer."""
        session = await self.open_newest()
        answer = await self.begin(call(1, "slow", {"seconds": 0.8}), session)
        await answer.until(lambda: b"data: " in answer.raw)
        abort(answer)
        await answer.closed
        await deferLater(reactor, 1)
        again = await self.get(session, whole_events(answer.body)[-1][0])
        await again.closed
        self.assertEqual([event["id"] for event in again.events], [1])
        self.assertIn("result", again.events[0])


class MemoryTests(GetCase):
    """A client that stops reading."""

    runs_alone = True
    timeout = 120

    async def test_client_that_stops_reading(self) -> None:
        """
        Memory grows by a few MiB and the child stops writing, until the stream is
        cut; then the child goes on, and memory stays where it is.
        """
        session = await self.open_newest()
        await self.send(call(0, "echo"), session)
        tracemalloc.start()
        self.addCleanup(tracemalloc.stop)
        before = tracemalloc.get_traced_memory()[0]
        answer = await self.begin(
            call(1, "progress", {"steps": 400_000}, progress=1), session
        )
        transport: Any = answer.transport
        await answer.until(lambda: b"\r\n\r\n" in answer.raw)
        transport.pauseProducing()
        child: Any = self.children[0]
        while not child._pausers:
            await deferLater(reactor, 0.01)
        paused_at = time.monotonic()
        stopped_at = -1
        while self.written_bytes() != stopped_at:  # the pipe fills
            stopped_at = self.written_bytes()
            await deferLater(reactor, 0.5)
        while child._pausers:
            self.assertEqual(self.written_bytes(), stopped_at)
            await deferLater(reactor, 0.2)
        self.assertLess(time.monotonic() - paused_at, PAUSE_SECONDS + 3)
        while self.written_bytes() < stopped_at + 8 * MEGABYTE:
            await deferLater(reactor, 0.1)
        growth = tracemalloc.get_traced_memory()[1] - before
        self.assertLess(growth, 8 * MEGABYTE)
        transport.resumeProducing()
        await answer.closed

    async def test_huge_event(self) -> None:
        """50 MiB in one event, in linear time; it is not kept."""
        session = await self.open_newest()
        times = []
        for size in (5, 50):
            began = time.process_time()
            answer = await self.send(
                call(size, "big", {"bytes": size * MEGABYTE}),
                session,
                headers={"Accept": "text/event-stream"},
            )
            times.append(time.process_time() - began)
            text = answer.message["result"]["content"][0]["text"]
            self.assertGreaterEqual(len(text), size * MEGABYTE)
        self.assertLess(times[1], 30 * max(times[0], 0.1))
        again = await self.get(session, whole_events(answer.body)[0][0])
        await again.closed
        self.assertEqual(again.message["error"]["data"], {"reason": "answer_not_kept"})
