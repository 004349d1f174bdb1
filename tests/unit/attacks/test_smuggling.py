"""Bytes that a proxy may take for another number of requests than we do."""

from tests.unit.web.mcp_world import McpWorld, request

PING = b'{"jsonrpc":"2.0","id":1,"method":"tools/list"}'
HIDDEN = b"POST /mcp HTTP/1.1\r\nHost: mcp.example\r\n\r\n"
CHUNKED = b"%x\r\n%s\r\n0\r\n\r\n" % (len(PING), PING)


class RequestSmugglingTests(McpWorld):
    """RFC 9112 section 11.2: one connection, one reading of what is on it."""

    def setUp(self) -> None:
        super().setUp()
        self.session = self.open()
        self.before = bytes(self.spawner.processes[0].written)

    def send_with(self, fields: bytes, body: bytes) -> bytes:
        """
        @return: everything that comes back on a connection.
        """
        wire = self.connect()
        head = (
            b"POST /mcp HTTP/1.1\r\nHost: mcp.example\r\n"
            b"Authorization: Bearer alice\r\n"
            b"Accept: application/json, text/event-stream\r\n"
            b"Content-Type: application/json\r\nMcp-Session-Id: %s\r\n%s\r\n\r\n"
        )
        wire.protocol.dataReceived(head % (self.session.encode(), fields) + body)
        return bytes(wire.value())

    def test_two_readings_of_a_length(self) -> None:
        """One refusal, nothing behind it, and the child hears nothing."""
        for fields, body in (
            (b"Content-Length: 5\r\nTransfer-Encoding: chunked", b"0\r\n\r\n" + HIDDEN),
            (b"Transfer-Encoding: chunked\r\nContent-Length: 46", CHUNKED),
            (b"Content-Length: 46\r\nContent-Length: 5", PING + HIDDEN),
            (b"Content-Length: 46, 46", PING),
            (b"Content-Length: +46", PING),
            (b"Content-Length: 0x2e", PING),
            (b"Content-Length: -1", PING),
            (b"Content-Length : 46", PING),
            (b"Transfer-Encoding: xchunked", CHUNKED),
            (b"Transfer-Encoding : chunked", CHUNKED),
            (b"Transfer-Encoding: chunked", b"-2e\r\n" + PING + b"\r\n0\r\n\r\n"),
            (b"Transfer-Encoding: chunked", b'2e;a="\r\n"' + PING + b"\r\n0\r\n\r\n"),
            (b"Content-Length: 0000000000000000046", PING + HIDDEN),
            (b"X: y\nContent-Length: 46", PING),
        ):
            answer = self.send_with(fields, body)
            self.assertEqual(answer.count(b"HTTP/1.1 "), 1, (fields, answer))
            self.assertRegex(answer, rb"\AHTTP/1\.1 4[01][03] ", fields)
            written = bytes(self.spawner.processes[0].written)
            self.assertEqual(written, self.before, fields)

    def test_control(self) -> None:
        """The same request with one right length is answered."""
        for fields, body in (
            (b"Content-Length: 46", PING),
            (b"Transfer-Encoding: chunked", CHUNKED),
        ):
            answer = self.send_with(fields, body)
            self.assertTrue(answer.startswith(b"HTTP/1.1 200 "), answer)

    def test_other_spellings_of_the_path(self) -> None:
        """What a proxy lets through as another path is another path here."""
        for path in ("/MCP", "/mcp/", "//mcp", "/%6dcp", "/mcp;x", "/x/../mcp"):
            wire = self.send(request(1), self.session, path=path)
            self.assertEqual(wire.status, 404, path)
        wire = self.send(request(1), self.session, path="http://evil.example/mcp")
        self.assertIn(wire.status, (400, 404))
        self.assertEqual(bytes(self.spawner.processes[0].written), self.before)
