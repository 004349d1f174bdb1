"""
Real reverse proxies with the files of this repository, in front of a real daemon.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import SynchronousTestCase

from tests.deploy.programs import CADDY_2_6, CADDY_2_11, NGINX, DebianProgram
from tests.real.daemon import Program, pause
from tests.real.modern import VERSION, call, said
from tests.slow.proxy_case import (
    DEPLOY,
    Curl,
    ProxyCase,
    environment_for_sdk,
    header_arguments,
    program,
)

ERAS = {"legacy": "2025-11-25", VERSION: VERSION}
READS = "get_my_user_info"
DEPARTURE_SECONDS = 20
STEPS, EVERY_SECONDS = 5, 0.5


class Guarantees:
    """What every proxy must keep; a mixin, so that each has its own results."""

    proxy: DebianProgram

    async def test_journey(self: Any) -> None:
        """
        The official client from discovery to revocation, in both eras, through TLS;
        nothing that it holds is in the proxy's log.
        """
        await self.launch_daemon()
        await self.launch_proxy(self.proxy)
        seen = await gatherResults(
            [Deferred.fromCoroutine(self.travel(mode)) for mode in ERAS]
        )
        secrets = [secret for each in seen for secret in each.pop("secrets")]
        for mode, each in zip(ERAS, seen, strict=True):
            self.assertEqual(each["protocol_version"], ERAS[mode])
            self.assertIn("alice", each[READS])
            self.assertEqual(each[f"{READS} after the refresh"], each[READS])
            self.assertEqual(each["progress"], [1, 2, 3])
            self.assertEqual((each["refreshes"], each["sign_ins"]), (1, 1))
            self.assertEqual(each["revoked"], 200)
            self.assertEqual(each["status after the revocation"], 401)
        log = self.access_log()
        self.assertIn("/oauth/callback", log)
        self.assertIn("/mcp", log)
        for line in log.splitlines():
            json.loads(line)
        for secret in secrets:
            self.assertNotIn(secret, log)
        self.assertNotIn("Traceback", self.daemon.text)

    async def travel(self: Any, mode: str) -> Any:
        """
        @return: what the official client saw.
        """
        client = Program.start(
            [
                *(sys.executable, "-m", "tests.real.sdk_journey", self.url),
                *("--password", self.forgejo.password("alice"), f"--mode={mode}"),
                *("--calls", json.dumps([[READS, {}]]), "--listen", "--show-secrets"),
            ],
            environment=environment_for_sdk(self.certificate),
        )
        await client.wait(60)
        self.assertEqual(client.exit_code, 0, client.text + self.daemon.text)
        return json.loads(client.output)

    async def test_streams_and_limits(self: Any) -> None:
        """
        Over HTTP/2: events come when they are sent, a client that leaves is noticed,
        metrics are for nobody, bodies have a limit, addresses cannot be invented.
        """
        await self.launch_daemon(FJMCP_BROKER_METRICS_ALLOW="0.0.0.0/0,::/0")
        await self.launch_proxy(self.proxy)
        client = await self.outside_client()
        leaving = await self.begin_to_leave(client)
        left = time.monotonic()
        await self.check_events(client)
        await self.check_paths(client)
        await self.check_bodies(client)
        if self.proxy.name == "caddy":
            await self.check_restart(client, leaving, left)
        else:
            await self.until_noticed(client, left)

    async def begin_to_leave(self: Any, client: Any) -> Curl:
        """
        Begin a stateless call, and leave when its stream has begun and is quiet.
        """
        message = call(
            "leaving", "progress", {"progressToken": "p"}, steps=2, seconds=60
        )
        leaving: Curl = self.curl(
            "/mcp",
            *header_arguments(
                client,
                **{
                    "MCP-Protocol-Version": VERSION,
                    "Mcp-Method": "tools/call",
                    "Mcp-Name": "progress",
                },
            ),
            *("--data-binary", json.dumps(message)),
        )
        await self.until(lambda: b"step 1" in leaving.output, "no event")
        self.assertIn(b"text/event-stream", leaving.output)
        leaving.signal_with(15)
        await leaving.wait()
        return leaving

    async def until_noticed(self: Any, client: Any, left: float) -> None:
        """
        Wait until the child was told that nobody waits any more.
        """
        while True:
            result = await self.result(client, call("info", "process_info"))
            if "notifications/cancelled" in said(result)["received"]["methods"]:
                break
            gone = time.monotonic() - left
            self.assertLess(gone, DEPARTURE_SECONDS, "nobody noticed")
            await pause(0.2)
        gone = time.monotonic() - left
        sys.stderr.write(f"{self.proxy}: departure noticed after {gone:.1f} s\n")

    async def check_events(self: Any, client: Any) -> None:
        """
        Each event of a call comes on its own.
        """
        message = {
            "jsonrpc": "2.0",
            "id": "timed",
            "method": "tools/call",
            "params": {
                "name": "progress",
                "arguments": {"steps": STEPS, "seconds": EVERY_SECONDS},
                "_meta": {"progressToken": "t"},
            },
        }
        timed = await self.fetched(
            "/mcp", *header_arguments(client), "--data-binary", json.dumps(message)
        )
        self.assertTrue(timed.output.startswith(b"HTTP/2 200"), timed.text)
        times = [timed.when(b"step %d" % step) for step in range(1, STEPS + 1)]
        times.append(timed.when(b'"result"'))
        gaps = [after - before for before, after in pairwise(times)]
        # Held back, all but the first would be nothing.
        self.assertGreater(times[-1] - times[0], 0.5 * STEPS * EVERY_SECONDS, gaps)
        self.assertGreater(sum(gap > 0.05 for gap in gaps), STEPS / 2, gaps)

    async def check_paths(self: Any, client: Any) -> None:
        """
        What is public, and whose address the daemon sees.
        """
        for path in ("/metrics", "/metrics/", "/%6detrics", "/metrics?x=1"):
            answer = await self.fetched(path)
            self.assertEqual(answer.status, 404, answer.text)
            self.assertNotIn(b"fjmcp_", answer.output)
        answer = await self.fetched(
            "/.well-known/oauth-authorization-server",
            *("-H", "X-Forwarded-For: 203.0.113.9", "-H", "X-Forwarded-Host: evil"),
        )
        self.assertIn(f'"issuer":"{self.url}"'.encode(), answer.output)
        self.assertNotIn("203.0.113", self.daemon.text)
        self.assertNotIn("is not believed", self.daemon.text)

    async def check_bodies(self: Any, client: Any) -> None:
        """
        Too large is 413, wherever it goes; what is allowed comes through.
        """
        body = Path(self.directory, "body")
        body.write_bytes(b" " * (17 * 2**20))
        for path in ("/mcp", "/oauth/register"):
            answer = await self.fetched(
                path, *header_arguments(client), "--data-binary", f"@{body}"
            )
            self.assertEqual(answer.status, 413, answer.text)
        answer = await deferToThread(client.call, "echo", text="x" * (8 * 2**20))
        self.assertIn("result", answer)

    async def check_restart(self: Any, client: Any, leaving: Curl, left: float) -> None:
        """
        Requests wait while the daemon is away, and the session goes on. Caddy 2.6
        cannot send a body a second time.
        """
        await self.until_noticed(client, left)
        await self.daemon.stop()
        message = {"jsonrpc": "2.0", "id": 9, "method": "tools/list"}
        waiting = self.curl("/readyz")
        if self.proxy is not CADDY_2_6:
            waiting = self.curl(
                "/mcp", *header_arguments(client), "--data-binary", json.dumps(message)
            )
        await pause(0.5)
        self.assertEqual(waiting.output, b"")
        await self.start()
        await waiting.wait()
        self.assertEqual(waiting.status, 200, waiting.text)
        answer = await self.fetched(
            "/mcp", *header_arguments(client), "--data-binary", json.dumps(message)
        )
        self.assertEqual(answer.status, 200, answer.text)


class Caddy26Tests(Guarantees, ProxyCase):
    """The oldest one, of Debian 12 and 13."""

    proxy = CADDY_2_6


class Caddy211Tests(Guarantees, ProxyCase):
    """The newest one that Debian has for its stable release."""

    proxy = CADDY_2_11


class NginxTests(Guarantees, ProxyCase):
    """With the same guarantees, but for requests during a restart."""

    proxy = NGINX


class FormatTests(SynchronousTestCase):
    """The Caddyfile as Caddy itself would write it."""

    def test_formatted(self) -> None:
        """C{caddy fmt} of either version would change nothing."""
        path = DEPLOY / "caddy" / "Caddyfile"
        for proxy in (CADDY_2_6, CADDY_2_11):
            # Old versions have exit status 0 in any case.
            done = subprocess.run(  # noqa: S603 - the program under test
                [program(proxy), "fmt", str(path)],
                capture_output=True,
                text=True,
                check=False,
            )
            self.assertEqual(done.stdout, path.read_text())
