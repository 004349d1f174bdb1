"""What the audit trail hears of calls of tools, in both eras."""

import json
from typing import Any

from fjmcp_broker.sessions.errors import ChildGone
from fjmcp_broker.store.audit import CALL_COLUMNS, AuditEvent, Kind
from fjmcp_broker.store.trail import AuditTrail
from fjmcp_broker.web.audit import ODD_TOOL, ToolCalls
from tests.unit.web.mcp_world import McpWorld, request
from tests.unit.web.modern_case import ModernCase, modern


class ListTrail(AuditTrail):
    """Keeps what is noted."""

    def __init__(self) -> None:
        """Nothing yet."""
        nowhere: Any = None
        super().__init__(nowhere, lambda: 5.0)

    @property
    def events(self) -> list[AuditEvent]:
        """
        What would be written.
        """
        events = []
        for row in self._waiting:
            values: dict[str, Any] = dict(zip(CALL_COLUMNS, row, strict=True))
            events.append(AuditEvent(kind=Kind.TOOL_CALL, **values))
        return events


class LegacyTests(McpWorld):
    """The revisions with sessions."""

    def setUp(self) -> None:
        """A world whose calls are heard of."""
        super().setUp()
        self.trail = ListTrail()
        calls = ToolCalls(self.trail, self.clock.seconds)
        self.endpoint._calls = self.endpoint._legacy._calls = calls

    def outcomes(self) -> list[tuple[str | None, str]]:
        """Tools and outcomes, and what all of them have in common."""
        for event in self.trail.events:
            self.assertEqual(event.kind, Kind.TOOL_CALL)
            self.assertEqual(event.client_id, "client")
        return [(event.tool, event.outcome) for event in self.trail.events]

    def test_answered(self) -> None:
        """One event, with whose, where and how long."""
        session = self.open()
        self.manual.add("tools/call")
        wire = self.send(request(1, name="get_issue", arguments={"a": "x"}), session)
        self.clock.advance(1.5)
        child = self.spawner.processes[-1]
        self.reply(child, self.received(child)[-1]["id"], {"content": []})
        self.assertEqual(wire.status, 200)
        (event,) = self.trail.events
        self.assertEqual(
            (event.tool, event.outcome, event.user_id, event.grant_id, event.at),
            ("get_issue", "ok", 1, "g_1", 5),
        )
        self.assertEqual(event.duration_ms, 1500)
        (found,) = self.registry._shelf
        self.assertEqual(event.session, found.name)

    def test_other_methods_are_no_events(self) -> None:
        """Lists and notifications are not calls of tools."""
        session = self.open()
        self.send(request(1, "tools/list"), session)
        self.send({"jsonrpc": "2.0", "method": "tools/call"}, session)
        self.assertEqual(self.trail.events, [])

    def test_answers_of_every_kind(self) -> None:
        """Results, errors of tools, errors of JSON-RPC."""
        session = self.open()
        self.manual.add("tools/call")
        child = self.spawner.processes[-1]
        bodies: tuple[dict[str, Any], ...] = (
            {"result": {"content": []}},
            {"result": {"content": [], "isError": True}},
            {"error": {"code": -32603, "message": "no"}},
        )
        for id, body in enumerate(bodies, 1):
            self.send(request(id, name="t"), session)
            answer = {"jsonrpc": "2.0", "id": self.received(child)[-1]["id"], **body}
            child.say(json.dumps(answer).encode())
        self.assertEqual(
            self.outcomes(), [("t", "ok"), ("t", "tool_error"), ("t", "error")]
        )

    def test_refused_by_policy(self) -> None:
        """A writing tool with a read-only grant."""
        session = self.open("reader")
        wire = self.send(request(1, name="create_issue"), session, "reader")
        self.assertEqual(wire.status, 403)
        self.assertEqual(self.outcomes(), [("create_issue", "refused")])
        (found,) = self.registry._shelf
        self.assertEqual(self.trail.events[0].session, found.name)

    def test_failed_before_a_child(self) -> None:
        """No such session; a child that cannot be started."""
        wire = self.send(request(1, name="t"), "nobody")
        self.assertEqual(wire.status, 404)
        self.assertEqual(self.outcomes(), [("t", "no_session")])

    def test_child_dies(self) -> None:
        """Whoever waits is answered for it."""
        session = self.open()
        self.manual.add("tools/call")
        self.send(request(1, name="t"), session)
        self.spawner.processes[-1].exit(1)
        self.spawner.processes[-1].loseConnection()
        self.assertEqual(self.outcomes(), [("t", "error")])

    def test_taken_back(self) -> None:
        """By C{notifications/cancelled}."""
        session = self.open()
        self.manual.add("tools/call")
        self.send(request(1, name="t"), session)
        cancel = {
            "jsonrpc": "2.0",
            "method": "notifications/cancelled",
            "params": {"requestId": 1},
        }
        self.send(cancel, session)
        self.assertEqual(self.outcomes(), [("t", "cancelled")])

    def test_client_leaves_and_the_call_goes_on(self) -> None:
        """Its answer can be read on later; the event tells how it ended."""
        session = self.open()
        self.manual.add("tools/call")
        wire = self.send(request(1, name="t"), session)
        wire.depart()
        self.assertEqual(self.trail.events, [])
        child = self.spawner.processes[-1]
        self.reply(child, self.received(child)[-1]["id"], {"content": []})
        self.assertEqual(self.outcomes(), [("t", "ok")])

    def test_batch(self) -> None:
        """Each part is a call of its own (2025-03-26)."""
        session = self.open("reader", version="2025-03-26")
        batch = [
            request(1, name="create_issue"),
            request(2, name="get_issue_by_index"),
            request(3, "tools/list"),
        ]
        self.send(batch, session, "reader")
        self.assertEqual(
            self.outcomes(), [("create_issue", "refused"), ("get_issue_by_index", "ok")]
        )

    def test_names_that_are_none(self) -> None:
        """What does not look like a tool could be anything, so it is not kept."""
        session = self.open()
        for id, name in enumerate(("a b", "x" * 129, 7, "\x1b[2J", "", None), 1):
            self.send(request(id, name=name), session)
        self.assertEqual({tool for tool, _ in self.outcomes()}, {ODD_TOOL})
        self.assertEqual(len(self.trail.events), 6)

    def test_names_that_are_written_in_another_way(self) -> None:
        """Escaped letters are letters; what is too long even so is not looked at."""
        session = self.open()
        call = json.dumps(request(1, name="@"))
        escaped = "".join(f"\\u{ord(letter):04x}" for letter in "get_issue")
        longest = "\\u0061" * 128
        for name in (escaped, longest, "\\u0061" * 129, "a" * 5_000):
            self.send(call.replace("@", name).encode(), session)
        tools = [tool for tool, _ in self.outcomes()]
        self.assertEqual(tools, ["get_issue", "a" * 128, ODD_TOOL, ODD_TOOL])


