"""What is kept of streams, and clients that come back."""

import json

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from fjmcp_broker.sessions.processes.throttle import NoThrottle
from fjmcp_broker.sessions.streams.bounds import PAUSE_SECONDS
from fjmcp_broker.sessions.streams.events import EVENT_OVERHEAD_BYTES, EventStream
from fjmcp_broker.sessions.streams.replay import (
    MAXIMUM_LISTENERS,
    OWED_SECONDS,
    READ_SECONDS,
    Replays,
)
from fjmcp_broker.sessions.streams.stream import Formats, ResponseStream
from tests.unit.sessions.stream_case import Connection, Throttle

ALL = list(HealthCheck)


class ReplayCase(SynchronousTestCase):
    """Streams whose connections end when the test likes."""

    session_bytes = 1_000_000
    total_bytes = 2_000_000

    def setUp(self) -> None:
        """Nothing is kept."""
        self.reset()

    def reset(self) -> None:
        """Begin anew, in the middle of a test."""
        self.clock = Clock()
        self.throttle = Throttle()
        self.replays = Replays(
            self.clock, session_bytes=self.session_bytes, total_bytes=self.total_bytes
        )

    def tearDown(self) -> None:
        """Nothing runs, and nothing stays for longer than it should."""
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assertEqual(self.throttle.pausers, [])
        self.clock.advance(OWED_SECONDS)
        self.replays.expire()
        self.assertEqual(self.replays.kept_bytes, 0)

    def begin(
        self, *, primed: bool = True, session: bytes = b"s", grant: str = "g"
    ) -> tuple[ResponseStream, Connection]:
        """The answer to a POST, which has become a stream."""
        events = self.replays.begin(
            session, grant, self.throttle, is_call=True, request_id=b"7"
        )
        connection = Connection(self.clock)
        stream = ResponseStream(
            connection.request,
            self.clock,
            self.throttle,
            formats=Formats.EVENTS,
            events=events,
            primed=primed,
        )
        return stream, connection

    def come_back(
        self, last: str, session: bytes = b"s", grant: str = "g"
    ) -> Connection | None:
        """GET with C{Last-Event-ID}."""
        found = self.replays.find(session, grant, last)
        return None if found is None else self.read_on(*found)

    def read_on(self, events: EventStream, number: int) -> Connection:
        """A new connection for a stream."""
        connection = Connection(self.clock)
        ResponseStream(
            connection.request,
            self.clock,
            events.throttle,
            formats=Formats.EVENTS,
            events=events,
            backlog=events.after(number),
        )
        return connection


