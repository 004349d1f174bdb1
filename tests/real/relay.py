"""
The real site on a loopback port in front of real children, and clients for it.
"""

import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from twisted.internet import reactor as _reactor
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol
from twisted.internet.protocol import Protocol, connectionDone
from twisted.internet.task import deferLater
from twisted.python.failure import Failure
from twisted.trial.unittest import TestCase
from twisted.web.pages import notFound

from fjmcp_broker.mcp.policy import ToolCatalogue
from fjmcp_broker.oauth.vocabulary import Policy
from fjmcp_broker.secret import Secret
from fjmcp_broker.sessions.children.population import Limits
from fjmcp_broker.sessions.processes.child import Child
from fjmcp_broker.sessions.processes.ending import ChildObserver
from fjmcp_broker.sessions.processes.spawn import ChildSettings, Launcher
from fjmcp_broker.sessions.processes.transport import Spawner
from fjmcp_broker.sessions.registry import SessionRegistry
from fjmcp_broker.web.mcp.admission import McpAdmission
from fjmcp_broker.web.mcp.endpoint import McpEndpoint
from fjmcp_broker.web.origins import OriginPolicy
from fjmcp_broker.web.root import Root
from fjmcp_broker.web.site import BrokerSite
from tests.relay_stubs import StubAuthenticator, StubLedger, StubTokens, principal

reactor: Any = _reactor  # a module to mypy
LAUNCHER = Launcher.detect()
ECHO = (sys.executable, str(Path(__file__).parent / "echo_child.py"))


class Answer(Protocol):
    """
    One connection with one request, and what came back: a small HTTP client that
    hides nothing.
    """

    def __init__(self) -> None:
        """Nothing came yet."""
        self.raw = bytearray()
        self.closed: Deferred[Answer] = Deferred()
        self.is_closed = False
        self._waiting: list[tuple[Callable[[], bool], Deferred[None]]] = []

    def dataReceived(self, data: bytes) -> None:
        """Collect."""
        self.raw += data
        self._check()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """The end."""
        self.is_closed = True
        self._check()
        self.closed.callback(self)

    def _check(self) -> None:
        for entry in list(self._waiting):
            true, waiting = entry
            if true() or self.is_closed:
                self._waiting.remove(entry)
                waiting.callback(None)

    async def until(self, true: Callable[[], bool]) -> None:
        """Wait until something is so, or the connection is closed."""
        if not true() and not self.is_closed:
            waiting: Deferred[None] = Deferred()
            self._waiting.append((true, waiting))
            await waiting

    @property
    def head(self) -> bytes:
        """Status line and headers."""
        return bytes(self.raw.partition(b"\r\n\r\n")[0])

    @property
    def status(self) -> int:
        """The status."""
        return int(self.head.split()[1])

    @property
    def headers(self) -> dict[str, str]:
        """The headers, in lower case."""
        lines = self.head.decode("latin-1").split("\r\n")[1:]
        return {
            name.lower(): value
            for name, _, value in (line.partition(": ") for line in lines)
        }

    @property
    def body(self) -> bytes:
        """The body, chunks put together."""
        rest = bytes(self.raw.partition(b"\r\n\r\n")[2])
        if self.headers.get("transfer-encoding") != "chunked":
            return rest
        pieces = []
        while rest:
            size, _, rest = rest.partition(b"\r\n")
            if not size:
                break
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

    @property
    def message(self) -> Any:
        """The answer, whichever way it came."""
        if self.headers["content-type"] == "application/json":
            return self.json
        return self.events[-1]


