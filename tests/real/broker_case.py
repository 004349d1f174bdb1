"""A daemon with its stand-in Forgejo, for the tests of everything from outside."""

from __future__ import annotations

import json
import os
import sys

import attrs
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from tests.real.browser import Browser
from tests.real.client import McpClient
from tests.real.daemon import CLOCK, Daemon, free_port, pause
from tests.real.forgejo import RunningForgejo, start_forgejo

STAND_IN = f"{sys.executable},-m,fjmcp_broker.demo.child,--transport,stdio"
"""The stand-in child, as C{FJMCP_BROKER_CHILD_COMMAND}."""


class BrokerCase(TestCase):
    """What an operator has: a Forgejo, settings, a directory, a daemon."""

    timeout = 180

    async def settings(
        self, port: int, *, path: str = ""
    ) -> tuple[dict[str, str], RunningForgejo]:
        """
        Start a Forgejo.

        @param port: of the broker to be.
        @param path: of Forgejo's base URL.
        @return: an environment that is enough for a broker on that port.
        """
        forgejo = await start_forgejo(self, f"http://127.0.0.1:{port}", path=path)
        self.directory = os.path.abspath(self.mktemp())
        os.mkdir(self.directory)
        return {
            **forgejo.settings,
            "FJMCP_BROKER_STORE_PATH": f"{self.directory}/broker.db",
            "FJMCP_BROKER_CHILD_COMMAND": STAND_IN,
        }, forgejo

    async def launch(
        self, *, path: str = "", **more: str
    ) -> tuple[Daemon, RunningForgejo]:
        """
        @param more: environment variables; C{FORGEJO_MCP_BINARY} replaces the
            stand-in child.
        @return: a daemon that is ready; it is stopped with the test.
        """
        port = free_port()
        settings, forgejo = await self.settings(port, path=path)
        if "FORGEJO_MCP_BINARY" in more:
            del settings["FJMCP_BROKER_CHILD_COMMAND"]
        daemon = Daemon.launch({**settings, **more}, port=port)
        self.addCleanup(daemon.stop)
        await daemon.until_ready()
        return daemon, forgejo

    async def session(
        self,
        daemon: Daemon,
        forgejo: RunningForgejo,
        login: str = "alice",
        *,
        decision: str = "full",
        scope: str | None = None,
    ) -> McpClient:
        """
        @return: a client of that user, with a live session.
        """
        client = McpClient(daemon.url)
        await deferToThread(
            client.sign_in,
            login,
            forgejo.password(login),
            decision=decision,
            scope=scope,
        )
        await deferToThread(client.initialize)
        return client

    async def until_called(self, client: McpClient, calls: int = 1) -> None:
        """
        Wait until the stand-in child of a client's session has got so many calls of
        tools since it began, our own questions aside.
        """
        asking = attrs.evolve(client, browser=Browser(), number=client.number + 1000)
        deadline = CLOCK.seconds() + 60
        asked = others = 0
        while others < calls:
            self.assertLess(CLOCK.seconds(), deadline, f"{others} calls have arrived")
            answer = await deferToThread(asking.call, "process_info")
            asked += 1
            info = json.loads(answer["result"]["content"][0]["text"])["Result"]
            others = info["received"]["methods"].count("tools/call") - asked
            await pause(0.02)
