"""Clients of the stateless revisions, without HTTP, and their children."""

import json
from typing import Any

import attrs
from twisted.internet.defer import Deferred

from fjmcp_broker.mcp.messages import Request, Response, encode, parse
from fjmcp_broker.mcp.modern.requests import ModernRequest, RequestHeaders, judge
from fjmcp_broker.mcp.policy import ToolCatalogue
from fjmcp_broker.oauth.bearer import Principal
from fjmcp_broker.sessions.children.profiles import ChildProfiles
from fjmcp_broker.sessions.registry import SessionRegistry
from fjmcp_broker.sessions.stateless.calls import Call, Lease
from fjmcp_broker.store.sealing import Sealer
from tests.fakes import FakeProcess
from tests.relay_stubs import principal
from tests.unit.web.mcp_world import McpWorld

KEY = bytes(range(32))
EVERYTHING: dict[str, Any] = {
    "elicitation": {"form": {}, "url": {}},
    "sampling": {},
    "roots": {},
}
VERSION = "2026-07-28"
INFO = {"name": "child", "version": "1"}


def modern(
    id: Any = 1,
    method: str = "tools/call",
    capabilities: Any = None,
    *,
    log_level: str | None = None,
    token: Any = None,
    **params: Any,
) -> ModernRequest:
    """A request that was judged; C{name} is C{hold} for calls that give none."""
    meta: dict[str, Any] = {
        "io.modelcontextprotocol/protocolVersion": VERSION,
        "io.modelcontextprotocol/clientCapabilities": capabilities or {},
    }
    if log_level is not None:
        meta["io.modelcontextprotocol/logLevel"] = log_level
    if token is not None:
        meta["progressToken"] = token
    if method == "tools/call":
        params = {"name": "hold", **params}
    body = {
        "jsonrpc": "2.0",
        "id": id,
        "method": method,
        "params": {**params, "_meta": meta},
    }
    request = parse(json.dumps(body).encode())
    assert isinstance(request, Request)
    name = params.get("uri" if method == "resources/read" else "name")
    return judge(request, RequestHeaders(VERSION, method, name))


@attrs.define(eq=False)
class Client:
    """
    Watches one request.

    @ivar messages: what came before the answer.
    @ivar answers: the answer, once.
    """

    takes_messages: bool = True
    messages: list[Any] = attrs.Factory(list)
    answers: list[tuple[Any, int]] = attrs.Factory(list)
    call: Call | None = None

    def notified(self, message: bytes) -> None:
        """Something came before the answer."""
        assert not self.answers, message
        self.messages.append(json.loads(message))

    def finished(self, response: Response, status: int) -> None:
        """The answer came."""
        assert not self.answers, response
        self.answers.append((json.loads(encode(response)), status))

    @property
    def answer(self) -> Any:
        """The only answer."""
        assert len(self.answers) == 1, self.answers
        return self.answers[0][0]

    @property
    def status(self) -> int:
        """Its HTTP status."""
        return self.answers[0][1]

    @property
    def methods(self) -> list[str]:
        """Of what came before the answer."""
        return [message["method"] for message in self.messages]

    @property
    def asked(self) -> Any:
        """The questions of the answer."""
        assert self.answer["result"]["resultType"] == "input_required", self.answer
        return self.answer["result"]["inputRequests"]

    @property
    def state(self) -> str:
        """What has to be repeated."""
        text: str = self.answer["result"]["requestState"]
        return text

    def leave(self) -> None:
        """Close the connection."""
        assert self.call is not None
        self.call.abandon()


