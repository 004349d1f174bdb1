"""An upgrade of the child while the daemon is down, as its clients see it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from twisted.internet.threads import deferToThread

from tests.real.browser import Page
from tests.real.client import McpClient
from tests.real.daemon import Daemon
from tests.real.test_sessions import SessionCase


def told(page: Page) -> list[Any]:
    """The notifications before an answer."""
    lines = [line for line in page.text.splitlines() if line.startswith("data: ")]
    messages = [json.loads(line[6:]) for line in lines if len(line) > 6]
    return [message["method"] for message in messages if "method" in message]


class UpgradedChildTests(SessionCase):
    """The same session, another daemon, another child program."""

    upgraded = False

    async def start(self) -> None:
        """The daemon, once more."""
        file = Path(self.directory, "broker.toml")
        tool = 'STANDIN_CHILD_NEW_TOOL = "brand_new"' if self.upgraded else ""
        file.write_text(f"[child.env]\n{tool}\n")
        self.daemon = Daemon.launch(
            self.environment,
            port=self.port,
            runner=("twistd", "-n", "--pidfile=", "fjmcp", "--config", str(file)),
        )
        self.addCleanup(self.daemon.stop)
        await self.daemon.until_ready()

    async def listed(self, client: McpClient) -> Page:
        """The list of tools."""
        page: Page = await deferToThread(client.request, "tools/list")
        self.assertEqual(page.status, 200, page.text)
        return page

    async def test_new_tool(self) -> None:
        """The client is told on its next stream, and once."""
        await self.begin()
        client, other = await self.signed_in(), await self.signed_in("bob")
        await self.listed(client)
        await self.daemon.stop()
        await self.start()
        self.assertEqual(told(await self.send(client, "who_am_i")), [])
        await self.daemon.stop()
        self.upgraded = True
        await self.start()
        changed = ["notifications/tools/list_changed"]
        # The child says so by itself, too: to whoever listens, and nobody does.
        self.assertEqual(told(await self.send(client, "who_am_i")), changed)
        self.assertIn("brand_new", (await self.listed(client)).text)
        self.assertEqual(told(await self.send(client, "who_am_i")), [])
        # It never asked for a list, and the capabilities are the same.
        self.assertEqual(told(await self.send(other, "who_am_i")), [])