class ComingBackTests(ReplayCase):
    """A client that lost its connection."""

    def test_answer_that_came_meanwhile(self) -> None:
        """It is there, once, and the stream ends."""
        stream, connection = self.begin()
        ((last, _),) = connection.received()
        connection.depart()
        stream.send(b"1")
        stream.answer(b"2")
        again = self.come_back(last)
        assert again is not None
        self.assertEqual([data for _, data in again.received()], [b"1", b"2"])
        self.assertTrue(again.request.finished)

    def test_call_that_still_runs(self) -> None:
        """The stream goes on where it broke off."""
        stream, connection = self.begin()
        stream.send(b"1")
        connection.depart()
        self.assertFalse(stream.takes_messages)
        stream.send(b"2")
        again = self.come_back(connection.received()[-1][0])
        assert again is not None
        self.assertTrue(stream.takes_messages)
        stream.send(b"3")
        self.assertFalse(again.request.finished)
        stream.answer(b"4")
        self.assertEqual([data for _, data in again.received()], [b"2", b"3", b"4"])
        self.assertTrue(again.request.finished)

    def test_connection_that_nobody_saw_break(self) -> None:
        """The newer one reads on, the older is cut off."""
        stream, connection = self.begin()
        stream.send(b"1")
        again = self.come_back(connection.received()[0][0])
        assert again is not None
        self.assertTrue(connection.transport.aborted)
        stream.answer(b"2")
        self.assertEqual([data for _, data in again.received()], [b"1", b"2"])
        self.assertEqual(len(connection.received()), 2)
        connection.depart()

    def test_end_without_an_answer(self) -> None:
        """A cancelled call: the stream that is read on ends as well."""
        stream, connection = self.begin()
        connection.depart()
        again = self.come_back(connection.received()[-1][0])
        assert again is not None
        stream.end()
        self.assertTrue(again.request.finished)
        self.assertEqual(len(self.replays), 0)

    def test_client_that_knows_no_id(self) -> None:
        """Nothing is kept for it: it could not come back."""
        stream, connection = self.begin(primed=False)
        connection.depart()
        stream.answer(b"1" * 1000)
        self.assertEqual((self.replays.kept_bytes, len(self.replays)), (0, 0))

    def test_answer_in_json(self) -> None:
        """Nothing is kept of it."""
        events = self.replays.begin(b"s", "g", self.throttle, is_call=True)
        connection = Connection(self.clock)
        stream = ResponseStream(
            connection.request, self.clock, self.throttle, events=events
        )
        stream.answer(b"{}")
        self.assertEqual(connection.text(), b"{}")
        self.assertEqual((self.replays.kept_bytes, len(self.replays)), (0, 0))

    def test_reader_that_was_too_slow(self) -> None:
        """What it could not take waits for it, as far as there is room."""
        stream, connection = self.begin()
        connection.transport.slow = True
        sent = 0
        while not self.throttle.pausers:
            sent += 1
            stream.send(b"%d" % sent + b" " * 100_000)
        self.clock.advance(PAUSE_SECONDS)
        self.assertTrue(connection.transport.aborted)
        connection.depart()
        stream.answer(b"%d" % (sent + 1))
        again = self.come_back(connection.received()[0][0])
        assert again is not None
        numbers = [json.loads(data) for _, data in again.received()]
        self.assertEqual(numbers, [*range(sent + 3 - len(numbers) - 1, sent + 2)])
        self.assertGreater(len(numbers), 8)
        self.assertLessEqual(self.replays.kept_bytes, self.session_bytes)

    def test_junk(self) -> None:
        """Any text of a client may stand in C{Last-Event-ID}."""
        _, connection = self.begin()
        name = connection.received()[0][0][:-2]
        junk = ("", "-", "x", "1-1", name, f"{name}-", f"{name}-x", f"{name}-²")
        for last in (*junk, f"{name}-{'1' * 5000}", "\x00", "é-1"):
            self.assertIsNone(self.replays.find(b"s", "g", last))
        connection.depart()
        self.replays.forget(b"s")


