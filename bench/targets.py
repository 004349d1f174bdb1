"""
What is put under load: the broker, or anything else that speaks Streamable HTTP.
"""

import json
import sys
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

from bench.children import ECHO, Tool, echo_child
from bench.processes import Process, free_port, until
from bench.wire import Answer, Connection, WireError
from tests.real.client import McpClient

LEGACY: Final = "2025-11-25"
MODERN: Final = "2026-07-28"
AT_ONCE: Final = 4
"""So many sessions are opened or closed at a time."""

ROOT: Final = Path(__file__).parent.parent

_LIMITS: Final = (
    "register",
    "authorize",
    "consent",
    "code",
    "refresh",
    "revoke",
    "anonymous",
    "bad_bearer",
    "initialize",
)


class Target:
    """
    Something under load, with sessions.

    @ivar name: in the tables.
    @ivar process: of the bridge itself, without its children.
    @ivar port: on loopback.
    @ivar tool: of its child, that is called.
    """

    def __init__(
        self, name: str, process: Process, port: int, tool: Tool = ECHO
    ) -> None:
        """
        @param name: in the tables.
        @param process: of the bridge itself.
        @param port: on loopback.
        @param tool: of its child.
        """
        self.name = name
        self.process = process
        self.port = port
        self.tool = tool

    def headers(self) -> dict[str, str]:
        """
        @return: of any request.
        """
        return {
            "Accept": "application/json, text/event-stream",
            "Content-Type": "application/json",
        }

    def open_session(self) -> dict[str, str]:
        """
        @return: the headers of requests in a new session.
        @raise WireError: there is none.
        """
        headers = self.headers()
        connection = Connection(self.port)
        params = {
            "protocolVersion": LEGACY,
            "capabilities": {},
            "clientInfo": {"name": "bench", "version": "1"},
        }
        answer = _post(connection, headers, 0, "initialize", params)
        if answer.status != 200:
            raise WireError(f"initialize: {answer.status} {answer.body[:300]!r}")
        session_id = answer.headers.get("mcp-session-id")
        if session_id is not None:
            headers["Mcp-Session-Id"] = session_id
        headers["MCP-Protocol-Version"] = LEGACY
        note = {"jsonrpc": "2.0", "method": "notifications/initialized"}
        connection.ask("POST", "/mcp", headers, json.dumps(note).encode())
        connection.close()
        return headers

    def close_session(self, headers: Mapping[str, str]) -> None:
        """
        @param headers: of one of its sessions.
        """
        connection = Connection(self.port)
        connection.ask("DELETE", "/mcp", headers)
        connection.close()

    def open_sessions(self, count: int) -> list[dict[str, str]]:
        """
        @param count: how many.
        @return: the headers of each, as of L{open_session}.
        """
        with ThreadPoolExecutor(AT_ONCE) as threads:
            return list(threads.map(lambda _: self.open_session(), range(count)))

    def close_sessions(self, sessions: Sequence[Mapping[str, str]]) -> None:
        """
        @param sessions: the headers of each.
        """
        with ThreadPoolExecutor(AT_ONCE) as threads:
            list(threads.map(self.close_session, sessions))

    def call(self, id: int, tool: str, arguments: Mapping[str, Any]) -> bytes:
        """
        @return: the body of a call.
        """
        return _message(id, "tools/call", {"name": tool, "arguments": dict(arguments)})

    def stop(self) -> None:
        """End it."""
        self.process.stop()


def bare_target(directory: Path, name: str = "a bare resource") -> Target:
    """
    @param directory: for its log.
    @param name: in the tables.
    @return: a resource of twisted.web alone, which runs.
    """
    port = free_port()
    program = [sys.executable, str(Path(__file__).with_name("bare.py")), str(port)]
    process = Process(program, directory / "bare.log")
    process.until_listening(port)
    return Target(name, process, port)


def _message(id: int, method: str, params: Mapping[str, Any]) -> bytes:
    message = {"jsonrpc": "2.0", "id": id, "method": method, "params": params}
    # Without blanks, as the official SDKs for Python and TypeScript write it.
    return json.dumps(message, separators=(",", ":")).encode()


def _post(
    connection: Connection,
    headers: Mapping[str, str],
    id: int,
    method: str,
    params: Mapping[str, Any],
) -> Answer:
    return connection.ask("POST", "/mcp", headers, _message(id, method, params))