class SharedWorld(McpWorld):
    """
    A registry and its children in memory. A child answers C{tools/call} by itself when
    the tool is C{echo}.

    @ivar interactive: whether the operator says that children ask.
    @ivar versions: what children answer to C{server/discover}; C{None} for an error.
    @ivar capabilities: what they declare.
    """

    interactive = False
    versions: tuple[str, ...] | None = None

    def setUp(self) -> None:
        """Two users."""
        self.capabilities: dict[str, Any] = {
            "logging": {},
            "tools": {"listChanged": True},
            "resources": {"subscribe": True, "listChanged": True},
        }
        self.tools = ["echo", "hold"]
        self.identity = b"program"
        self.profiles = ChildProfiles(lambda: self.identity)
        self.alice = principal(1)
        self.bob = principal(2)
        super().setUp()

    def build(self) -> None:
        """A daemon: what is new with each start."""
        self.registry = SessionRegistry(
            clock=self.clock,
            ledger=self.ledger,
            tokens=self.tokens,  # type: ignore[arg-type]  # the half that is used
            make_child=self.make_child,
            catalogue=ToolCatalogue.packaged(),
            limits=self.limits,
            profiles=self.profiles,
            sealing=Sealer([KEY]),
            interactive=self.interactive,
        )

    # Clients

    def lease(self, request: ModernRequest, who: Principal | None = None) -> Lease:
        """Wait for a child, if it has to be waited for."""
        session = self.registry.shared(who or self.alice)
        at_once = session.take_up(request)
        if at_once is not None:
            return at_once
        waiting = Deferred.fromCoroutine(session.awake(request))
        lease: Lease = self.successResultOf(waiting)
        return lease

    def send_modern(
        self, request: ModernRequest, who: Principal | None = None
    ) -> Client:
        """Make a request."""
        client = Client()
        client.call = self.lease(request, who).begin(request, client)
        return client

    def refused(self, request: ModernRequest, who: Principal | None = None) -> Any:
        """Make a request that is refused before it reaches a child."""
        session = self.registry.shared(who or self.alice)
        self.assertIsNone(session.take_up(request))
        waiting = Deferred.fromCoroutine(session.awake(request))
        return self.failureResultOf(waiting).value

    # Children

    @property
    def living(self) -> list[FakeProcess]:
        """The children that run."""
        return [process for process in self.spawner.processes if not process.exited]

    @property
    def child(self) -> FakeProcess:
        """The newest child that runs."""
        return self.living[-1]

    def read(self, process: FakeProcess, message: dict[str, Any]) -> None:
        """What children do."""
        method, params = message.get("method"), message.get("params", {})
        if "id" not in message or method is None or method in self.manual:
            return
        id = message["id"]
        if method == "initialize":
            self.reply(
                process,
                id,
                {
                    "protocolVersion": params["protocolVersion"],
                    "capabilities": self.capabilities,
                    "serverInfo": INFO,
                },
            )
        elif method == "server/discover":
            if self.versions is None:
                self.say(process, id=id, error={"code": -32601, "message": "what?"})
            else:
                self.reply(
                    process,
                    id,
                    {
                        "resultType": "complete",
                        "supportedVersions": self.versions,
                        "capabilities": self.capabilities,
                        "_meta": {"io.modelcontextprotocol/serverInfo": INFO},
                    },
                )
        elif method == "tools/list":
            self.reply(process, id, {"tools": [{"name": name} for name in self.tools]})
        elif method == "tools/call" and params["name"] == "echo":
            self.reply(process, id, {"content": [], "echo": params.get("arguments")})
        elif method in ("resources/subscribe", "resources/unsubscribe"):
            self.reply(process, id, {})
        elif method == "logging/setLevel":
            self.reply(process, id, {})

    def say(self, process: FakeProcess, **members: Any) -> None:
        """A child writes a message."""
        process.say(json.dumps({"jsonrpc": "2.0", **members}).encode())

    def notify(self, process: FakeProcess, method: str, **params: Any) -> None:
        """A child writes a notification."""
        self.say(process, method=method, params=params)

    def elicit(self, process: FakeProcess, id: Any = "q", message: str = "?") -> None:
        """A child asks something."""
        self.say(
            process,
            id=id,
            method="elicitation/create",
            params={"message": message, "requestedSchema": {"type": "object"}},
        )

    def calls(self, process: FakeProcess, method: str = "tools/call") -> list[Any]:
        """The requests of a method that a child has read."""
        return [m for m in self.received(process) if m.get("method") == method]

    def said_to(self, process: FakeProcess) -> list[Any]:
        """The answers that a child was given, by its own ids."""
        return [m for m in self.received(process) if "method" not in m]

    def together(self) -> None:
        """Questions travel together for a moment."""
        self.clock.advance(0.05)


def accepted(**content: Any) -> dict[str, Any]:
    """An answer to a question."""
    return {"action": "accept", "content": content}
