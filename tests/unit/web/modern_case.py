"""Requests of the stateless revisions, and a grant's child that is a script."""

from collections.abc import Callable, Mapping
from typing import Any

from twisted.internet.defer import Deferred
from twisted.web.pages import notFound

from fjmcp_broker.mcp.messages import Request, Response
from fjmcp_broker.mcp.modern.profiles import ChildProfile
from fjmcp_broker.mcp.modern.requests import ModernRequest
from fjmcp_broker.mcp.policy import ToolCatalogue
from fjmcp_broker.oauth.bearer import Principal
from fjmcp_broker.sessions.errors import SessionGone
from fjmcp_broker.sessions.registry import Opened
from fjmcp_broker.sessions.session import Session
from fjmcp_broker.sessions.stateless.calls import CallObserver
from fjmcp_broker.sessions.stateless.shared import name_of_shared
from fjmcp_broker.web.mcp.endpoint import McpEndpoint
from fjmcp_broker.web.root import Root
from fjmcp_broker.web.site import BrokerSite
from tests.unit.web.mcp_world import McpWorld, Wire

VERSION = "2026-07-28"
META = {
    "io.modelcontextprotocol/protocolVersion": VERSION,
    "io.modelcontextprotocol/clientCapabilities": {},
}
OURS = b'"tools"'
"""The id of requests of the endpoint itself."""

FORGEJO = b'{"serverInfo":{"name":"Forgejo MCP Server","version":"0"}}'


def modern(
    id: Any,
    method: str = "tools/call",
    *,
    meta: Mapping[str, Any] | None = None,
    **params: Any,
) -> dict[str, Any]:
    """A request."""
    params = {"_meta": {**META, **(meta or {})}, **params}
    return {"jsonrpc": "2.0", "id": id, "method": method, "params": params}


def headers_of(message: Any) -> dict[str, str | None]:
    """The headers that belong to it."""
    params = message.get("params", {})
    name = params.get("name", params.get("uri"))
    return {
        "MCP-Protocol-Version": VERSION,
        "Mcp-Method": message.get("method"),
        "Mcp-Name": name if isinstance(name, str) and name.isascii() else None,
    }


class FakeChild:
    """Counts who holds it back."""

    def __init__(self) -> None:
        """Nobody."""
        self.pausers: set[object] = set()

    def pause_output(self, who: object) -> None:
        """One more."""
        self.pausers.add(who)

    def resume_output(self, who: object) -> None:
        """One less."""
        self.pausers.discard(who)


class FakeCall:
    """
    A call that was begun.

    @ivar modern: what was asked.
    @ivar observer: who wants to know.
    @ivar abandoned: how often it was given up.
    """

    def __init__(self, modern: ModernRequest, observer: CallObserver) -> None:
        """As begun."""
        self.modern = modern
        self.observer = observer
        self.abandoned = 0
        self.child: Any = FakeChild()

    def abandon(self) -> None:
        """The client is gone."""
        self.abandoned += 1

    def result(self, result: bytes = b"{}", status: int = 200) -> None:
        """Answer."""
        self.observer.finished(Response(self.modern.id, result), status)

    def error(self, error: bytes, status: int) -> None:
        """Answer with an error."""
        self.observer.finished(Response(self.modern.id, error=error), status)


class FakeLease:
    """The right to one call."""

    def __init__(self, shared: "FakeShared") -> None:
        """Given out by it."""
        self.shared = shared
        self.is_over = False
        self.catalogue = shared.catalogue

    def begin(self, modern: ModernRequest, observer: CallObserver) -> FakeCall:
        """As the real one."""
        assert not self.is_over
        self.is_over = True
        if self.shared.begin_error is not None:
            raise self.shared.begin_error
        call = FakeCall(modern, observer)
        if modern.id == OURS:
            self.shared.listed(call)
            return call
        self.shared.calls.append(call)
        if self.shared.at_once is not None:
            self.shared.at_once(call)
        return call

    def release(self) -> None:
        """As the real one."""
        self.is_over = True


class FakeShared:
    """
    The shared child of a grant.

    @ivar calls: what was begun.
    @ivar at_once: what happens while a call begins.
    @ivar listed: what happens when the endpoint itself lists the tools.
    """

    def __init__(self, grant_id: str = "g_1") -> None:
        """Awake."""
        self.name = name_of_shared(grant_id)
        self.calls: list[FakeCall] = []
        self.leases: list[FakeLease] = []
        self.at_once: Callable[[FakeCall], None] | None = None
        self.catalogue = ToolCatalogue.packaged().for_server(FORGEJO)
        self.error: Exception | None = None
        self.begin_error: Exception | None = None
        self.tools = b'{"tools":[]}'
        self.listings = 0
        self.listed: Callable[[FakeCall], None] = self._listed
        self.holding: list[Deferred[None]] | None = None

    def take_up(self, modern: ModernRequest) -> FakeLease | None:
        """As the real one."""
        if self.holding is not None or self.error is not None:
            return None
        self.leases.append(FakeLease(self))
        return self.leases[-1]

    async def awake(self, modern: ModernRequest) -> FakeLease:
        """As the real one."""
        if self.holding is not None:
            held: Deferred[None] = Deferred()
            self.holding.append(held)
            await held
        if self.error is not None:
            raise self.error
        self.leases.append(FakeLease(self))
        return self.leases[-1]

    def _listed(self, call: FakeCall) -> None:
        self.listings += 1
        call.result(self.tools)

    def release(self) -> None:
        """Let those who wait go on."""
        held, self.holding = self.holding or [], None
        for each in held:
            each.callback(None)


class FakeProfiles:
    """What is known of the child."""

    profile: ChildProfile | None = None
    name = b"a program"

    def identity(self) -> bytes:
        """As the real one."""
        return self.name

    def known(self, identity: bytes | None = None) -> ChildProfile | None:
        """As the real one."""
        return self.profile


class FakeRegistry:
    """The shared children by grant."""

    def __init__(self) -> None:
        """None yet."""
        self.by_grant: dict[str, FakeShared] = {}
        self.profiles = FakeProfiles()

    def shared(self, principal: Principal) -> FakeShared:
        """As the real one."""
        return self.by_grant.setdefault(
            principal.grant_id, FakeShared(principal.grant_id)
        )

    async def find(self, session_id: str, principal: Principal) -> Session:
        """There are no sessions."""
        raise SessionGone("there is no such session")

    async def open(self, principal: Principal, request: Request) -> Opened:
        """Nor are there any new ones."""
        return Opened(Response(request.id, error=b'{"code":-32602,"message":"no"}'))


class ModernCase(McpWorld):
    """
    The endpoint with scripts in the place of shared children.

    @ivar shared: the one of alice.
    """

    def build(self) -> None:
        """The endpoint."""
        super().build()
        self.fakes = FakeRegistry()
        registry: Any = self.fakes
        authenticator: Any = self.authenticator
        self.endpoint = McpEndpoint(
            registry=registry,
            authenticator=authenticator,
            clock=self.clock,
            replays=self.replays,
            annotate=self.annotate,
        )
        root = Root(self.endpoint, notFound())
        self.site = BrokerSite(root, self.clock, {b"/mcp": self.admission})
        self.shared = self.fakes.by_grant["g_1"] = FakeShared()

    def ask(self, message: Any, *arguments: Any, **named: Any) -> Wire:
        """Send a modern request with the headers that belong to it."""
        own = named.pop("headers", {})
        return self.send(
            message, *arguments, headers={**headers_of(message), **own}, **named
        )

    @property
    def call(self) -> FakeCall:
        """The newest call."""
        return self.shared.calls[-1]
