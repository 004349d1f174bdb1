"""
Stateless requests from the bytes on the connection to the standard input of a child
that speaks the older revisions.
"""

import json
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.fakes import FakeProcess
from tests.unit.web.mcp_world import McpWorld, Wire, request
from tests.unit.web.modern_case import headers_of, modern

CHANGED = {"jsonrpc": "2.0", "method": "notifications/tools/list_changed"}


class RelayCase(McpWorld):
    """A child that answers when it is told to."""

    def setUp(self) -> None:
        """Calls wait; lists are empty."""
        super().setUp()
        self.manual = {"tools/call", "x/y"}

    def read(self, process: FakeProcess, message: dict[str, Any]) -> None:
        """It has tools, and tells when they change."""
        if message.get("method") == "tools/list":
            self.reply(process, message["id"], {"tools": []})
        elif message.get("method") == "initialize":
            result = {
                "protocolVersion": message["params"]["protocolVersion"],
                "capabilities": {"tools": {"listChanged": True}},
                "serverInfo": {"name": "x", "version": "0"},
            }
            self.reply(process, message["id"], result)
        else:
            super().read(process, message)

    def ask(self, message: Any, *arguments: Any, **named: Any) -> Wire:
        """Send a modern request with the headers that belong to it."""
        return self.send(message, *arguments, headers=headers_of(message), **named)

    def calls(self, process: FakeProcess) -> list[Any]:
        """The calls that it has read."""
        return [
            each
            for each in self.received(process)
            if each.get("method") in ("tools/call", "x/y")
        ]


class RelayTests(RelayCase):
    """One child for all connections of a grant."""

    def test_call(self) -> None:
        """What is the protocol's leaves on the way, and comes back on the other."""
        meta = {"progressToken": "p", "traceparent": "t"}
        wire = self.ask(modern("a", name="x", arguments={"n": 1.0}, meta=meta))
        [process] = self.spawner.processes
        [call] = self.calls(process)
        self.assertEqual(call["params"]["arguments"], {"n": 1.0})
        self.assertEqual(
            call["params"]["_meta"].keys(), {"progressToken", "traceparent"}
        )
        progress = {
            "jsonrpc": "2.0",
            "method": "notifications/progress",
            "params": {
                "progressToken": call["params"]["_meta"]["progressToken"],
                "progress": 1,
            },
        }
        process.say(json.dumps(progress).encode())
        self.reply(process, call["id"], {"content": []})
        self.assertEqual(wire.events[0]["params"]["progressToken"], "p")
        answer = wire.events[1]
        self.assertEqual((answer["id"], answer["result"]["content"]), ("a", []))
        self.assertEqual(answer["result"]["resultType"], "complete")

    def test_unknown_method(self) -> None:
        """The child says so: 404."""
        wire = self.ask(modern(1, "x/y"))
        [process] = self.spawner.processes
        [call] = self.calls(process)
        error = {"code": -32601, "message": "no"}
        process.say(
            json.dumps({"jsonrpc": "2.0", "id": call["id"], "error": error}).encode()
        )
        self.assertEqual((wire.status, wire.json["error"]["code"]), (404, -32601))

    def test_child_ends(self) -> None:
        """An error, not a broken connection; the next request has a new child."""
        wire = self.ask(modern(1, name="x"))
        self.spawner.processes[0].exit(1)
        self.assertEqual(wire.status, 200)
        self.assertEqual(wire.json["error"]["code"], -32603)
        self.clock.advance(60)
        self.ask(modern(1, name="x"))
        self.assertEqual(len(self.spawner.processes), 2)

    def test_departure(self) -> None:
        """The child hears of it."""
        wire = self.ask(modern(1, name="x"))
        [process] = self.spawner.processes
        [call] = self.calls(process)
        wire.depart()
        cancelled = self.received(process)[-1]
        self.assertEqual(cancelled["method"], "notifications/cancelled")
        self.assertEqual(cancelled["params"]["requestId"], call["id"])

    def test_listener(self) -> None:
        """Acknowledged, told, and gone without a trace."""
        wanted = {"toolsListChanged": True}
        wire = self.ask(modern("s", "subscriptions/listen", notifications=wanted))
        [process] = self.spawner.processes
        self.assertEqual(wire.headers["content-type"], "text/event-stream")
        process.say(json.dumps(CHANGED).encode())
        methods = [event["method"] for event in wire.events]
        self.assertEqual(
            methods,
            [
                "notifications/subscriptions/acknowledged",
                "notifications/tools/list_changed",
            ],
        )
        wire.depart()
        process.say(json.dumps(CHANGED).encode())

    def test_session_of_the_same_grant(self) -> None:
        """Has a child of its own, and its id means nothing to stateless requests."""
        session = self.open()
        wire = self.ask(modern(1, name="x"), session)
        self.assertEqual(len(self.spawner.processes), 2)
        [call] = self.calls(self.spawner.processes[1])
        self.assertEqual(self.calls(self.spawner.processes[0]), [])
        legacy = self.send(request(1, name="x"), session)
        [other] = self.calls(self.spawner.processes[0])
        self.reply(self.spawner.processes[0], other["id"], "legacy")
        self.reply(self.spawner.processes[1], call["id"], {"modern": 1})
        self.assertEqual(legacy.json["result"], "legacy")
        self.assertEqual(wire.json["result"]["modern"], 1)

    def test_grant_ends(self) -> None:
        """Those who wait are told, the child is killed."""
        wire = self.ask(modern(1, name="x"))
        self.registry.close_grant("g_1")
        self.assertEqual(wire.json["error"]["code"], -32603)
        del self.authenticator.principals["alice"]
        self.assertEqual(self.ask(modern(1, name="x")).status, 401)