class StatelessTests(ModernCase):
    """The revisions without sessions."""

    def setUp(self) -> None:
        """A world whose calls are heard of."""
        super().setUp()
        self.trail = ListTrail()
        self.endpoint._calls = ToolCalls(self.trail, self.clock.seconds)

    def outcomes(self) -> list[str]:
        """In the order in which calls ended."""
        return [event.outcome for event in self.trail.events]

    def test_answers_of_every_kind(self) -> None:
        """A question to the client is one, its retry another event."""
        for id, result in enumerate(
            (
                b'{"content":[]}',
                b'{"isError":true}',
                b'{"resultType":"input_required","inputRequests":{}}',
                b'{"structuredContent":{"a":"input_required"}}',
            ),
            1,
        ):
            self.ask(modern(id, name="get_issue"))
            self.call.result(result)
        self.ask(modern(9, name="get_issue"))
        self.call.error(b'{"code":-32603,"message":"no"}', 200)
        self.assertEqual(
            self.outcomes(), ["ok", "tool_error", "input_required", "ok", "error"]
        )
        names = {event.session for event in self.trail.events}
        self.assertEqual(len(names), 1)
        self.assertTrue((names.pop() or "").startswith("g"))

    def test_session_id_means_nothing(self) -> None:
        """What stands in the header is not looked at."""
        self.ask(modern(1, name="t"))
        self.call.result()
        self.ask(modern(2, name="t"), "of no session")
        self.call.result()
        first, second = self.trail.events
        self.assertEqual(first.session, second.session)

    def test_client_leaves(self) -> None:
        """That takes the call back."""
        self.ask(modern(1, name="t")).depart()
        self.assertEqual(self.outcomes(), ["cancelled"])
        self.call.result()
        self.assertEqual(self.outcomes(), ["cancelled"])

    def test_client_leaves_before_there_is_a_child(self) -> None:
        """Nobody was asked anything."""
        self.shared.holding = []
        wire = self.ask(modern(1, name="t"))
        wire.depart()
        self.shared.release()
        self.assertEqual(self.outcomes(), ["abandoned"])

    def test_refused_by_policy(self) -> None:
        """With and without a scope that would help."""
        self.ask(modern(1, name="create_issue"), token="reader")
        self.ask(modern(2, name="download_release_attachment"))
        self.assertEqual(self.outcomes(), ["refused", "refused"])

    def test_child_that_does_not_take_it(self) -> None:
        """The answer is 503, and the call has failed."""
        self.shared.begin_error = ChildGone("it has ended")
        self.ask(modern(1, name="t"))
        self.assertEqual(self.outcomes(), ["failed"])