class RelayTestCase(TestCase):
    """Starts a site, and stops it with everything behind it."""

    timeout = 60
    limits = Limits()
    maximum_body_bytes = 1_000_000

    def setUp(self) -> None:
        """Listen, with three users."""
        self.authenticator = StubAuthenticator()
        self.authenticator.principals = {
            "alice": principal(1),
            "bob": principal(2),
            "reader": principal(3, policy=Policy.READ_ONLY_REQUESTED),
            "hider": principal(4, policy=Policy.READ_ONLY),
        }
        self.ledger = StubLedger()
        self.tokens = StubTokens(reactor)
        self.child_command: tuple[str, ...] = ECHO
        self.children: list[Child] = []
        self.registry = SessionRegistry(
            clock=reactor,
            ledger=self.ledger,
            tokens=self.tokens,  # type: ignore[arg-type]  # the half that is used
            make_child=self.make_child,
            catalogue=ToolCatalogue.packaged(),
            limits=self.limits,
        )
        authenticator: Any = self.authenticator
        root = Root(
            McpEndpoint(
                registry=self.registry, authenticator=authenticator, clock=reactor
            ),
            notFound(),
        )
        origins = OriginPolicy("http://127.0.0.1:8080", ["https://inspector.example"])
        admission = McpAdmission(authenticator, origins, self.maximum_body_bytes)
        self.site = BrokerSite(root, reactor, {b"/mcp": admission})
        self.port = reactor.listenTCP(0, self.site, interface="127.0.0.1")
        self.connections: list[Answer] = []
        self.addCleanup(self.clean_up)

    def make_child(self, observer: ChildObserver, token: Secret, name: str) -> Child:
        """A real child."""
        child = Child(
            spawner=Spawner(reactor),
            clock=reactor,
            launcher=LAUNCHER,
            settings=ChildSettings(
                command=self.child_command,
                forgejo_url="http://127.0.0.1:1",
                start_timeout_seconds=10,
                stop_grace_seconds=1,
            ),
            token=token,
            observer=observer,
            name=name,
        )
        self.children.append(child)
        return child

    async def clean_up(self) -> None:
        """Everything ends."""
        await self.registry.stop(3)
        for connection in self.connections:
            if not connection.is_closed and connection.transport is not None:
                connection.transport.loseConnection()
        await gatherResults([each.closed for each in self.connections])
        await self.port.stopListening()
        # The other ends of the connections see it a little later.
        while self.site.channels:
            await deferLater(reactor, 0.01)

    async def connect(self) -> Answer:
        """Open a connection."""
        endpoint = TCP4ClientEndpoint(reactor, "127.0.0.1", self.port.getHost().port)
        answer: Answer = await connectProtocol(endpoint, Answer())
        self.connections.append(answer)
        return answer

    async def begin(
        self,
        message: Any,
        session: str | None = None,
        token: str | None = "alice",
        headers: Mapping[str, str] | None = None,
        method: str = "POST",
    ) -> Answer:
        """Send a request and do not wait for its answer."""
        body = message if isinstance(message, bytes) else json.dumps(message).encode()
        if method != "POST":
            body = b""
        fields = {
            "Host": f"127.0.0.1:{self.port.getHost().port}",
            "Connection": "close",
            "Accept": "application/json, text/event-stream",
            "Content-Type": "application/json",
            "Content-Length": str(len(body)),
        }
        if token is not None:
            fields["Authorization"] = f"Bearer {token}"
        if session is not None:
            fields["Mcp-Session-Id"] = session
        fields.update(headers or {})
        head = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
        answer = await self.connect()
        assert answer.transport is not None
        answer.transport.write(f"{method} /mcp HTTP/1.1\r\n{head}\r\n".encode() + body)
        return answer

    async def send(self, *arguments: Any, **named: Any) -> Answer:
        """Send a request and wait for the whole answer."""
        answer: Answer = await self.begin(*arguments, **named)
        return await answer.closed

    async def open(self, token: str = "alice", version: str = "2025-06-18") -> str:
        """Open a session."""
        answer = await self.send(
            {
                "jsonrpc": "2.0",
                "id": "init",
                "method": "initialize",
                "params": {"protocolVersion": version},
            },
            token=token,
        )
        assert answer.status == 200, answer.raw
        return answer.headers["mcp-session-id"]


def call(
    id: Any, name: str, arguments: Any = None, progress: Any = None
) -> dict[str, Any]:
    """A call of a tool."""
    params: dict[str, Any] = {"name": name, "arguments": arguments or {}}
    if progress is not None:
        params["_meta"] = {"progressToken": progress}
    return {"jsonrpc": "2.0", "id": id, "method": "tools/call", "params": params}
