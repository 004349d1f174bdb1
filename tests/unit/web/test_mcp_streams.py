"""The MCP endpoint: GET streams, and calls whose client lost the connection."""

import json
from typing import Any

from fjmcp_broker.sessions.streams.bounds import KEEPALIVE_SECONDS
from tests.fakes import FakeProcess
from tests.relay_stubs import key_of
from tests.unit.web.mcp_world import McpWorld, Wire, request

CHANGED = {"jsonrpc": "2.0", "method": "notifications/tools/list_changed"}


class StreamCase(McpWorld):
    """A session with a child that answers calls only when the test says so."""

    def setUp(self) -> None:
        """The newest revision with sessions."""
        super().setUp()
        self.manual.add("tools/call")
        self.session = self.open(version="2025-11-25")

    def tearDown(self) -> None:
        """Nothing is kept for longer than five minutes."""
        super().tearDown()
        self.clock.advance(300)
        self.replays.expire()
        self.assertEqual(self.replays.kept_bytes, 0)

    @property
    def process(self) -> FakeProcess:
        """The child."""
        return self.spawner.processes[0]

    def say(self, message: dict[str, Any]) -> None:
        """The child speaks."""
        self.process.say(json.dumps(message).encode())

    def get(self, last: str | None = None, **named: Any) -> Wire:
        """GET, perhaps with C{Last-Event-ID}."""
        headers = {"Accept": "text/event-stream", "Last-Event-ID": last}
        named.setdefault("session", self.session)
        return self.send(b"", method="GET", headers=headers, **named)

    def ids(self, wire: Wire) -> list[str]:
        """The ids of the events on a connection."""
        lines = wire.body.decode().split("\n")
        return [line[4:] for line in lines if line.startswith("id: ")]

    def call(self) -> tuple[Wire, int]:
        """A call that has become a stream: its connection, its id at the child."""
        wire = self.send(request(1), self.session)
        self.clock.advance(0.25)
        self.assertEqual(wire.headers["content-type"], "text/event-stream")
        return wire, self.received(self.process)[-1]["id"]


