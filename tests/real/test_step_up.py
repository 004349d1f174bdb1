"""The official SDK has read-only access, is refused a write, and steps up by itself."""

from __future__ import annotations

import json
import sys
from typing import Any

from twisted.internet.threads import deferToThread

from tests.real import real_forgejo_mcp
from tests.real.broker_case import BrokerCase
from tests.real.client import McpClient
from tests.real.daemon import Daemon, Program
from tests.real.forgejo import RunningForgejo
from tests.real.sdk_journey import REDIRECT_URI

MODES = ("legacy", "2026-07-28")


class StepUpTests(BrokerCase):
    """MCP 2026-07-28, authorization, step-up flow; RFC 6750 section 3.1."""

    async def client(
        self, daemon: Daemon, forgejo: RunningForgejo, mode: str, *more: str
    ) -> dict[str, Any]:
        """
        @return: what the SDK saw.
        """
        program = [sys.executable, "-m", "tests.real.sdk_step_up", daemon.url]
        password = ("--password", forgejo.password("alice"))
        client = Program.start([*program, *password, f"--mode={mode}", *more])
        await client.wait(90)
        self.assertEqual(client.exit_code, 0, client.text + daemon.text)
        seen: dict[str, Any] = json.loads(client.output)
        return seen

    def check(self, seen: dict[str, Any], forgejo: RunningForgejo, writes: int) -> None:
        """
        One refusal, one more sign-in for both scopes, and the same call goes through
        once.
        """
        self.assertEqual(seen["statuses"].count(403), 1, seen)
        self.assertEqual(seen["asked"][-1], ["read write"])
        self.assertEqual(seen["scope"], "read write")
        self.assertIn("stepped up", seen["written"])
        self.assertEqual(seen["read"], seen["read again"])
        self.assertIn("create_issue", seen["after"])
        self.assertNotIn("download_release_attachment", seen["after"])
        self.assertEqual(len(forgejo.stand_in.controls.writes()), writes)
        # A session's GET stream ends with the old token and begins with the new one.
        self.assertEqual(set(seen["streams"]), {200} if seen["streams"] else set())

    async def step_up(self, **settings: str) -> None:
        """In each era, with the choice of the person and with that of the client."""
        daemon, forgejo = await self.launch(**settings)
        writes = 0
        for mode in MODES:
            seen = await self.client(daemon, forgejo, mode)
            writes += 1
            self.check(seen, forgejo, writes)
            self.assertNotIn("create_issue", seen["before"])
            self.assertEqual(seen["sign_ins"], 2)
            changed = ["notifications/tools/list_changed"]
            self.assertEqual(seen["told"], changed if mode == "legacy" else [])

            asked = await self.asked_for_read(daemon, forgejo)
            seen = await self.client(daemon, forgejo, mode, "--tokens", asked)
            writes += 1
            self.check(seen, forgejo, writes)
            self.assertIn("create_issue", seen["before"])
            self.assertEqual(seen["sign_ins"], 1)
            self.assertEqual(seen["told"], [])

    async def asked_for_read(self, daemon: Daemon, forgejo: RunningForgejo) -> str:
        """
        @return: the tokens of a client that asked for C{read} alone, as JSON.
        """
        client = McpClient(daemon.url, redirect_uri=REDIRECT_URI)
        await deferToThread(
            client.sign_in,
            "alice",
            forgejo.password("alice"),
            decision="read-only-requested",
            scope="read",
        )
        tokens = {
            "access_token": client.access_token,
            "refresh_token": client.refresh_token,
            "token_type": "Bearer",
            "expires_in": 3600,
            "scope": "read",
        }
        info = {
            "client_id": client.client_id,
            "redirect_uris": [REDIRECT_URI],
            "token_endpoint_auth_method": "none",
            "issuer": daemon.url,
        }
        return json.dumps({"tokens": tokens, "client": info})

    async def test_stand_in_child(self) -> None:
        """The packaged stand-in."""
        await self.step_up()

    async def test_real_child(self) -> None:
        """The newest forgejo-mcp."""
        program = str(real_forgejo_mcp.require("2.34.1"))
        await self.step_up(FORGEJO_MCP_BINARY=program)
