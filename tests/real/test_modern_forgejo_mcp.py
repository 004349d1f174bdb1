"""
A client that opens no session in front of the real forgejo-mcp, which knows nothing
else.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred, gatherResults

from tests.real import real_forgejo_mcp
from tests.real.client import McpClient
from tests.real.daemon import processes
from tests.real.modern import SUBSCRIPTION, ModernCase, call, modern

REPOSITORY = {"owner": "alice", "repo": "hello"}


class RealForgejoMcpTests(ModernCase):
    """Everything that a client without sessions does with it."""

    async def begin_with(self, version: str) -> None:
        """A daemon whose child is that version."""
        program = real_forgejo_mcp.require(version)
        # The same command line before and after an upgrade.
        directory = Path(os.path.abspath(self.mktemp()))
        directory.mkdir()
        self.program = directory / "forgejo-mcp"
        self.program.symlink_to(program)
        await self.begin(FJMCP_BROKER_CHILD_COMMAND=f"{self.program},--transport,stdio")

    async def user(self, client: McpClient, id: Any = 1) -> str:
        """Who the child is."""
        result = await self.result(client, call(id, "get_my_user_info"))
        self.assertEqual(result["resultType"], "complete")
        said = json.loads(result["content"][0]["text"])
        return str(said.get("Result", said)["login"])

    async def journey(self, version: str, tools: int) -> None:
        """From a discovery to the end of the daemon."""
        await self.begin_with(version)
        alice, bob = await self.signed_in(), await self.signed_in("bob")
        nothing = await self.result(alice, modern("d", "server/discover"))
        self.assertEqual(nothing["capabilities"], {"tools": {}})
        self.assertEqual(self.children(), [])
        listed = await self.result(alice, modern(1, "tools/list"))
        names = [tool["name"] for tool in listed["tools"]]
        self.assertEqual((len(names), names), (tools, sorted(names)))
        self.assertNotIn("download_release_attachment", names)
        for tool in listed["tools"]:
            self.assertIn("readOnlyHint", tool["annotations"])
        users = await gatherResults(
            [
                Deferred.fromCoroutine(self.user(client))
                for client in (alice, bob, alice, bob)
            ]
        )
        self.assertEqual(users, ["alice", "bob", "alice", "bob"])
        self.assertEqual(len(self.children()), 2)
        branches = await self.result(alice, call(2, "list_branches", **REPOSITORY))
        self.assertIn("main", branches["content"][0]["text"])
        for message, status, code in (
            (modern(3, "x/y"), 404, -32601),
            (modern(3, "prompts/list"), 404, -32601),
            (call(3, "no_such_tool"), 200, -32602),
            (call(3, "download_release_attachment"), 200, 403),
        ):
            answer = await self.exchange(alice, message)
            self.assertEqual(answer.status, status, answer.raw)
            self.assertEqual(answer.message["error"]["code"], code, answer.raw)
        listening = await self.listen(alice, "l", toolsListChanged=True)
        first = listening.events[0]["params"]
        self.assertEqual(first["_meta"], {SUBSCRIPTION: "l"})
        known = await self.result(alice, modern("d", "server/discover"))
        self.assertIn("tools", known["capabilities"])
        self.assertGreater(known["ttlMs"], 0)
        await self.crash()
        self.assertEqual(await self.user(alice), "alice")
        await self.daemon.stop()
        self.assertEqual(self.daemon.exit_code, 0, self.daemon.text)
        self.assertEqual(processes(self.forgejo.stand_in.base_url), [])
        await listening.until(lambda: False)
        self.assertEqual(listening.events[-1]["id"], "l")
        await self.start()
        self.assertEqual(
            await self.result(alice, modern("d", "server/discover")), known
        )
        self.assertEqual(await self.user(bob), "bob")

    async def test_version_2_18(self) -> None:
        """forgejo-mcp 2.18.0."""
        await self.journey("2.18.0", 80)

    async def test_version_2_34(self) -> None:
        """forgejo-mcp 2.34.1."""
        await self.journey("2.34.1", 138)

    async def test_upgrade(self) -> None:
        """The program behind the same command line changes, and what is said."""
        newest = real_forgejo_mcp.require("2.34.1")
        await self.begin_with("2.18.0")
        client = await self.signed_in()
        old = await self.result(client, modern(1, "tools/list"))
        await self.daemon.stop()
        self.program.unlink()
        self.program.symlink_to(newest)
        await self.start()
        unknown = await self.result(client, modern("d", "server/discover"))
        self.assertEqual(unknown["ttlMs"], 0)
        new = await self.result(client, modern(1, "tools/list"))
        self.assertGreater(len(new["tools"]), len(old["tools"]))

    async def test_closed_connections(self) -> None:
        """Calls that nobody waits for any more hold nobody up."""
        await self.begin_with("2.34.1")
        client = await self.signed_in()
        await self.user(client)
        held = self.forgejo.stand_in.controls.hold_request("/api/v1/repos")
        answers = [
            await self.post(client, call("same", "list_branches", **REPOSITORY))
            for _ in range(3)
        ]
        await self.until(lambda: held.waiting == 3, "the calls do not arrive")
        for answer in answers[:2]:
            transport: Any = answer.transport
            transport.abortConnection()
        self.assertEqual(await self.user(client, "same"), "alice")
        held.end()
        await answers[2].until(lambda: False)
        self.assertEqual(answers[2].message["id"], "same")
        self.assertIn("main", answers[2].message["result"]["content"][0]["text"])
        self.assertEqual(len(self.children()), 1)
