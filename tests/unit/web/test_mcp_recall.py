"""Requests that are cancelled before any child knows them."""

from typing import Any

from tests.unit.web.mcp_world import McpWorld, Wire, request


class RecallTests(McpWorld):
    """The child has to be started again, which takes its time."""

    def setUp(self) -> None:
        """A session whose child has been lost, and a next one that is slow."""
        super().setUp()
        self.child_version = "2025-03-26"
        self.session = self.open()
        self.spawner.processes[0].exit(None, 9)
        self.manual.add("initialize")

    def cancel(self, id: Any) -> None:
        """The client has changed its mind."""
        note = {"jsonrpc": "2.0", "method": "notifications/cancelled"}
        wire = self.send({**note, "params": {"requestId": id}}, self.session)
        self.assertEqual(wire.status, 202)

    def start(self) -> list[Any]:
        """The child is there; what it was told after the handshake."""
        child = self.spawner.processes[1]
        self.reply(child, 1, {"protocolVersion": "2025-03-26"})
        return [(m["method"], m.get("params")) for m in self.received(child)[2:]]

    def ended(self, wire: Wire) -> bool:
        """The response is complete."""
        return bytes(wire.value()).endswith(b"0\r\n\r\n")

    def test_one_of_several(self) -> None:
        """It never reaches the child; the others do. An id is not its text."""
        wires = [self.send(request(id, "x", n=id), self.session) for id in (1, "1", 2)]
        self.cancel(1)
        self.assertEqual(self.start(), [("x", {"n": "1"}), ("x", {"n": 2})])
        self.assertTrue(self.ended(wires[0]))
        self.assertEqual(wires[0].events, [])
        for wire, id in zip(wires[1:], ("1", 2), strict=True):
            self.assertEqual(wire.json["id"], id)
        # Nobody minds the id being used again.
        self.assertEqual(self.send(request(1, "x"), self.session).json["id"], 1)

    def test_part_of_a_batch(self) -> None:
        """The rest of the batch is answered."""
        batch = [request(id, "x", n=id) for id in (1, 2)]
        wire = self.send(batch, self.session)
        self.cancel(2)
        self.assertEqual(self.start(), [("x", {"n": 1})])
        self.assertEqual([event["id"] for event in wire.events], [1])
        self.assertTrue(self.ended(wire))

    def test_of_another_session(self) -> None:
        """It concerns nobody there."""
        wire = self.send(request(1, "x"), self.session)
        mine, self.session = self.session, ""
        self.manual.clear()
        self.session = self.open("bob")
        note = {"jsonrpc": "2.0", "method": "notifications/cancelled"}
        other = {**note, "params": {"requestId": 1}}
        self.send(other, self.session, token="bob")
        self.session = mine
        self.start()
        self.assertEqual(wire.json["id"], 1)

    def test_what_nobody_asked(self) -> None:
        """An unknown id, or none at all, changes nothing."""
        wire = self.send(request(1, "x"), self.session)
        for id in (9, None, [1], {"a": 1}):
            self.cancel(id)
        self.start()
        self.assertEqual(wire.json["id"], 1)
