"""A daemon's metrics after people have worked with it."""

from __future__ import annotations

import subprocess

from prometheus_client.parser import text_string_to_metric_families
from twisted.internet.threads import deferToThread

from tests import skip_visibly
from tests.deploy.programs import PROMTOOL
from tests.real.broker_case import BrokerCase
from tests.real.browser import Browser
from tests.real.client import McpClient
from tests.real.daemon import CLOCK, Daemon, free_port, pause


class MetricsTests(BrokerCase):
    """On a listener of its own."""

    async def worked_with(self) -> tuple[Daemon, McpClient, str]:
        """A daemon, a client that has called tools, and the metrics after that."""
        self.port = free_port()
        daemon, forgejo = await self.launch(PORT_METRICS=str(self.port))
        # PORT_METRICS alone moves nothing else.
        client = await self.session(daemon, forgejo)
        await deferToThread(client.call, "get_my_user_info")
        await deferToThread(client.refresh)
        await deferToThread(client.request, "tools/list")
        await daemon.fetch("GET", "/mcp")
        await daemon.fetch("GET", "/nothing/of/ours")
        return daemon, client, await self.scrape()

    async def scrape(self) -> str:
        """The metrics."""
        page = await deferToThread(
            Browser().request, "GET", f"http://127.0.0.1:{self.port}/metrics"
        )
        self.assertEqual(page.status, 200)
        return str(page.text)

    async def test_journey(self) -> None:
        """Sign-in, calls, refreshes, children and the store are all in it."""
        _, client, text = await self.worked_with()
        found = {
            (sample.name, *sorted(sample.labels.values())): sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
        }
        self.assertEqual(found["fjmcp_sign_ins_total", "success"], 1)
        self.assertEqual(found["fjmcp_sessions", "live", "stateful"], 1)
        self.assertEqual(found["fjmcp_children",], 1)
        self.assertEqual(found["fjmcp_child_spawns_total",], 1)
        self.assertEqual(
            found["fjmcp_mcp_requests_total", "200", "result", "tools/call"], 1
        )
        self.assertEqual(found["fjmcp_upstream_requests_total", "code", "ok"], 1)
        self.assertEqual(found["fjmcp_upstream_requests_total", "introspect", "ok"], 1)
        self.assertGreater(found["fjmcp_store_transactions_total", "ok", "write"], 3)
        self.assertGreater(
            found["fjmcp_http_requests_total", "/oauth/token", "200", "POST"], 1
        )
        self.assertEqual(found["fjmcp_http_requests_total", "/mcp", "401", "GET"], 1)
        self.assertEqual(found["fjmcp_http_requests_total", "404", "GET", "other"], 1)
        self.assertGreater(found["process_resident_memory_bytes",], 10_000_000)
        self.assertEqual(found["fjmcp_body_memory_bytes",], 0)
        self.assertEqual(found["fjmcp_session_transitions_total", "child_ready"], 1)

        # Nothing of people or tokens.
        for secret in (client.access_token, client.refresh_token, client.client_id):
            self.assertNotIn(secret, text)
        for word in ("alice", client.session_id or "?", "client.example.org"):
            self.assertNotIn(word, text)

    async def test_sessions_in_the_store_alone(self) -> None:
        """Are dormant: those that an earlier daemon has left, and those that sleep."""
        self.port = free_port()
        daemon, forgejo = await self.launch(
            PORT_METRICS=str(self.port), FJMCP_BROKER_SESSIONS_IDLE_TIMEOUT="2s"
        )
        for _ in range(2):
            await self.session(daemon, forgejo)
        deadline = CLOCK.seconds() + 60
        wanted = (
            'fjmcp_sessions{kind="stateful",state="dormant"} 2.0',
            'fjmcp_sessions{kind="stateful",state="live"} 0.0',
            'fjmcp_child_reaps_total{reason="idle"} 2.0',
            "fjmcp_child_spawns_total 2.0",
            'fjmcp_child_exits_total{reason="child_stopped"} 2.0',
        )
        lines: list[str] = []
        while not set(wanted) <= set(lines):
            if CLOCK.seconds() > deadline:
                self.fail("\n".join(lines))
            await pause(0.5)
            lines = (await self.scrape()).splitlines()

    async def test_elsewhere(self) -> None:
        """Neither on the clients' listener nor anything else on this one."""
        daemon, _ = await self.launch(PORT_METRICS=str(free_port()))
        while "metrics.listen_addr" not in daemon.text:
            await pause(0.02)
        self.assertEqual((await daemon.fetch("GET", "/metrics")).status, 404)
        daemon.url = f"http://127.0.0.1:{self.metrics_port(daemon)}"
        self.assertEqual((await daemon.fetch("GET", "/metrics")).status, 200)
        for path in ("/", "/healthz", "/mcp", "/oauth/token"):
            self.assertEqual((await daemon.fetch("GET", path)).status, 404, path)

    def metrics_port(self, daemon: Daemon) -> int:
        """As the log has it."""
        line = next(
            line for line in daemon.text.splitlines() if "metrics.listen_addr" in line
        )
        return int(line.partition("0.0.0.0:")[2].split(" ")[0])

    async def test_promtool(self) -> None:
        """Prometheus' own linter has nothing to say."""
        promtool = PROMTOOL.find()
        if promtool is None:
            skip_visibly(
                "metrics with promtool", "run python tests/deploy/programs.py first"
            )
        _, _, text = await self.worked_with()
        done = await deferToThread(
            subprocess.run,
            [promtool, "check", "metrics"],
            input=text.encode(),
            capture_output=True,
        )
        self.assertEqual((done.returncode, done.stdout + done.stderr), (0, b""))