class GetTests(StreamCase):
    """What a session listens to."""

    def test_notification(self) -> None:
        """What belongs to no request arrives, on a stream that says so at once."""
        wire = self.get()
        self.assertEqual(wire.status, 200)
        self.assertEqual(wire.headers["content-type"], "text/event-stream")
        self.assertEqual(wire.headers["cache-control"], "no-store")
        self.assertEqual(wire.headers["x-accel-buffering"], "no")
        self.say(CHANGED)
        self.assertEqual(wire.events, [CHANGED])

    def test_priming(self) -> None:
        """Only the newest revision begins with an event that has no data."""
        primed = self.get()
        self.assertEqual(len(self.ids(primed)), 1)
        self.assertIn(b"\nretry: 3000\ndata: \n\n", primed.body)
        older = self.open(version="2025-06-18")
        self.assertEqual(self.get(session=older).body, b"")

    def test_keepalive(self) -> None:
        """For as long as the client stays."""
        wire = self.get()
        self.clock.pump([KEEPALIVE_SECONDS] * 100)
        self.assertEqual(wire.body.count(b": keepalive\n\n"), 100)

    def test_newest_takes_everything(self) -> None:
        """One message goes to one stream; the older one is there when it is gone."""
        first, second = self.get(), self.get()
        self.say(CHANGED)
        self.assertEqual((first.events, second.events), ([], [CHANGED]))
        second.depart()
        self.say(CHANGED)
        self.assertEqual(first.events, [CHANGED])

    def test_question_while_nothing_is_in_flight(self) -> None:
        """It goes to the GET stream, and the answer finds its way back."""
        wire = self.get()
        self.say({"jsonrpc": "2.0", "id": 99, "method": "roots/list"})
        (question,) = wire.events
        self.assertEqual(question["method"], "roots/list")
        answer = {"jsonrpc": "2.0", "id": question["id"], "result": {"roots": []}}
        self.assertEqual(self.send(answer, self.session).status, 202)
        self.assertEqual(
            self.received(self.process)[-1],
            {"jsonrpc": "2.0", "id": 99, "result": {"roots": []}},
        )

    def test_nobody_listens(self) -> None:
        """A notification is dropped, also after everybody has left."""
        self.get().depart()
        self.say(CHANGED)
        wire = self.get()
        self.assertEqual(wire.events, [])

    def test_connection_that_nobody_saw_break(self) -> None:
        """What went into it is read again by a client that comes back."""
        broken = self.get()
        self.say(CHANGED)
        wire = self.get(self.ids(broken)[0])
        self.assertTrue(broken.aborted)
        self.assertEqual(wire.events, [CHANGED])
        self.say(CHANGED)
        self.assertEqual(wire.events, [CHANGED] * 2)
        self.assertEqual(len(set(self.ids(broken) + self.ids(wire))), 3)

    def test_unknown_event(self) -> None:
        """After a restart: the stream goes on, without what was missed."""
        for last in ("0123456789ab-get7-3", "anything", "\x7f"):
            wire = self.get(last)
            self.say(CHANGED)
            self.assertEqual(wire.events, [CHANGED])

    def test_deleted_session(self) -> None:
        """Its streams end, and its id is unknown from then on."""
        wires = [self.get(), self.get()]
        self.assertEqual(self.send(b"", self.session, method="DELETE").status, 204)
        for wire in wires:
            self.assertTrue(wire.value().endswith(b"0\r\n\r\n"))
        self.assertEqual(self.get().status, 404)
        self.assertEqual(len(self.replays), 0)

    def test_ended_grant(self) -> None:
        """Its streams end."""
        wire = self.get()
        self.registry.close_grant("g_1")
        self.assertTrue(wire.value().endswith(b"0\r\n\r\n"))

    def test_drain(self) -> None:
        """A daemon that stops does not wait for clients that listen."""
        wire = self.get()
        for channel in list(self.site.channels):
            channel.close_when_idle()
        self.assertTrue(wire.value().endswith(b"0\r\n\r\n"))

    def test_client_that_left_during_the_look_up(self) -> None:
        """Nothing of it stays."""
        self.authenticator.uncached.add("alice")
        self.authenticator.holding = []
        wire = self.get()
        wire.depart()
        self.authenticator.release()
        self.assertEqual(wire.value(), b"")
        self.assertEqual(len(self.replays), 0)


