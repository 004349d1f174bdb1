"""
What is put under load: the broker, or anything else that speaks Streamable HTTP.
"""

import json
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from bench.processes import Process, free_port, until
from bench.wire import Answer, Connection, WireError
from tests.real.client import McpClient

LEGACY: Final = "2025-11-25"
MODERN: Final = "2026-07-28"
ECHO_CHILD: Final = (sys.executable, str(Path(__file__).with_name("echo_child.py")))
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
    """

    def __init__(self, name: str, process: Process, port: int) -> None:
        """
        @param name: in the tables.
        @param process: of the bridge itself.
        @param port: on loopback.
        """
        self.name = name
        self.process = process
        self.port = port

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

    def call(self, id: int, tool: str, arguments: Mapping[str, Any]) -> bytes:
        """
        @return: the body of a call.
        """
        return _message(id, "tools/call", {"name": tool, "arguments": dict(arguments)})

    def stop(self) -> None:
        """End it."""
        self.process.stop()


def _message(id: int, method: str, params: Mapping[str, Any]) -> bytes:
    message = {"jsonrpc": "2.0", "id": id, "method": method, "params": params}
    return json.dumps(message).encode()


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
    """

    def __init__(
        self,
        directory: Path,
        *,
        name: str = "broker",
        root: Path = ROOT,
        settings: Mapping[str, str] | None = None,
    ) -> None:
        """
        @param directory: for its store and its log, empty.
        @param name: in the tables.
        @param root: the source tree that it runs from.
        @param settings: environment variables beside those of the bench.
        """
        directory.mkdir(parents=True, exist_ok=True)
        self._root = root
        self._directory = directory
        self.store = directory / "broker.db"
        port, forgejo_port = free_port(), free_port()
        url = f"http://127.0.0.1:{port}"
        said = directory / "forgejo.log"
        self._forgejo = Process(
            [sys.executable, "-m", "bench.forgejo", str(forgejo_port), url],
            said,
            directory=ROOT,
        )
        self._forgejo.until_listening(forgejo_port)
        until(lambda: said.read_bytes().endswith(b"}\n"), "Forgejo's settings")
        forgejo: dict[str, str] = json.loads(said.read_text().splitlines()[-1])
        password = forgejo.pop("password")
        self._settings = {
            "FJMCP_BROKER_PUBLIC_URL": url,
            "FJMCP_BROKER_LISTEN": f"127.0.0.1:{port}",
            "FJMCP_BROKER_STORE_PATH": str(self.store),
            "FJMCP_BROKER_CHILD_COMMAND": ",".join(ECHO_CHILD),
            "FJMCP_BROKER_SESSIONS_MAX": "2000",
            "FJMCP_BROKER_SESSIONS_MAX_PER_USER": "2000",
            "FJMCP_BROKER_SESSIONS_MAX_DORMANT_PER_GRANT": "20000",
            "FJMCP_BROKER_LOG_FORMAT": "json",
            **{f"FJMCP_BROKER_LIMITS_{name.upper()}": "off" for name in _LIMITS},
            **forgejo,
            **(settings or {}),
        }
        super().__init__(name, self._launch(port), port)
        self.process.until_listening(port)
        client = McpClient(url)
        client.sign_in("alice", password)
        self._authorization = f"Bearer {client.access_token}"

    def _launch(self, port: int) -> Process:
        twistd = str(Path(sys.executable).with_name("twistd"))
        return Process(
            [twistd, "-n", "--pidfile=", "fjmcp"],
            self._directory / "broker.log",
            environment={**self._settings, "PYTHONPATH": str(self._root)},
            directory=self._directory,
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
        super().__init__(f"{broker.name}, {MODERN}", broker.process, broker.port)
        self._broker = broker

    def open_session(self) -> dict[str, str]:
        """
        @return: the headers of calls of C{echo}.
        """
        return {
            **self._broker.headers(),
            "MCP-Protocol-Version": MODERN,
            "Mcp-Method": "tools/call",
            "Mcp-Name": "echo",
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
