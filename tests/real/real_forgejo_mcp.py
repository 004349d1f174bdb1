"""
The real forgejo-mcp: where its binaries are, and one of them as a running process.
"""

import json
import os
from pathlib import Path
from typing import Any, Final

import attrs
from twisted.internet.defer import Deferred
from twisted.internet.protocol import ProcessProtocol
from twisted.python.failure import Failure
from twisted.trial.unittest import SkipTest

from fjmcp_broker.mcp.framing import LineFramer, frame
from fjmcp_broker.mcp.messages import NULL, Response, encode_request, parse_child_line

VERSIONS: Final = ("2.18.0", "2.34.1")
"""The oldest and the newest supported one."""

DIRECTORY_VARIABLE: Final = "FJMCP_TEST_FORGEJO_MCP_DIR"


def cache_directory(version: str) -> Path:
    """
    Where the installer puts a version, outside of the checkout.

    @param version: one of L{VERSIONS}.
    @return: its own directory; it may not exist.
    """
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "fjmcp-broker" / "forgejo-mcp" / version


def find(version: str) -> Path | None:
    """
    Look in the directory that C{FJMCP_TEST_FORGEJO_MCP_DIR} names, for
    C{forgejo-mcp-VERSION} or C{VERSION/forgejo-mcp}, then in the cache.

    @param version: one of L{VERSIONS}.
    @return: the binary, or None when there is none.
    """
    places = [cache_directory(version) / "forgejo-mcp"]
    named = os.environ.get(DIRECTORY_VARIABLE)
    if named:
        flat = Path(named) / f"forgejo-mcp-{version}"
        places[:0] = [flat, Path(named) / version / "forgejo-mcp"]
    for place in places:
        if os.access(place, os.X_OK) and place.is_file():
            return place
    return None


def require(version: str) -> Path:
    """
    @param version: one of L{VERSIONS}.
    @return: the binary.
    @raise SkipTest: when there is none, with the reason.
    """
    found = find(version)
    if found is None:
        raise SkipTest(
            f"real forgejo-mcp {version}: not installed"
            " (python tests/real/install_forgejo_mcp.py)"
        )
    return found


class ToolError(Exception):
    """The child answered with an error."""


@attrs.define(eq=False)
class RealForgejoMcp(ProcessProtocol):
    """
    One running forgejo-mcp and the requests that wait for it.

    @ivar stderr: what it logged.
    """

    stderr: bytes = b""
    ended: Deferred[None] = attrs.field(factory=Deferred)
    _framer: LineFramer = attrs.field(factory=LineFramer)
    _waiting: dict[bytes, Deferred[bytes]] = attrs.field(factory=dict)
    _last_id: int = 0

    @classmethod
    def spawn(
        cls,
        reactor: Any,  # a module to mypy
        binary: Path,
        url: str,
        token: str,
    ) -> "RealForgejoMcp":
        """
        Start one.

        @param reactor: spawns the process.
        @param binary: from L{find}.
        @param url: of the Forgejo that it works with.
        @param token: access token there.
        @return: it, before any message.
        """
        protocol = cls()
        environment = {"FORGEJO_URL": url, "FORGEJO_ACCESS_TOKEN": token}
        command = [str(binary), "--transport", "stdio"]
        reactor.spawnProcess(protocol, command[0], command, environment)
        return protocol

    async def begin(self) -> bytes:
        """
        Begin the session.

        @return: raw result of C{initialize}.
        @raise ToolError: when it does not start.
        """
        return await self.ask(
            "initialize",
            {
                "protocolVersion": "2025-11-25",
                "capabilities": {},
                "clientInfo": {"name": "test", "version": "0"},
            },
        )

    async def ask(self, method: str, params: object = None) -> bytes:
        """
        @param method: the method of a request.
        @param params: a JSON value, or None for none.
        @return: raw result.
        @raise ToolError: when the answer is an error.
        """
        self._last_id += 1
        id = b"%d" % self._last_id
        waiting = self._waiting[id] = Deferred()
        raw = None if params is None else json.dumps(params).encode()
        assert self.transport is not None
        self.transport.write(frame(encode_request(id, method, raw)))
        return await waiting

    async def tools(self) -> list[dict[str, Any]]:
        """
        @return: the tools that it offers, as it describes them.
        """
        tools: list[dict[str, Any]] = json.loads(await self.ask("tools/list"))["tools"]
        return tools

    async def call(self, name: str, arguments: object) -> dict[str, Any]:
        """
        @param name: the tool.
        @param arguments: its arguments, a JSON object.
        @return: the result.
        @raise ToolError: when the tool failed, in either of the two ways.
        """
        raw = await self.ask("tools/call", {"name": name, "arguments": arguments})
        result: dict[str, Any] = json.loads(raw)
        if result.get("isError"):
            raise ToolError(json.dumps(result))
        return result

    async def stop(self) -> None:
        """
        End it, and wait for that.
        """
        if not self.ended.called:
            assert self.transport is not None
            self.transport.signalProcess("KILL")
        await self.ended

    def outReceived(self, data: bytes) -> None:
        """Answers."""
        for line in self._framer.receive(data):
            message = parse_child_line(line)
            if isinstance(message, Response) and message.id in self._waiting:
                waiting = self._waiting.pop(message.id)
                if message.error is not None:
                    waiting.errback(ToolError(message.error.decode()))
                else:
                    waiting.callback(message.result or NULL)

    def errReceived(self, data: bytes) -> None:
        """Its log."""
        self.stderr += data

    def processEnded(self, reason: Failure) -> None:
        """Nobody waits for ever."""
        waiting, self._waiting = self._waiting, {}
        for one in waiting.values():
            one.errback(ToolError(f"it ended: {self.stderr[-2000:]!r}"))
        self.ended.callback(None)
