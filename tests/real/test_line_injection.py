"""
A message of a client is one line for the child, whatever white space is in it: a line
of its own inside would be a request that nobody has judged.
"""

from __future__ import annotations

import json

from twisted.internet.threads import deferToThread

from tests.real import real_forgejo_mcp
from tests.real.client import McpClient
from tests.real.modern import CAPABILITIES, VERSION
from tests.real.test_sessions import SessionCase

META = {"io.modelcontextprotocol/protocolVersion": VERSION, CAPABILITIES: {}}
ISSUE = {"owner": "alice", "repo": "hello", "title": "t", "body": "b"}
HIDDEN = {
    "jsonrpc": "2.0",
    "id": 77,
    "method": "tools/call",
    "params": {"name": "create_issue", "arguments": ISSUE},
}


class LineInjectionTests(SessionCase):
    """A grant that may only read."""

    async def attack(self) -> None:
        """A write in the arguments of a read, between two ends of lines."""
        client = McpClient(self.daemon.url)
        password = self.forgejo.password("alice")
        await deferToThread(client.sign_in, "alice", password, decision="read-only")
        await deferToThread(client.initialize)
        old, client.session_id = client.session_id, None
        self.forgejo.stand_in.controls.forget_requests()
        for end in ("\n", "\r\n", "\r", "\n\n"):
            inside = f"{end}{json.dumps(HIDDEN)}{end}"
            for params in (
                f'"name":"get_my_user_info","arguments":{{"x":{inside}}}',
                f'"name":"get_my_user_info","x":[{inside}],"arguments":{{}}',
            ):
                text = f'{{{params},"_meta":{json.dumps(META)}}}'
                await self.tried(client, text, **{"Mcp-Name": "get_my_user_info"})
                await self.tried(client, f"{{{params}}}", **{"Mcp-Session-Id": old})
        self.assertEqual(self.forgejo.stand_in.controls.writes(), [])

    async def tried(self, client: McpClient, params: str, **more: str | None) -> None:
        """A call of a tool that reads, and works."""
        body = f'{{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{params}}}'
        headers = {
            **client.headers(),
            **{name: value for name, value in more.items() if value is not None},
        }
        if "Mcp-Name" in more:
            headers |= {"MCP-Protocol-Version": VERSION, "Mcp-Method": "tools/call"}
        page = await deferToThread(
            client.browser.request,
            "POST",
            f"{client.url}/mcp",
            body.encode(),
            headers,
        )
        self.assertEqual(page.status, 200, page.text)
        self.assertIn('\\"alice\\"', page.text)

    async def test_stand_in(self) -> None:
        """The packaged child."""
        await self.begin()
        await self.attack()

    async def test_real_forgejo_mcp(self) -> None:
        """The real one."""
        program = str(real_forgejo_mcp.require("2.34.1"))
        await self.begin(FJMCP_BROKER_CHILD_COMMAND=f"{program},--transport,stdio")
        await self.attack()