class KeepingTests(ReplayCase):
    """What stays, for whom and for how long."""

    def leave(self, **named: str | bytes) -> str:
        """A call whose answer waits for its client: the last id that it knows."""
        stream, connection = self.begin(**named)  # type: ignore[arg-type]
        connection.depart()
        stream.answer(b"{}")
        return connection.received()[-1][0]

    def test_other_sessions_and_grants(self) -> None:
        """An id is worth nothing elsewhere; another grant finds the shelf empty."""
        last = self.leave()
        self.assertIsNone(self.replays.find(b"t", "g", last))
        self.assertIsNotNone(self.replays.find(b"s", "g", last))
        self.assertIsNone(self.replays.find(b"s", "h", last))
        self.assertIsNone(self.replays.find(b"s", "g", last))
        self.assertEqual(self.replays.kept_bytes, 0)

    def test_running_call_of_another_grant(self) -> None:
        """It is read to its end by whoever reads it, and nobody comes back to it."""
        stream, connection = self.begin()
        self.begin(grant="h")[1].depart()
        stream.answer(b"1")
        self.assertEqual(connection.received()[-1][1], b"1")
        self.assertTrue(connection.request.finished)
        self.replays.forget(b"s")

    def test_five_minutes(self) -> None:
        """What a client lacks is kept for five minutes."""
        last = self.leave()
        self.clock.advance(OWED_SECONDS - 1)
        self.assertIsNotNone(self.replays.find(b"s", "g", last))
        self.clock.advance(1)
        self.assertIsNone(self.replays.find(b"s", "g", last))
        self.assertEqual(len(self.replays), 0)

    def test_the_child_is_not_kept(self) -> None:
        """A stream that is kept for its client keeps no child once it has ended."""
        events = self.replays.begin(b"s", "g", self.throttle, is_call=True)
        events.send(b"1")
        self.assertIs(events.throttle, self.throttle)
        events.answer(b"2")
        self.assertEqual(len(events.after(0)), 2)
        self.assertIsInstance(events.throttle, NoThrottle)

    def test_one_minute(self) -> None:
        """What was written out to the end, in case the network lost it."""
        stream, connection = self.begin()
        stream.answer(b"{}")
        last = connection.received()[0][0]
        self.clock.advance(READ_SECONDS - 1)
        self.assertIsNotNone(self.replays.find(b"s", "g", last))
        self.clock.advance(1)
        self.assertIsNone(self.replays.find(b"s", "g", last))

    def test_answer_without_room(self) -> None:
        """An error takes its place; other streams keep theirs."""
        other = self.leave()
        stream, connection = self.begin()
        last = connection.received()[0][0]
        connection.depart()
        stream.answer(b'"' + b"x" * self.session_bytes + b'"')
        again = self.come_back(last)
        assert again is not None
        ((_, data),) = again.received()
        self.assertEqual(json.loads(data)["id"], 7)
        self.assertEqual(json.loads(data)["error"]["data"]["reason"], "answer_not_kept")
        self.assertIsNotNone(self.replays.find(b"s", "g", other))

    def test_answer_that_had_to_make_room(self) -> None:
        """An error takes the place of one that was kept and went."""
        stream, connection = self.begin()
        last = connection.received()[0][0]
        connection.depart()
        stream.answer(b'"' + b"x" * 500_000 + b'"')
        for _ in range(2):
            noise, noisy = self.begin()
            noisy.depart()
            noise.answer(b'"' + b"y" * 400_000 + b'"')
        again = self.come_back(last)
        assert again is not None
        self.assertIn(b"answer_not_kept", again.received()[0][1])

    def test_what_was_read_goes_first(self) -> None:
        """However old the rest is."""
        owed = self.leave()
        for _ in range(30):
            stream, _ = self.begin()
            stream.answer(b" " * 100_000)
        again = self.come_back(owed)
        assert again is not None
        self.assertEqual(again.received()[-1][1], b"{}")

    def test_listener(self) -> None:
        """It lasts as long as it is read; what it was sent can be read again."""
        left: list[EventStream] = []
        events = self.replays.begin(
            b"s", "g", self.throttle, is_call=False, on_left=left.append
        )
        connection = self.read_on(events, 0)
        events.send(b"1")
        events.send(b"2")
        self.assertEqual(len(connection.received()), 2)
        connection.depart()
        self.assertEqual(left, [events])
        again = self.come_back(connection.received()[0][0])
        assert again is not None
        events.send(b"3")
        self.assertEqual([data for _, data in again.received()], [b"2", b"3"])
        self.replays.forget(b"s")
        self.assertTrue(again.request.finished)
        self.assertEqual(len(self.replays), 0)

    def test_too_many_listeners(self) -> None:
        """The oldest ends."""
        connections = []
        for _ in range(MAXIMUM_LISTENERS + 2):
            events = self.replays.begin(b"s", "g", self.throttle, is_call=False)
            connections.append(self.read_on(events, 0))
        finished = [bool(each.request.finished) for each in connections]
        self.assertEqual(finished, [True] * 2 + [False] * MAXIMUM_LISTENERS)
        self.assertEqual(len(self.replays), MAXIMUM_LISTENERS)
        self.replays.forget(b"s")


