"""The check of what children read and wrote."""

import json
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from tests.conformance.record import READ, WRITTEN
from tests.conformance.schemas import Checker, Line, schema_directory

META = {
    "io.modelcontextprotocol/protocolVersion": "2026-07-28",
    "io.modelcontextprotocol/clientCapabilities": {},
}
INITIALIZE = {
    "protocolVersion": "2025-06-18",
    "capabilities": {},
    "clientInfo": {"name": "test", "version": "1"},
}
INITIALIZED = {
    "protocolVersion": "2025-06-18",
    "capabilities": {},
    "serverInfo": {"name": "test", "version": "1"},
}


def read(**message: Any) -> Line:
    """
    @return: a line that the child got.
    """
    return Line("test", READ, json.dumps({"jsonrpc": "2.0", **message}))


def written(**message: Any) -> Line:
    """
    @return: a line that the child wrote.
    """
    return Line("test", WRITTEN, json.dumps({"jsonrpc": "2.0", **message}))


class CheckerTests(SynchronousTestCase):
    """A violation is found, whoever wrote it."""

    def setUp(self) -> None:
        directory = schema_directory()
        if directory is None:
            self.skipTest("the schemas of MCP are not here")
        self.checker = Checker(directory)

    def check(self, *lines: Line) -> list[str]:
        return [found.reason for found in self.checker.check(lines)]

    def test_good_lines_of_both_eras(self) -> None:
        """A handshake, a question with its answer, a modern call."""
        call = {"name": "t", "arguments": {}, "_meta": META}
        question = {"type": "object", "properties": {"a": {"type": "string"}}}
        self.assertEqual(
            self.check(
                read(id=1, method="initialize", params=INITIALIZE),
                written(id=1, result=INITIALIZED),
                read(method="notifications/initialized"),
                written(
                    id=1,
                    method="elicitation/create",
                    params={"message": "m", "requestedSchema": question},
                ),
                read(id=1, result={"action": "accept", "content": {"a": "b"}}),
                read(id="2", method="tools/call", params=call),
                written(
                    id="2",
                    result={
                        "content": [{"type": "text", "text": "x"}],
                        "resultType": "complete",
                    },
                ),
            ),
            [],
        )

    def test_the_revision_of_the_handshake(self) -> None:
        """What was agreed on is what counts afterwards."""
        listed = {"tools": [{"name": "t"}]}
        (reason,) = self.check(
            read(id=1, method="initialize", params=INITIALIZE),
            written(id=1, result=INITIALIZED),
            read(id=2, method="tools/list"),
            written(id=2, result=listed),
        )
        self.assertIn("2025-06-18: ListToolsResult at /tools/0", reason)
        self.assertIn("inputSchema", reason)

    def test_what_the_broker_wrote(self) -> None:
        """A request without what its method needs."""
        (reason,) = self.check(read(id=1, method="tools/call", params={}))
        self.assertIn("'name' is a required property", reason)

    def test_a_modern_result_without_its_type(self) -> None:
        """C{resultType} is required from 2026-07-28 on."""
        found = self.check(
            read(id=1, method="tools/list", params={"_meta": META}),
            written(id=1, result={"tools": [], "ttlMs": 0, "cacheScope": "private"}),
        )
        self.assertTrue(found)
        self.assertIn("resultType", found[0])

    def test_a_modern_error_with_wrong_data(self) -> None:
        """Errors have a schema by their code."""
        found = self.check(
            read(id=1, method="server/discover", params={"_meta": META}),
            written(id=1, error={"code": -32022, "message": "no", "data": {}}),
        )
        self.assertEqual(len(found), 2)
        for reason, member in zip(found, ("requested", "supported"), strict=True):
            self.assertIn("UnsupportedProtocolVersionError", reason)
            self.assertIn(member, reason)

    def test_an_answer_to_nothing(self) -> None:
        """C{1} and C{"1"} differ."""
        found = self.check(read(id=1, method="ping"), written(id="1", result={}))
        self.assertEqual(found, ["answers nothing that was asked"])

    def test_an_answer_twice(self) -> None:
        """Only the first one answers."""
        ping = [read(id=1, method="ping"), *[written(id=1, result={})] * 2]
        self.assertEqual(self.check(*ping), ["answers nothing that was asked"])

    def test_no_message(self) -> None:
        """Text, an array, a number."""
        found = self.check(
            Line("test", WRITTEN, "hello"),
            Line("test", WRITTEN, "[]"),
            Line("test", READ, "1"),
        )
        self.assertEqual(found[1:], ["not an object", "not an object"])
        self.assertIn("not JSON", found[0])