class LostConnectionTests(StreamCase):
    """Calls whose client comes back."""

    def test_answer_after_the_client_left(self) -> None:
        """The call is not cancelled, and its answer is fetched by GET."""
        wire, id = self.call()
        wire.depart()
        self.assertEqual(len(self.received(self.process)), 3)
        self.reply(self.process, id, {"x": 1})
        again = self.get(self.ids(wire)[-1])
        self.assertEqual([event["result"] for event in again.events], [{"x": 1}])
        self.assertTrue(again.value().endswith(b"0\r\n\r\n"))

    def test_client_that_is_back_before_the_answer(self) -> None:
        """It waits on the new connection; a listener gets nothing of it."""
        listening = self.get()
        wire, id = self.call()
        wire.depart()
        again = self.get(self.ids(wire)[-1])
        self.say(CHANGED)
        self.reply(self.process, id, {"x": 1})
        self.assertEqual([event["id"] for event in again.events], [1])
        self.assertEqual(listening.events, [CHANGED])

    def test_question_to_a_client_that_is_back(self) -> None:
        """The only request in flight can be asked again."""
        wire, id = self.call()
        wire.depart()
        self.say({"jsonrpc": "2.0", "id": "q", "method": "roots/list"})
        self.assertEqual(
            self.received(self.process)[-1]["error"]["data"], {"reason": "no_stream"}
        )
        again = self.get(self.ids(wire)[-1])
        self.say({"jsonrpc": "2.0", "id": "r", "method": "roots/list"})
        self.assertEqual(again.events[-1]["method"], "roots/list")
        self.reply(self.process, id, {})

    def test_call_that_is_gone(self) -> None:
        """Cancelled, or from before a restart: the client is told, and not kept."""
        wire, _ = self.call()
        cancelled = {"method": "notifications/cancelled", "params": {"requestId": 1}}
        self.send({"jsonrpc": "2.0", **cancelled}, self.session)
        self.assertTrue(wire.value().endswith(b"0\r\n\r\n"))
        for last in (self.ids(wire)[-1], "0123456789ab-7-3"):
            again = self.get(last)
            self.assertEqual(again.status, 410)
            self.assertEqual(again.json["error"]["data"], {"reason": "stream_gone"})

    def test_session_of_another_user(self) -> None:
        """An event id opens nothing without the session."""
        wire, id = self.call()
        wire.depart()
        self.reply(self.process, id, {"secret": 1})
        other = self.open("bob", version="2025-11-25")
        stolen = self.get(self.ids(wire)[-1], session=other, token="bob")
        self.assertEqual(stolen.status, 410)
        refused = self.get(self.ids(wire)[-1], token="bob")
        self.assertEqual(refused.status, 403)

    def test_client_that_took_json_alone(self) -> None:
        """Nothing is kept: it was given no id."""
        headers = {"Accept": "application/json"}
        wire = self.send(request(1), self.session, headers=headers)
        wire.depart()
        self.reply(self.process, self.received(self.process)[-1]["id"], {})
        self.assertEqual(len(self.replays), 0)

    def test_dormant_session(self) -> None:
        """Listening wakes no child; a call does, and is judged by its tools."""
        self.process.exit(0)
        started = len(self.spawner.processes)
        listening = self.get()
        self.assertEqual(listening.status, 200)
        self.assertEqual(len(self.spawner.processes), started)
        self.clock.advance(60)
        self.manual.clear()
        wire = self.send(request(1), self.session)
        self.assertEqual(wire.status, 200, wire.value())
        self.assertEqual(len(self.spawner.processes), started + 1)
        self.spawner.processes[-1].say(json.dumps(CHANGED).encode())
        self.assertEqual(listening.events[-1], CHANGED)

    def test_too_many_wait_for_a_child(self) -> None:
        """The rest is told to come again; those who wait are answered."""
        self.process.exit(0)
        self.clock.advance(60)
        self.manual |= {"initialize"}
        self.patch(self.endpoint.waking, "maximum", 3)
        wires = [self.send(request(number, "x"), self.session) for number in range(5)]
        self.assertEqual([wire.status for wire in wires], [None] * 3 + [503] * 2)
        process = self.spawner.processes[-1]
        (initialize,) = self.received(process)
        result = {"protocolVersion": "2025-11-25", "serverInfo": {"name": "x"}}
        self.reply(process, initialize["id"], result)
        self.assertEqual([wire.json["id"] for wire in wires[:3]], [0, 1, 2])
        self.assertEqual(self.send(request(9, "x"), self.session).status, 200)

    def test_client_that_leaves_while_a_child_starts(self) -> None:
        """Its call is not made: nothing of it has been sent."""
        self.process.exit(0)
        self.clock.advance(60)
        self.manual |= {"initialize"}
        wire = self.send(request(1), self.session)
        process = self.spawner.processes[-1]
        (initialize,) = self.received(process)
        wire.depart()
        result = {"protocolVersion": "2025-11-25", "serverInfo": {"name": "x"}}
        self.reply(process, initialize["id"], result)
        methods = [each.get("method") for each in self.received(process)]
        self.assertNotIn("tools/call", methods)

    def test_child_that_ends(self) -> None:
        """The error waits for the client as an answer would."""
        wire, _ = self.call()
        wire.depart()
        self.process.exit(3)
        found = self.replays.find(key_of(self.session), "g_1", self.ids(wire)[-1])
        assert found is not None
        self.assertIn(b"child_exited", found[0].after(found[1])[0])