class InterleavingTests(RelayCase):
    """
    Connections of either era on the same grants.

    @ivar leaver: the call whose client leaves before its answer.
    """

    leaver: str | None = None

    @settings(max_examples=60, suppress_health_check=list(HealthCheck), deadline=None)
    @given(
        st.lists(
            st.tuples(
                st.sampled_from(["alice", "bob"]),
                st.booleans(),
                st.sampled_from([1, "1", 2]),
            ),
            min_size=1,
            max_size=8,
        ),
        st.randoms(use_true_random=False),
    )
    def test_everybody_gets_the_own_answer(
        self, requests: list[tuple[str, bool, Any]], random: Any
    ) -> None:
        """
        Whatever ids and progress tokens they use, in whatever order the child
        answers, and when one of them leaves.
        """
        self.leaver = None
        try:
            self.interleave(requests, random)
        finally:
            self.forget()

    def interleave(self, requests: list[tuple[str, bool, Any]], random: Any) -> None:
        """One example."""
        sessions: dict[str, str] = {}
        asked: dict[str, tuple[Wire, Any]] = {}
        used = set()
        for number, (token, is_modern, id) in enumerate(requests):
            name = f"tool-{number}"
            meta = {"progressToken": "p"}
            if is_modern:
                message = modern(id, name=name, meta=meta)
                asked[name] = self.ask(message, token=token), id
                if not number:
                    # The oldest is the one whose client does not stay.
                    self.leaver = name
            else:
                if token not in sessions:
                    sessions[token] = self.open(token)
                if (token, id) in used:
                    continue
                used.add((token, id))
                message = request(id, name=name, _meta=meta)
                asked[name] = self.send(message, sessions[token], token), id
        pending = [
            (process, call)
            for process in self.spawner.processes
            for call in self.calls(process)
        ]
        self.assertEqual(len(pending), len(asked))
        tokens = {
            (process.pid, call["params"]["_meta"]["progressToken"])
            for process, call in pending
        }
        self.assertEqual(len(tokens), len(pending))
        heard: dict[str, list[int]] = {name: [] for name in asked}
        steps = [(process, call, step) for process, call in pending for step in (1, 2)]
        random.shuffle(steps)
        for process, call, step in steps[: random.randrange(len(steps) + 1)]:
            self.advance(process, call, step)
            heard[call["params"]["name"]].append(step)
        if self.leaver is not None:
            asked.pop(self.leaver)[0].depart()
        random.shuffle(pending)
        for process, call in pending:
            self.reply(process, call["id"], {"said": call["params"]["name"]})
        for name, (wire, id) in asked.items():
            *progress, answer = wire.events if heard[name] else [wire.json]
            self.assertEqual(
                [
                    (each["params"]["progress"], each["params"]["message"])
                    for each in progress
                ],
                [(step, name) for step in heard[name]],
            )
            for each in progress:
                self.assertEqual(each["params"]["progressToken"], "p")
            self.assertEqual((answer["id"], answer["result"]["said"]), (id, name))

    def advance(self, process: FakeProcess, call: Any, step: int) -> None:
        """The child gets on with a call."""
        params = {
            "progressToken": call["params"]["_meta"]["progressToken"],
            "progress": step,
            "message": call["params"]["name"],
        }
        message = {"jsonrpc": "2.0", "method": "notifications/progress"}
        process.say(json.dumps({**message, "params": params}).encode())

    def forget(self) -> None:
        """The next example begins anew."""
        for wire in self.wires:
            wire.depart()
        self.wires.clear()
        for grant in ("g_1", "g_2"):
            self.registry.close_grant(grant)
        for process in self.spawner.processes:
            process.exit(0)
            process.loseConnection()
        self.spawner.processes.clear()
        self.build()
