"""The parts of the conformance runs that have processes or sockets."""

from __future__ import annotations

import json
import socket
import sys
from pathlib import Path
from typing import Any

from twisted.internet import reactor as _reactor
from twisted.internet.defer import Deferred
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.internet.threads import deferToThread
from twisted.python.failure import Failure
from twisted.trial.unittest import TestCase

from tests.conformance.proxy import BearerProxy
from tests.conformance.schemas import Checker, read_records, schema_directory
from tests.conformance.subject import CHILDREN
from tests.real.child_case import until
from tests.real.daemon import Program

reactor: Any = _reactor  # a module to mypy

META = {
    "io.modelcontextprotocol/protocolVersion": "2026-07-28",
    "io.modelcontextprotocol/clientCapabilities": {"elicitation": {}},
}
HANDSHAKE = {
    "protocolVersion": "2025-11-25",
    "capabilities": {"elicitation": {}},
    "clientInfo": {"name": "test", "version": "1"},
}
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n"


class _Server(Protocol):
    """Keeps what it gets; the test says what it answers."""

    def connectionMade(self) -> None:
        factory: Any = self.factory
        factory.servers.append(self)
        self.got = b""
        self.lost: Deferred[None] = Deferred()

    def dataReceived(self, data: bytes) -> None:
        self.got += data

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.lost.callback(None)


class BearerProxyTests(TestCase):
    """The proxy between the suite and the broker."""

    timeout = 30

    def setUp(self) -> None:
        factory: Any = Factory.forProtocol(_Server)
        self.servers: list[Any] = []
        factory.servers = self.servers
        port = reactor.listenTCP(0, factory, interface="127.0.0.1")
        self.addCleanup(port.stopListening)
        self.proxy = BearerProxy(port.getHost().port, "secret")
        self.proxy.start()
        self.addCleanup(self.proxy.stop)

    async def connect(self) -> socket.socket:
        """
        @return: a connection on which a request has been sent and has arrived.
        """
        number = int(self.proxy.url.split(":")[2].split("/")[0])
        client = await deferToThread(
            socket.create_connection, ("127.0.0.1", number), 10
        )
        self.addCleanup(client.close)
        await deferToThread(client.sendall, b"GET /mcp HTTP/1.1\r\nHost: x\r\n\r\n")
        await until(lambda: any(b"\r\n\r\n" in one.got for one in self.servers))
        return client

    async def test_events_pass_one_by_one(self) -> None:
        """Each one is there before the next is written."""
        client = await self.connect()
        server = self.servers[-1]
        self.assertIn(b"\r\nAuthorization: Bearer secret\r\n", server.got)
        for piece in (HEAD, b"data: 1\n\n", b": keepalive\n\n", b"data: 2\n\n"):
            server.transport.write(piece)
            self.assertEqual(await deferToThread(client.recv, 65536), piece)
        server.transport.loseConnection()
        self.assertEqual(await deferToThread(client.recv, 65536), b"")
        await server.lost

    async def test_client_gone(self) -> None:
        """The server loses its connection too, while it writes as fast as it can."""
        client = await self.connect()
        server = self.servers[-1]
        server.transport.write(HEAD + b"x" * 50_000_000)
        self.assertEqual(len(await deferToThread(client.recv, 1000)), 1000)
        self.assertEqual(self.proxy.open, 1)
        client.close()
        await server.lost
        await until(lambda: self.proxy.open == 0)


class Conversation:
    """A child of the conformance runs, on a pipe."""

    def __init__(self, test: TestCase, child: str) -> None:
        self.records = Path(test.mktemp()).absolute()
        self.records.mkdir()
        self.program = Program.start(
            [sys.executable, *CHILDREN[child], "--record", str(self.records)]
        )
        test.addCleanup(self._end)

    async def _end(self) -> None:
        assert self.program.transport is not None
        self.program.transport.closeStdin()
        await self.program.wait()

    @property
    def messages(self) -> list[Any]:
        """
        @return: what it wrote, but for what is still incomplete.
        """
        *lines, _ = self.program.output.split(b"\n")
        return [json.loads(line) for line in lines]

    def send(self, **message: Any) -> None:
        """
        Write a message.
        """
        assert self.program.transport is not None
        text = json.dumps({"jsonrpc": "2.0", **message})
        self.program.transport.write(text.encode() + b"\n")

    async def ask(self, id: Any, method: str, **params: Any) -> Any:
        """
        @return: the message that answers.
        """
        self.send(id=id, method=method, params=params)
        return await self.message(
            lambda message: message.get("id") == id and "method" not in message
        )

    async def message(self, wanted: Any) -> Any:
        """
        @return: the first message of that sort, once it is there.
        """
        found: list[Any] = []

        def look() -> bool:
            found[:] = [message for message in self.messages if wanted(message)]
            return bool(found)

        # The SDK takes seconds to be imported, and tens of them beside other tests.
        await until(look, 90)
        return found[0]

    def violations(self) -> list[str]:
        """
        @return: what the schemas do not allow of all this; nothing without them.
        """
        directory = schema_directory()
        if directory is None:
            return []
        checker = Checker(directory)
        return [
            str(found)
            for record in read_records(self.records)
            for found in checker.check(record)
        ]


