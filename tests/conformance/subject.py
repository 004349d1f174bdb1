"""What is tested: a real daemon in front of one kind of child, and a signed-in user."""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Final

from twisted.internet.defer import maybeDeferred
from twisted.internet.threads import deferToThread

from tests.conformance.proxy import BearerProxy
from tests.real.browser import Page
from tests.real.client import McpClient
from tests.real.daemon import Daemon, free_port
from tests.real.forgejo import RunningForgejo, start_forgejo

CHILDREN: Final[dict[str, tuple[str, ...]]] = {
    "legacy": ("-m", "tests.conformance.fixture"),
    "dual": ("-m", "tests.conformance.fixture", "--dual"),
    "sdk": ("-m", "tests.conformance.sdk_child"),
    "sdk-dual": ("-m", "tests.conformance.sdk_child", "--dual"),
}
"""The arguments of the interpreter, by the kind of child."""

REVISIONS: Final[dict[str, tuple[str, ...]]] = {
    "legacy": ("2025-11-25", "2026-07-28"),
    "dual": ("2025-11-25", "2026-07-28"),
    "sdk": ("2025-11-25", "2026-07-28"),
    # To a client with a handshake it is what the one before is.
    "sdk-dual": ("2026-07-28",),
}
"""What is run in front of each kind of child."""

LOGIN: Final = "alice"
_CAPABILITIES: Final[dict[str, dict[str, object]]] = {
    "elicitation": {},
    "sampling": {},
    "roots": {},
}


def _modern_call(client: McpClient, tool: str) -> Page:
    """
    Call a tool as a client of 2026-07-28 that can be asked everything.
    """
    prefix = "io.modelcontextprotocol/"
    meta = {
        prefix + "protocolVersion": "2026-07-28",
        prefix + "clientCapabilities": _CAPABILITIES,
    }
    message = {
        "jsonrpc": "2.0",
        "id": 1,
        "method": "tools/call",
        "params": {"name": tool, "arguments": {}, "_meta": meta},
    }
    headers = {
        **client.headers(),
        "MCP-Protocol-Version": "2026-07-28",
        "Mcp-Method": "tools/call",
        "Mcp-Name": tool,
    }
    body = json.dumps(message).encode()
    return client.browser.request("POST", f"{client.url}/mcp", body, headers)


class Subject:
    """
    The parts of one test set-up. Use L{start} and L{stop}.

    @ivar records: the directory of what the children read and wrote.
    """

    daemon: Daemon
    is_launched = False
    forgejo: RunningForgejo
    client: McpClient
    proxy: BearerProxy

    def __init__(self, child: str) -> None:
        """
        @param child: one of L{CHILDREN}.
        """
        self.child = child
        self._cleanups: list[Callable[[], object]] = []
        self.directory = Path(tempfile.mkdtemp(prefix=f"conformance-{child}-"))
        self.records = self.directory / "records"
        self.records.mkdir()

    def addCleanup(self, undo: Callable[[], object], /) -> None:
        """
        Remember what to undo at the end.
        """
        self._cleanups.append(undo)

    async def start(self) -> None:
        """
        Start everything, sign in, and let one child start, from which the broker
        learns what kind it is.
        """
        port = free_port()
        self.forgejo = await start_forgejo(self, f"http://127.0.0.1:{port}")
        arguments = (*CHILDREN[self.child], "--record", str(self.records))
        self.daemon = Daemon.launch(
            {
                **self.forgejo.settings,
                "FJMCP_BROKER_STORE_PATH": str(self.directory / "broker.db"),
                "FJMCP_BROKER_CHILD_COMMAND": ",".join((sys.executable, *arguments)),
                "FJMCP_BROKER_CHILD_INTERACTIVE": "true",
            },
            port=port,
        )
        self.is_launched = True
        self.addCleanup(self.daemon.stop)
        await self.daemon.until_ready()
        self.client = McpClient(self.daemon.url)
        password = self.forgejo.password(LOGIN)
        await deferToThread(self.client.sign_in, LOGIN, password)
        begun = await deferToThread(self.client.initialize)
        assert begun.status == 200, (begun.status, begun.text)
        ended = await deferToThread(self.client.send, b"", "DELETE")
        assert ended.status == 204, (ended.status, ended.text)
        self.client.session_id = None
        # The suite has little patience with its first calls.
        await deferToThread(_modern_call, self.client, "test_simple_text")
        self.proxy = BearerProxy(port, self.client.access_token)
        self.proxy.start()
        self.addCleanup(self.proxy.stop)

    async def stop(self) -> None:
        """
        Stop everything, the last one first.
        """
        while self._cleanups:
            await maybeDeferred(self._cleanups.pop())

    @property
    def log(self) -> str:
        """
        @return: what the daemon wrote.
        """
        return self.daemon.text if self.is_launched else ""

    def complaints(self) -> list[str]:
        """
        @return: what the daemon, once it is stopped, has to be ashamed of.
        """
        found = []
        for line in self.log.splitlines():
            try:
                level = json.loads(line)["level"]
            except (KeyError, TypeError, ValueError):
                # A traceback, or something else that is not its log.
                level = "critical"
            if level in ("error", "critical"):
                found.append(line)
        if self.is_launched and self.daemon.exit_code != 0:
            found.append(f"it ended with exit status {self.daemon.exit_code}")
        return found

    def forget(self) -> None:
        """
        Remove its directory.
        """
        shutil.rmtree(self.directory, ignore_errors=True)
