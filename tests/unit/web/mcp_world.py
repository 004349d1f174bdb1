"""The MCP endpoint in memory: the real site, a clock, children that are scripts."""

import json
from collections.abc import Mapping
from typing import Any

from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.pages import notFound

from fjmcp_broker.mcp.policy import ToolCatalogue
from fjmcp_broker.oauth.vocabulary import Policy
from fjmcp_broker.secret import Secret
from fjmcp_broker.sessions.children.population import Limits
from fjmcp_broker.sessions.processes.child import Child
from fjmcp_broker.sessions.processes.ending import ChildObserver
from fjmcp_broker.sessions.processes.spawn import ChildSettings
from fjmcp_broker.sessions.registry import SessionRegistry
from fjmcp_broker.sessions.streams.replay import Replays
from fjmcp_broker.web.mcp.admission import McpAdmission
from fjmcp_broker.web.mcp.endpoint import McpEndpoint
from fjmcp_broker.web.origins import OriginPolicy
from fjmcp_broker.web.root import Root
from fjmcp_broker.web.site import BrokerSite
from tests.fakes import LAUNCHER, FakeProcess, FakeSpawner
from tests.relay_stubs import StubAuthenticator, StubLedger, StubTokens, principal

NOW = 1_800_000_000
SERVER_INFO = {"name": "Forgejo MCP Server", "version": "0"}


class Wire(StringTransport):
    """A connection that remembers how it ended, and whether it was paused."""

    def __init__(self) -> None:
        """Open."""
        super().__init__(peerAddress=IPv4Address("TCP", "127.0.0.1", 50000))
        self.aborted = False
        self.protocol: Any = None

    def abortConnection(self) -> None:  # noqa: N802 - Twisted's
        """Closed without what was not sent."""
        self.aborted = True
        self.loseConnection()

    def loseConnection(self) -> None:
        """Closed, and the protocol hears of it."""
        if not self.disconnecting:
            self.disconnecting = True
            self.protocol.connectionLost(Failure(ConnectionDone()))

    def depart(self) -> None:
        """The client is gone."""
        if not self.disconnecting:
            self.disconnecting = True
            self.protocol.connectionLost(Failure(ConnectionLost()))

    # What came back

    @property
    def parts(self) -> tuple[bytes, bytes]:
        """Head and body of the first response."""
        head, _, body = self.value().partition(b"\r\n\r\n")
        return head, body

    @property
    def status(self) -> int | None:
        """The status, C{None} before there is one."""
        head = self.parts[0]
        return int(head.split()[1]) if head else None

    @property
    def headers(self) -> dict[str, str]:
        """The headers, names in lower case."""
        lines = self.parts[0].decode("latin-1").split("\r\n")[1:]
        split = (line.partition(": ") for line in lines)
        return {name.lower(): value for name, _, value in split}

    @property
    def body(self) -> bytes:
        """The body, chunks put together."""
        rest = self.parts[1]
        if self.headers.get("transfer-encoding") != "chunked":
            return rest
        pieces = []
        while rest:
            size, _, rest = rest.partition(b"\r\n")
            pieces.append(rest[: int(size, 16)])
            rest = rest[int(size, 16) + 2 :]
        return b"".join(pieces)

    @property
    def json(self) -> Any:
        """The body as JSON."""
        return json.loads(self.body)

    @property
    def events(self) -> list[Any]:
        """The messages of an event stream."""
        return [
            json.loads(line[6:])
            for line in self.body.split(b"\n")
            if line.startswith(b"data: ") and len(line) > 6
        ]


