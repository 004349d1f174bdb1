"""
The main job from outside: the official Python MCP SDK signs in at a real daemon and
calls the tools of a child. With the real forgejo-mcp: L{tests.real.test_sdk_modes}.
"""

from __future__ import annotations

import json
import re
import sys
from typing import Any

from tests.real.broker_case import BrokerCase
from tests.real.daemon import Daemon, Program, processes
from tests.real.forgejo import RunningForgejo

MODERN = "2026-07-28"
SECRET_SHAPES = re.compile(
    r"fjmcp_(?:at|rt|code|cs)_[A-Za-z0-9_-]{8}|gt[ao]_[A-Za-z0-9]{8}|eyJ[A-Za-z0-9_-]{16}"
)
"""Ours, Forgejo's codes and client secrets, and JSON web tokens."""


class Journey(BrokerCase):
    """What every journey needs beside the daemon: a client."""

    async def travel(
        self, daemon: Daemon, forgejo: RunningForgejo, *arguments: str
    ) -> dict[str, Any]:
        """
        @return: what the client saw.
        """
        client = Program.start(
            [
                sys.executable,
                "-m",
                "tests.real.sdk_journey",
                daemon.url,
                "--password",
                forgejo.password("alice"),
                *arguments,
            ]
        )
        await client.wait(90)
        if client.exit_code != 0:
            self.fail(f"the client failed:\n{client.text}\nthe daemon:\n{daemon.text}")
        seen: dict[str, Any] = json.loads(client.output)
        return seen

    def check(self, seen: dict[str, Any], login: str = "alice") -> None:
        """
        What holds for every journey.
        """
        if seen["protocol_version"] == MODERN:
            # Nobody has met a child yet that could have told its name.
            self.assertEqual((seen["server"], seen["sessions"]), (None, 0))
        else:
            self.assertIn("Forgejo", seen["server"])
            self.assertEqual(seen["sessions"], 1)
        self.assertIn(f'"login":"{login}"', seen["get_my_user_info"].replace(": ", ":"))
        self.assertEqual(
            seen["get_my_user_info"], seen["get_my_user_info after the refresh"]
        )
        self.assertTrue(seen["rotated"])
        self.assertEqual((seen["refreshes"], seen["sign_ins"]), (1, 1))
        self.assertEqual(seen["revoked"], 200)
        self.assertEqual(seen["status after the revocation"], 401)
        self.assertIn('error="invalid_token"', seen["challenge after the revocation"])


class StandInChildJourneyTests(Journey):
    """The journey with the packaged stand-in child."""

    async def test_discover_sign_in_call_refresh_revoke(self) -> None:
        """A client that knows only the URL gets to its user's repositories."""
        daemon, forgejo = await self.launch()
        seen = await self.travel(
            daemon, forgejo, "--calls", '[["get_my_user_info",{}],["who_am_i",{}]]'
        )
        self.check(seen)
        self.assertEqual(seen["who_am_i"], '{"Result":"alice"}')
        await daemon.stop()
        self.assertEqual(daemon.exit_code, 0, daemon.text)
        self.assertEqual(processes(forgejo.stand_in.base_url), [])

    async def test_forgejo_under_a_path(self) -> None:
        """A Forgejo at https://host/git works like one of its own host."""
        daemon, forgejo = await self.launch(path="/git")
        seen = await self.travel(
            daemon, forgejo, "--calls", '[["get_my_user_info",{}]]'
        )
        self.check(seen)

    async def test_every_mode(self) -> None:
        """
        A client that never tries the newest revision, and one that speaks nothing else,
        make the same journey.
        """
        daemon, forgejo = await self.launch()
        for mode, version in (("legacy", "2025-11-25"), (MODERN, MODERN)):
            seen = await self.travel(
                daemon,
                forgejo,
                f"--mode={mode}",
                "--calls",
                '[["get_my_user_info",{}],["slow",{"seconds":0.5}]]',
            )
            self.assertEqual(seen["protocol_version"], version)
            self.check(seen)

    async def test_the_client_hears_what_it_did_not_ask_for(self) -> None:
        """It listens as its revision has it: progress, news and log messages come."""
        daemon, forgejo = await self.launch()
        calls = '[["get_my_user_info",{}]]'
        for mode, changed in (
            (MODERN, "ToolsListChanged"),
            ("legacy", "ToolListChangedNotification"),
        ):
            seen = await self.travel(
                daemon, forgejo, f"--mode={mode}", "--listen", "--calls", calls
            )
            self.check(seen)
            self.assertEqual(seen["gets"][:1], [] if mode == MODERN else [200])
            self.assertEqual(seen["progress"], [1, 2, 3])
            self.assertIn(changed, seen["heard"])
            self.assertIn("warning: listen", seen["heard"])

    async def test_no_secret_is_logged(self) -> None:
        """Nothing that a journey makes secret stands in the daemon's output."""
        daemon, forgejo = await self.launch(FJMCP_BROKER_DEBUG="1")
        seen = await self.travel(
            daemon,
            forgejo,
            "--show-secrets",
            "--calls",
            '[["get_my_user_info",{}]]',
        )
        self.check(seen)
        await daemon.stop()
        secrets = [
            *seen["secrets"],
            forgejo.password("alice"),
            forgejo.settings["FORGEJO_OAUTH_CLIENT_SECRET"],
        ]
        self.assertGreaterEqual(len(secrets), 8)
        for secret in secrets:
            self.assertNotIn(secret, daemon.text)
        self.assertIsNone(SECRET_SHAPES.search(daemon.text))
        # What the check looks at is really the log of the journey.
        self.assertIn("/oauth/callback", daemon.text)