class Broker(Target):
    """
    The broker, with a user who has signed in. Nothing of it is switched off but the
    limits of how many requests somebody may make.

    @ivar store: its database.
    @ivar child: the command of its child.
    @ivar client: whoever has signed in.
    @ivar people: logins and passwords at Forgejo.
    @ivar forgejo_environment: what a child of somebody else needs of Forgejo.
    """

    def __init__(
        self,
        directory: Path,
        *,
        name: str = "broker",
        root: Path = ROOT,
        settings: Mapping[str, str] | None = None,
        child: Sequence[str] = (),
        tool: Tool = ECHO,
        is_wrapped: bool = False,
    ) -> None:
        """
        @param directory: for its store and its log, empty.
        @param name: in the tables.
        @param root: the source tree that it runs from.
        @param settings: environment variables beside those of the bench.
        @param child: the command of its child, the minimal one if there is none.
        @param tool: of that child.
        @param is_wrapped: whether it runs in L{bench.wrapped}.
        """
        directory.mkdir(parents=True, exist_ok=True)
        self._root = root
        self._is_wrapped = is_wrapped
        self.child = tuple(child) or echo_child()
        self.directory = directory
        self.store = directory / "broker.db"
        port, forgejo_port = free_port(), free_port()
        url = f"http://127.0.0.1:{port}"
        said = directory / "forgejo.log"
        self._forgejo = Process(
            [sys.executable, "-m", "bench.forgejo", str(forgejo_port), url],
            said,
            directory=ROOT,
        )
        try:
            self._forgejo.until_listening(forgejo_port)
            until(lambda: said.read_bytes().endswith(b"}\n"), "Forgejo's settings")
        except BaseException:
            self._forgejo.stop()
            raise
        forgejo: dict[str, str] = json.loads(said.read_text().splitlines()[-1])
        self.people = {"alice": forgejo.pop("password")}
        self.forgejo_environment = {
            "FORGEJO_URL": forgejo["FORGEJO_URL"],
            "FORGEJO_ACCESS_TOKEN": forgejo.pop("access_token"),
        }
        self._settings = {
            "FJMCP_BROKER_PUBLIC_URL": url,
            "FJMCP_BROKER_LISTEN": f"127.0.0.1:{port}",
            "FJMCP_BROKER_STORE_PATH": str(self.store),
            "FJMCP_BROKER_CHILD_COMMAND": ",".join(self.child),
            "FJMCP_BROKER_SESSIONS_MAX": "2000",
            "FJMCP_BROKER_SESSIONS_MAX_PER_USER": "2000",
            "FJMCP_BROKER_SESSIONS_MAX_DORMANT_PER_GRANT": "20000",
            "FJMCP_BROKER_LOG_FORMAT": "json",
            **{f"FJMCP_BROKER_LIMITS_{name.upper()}": "off" for name in _LIMITS},
            **forgejo,
            **(settings or {}),
        }
        super().__init__(name, self._launch(port), port, tool)
        try:
            self.process.until_listening(port)
            self.client = McpClient(url)
            self.client.sign_in("alice", self.people["alice"])
        except BaseException:
            self.stop()
            raise
        self._authorization = f"Bearer {self.client.access_token}"

    def _launch(self, port: int) -> Process:
        program = [str(Path(sys.executable).with_name("twistd"))]
        if self._is_wrapped:
            program = [sys.executable, str(Path(__file__).with_name("wrapped.py"))]
        return Process(
            [*program, "-n", "--pidfile=", "fjmcp"],
            self.directory / "broker.log",
            environment={**self._settings, "PYTHONPATH": str(self._root)},
            directory=self.directory,
        )

    def restart(self) -> float:
        """
        @return: seconds until it listened again.
        """
        self.process.stop()
        began = time.perf_counter()
        self.process = self._launch(self.port)
        self.process.until_listening(self.port)
        return time.perf_counter() - began

    def headers(self) -> dict[str, str]:
        """
        @return: of any request.
        """
        return {**super().headers(), "Authorization": self._authorization}

    def stop(self) -> None:
        """End it and its Forgejo."""
        super().stop()
        self._forgejo.stop()


class ModernBroker(Target):
    """
    A broker as clients of the stateless revision use it: a session is only headers.
    """

    def __init__(self, broker: Broker) -> None:
        """
        @param broker: runs, and is stopped by its owner.
        """
        name = f"{broker.name}, {MODERN}"
        super().__init__(name, broker.process, broker.port, broker.tool)
        self._broker = broker

    def open_session(self) -> dict[str, str]:
        """
        @return: the headers of calls of its tool.
        """
        return {
            **self._broker.headers(),
            "MCP-Protocol-Version": MODERN,
            "Mcp-Method": "tools/call",
            "Mcp-Name": self.tool.name,
        }

    def close_session(self, headers: Mapping[str, str]) -> None:
        """
        @param headers: nothing has to be closed.
        """

    def call(self, id: int, tool: str, arguments: Mapping[str, Any]) -> bytes:
        """
        @return: the body of a call.
        """
        prefix = "io.modelcontextprotocol/"
        meta = {
            f"{prefix}protocolVersion": MODERN,
            f"{prefix}clientInfo": {"name": "bench", "version": "1"},
            f"{prefix}clientCapabilities": {},
        }
        params = {"_meta": meta, "name": tool, "arguments": dict(arguments)}
        return _message(id, "tools/call", params)

    def stop(self) -> None:
        """The broker is stopped by its owner."""