class McpWorld(SynchronousTestCase):
    """
    Everything from the bytes on the connection to the child's standard input.

    @ivar manual: methods that children do not answer by themselves.
    """

    limits = Limits()
    maximum_body_bytes = 10_000
    annotate = True

    def setUp(self) -> None:
        """A site and four users."""
        self.clock = Clock()
        self.clock.advance(NOW)
        self.spawner = FakeSpawner()
        self.spawner.on_start = self.new_child
        self.manual: set[str] = set()
        self.child_version: str | None = None
        self.authenticator = StubAuthenticator()
        self.authenticator.principals = {
            "alice": principal(1),
            "bob": principal(2),
            "reader": principal(3, policy=Policy.READ_ONLY_REQUESTED),
        }
        self.ledger = StubLedger()
        self.tokens = StubTokens(self.clock)
        self.wires: list[Wire] = []
        self.build()

    def build(self) -> None:
        """A daemon: what is new with each start."""
        self.registry = SessionRegistry(
            clock=self.clock,
            ledger=self.ledger,
            tokens=self.tokens,  # type: ignore[arg-type]  # the half that is used
            make_child=self.make_child,
            catalogue=ToolCatalogue.packaged(),
            limits=self.limits,
        )
        authenticator: Any = self.authenticator
        self.replays = Replays(self.clock)
        self.endpoint = McpEndpoint(
            registry=self.registry,
            authenticator=authenticator,
            clock=self.clock,
            replays=self.replays,
            annotate=self.annotate,
        )
        root = Root(self.endpoint, notFound())
        self.admission = McpAdmission(
            authenticator,
            OriginPolicy("https://mcp.example", ["https://inspector.example"]),
            self.maximum_body_bytes,
        )
        self.site = BrokerSite(root, self.clock, {b"/mcp": self.admission})

    def restart(self) -> None:
        """Stop the daemon, start another one on the same store."""
        self.successResultOf(Deferred.fromCoroutine(self.registry.stop(3)))
        for wire in self.wires:
            wire.depart()
        self.build()
        self.successResultOf(Deferred.fromCoroutine(self.registry.start()))

    def tearDown(self) -> None:
        """Nobody stays: no process, no directory, no delayed call."""
        for wire in self.wires:
            wire.depart()
        for process in self.spawner.processes:
            process.exit(0)
            process.loseConnection()
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def make_child(self, observer: ChildObserver, token: Secret, name: str) -> Child:
        """A child in memory."""
        return Child(
            spawner=self.spawner,
            clock=self.clock,
            launcher=LAUNCHER,
            settings=ChildSettings(command=("cat",), forgejo_url="http://x"),
            token=token,
            observer=observer,
            name=name,
            inherited={},
            kill_group=self.spawner.kill_group,
        )

    def new_child(self, process: FakeProcess) -> None:
        """It answers every request with its own params, unless told otherwise."""
        process.on_line = lambda line: self.read(process, json.loads(line))

    def read(self, process: FakeProcess, message: dict[str, Any]) -> None:
        """What a child does with a message."""
        method = message.get("method")
        if "id" not in message or method is None or method in self.manual:
            return
        result: Any = {"params": message.get("params")}
        if method == "initialize":
            version = self.child_version or message["params"]["protocolVersion"]
            result = {"protocolVersion": version, "serverInfo": SERVER_INFO}
        self.reply(process, message["id"], result)

    def reply(self, process: FakeProcess, id: Any, result: Any) -> None:
        """An answer of the child."""
        answer = {"jsonrpc": "2.0", "id": id, "result": result}
        process.say(json.dumps(answer).encode())

    def received(self, process: FakeProcess) -> list[Any]:
        """Every message that a child has read."""
        return [json.loads(line) for line in bytes(process.written).splitlines()]

    def connect(self) -> Wire:
        """A new connection."""
        wire = Wire()
        wire.protocol = self.site.buildProtocol(wire.getPeer())
        wire.protocol.makeConnection(wire)
        self.wires.append(wire)
        return wire

    def raw(
        self,
        body: bytes,
        session: str | None = None,
        token: str | None = "alice",
        headers: Mapping[str, str | None] | None = None,
        method: str = "POST",
        path: str = "/mcp",
    ) -> bytes:
        """The bytes of a request."""
        fields: dict[str, str | None] = {
            "Host": "mcp.example",
            "Accept": "application/json, text/event-stream",
            "Content-Type": "application/json",
            "Content-Length": str(len(body)),
            "Authorization": f"Bearer {token}" if token is not None else None,
            "Mcp-Session-Id": session,
            **(headers or {}),
        }
        head = "".join(f"{n}: {v}\r\n" for n, v in fields.items() if v is not None)
        return f"{method} {path} HTTP/1.1\r\n{head}\r\n".encode("latin-1") + body

    def send(self, message: Any, *arguments: Any, **named: Any) -> Wire:
        """A request on a connection of its own."""
        body = message if isinstance(message, bytes) else json.dumps(message).encode()
        wire = self.connect()
        wire.protocol.dataReceived(self.raw(body, *arguments, **named))
        return wire

    def open(self, token: str = "alice", version: str = "2025-06-18") -> str:
        """A session."""
        wire = self.send(initialize(version), token=token)
        self.assertEqual(wire.status, 200, wire.value())
        return wire.headers["mcp-session-id"]


def initialize(version: str = "2025-06-18", id: Any = 0) -> dict[str, Any]:
    """The first message."""
    return {
        "jsonrpc": "2.0",
        "id": id,
        "method": "initialize",
        "params": {"protocolVersion": version},
    }


def request(id: Any, method: str = "tools/call", **params: Any) -> dict[str, Any]:
    """A request."""
    return {"jsonrpc": "2.0", "id": id, "method": method, "params": params}
