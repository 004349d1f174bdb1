"""A child that says what nobody asked for, and much of it."""

from typing import Any, cast

from twisted.logger import ILogObserver, LogEvent, formatEvent, globalLogPublisher

from tests.unit.web.mcp_world import McpWorld, request

LINES = 10_000


class NoiseTests(McpWorld):
    """Neither the log nor the others suffer."""

    def setUp(self) -> None:
        """A session, and the log."""
        super().setUp()
        self.events: list[LogEvent] = []
        keep = cast(ILogObserver, self.events.append)
        globalLogPublisher.addObserver(keep)
        self.addCleanup(globalLogPublisher.removeObserver, keep)
        self.session = self.open()
        self.process = self.spawner.processes[0]

    def test_lines_that_are_no_message(self) -> None:
        """The log says it now and then, with the count."""
        del self.events[:]
        for _ in range(LINES):
            self.process.say(b"Listening on port 80")
        told = [formatEvent(event) or "" for event in self.events]
        self.assertLess(len(told), 20)
        self.assertIn("no JSON-RPC message", told[0])
        self.assertIn("8192", told[-1])
        self.assertEqual(self.send(request(1, "x"), self.session).status, 200)

    def test_questions_without_reading_the_answers(self) -> None:
        """What it does not read is dropped without a word."""
        self.process.reads_input = False
        child: Any = self.process.protocol
        child._stdin._maximum = 10_000
        for number in range(LINES):
            self.process.say(b'{"jsonrpc":"2.0","id":%d,"method":"ping"}' % number)
        self.assertEqual(self.flushLoggedErrors(), [])
        self.process.read_again()
        self.assertEqual(self.send(request(1, "x"), self.session).status, 200)
