"""A client of the stateless revisions for tests, with nothing in between."""

from __future__ import annotations

import json
import time
from typing import Any

from twisted.internet import reactor as _reactor
from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol
from twisted.internet.threads import deferToThread

from tests.real.client import McpClient
from tests.real.relay import Answer
from tests.real.test_sessions import SessionCase

reactor: Any = _reactor  # a module to mypy
VERSION = "2026-07-28"
CAPABILITIES = "io.modelcontextprotocol/clientCapabilities"
SUBSCRIPTION = "io.modelcontextprotocol/subscriptionId"


def modern(id: Any, method: str, **params: Any) -> dict[str, Any]:
    """A request."""
    meta = {
        "io.modelcontextprotocol/protocolVersion": VERSION,
        "io.modelcontextprotocol/clientInfo": {"name": "test", "version": "1"},
        CAPABILITIES: {},
        **params.pop("_meta", {}),
    }
    params = {"_meta": meta, **params}
    return {"jsonrpc": "2.0", "id": id, "method": method, "params": params}


def call(id: Any, tool: str, _meta: Any = None, **arguments: Any) -> dict[str, Any]:
    """A call of a tool."""
    return modern(id, "tools/call", name=tool, arguments=arguments, _meta=_meta or {})


class ModernCase(SessionCase):
    """A daemon whose clients open no sessions."""

    async def signed_in(self, login: str = "alice", **how: Any) -> McpClient:
        """A client with tokens."""
        client = McpClient(self.daemon.url)
        await deferToThread(client.sign_in, login, self.forgejo.password(login), **how)
        return client

    async def post(
        self, client: McpClient, message: Any, **headers: str | None
    ) -> Answer:
        """A request on a connection of its own; its answer may not have begun."""
        body = json.dumps(message).encode()
        params = message.get("params", {})
        fields: dict[str, str | None] = {
            "Host": f"127.0.0.1:{self.port}",
            "Connection": "close",
            "Content-Length": str(len(body)),
            **client.headers(),
            "MCP-Protocol-Version": VERSION,
            "Mcp-Method": message["method"],
            "Mcp-Name": params.get("name", params.get("uri")),
            **{name.replace("_", "-"): value for name, value in headers.items()},
        }
        head = "".join(f"{n}: {v}\r\n" for n, v in fields.items() if v is not None)
        endpoint = TCP4ClientEndpoint(reactor, "127.0.0.1", self.port)
        answer: Answer = await connectProtocol(endpoint, Answer())
        transport: Any = answer.transport
        transport.write(f"POST /mcp HTTP/1.1\r\n{head}\r\n".encode() + body)
        self.addCleanup(lambda: answer.closed)
        self.addCleanup(transport.abortConnection)
        return answer

    async def exchange(
        self, client: McpClient, message: Any, **headers: str | None
    ) -> Answer:
        """A request and its whole answer."""
        answer = await self.post(client, message, **headers)
        await answer.until(lambda: False)
        return answer

    async def result(self, client: McpClient, message: Any) -> Any:
        """The result of a request that has to succeed."""
        answer = await self.exchange(client, message)
        self.assertEqual(answer.status, 200, answer.raw)
        self.assertEqual(answer.message["id"], message["id"])
        self.assertIn("result", answer.message, self.daemon.text)
        return answer.message["result"]

    async def check_user(self, client: McpClient, login: str = "alice") -> None:
        """A call that works, as the right user."""
        self.assertEqual(said(await self.result(client, call(1, "who_am_i"))), login)

    async def until_told(self, client: McpClient, method: str, times: int) -> None:
        """Wait until the child has been told something, our own questions aside."""
        deadline = time.monotonic() + 60
        asked = 0
        while time.monotonic() < deadline:
            info = said(await self.result(client, call("info", "process_info")))
            asked += method == "tools/call"
            if info["received"]["methods"].count(method) - asked >= times:
                return
        self.fail("the child was not told")

    async def listen(self, client: McpClient, id: Any, **wanted: Any) -> Answer:
        """An open stream of changes."""
        message = modern(id, "subscriptions/listen", notifications=wanted)
        answer = await self.post(client, message)
        await answer.until(lambda: b"acknowledged" in answer.raw)
        self.assertEqual(answer.headers["content-type"], "text/event-stream")
        return answer


def said(result: Any) -> Any:
    """What a tool of the stand-in child said."""
    text = result["content"][0]["text"]
    try:
        value = json.loads(text)
    except ValueError:
        return text
    return value["Result"] if isinstance(value, dict) and "Result" in value else value
