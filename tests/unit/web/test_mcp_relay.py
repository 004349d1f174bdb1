"""The MCP endpoint: what reaches the child, and what comes back."""

from typing import Any

from fjmcp_broker.sessions.children.population import Limits
from fjmcp_broker.web.mcp import waiters
from tests.unit.web.mcp_world import McpWorld, initialize, request

NOTE = {"jsonrpc": "2.0", "method": "notifications/x"}
INITIALIZED = {"jsonrpc": "2.0", "method": "notifications/initialized"}


class RelayTests(McpWorld):
    """What reaches the child, and what comes back."""

    def test_bytes_of_params_and_result_are_kept(self) -> None:
        """Numbers, order of keys, escapes and unknown members pass through."""
        session = self.open()
        self.manual.add("x/y")
        process = self.spawner.processes[0]
        params = b'{"b":1.10,"a":1e400,"\\u0061b":"\\/","n":12345678901234567890}'
        body = b'{"extra":1,"jsonrpc":"2.0","id":"1","method":"x/y","params":%s}'
        wire = self.send(body % params, session)
        line = bytes(process.written).splitlines()[-1]
        self.assertEqual(
            line, b'{"jsonrpc":"2.0","id":2,"method":"x/y","params":%s}' % params
        )
        process.say(b'{"id":2,"result":{"z":1.0,"a":[1,  2]},"jsonrpc":"2.0","_":0}')
        self.assertEqual(
            wire.body, b'{"jsonrpc":"2.0","id":"1","result":{"z":1.0,"a":[1,  2]}}'
        )

    def test_result_of_a_list_is_untouched_without_annotations(self) -> None:
        """With the overlay off the result is the child's, byte for byte."""
        self.annotate = False
        self.build()
        session = self.open()
        self.manual.add("tools/list")
        wire = self.send(request(1, "tools/list"), session)
        result = b'{ "tools": [ {"name":"create_issue" } ], "x":1.0}'
        self.spawner.processes[0].say(
            b'{"jsonrpc":"2.0","id":2,"result":' + result + b"}"
        )
        self.assertEqual(wire.body.partition(b'"result":')[2], result + b"}")

    def test_notification_and_response(self) -> None:
        """202 without a body; the notification goes on, a stray answer does not."""
        session = self.open()
        before = len(self.received(self.spawner.processes[0]))
        for message in (NOTE, {"jsonrpc": "2.0", "id": "q", "result": {}}):
            wire = self.send(message, session)
            self.assertEqual((wire.status, wire.body), (202, b""))
        received = self.received(self.spawner.processes[0])[before:]
        self.assertEqual(received, [NOTE])

    def test_initialized_without_session(self) -> None:
        """Some clients lose the id for this one message; it is not needed."""
        wire = self.send(INITIALIZED)
        self.assertEqual((wire.status, wire.body), (202, b""))

    def test_initialize_with_a_stale_session(self) -> None:
        """A client may begin anew without forgetting its old id."""
        wire = self.send(initialize(), "x" * 43)
        self.assertEqual(wire.status, 200)

    def test_child_refuses_initialize(self) -> None:
        """Its error reaches the client, and nothing is left open."""
        self.manual.add("initialize")
        wire = self.send(initialize(id="i"))
        self.spawner.processes[0].say(
            b'{"jsonrpc":"2.0","id":1,"error":{"code":-32602,"message":"no"}}'
        )
        self.assertEqual(wire.status, 200)
        self.assertNotIn("mcp-session-id", wire.headers)
        self.assertEqual(wire.json["error"], {"code": -32602, "message": "no"})
        self.assertEqual(len(self.registry), 0)
        self.assertEqual([*self.ledger.rows.values()], ["refused_by_child"])

    def test_initialize_waits_without_beginning_an_answer(self) -> None:
        """Its status depends on the child, however long that takes."""
        self.manual.add("initialize")
        wire = self.send(initialize())
        self.clock.advance(29)
        self.assertEqual(wire.value(), b"")
        self.clock.advance(2)
        self.assertEqual(wire.status, 502)
        self.assertIn("retry-after", wire.headers)

    def test_busy_child(self) -> None:
        """A child that does not read: 503, and the request does not stay in flight."""
        session = self.open()
        process = self.spawner.processes[0]
        process.reads_input = False
        child: Any = process.protocol
        child._stdin._maximum = 10
        self.manual.add("x")
        self.send(request(1, "x", text="y" * 5000), session)
        for number in range(20):
            wire = self.send(request(2 + number, "x", text="y" * 5000), session)
        self.assertEqual(wire.status, 503)
        self.assertIn("retry-after", wire.headers)
        process.read_again()
        wire = self.send(request(21, "y"), session)
        self.assertEqual(wire.status, 200)

    def test_notification_in_a_batch_for_a_busy_child(self) -> None:
        """The rest of the batch is answered all the same."""
        self.child_version = "2025-03-26"
        session = self.open()
        process = self.spawner.processes[0]
        process.reads_input = False
        child: Any = process.protocol
        child._stdin._maximum = 10
        self.send({**NOTE, "params": {"text": "y" * 9000}}, session)
        while child._stdin.write(b"y" * 9000):
            pass
        wire = self.send([request(1, "y"), NOTE, request(2, "y")], session)
        self.assertEqual([event["id"] for event in wire.events], [1, 2])
        self.assertTrue(all("error" in event for event in wire.events))

    def test_error_without_an_id(self) -> None:
        """forgejo-mcp 2.34 after a panic: the only request in flight fails."""
        session = self.open()
        self.manual.add("x")
        wire = self.send(request(1, "x"), session)
        self.spawner.processes[0].say(
            b'{"jsonrpc":"2.0","id":null,"error":{"code":-32603,"message":"panic"}}'
        )
        self.assertEqual(wire.json["error"]["message"], "panic")
        self.assertEqual(wire.json["id"], 1)

    def test_unreadable_answer(self) -> None:
        """An answer that is no JSON-RPC fails its request, not the session."""
        session = self.open()
        self.manual.add("x")
        wire = self.send(request(1, "x"), session)
        self.spawner.processes[0].say(b'{"jsonrpc":"2.0","id":2,"error":"text"}')
        self.assertEqual(wire.status, 200)
        self.assertIn("error", wire.json)
        self.assertEqual(self.send(request(2, "y"), session).status, 200)

    def test_fault_of_ours_in_an_answer(self) -> None:
        """The request gets an error, the session and its other requests go on."""
        session = self.open()

        def broken(*arguments: Any, **named: Any) -> bytes:
            raise ZeroDivisionError

        self.patch(waiters, "overlay", broken)
        wire = self.send(request(1, "tools/list"), session)
        self.assertEqual(wire.json["error"]["data"], {"reason": "unexpected"})
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.assertEqual(self.send(request(2, "y"), session).status, 200)

    def test_ping_of_the_child(self) -> None:
        """Is answered by the broker: the connection is ours."""
        self.open()
        process = self.spawner.processes[0]
        process.say(b'{"jsonrpc":"2.0","id":"p","method":"ping"}')
        self.assertEqual(
            self.received(process)[-1], {"jsonrpc": "2.0", "id": "p", "result": {}}
        )

    def test_question_for_a_departed_client(self) -> None:
        """Nobody can be asked: the child hears so at once."""
        session = self.open()
        self.manual.add("x")
        wire = self.send(request(1, "x"), session)
        wire.depart()
        process = self.spawner.processes[0]
        process.say(b'{"jsonrpc":"2.0","id":"p","method":"roots/list"}')
        self.assertEqual(
            self.received(process)[-1]["error"]["data"], {"reason": "no_stream"}
        )

    def test_stray_messages_of_the_child(self) -> None:
        """Late answers and notifications for nobody are dropped."""
        session = self.open()
        process = self.spawner.processes[0]
        for line in (
            b'{"jsonrpc":"2.0","id":99,"result":{}}',
            b'{"jsonrpc":"2.0","method":"notifications/message","params":{}}',
            b'{"jsonrpc":"2.0","method":"notifications/progress","params":{}}',
            b"noise",
        ):
            process.say(line)
        self.assertEqual(self.send(request(1, "y"), session).status, 200)

    def test_revision_of_the_child_counts(self) -> None:
        """The child answered an older one: its rules hold, batches among them."""
        self.child_version = "2025-03-26"
        session = self.open(version="2025-11-25")
        wire = self.send([request(1, "y")], session)
        self.assertEqual([event["id"] for event in wire.events], [1])


class LimitTests(McpWorld):
    """How many sessions there may be."""

    limits = Limits(total=2, per_user=1)

    def test_limit_counts_sessions_being_opened(self) -> None:
        """Two clients that come at once cannot both have the last place."""
        self.manual.add("initialize")
        first = self.send(initialize())
        second = self.send(initialize())
        self.assertEqual(second.status, 503)
        self.assertEqual(second.headers["retry-after"], "10")
        self.reply(self.spawner.processes[0], 1, {"protocolVersion": "2025-06-18"})
        self.assertEqual(first.status, 200)

    def test_place_is_free_again(self) -> None:
        """After the end of a session, whatever ended it."""
        self.open()
        self.spawner.processes[0].exit(1)
        session = self.open()
        wire = self.send(b"", session, method="DELETE")
        self.assertEqual(wire.status, 204)
        self.open()
        self.registry.suspend_user(1)
        self.open()
        self.clock.advance(3600)
        self.open()