class ChildTests(TestCase):
    """The children do what the specification says, not what the broker expects."""

    timeout = 180

    async def legacy_journey(self, child: str) -> None:
        """
        A probe, a handshake, a call with a question.
        """
        talk = Conversation(self, child)
        probe = await talk.ask(0, "server/discover", _meta=META)
        self.assertIn(probe["error"]["code"], (-32600, -32601))
        started = await talk.ask(1, "initialize", **HANDSHAKE)
        self.assertEqual(started["result"]["protocolVersion"], "2025-11-25")
        talk.send(method="notifications/initialized")
        name = "test_input_required_result_elicitation"
        talk.send(id=2, method="tools/call", params={"name": name, "arguments": {}})
        asked = await talk.message(lambda message: message.get("id") == "user_name")
        self.assertEqual(asked["method"], "elicitation/create")
        talk.send(
            id="user_name", result={"action": "accept", "content": {"name": "Ada"}}
        )
        answer = await talk.message(lambda message: message.get("id") == 2)
        self.assertEqual(answer["result"]["content"][0]["text"], "Hello, Ada!")
        self.assertEqual(talk.violations(), [])

    async def test_legacy_fixture(self) -> None:
        """A question is a request with an id of its own."""
        await self.legacy_journey("legacy")

    async def test_sdk(self) -> None:
        """The same on the official SDK."""
        await self.legacy_journey("sdk")

    async def test_dual_fixture(self) -> None:
        """A question is a result, its answer comes with a retry."""
        talk = Conversation(self, "dual")
        found = await talk.ask(0, "server/discover", _meta=META)
        self.assertEqual(found["result"]["supportedVersions"][0], "2026-07-28")
        late = await talk.ask(9, "initialize", **HANDSHAKE)
        self.assertEqual(late["error"]["code"], -32022)
        call = {
            "name": "test_input_required_result_request_state",
            "arguments": {},
            "_meta": META,
        }
        first = (await talk.ask(1, "tools/call", **call))["result"]
        self.assertEqual(list(first["inputRequests"]), ["confirm"])
        answers = {"confirm": {"action": "accept", "content": {"ok": True}}}
        state = first["requestState"]
        forged = await talk.ask(
            2, "tools/call", **call, inputResponses=answers, requestState=state + "x"
        )
        self.assertEqual(forged["error"]["code"], -32602)
        other = {**call, "name": "test_simple_text"}
        moved = await talk.ask(3, "tools/call", **other, requestState=state)
        self.assertEqual(moved["error"]["code"], -32602)
        second = await talk.ask(
            4, "tools/call", **call, inputResponses=answers, requestState=state
        )
        self.assertEqual(second["result"]["content"][0]["text"], "state-ok")
        self.assertEqual(talk.violations(), [])

    async def test_dual_subscription(self) -> None:
        """Acknowledged first, then only what was asked for, with its id."""
        talk = Conversation(self, "dual")
        wanted = {"toolsListChanged": True}
        talk.send(
            id=7,
            method="subscriptions/listen",
            params={"_meta": META, "notifications": wanted},
        )
        await talk.message(lambda message: "subscriptions/ack" in str(message))
        for number, what in enumerate(("prompt", "tool")):
            name = f"test_trigger_{what}_change"
            await talk.ask(number, "tools/call", name=name, _meta=META)
        notes = [message for message in talk.messages if "id" not in message]
        self.assertEqual(
            [note["method"] for note in notes],
            [
                "notifications/subscriptions/acknowledged",
                "notifications/tools/list_changed",
            ],
        )
        for note in notes:
            meta = note["params"]["_meta"]
            self.assertEqual(meta["io.modelcontextprotocol/subscriptionId"], 7)
        self.assertEqual(talk.violations(), [])
