"""
The official SDK in all its modes at once, in front of every child: what is behind them
is replaced, asleep, stopped and killed, and the same client objects go on.
"""

from __future__ import annotations

import json
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from tests.real import real_forgejo_mcp
from tests.real.daemon import Program, pause, processes
from tests.real.test_sessions import SessionCase

MODERN = "2026-07-28"
MODES = {"auto": MODERN, "legacy": "2025-11-25", MODERN: MODERN}
"""What each negotiates."""

REPOSITORY = {"owner": "alice", "repo": "hello"}
READS = "get_my_user_info"
WRITES = "create_issue"


class ModesTests(SessionCase):
    """One daemon, one user, three clients that sign in for themselves."""

    takes_long = True

    async def start_client(self, mode: str, *more: str) -> Program:
        """A client, which is on its way then."""
        issue = {**REPOSITORY, "title": f"by {mode}", "body": "b"}
        arguments = ("--password", self.forgejo.password("alice"), f"--mode={mode}")
        calls = ("--calls", json.dumps([[READS, {}], [WRITES, issue]]))
        program = [sys.executable, "-m", "tests.real.sdk_journey", self.daemon.url]
        client = Program.start([*program, *arguments, *calls, *more])
        self.addCleanup(lambda: client.ended)
        self.addCleanup(client.signal_with, 9)
        return client

    async def travel(
        self, steps: Mapping[str, Callable[[], Awaitable[None]]], *more: str
    ) -> dict[str, dict[str, Any]]:
        """
        Let the clients of all modes do the same, step by step.

        @return: what each saw.
        """
        clients = {
            mode: await self.start_client(mode, *more, "--steps", *list(steps)[:-1])
            for mode in MODES
        }
        for name, do in steps.items():
            for client in clients.values():
                while f"STEP {name}\n" not in client.text:
                    self.assertIsNone(client.exit_code, client.text + self.daemon.text)
                    await pause(0.02)
            await do()
            for client in clients.values():
                assert client.transport is not None
                client.transport.write(b"done\n")
        for client in clients.values():
            await client.wait(60)
            self.assertEqual(client.exit_code, 0, client.text + self.daemon.text)
        return {mode: json.loads(client.output) for mode, client in clients.items()}

    async def journey(self, *more: str, **settings: str) -> list[dict[str, Any]]:
        """
        From the registration to the revocation.

        @return: what each client saw.
        """
        await self.begin(FJMCP_BROKER_SESSIONS_IDLE_TIMEOUT="3s", **settings)
        controls = self.forgejo.stand_in.controls
        controls.set_lifetimes(access_seconds=27)
        held = controls.hold_request("/api/v1/repos/alice/hello/branches")

        async def rotate() -> None:
            # A call that finds less than 25 s waits for another child.
            began = time.monotonic()
            await self.until(lambda: time.monotonic() > began + 2.2, "no time passes")
            controls.set_lifetimes(access_seconds=3600)

        async def sleep() -> None:
            self.assertIn("live -> rotating", self.daemon.text)
            await self.until(lambda: not self.children(), "children stay awake")

        async def stop() -> None:
            await self.daemon.stop()
            self.assertEqual(self.daemon.exit_code, 0, self.daemon.text)
            await self.start()

        async def kill() -> None:
            self.daemon.signal_with(9)
            await self.daemon.wait()
            await self.start()

        async def arrive() -> None:
            await self.until(lambda: held.waiting == len(MODES), "no call arrives")

        steps = {
            "rotate": rotate,
            "sleep": sleep,
            "stop": stop,
            "kill": kill,
            "cancel": arrive,
        }
        long = ["list_branches", {**REPOSITORY, "page": 1, "limit": 5}]
        all_seen = await self.travel(steps, "--cancel", json.dumps(long), *more)
        for mode, seen in all_seen.items():
            self.check_seen(mode, seen, ["rotate", "sleep", "stop", "kill", "cancel"])
            self.assertIn(READS, seen["tools"])
            self.assertEqual(seen.get("progress"), [1, 2, 3] if more else None)
        held.end()
        repository = self.forgejo.stand_in.world.find("alice", "hello")
        assert repository is not None
        made = Counter(issue.title for issue in repository.issues.values())
        # Once at first, after each step and after the refresh: none lost, none twice.
        for mode in MODES:
            self.assertEqual(made[f"by {mode}"], len(steps) + 2)
        await self.daemon.stop()
        self.assertEqual(processes(self.forgejo.stand_in.base_url), [])
        return list(all_seen.values())

    def check_seen(self, mode: str, seen: dict[str, Any], steps: list[str]) -> None:
        """What holds for each client."""
        self.assertEqual(seen["protocol_version"], MODES[mode])
        self.assertEqual(seen["sessions"], int(mode == "legacy"))
        self.assertEqual((seen["sign_ins"], seen["rotated"]), (1, True))
        self.assertIn('"login":"alice"', seen[READS].replace(": ", ":"))
        for step in (*steps, "the refresh"):
            self.assertEqual(seen[f"{READS} after {step}"], seen[READS])
            self.assertIn(f"by {mode}", seen[f"{WRITES} after {step}"])
        self.assertEqual(seen["revoked"], 200)
        self.assertEqual(seen["status after the revocation"], 401)

    async def test_stand_in(self) -> None:
        """The child that reports progress."""
        await self.journey("--listen")

    async def with_real(self, version: str, tools: int) -> None:
        """The journey with forgejo-mcp; all its tools but the denied ones are there."""
        binary = str(real_forgejo_mcp.require(version))
        command = f"{binary},--transport,stdio"
        for seen in await self.journey(FJMCP_BROKER_CHILD_COMMAND=command):
            self.assertEqual((len(seen["tools"]), seen["annotated"]), (tools, tools))
            self.assertNotIn("download_release_attachment", seen["tools"])

    async def test_real_forgejo_mcp_2_18(self) -> None:
        """The oldest supported one."""
        await self.with_real("2.18.0", 80)

    async def test_real_forgejo_mcp_2_34(self) -> None:
        """The newest."""
        await self.with_real("2.34.1", 138)
