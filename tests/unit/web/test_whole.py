"""Answers that are given at once."""

from twisted.web.http import stringToDatetime

from tests.unit.web.mcp_world import McpWorld, Wire, request


class WholeTests(McpWorld):
    """The answer to a call that needs no stream."""

    def names(self, wire: Wire) -> list[str]:
        """The headers of an answer, in lower case."""
        lines = wire.parts[0].decode().split("\r\n")[1:]
        return sorted(line.partition(":")[0].lower() for line in lines)

    def test_headers(self) -> None:
        """Each once, and those of every other answer too."""
        wire = self.send(request(1, "x"), self.open())
        self.assertEqual(wire.status, 200)
        self.assertEqual(
            self.names(wire),
            [
                "cache-control",
                "content-length",
                "content-type",
                "date",
                "server",
                "x-content-type-options",
            ],
        )
        self.assertEqual(wire.headers["content-type"], "application/json")
        self.assertEqual(wire.headers["cache-control"], "no-store")
        self.assertEqual(wire.headers["x-content-type-options"], "nosniff")
        self.assertEqual(int(wire.headers["content-length"]), len(wire.body))
        self.assertEqual(wire.json["id"], 1)

    def test_same_without_a_document(self) -> None:
        """A refusal and a stream have the common headers, too."""
        refused = self.send(request(1, "x"), "unknown")
        self.assertEqual(refused.status, 404)
        self.manual.add("x")
        stream = self.send(request(1, "x"), self.open())
        self.clock.advance(1)
        self.assertEqual(stream.headers["content-type"], "text/event-stream")
        for wire in (refused, stream):
            for name in ("date", "server", "x-content-type-options"):
                self.assertEqual(self.names(wire).count(name), 1, wire.value())

    def test_date(self) -> None:
        """A time of these days, in the form of HTTP."""
        wire = self.send(request(1, "x"), self.open())
        self.assertGreater(stringToDatetime(wire.headers["date"].encode()), 1.7e9)

    def test_what_else_was_said(self) -> None:
        """Headers that others have set go along."""
        named = {"Connection": "close", "Origin": "https://inspector.example"}
        wire = self.send(request(1, "x"), self.open(), headers=named)
        self.assertEqual(wire.status, 200)
        self.assertEqual(wire.headers["connection"], "close")
        self.assertEqual(
            wire.headers["access-control-allow-origin"], "https://inspector.example"
        )
        self.assertTrue(wire.disconnecting)

    def test_several_on_one_connection(self) -> None:
        """The next request is answered like the first one."""
        session, wire = self.open(), self.connect()
        for number in range(3):
            body = b'{"jsonrpc":"2.0","id":%d,"method":"x"}' % number
            wire.protocol.dataReceived(self.raw(body, session))
            self.assertEqual(wire.json["id"], number)
            wire.clear()