class AnySequenceTests(ReplayCase):
    """Whatever both sides do."""

    @settings(max_examples=150, suppress_health_check=ALL, deadline=None)
    @given(
        steps=st.lists(
            st.one_of(
                st.tuples(st.just("send"), st.integers(0, 400)),
                st.tuples(st.just("cut"), st.floats(0, 1)),
                st.tuples(st.just("unseen"), st.floats(0, 1)),
                st.tuples(st.just("slow"), st.integers(0, 1)),
                st.tuples(st.just("read"), st.just(0)),
                st.tuples(st.just("wait"), st.integers(0, 10)),
            ),
            max_size=30,
        ),
        answered_early=st.booleans(),
    )
    def test_each_event_exactly_once(
        self, steps: list[tuple[str, float]], answered_early: bool
    ) -> None:
        """
        A client that loses everything behind any byte, as often as it likes, and
        comes back with the last id that it saw, gets each event once and in order.
        """
        self.reset()
        stream, connection = self.begin()
        sent = 0
        got: list[tuple[str, bytes]] = []
        last = ""

        def come_back(share: float, *, seen: bool) -> None:
            nonlocal connection, last
            part = connection.received(round(share * len(connection.text())))
            got.extend(part)
            if not got:
                # Nothing came: not even the priming event.
                part = connection.received()[:1]
                got.extend(part)
            last = got[-1][0]
            before = connection
            if seen:
                before.depart()
            again = self.come_back(last)
            assert again is not None
            if not seen:
                before.depart()
            connection = again

        if answered_early:
            connection.transport.slow = True
        for step, amount in steps:
            if step == "send":
                sent += 1
                stream.send(b"%d" % sent + b" " * int(amount))
            elif step in ("cut", "unseen"):
                come_back(amount, seen=step == "cut")
            elif step == "slow":
                connection.transport.slow = bool(amount)
            elif step == "read":
                connection.transport.read_all()
            else:
                self.clock.advance(amount)
        sent += 1
        stream.answer(b"%d" % sent)
        if answered_early:
            come_back(0.5, seen=True)
        while not connection.request.finished:
            connection.transport.read_all()
        got.extend(connection.received())
        self.assertEqual(
            [data.strip() for _, data in got],
            [b"", *(b"%d" % number for number in range(1, sent + 1))],
        )
        self.assertEqual(len({id for id, _ in got}), len(got))

    @settings(max_examples=150, suppress_health_check=ALL, deadline=None)
    @given(
        steps=st.lists(
            st.tuples(
                st.sampled_from(("begin", "send", "answer", "depart", "back", "wait")),
                st.integers(0, 3),
                st.integers(0, 9_000),
            ),
            max_size=60,
        )
    )
    def test_bounds(self, steps: list[tuple[str, int, int]]) -> None:
        """
        Of one session and of all together no more is kept than allowed; what comes is
        in order and nothing comes twice; in the end nothing is left.
        """
        self.reset()
        limit, total = 10_000, 16_000
        self.replays = replays = Replays(
            self.clock, session_bytes=limit, total_bytes=total
        )
        streams: list[tuple[bytes, ResponseStream, list[Connection]]] = []
        for step, which, amount in steps:
            if step == "begin":
                session = b"%d" % which
                stream, connection = self.begin(session=session)
                streams.append((session, stream, [connection]))
            elif step == "wait":
                self.clock.advance(amount / 50)
            elif streams:
                session, stream, connections = streams[-1 - which % len(streams)]
                if step == "send":
                    stream.send(b"x" * amount)
                elif step == "answer":
                    stream.answer(b"x" * amount)
                elif step == "depart":
                    connections[-1].depart()
                elif received := connections[-1].received():
                    connections[-1].depart()
                    again = self.come_back(received[-1][0], session=session)
                    if again is not None:
                        connections.append(again)
            self.assertLessEqual(replays.kept_bytes, total)
            for shelf in replays._shelves.values():
                self.assertLessEqual(shelf.budget.size, limit)
                kept = sum(
                    event.cost for s in shelf.streams.values() for event in s._kept
                )
                self.assertEqual(kept, shelf.budget.size)
        for _, stream, connections in streams:
            stream.end()
            ids = [id for each in connections for id, _ in each.received()]
            numbers = [int(id.rpartition("-")[2]) for id in ids]
            self.assertEqual(numbers, sorted(set(numbers)))
            for each in connections:
                each.depart()
        self.clock.advance(OWED_SECONDS)
        replays.expire()
        self.assertEqual((len(replays), replays.kept_bytes), (0, 0))
        self.assertEqual(replays._shelves, {})

    def test_small_events_are_bounded(self) -> None:
        """Each counts for more than its bytes."""
        stream, connection = self.begin()
        for _ in range(5000):
            stream.send(b"1")
        (shelf,) = self.replays._shelves.values()
        (kept,) = shelf.streams.values()
        self.assertLess(len(kept._kept), self.session_bytes / EVENT_OVERHEAD_BYTES)
        connection.depart()
