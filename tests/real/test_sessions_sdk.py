"""
The official SDK on one session, or without any, while what is behind it comes and goes:
the child is reaped, the upstream token rotated, the broker restarted.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from tests.real.daemon import Program, pause
from tests.real.test_sessions import SessionCase

TOOL = "get_my_user_info"


class SdkSessionTests(SessionCase):
    """Whatever happens, the client sees its user's answer, on the same session."""

    mode = "legacy"
    sessions = 1

    async def travel(
        self, steps: Mapping[str, Callable[[], Awaitable[None]]]
    ) -> dict[str, Any]:
        """
        Let a client call, do a step, let it call again, and so on.

        @return: what it saw.
        """
        client = Program.start(
            [
                sys.executable,
                "-m",
                "tests.real.sdk_journey",
                self.daemon.url,
                "--password",
                self.forgejo.password("alice"),
                f"--mode={self.mode}",
                "--calls",
                f'[["{TOOL}",{{}}]]',
                "--steps",
                *steps,
            ]
        )
        for name, do in steps.items():
            while f"STEP {name}\n" not in client.text:
                self.assertIsNone(client.exit_code, client.text + self.daemon.text)
                await pause(0.02)
            await do()
            assert client.transport is not None
            client.transport.write(b"done\n")
        await client.wait(60)
        self.assertEqual(client.exit_code, 0, client.text + self.daemon.text)
        seen: dict[str, Any] = json.loads(client.output)
        self.assertIn('"login":"alice"', seen[TOOL])
        for name in steps:
            self.assertEqual(seen[f"{TOOL} after {name}"], seen[TOOL])
        counted = (seen["sessions"], seen["sign_ins"])
        self.assertEqual(counted, (self.sessions, 1))
        return seen

    async def reap(self) -> None:
        await self.until(lambda: not self.children(), "the child is not reaped")

    async def restart(self) -> None:
        await self.daemon.stop()
        await self.start()

    async def test_reaped_and_restarted(self) -> None:
        """An idle child goes, the broker is started again: the session goes on."""
        await self.begin(FJMCP_BROKER_SESSIONS_IDLE_TIMEOUT="1s")
        await self.travel({"reap": self.reap, "restart": self.restart})

    async def test_rotated(self) -> None:
        """The upstream token is replaced, and the child with it."""
        await self.begin()
        controls = self.forgejo.stand_in.controls
        controls.set_lifetimes(access_seconds=28)

        async def rotate() -> None:
            controls.forget_requests()
            # A token is replaced at the call that finds less than 25 s of it left.
            signed_in = time.monotonic()
            await self.until(lambda: time.monotonic() > signed_in + 4, "no time passes")

        await self.travel({"rotate": rotate})
        self.assertIn("live -> rotating", self.daemon.text)
        self.assertGreater(controls.count("token:refresh_token"), 0)


class SdkStatelessTests(SdkSessionTests):
    """The same without a session."""

    mode = "auto"
    sessions = 0
