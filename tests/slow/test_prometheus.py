"""
The dashboard and the alerts in front of a real Prometheus that scrapes a real daemon.

L{tests.deploy.programs} gets both programs out of Debian's package C{prometheus}.
"""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

from twisted.internet.task import Clock
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import SynchronousTestCase

from fjmcp_broker.config import MetricsConfig
from fjmcp_broker.observing.instruments import Instruments
from tests import skip_visibly
from tests.deploy.programs import PROMETHEUS, PROMTOOL, DebianProgram
from tests.real.broker_case import BrokerCase
from tests.real.browser import Browser
from tests.real.daemon import CLOCK, Program, free_port, pause
from tests.unit.test_metrics import samples

DEPLOY = Path(__file__).parents[2] / "deploy"
DASHBOARD = DEPLOY / "grafana" / "fjmcp-broker.json"
RULES = DEPLOY / "prometheus"


def program(wanted: DebianProgram) -> str:
    """
    @return: the path of one of Prometheus' programs; without it the test is skipped.
    """
    found = wanted.find()
    if found is None:
        skip_visibly(
            f"dashboard and alerts with {wanted}",
            "run python tests/deploy/programs.py first",
        )
    return found


def expressions() -> list[str]:
    """Every expression of the dashboard, its variables filled in."""
    dashboard = json.loads(DASHBOARD.read_text(encoding="utf-8"))
    return [
        target["expr"].replace("$__rate_interval", "30s").replace("$job", ".*")
        for panel in dashboard["panels"]
        for target in panel["targets"]
    ]


class RuleTests(SynchronousTestCase):
    """Alerts that come when they should, and do not when they should not."""

    def test_alerts(self) -> None:
        """Prometheus' own test of them."""
        done = subprocess.run(  # noqa: S603 - a fixed command
            [program(PROMTOOL), "test", "rules", "fjmcp-broker.test.yml"],
            cwd=RULES,
            capture_output=True,
            text=True,
        )
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)

    def test_every_alert_is_tested(self) -> None:
        """Each is named among those that come."""
        rules = (RULES / "fjmcp-broker.rules.yml").read_text(encoding="utf-8")
        tests = (RULES / "fjmcp-broker.test.yml").read_text(encoding="utf-8")
        names = [
            line.partition("alert: ")[2]
            for line in rules.splitlines()
            if "- alert: " in line
        ]
        self.assertGreater(len(names), 5)
        for name in names:
            self.assertIn(f"alertname: {name}\n        exp_alerts:\n", tests)


class DashboardTests(BrokerCase):
    """Every expression shows something."""

    def test_metrics_are_shown(self) -> None:
        """What is measured for operators is on the dashboard or in an alert."""
        shown = " ".join(expressions())
        shown += (RULES / "fjmcp-broker.rules.yml").read_text(encoding="utf-8")
        metrics = samples(Instruments(Clock(), MetricsConfig()).metrics)
        for name in {name.partition("{")[0] for name in metrics}:
            family = re.sub("_(count|sum)$", "", name)
            if family.startswith("fjmcp_"):
                self.assertIn(family, shown)

    async def query(self, port: int, expression: str) -> list[Any]:
        """What Prometheus answers."""
        query = urlencode({"query": expression})
        page = await deferToThread(
            Browser().request, "GET", f"http://127.0.0.1:{port}/api/v1/query?{query}"
        )
        document = json.loads(page.text)
        self.assertEqual(document["status"], "success", (expression, document))
        return list(document["data"]["result"])

    async def test_dashboard(self) -> None:
        """After a sign-in and some calls, none is empty."""
        binary = program(PROMETHEUS)
        metrics, port = free_port(), free_port()
        daemon, forgejo = await self.launch(PORT_METRICS=str(metrics))
        config = Path(self.directory, "prometheus.yml")
        config.write_text(
            json.dumps(
                {
                    "global": {"scrape_interval": "1s"},
                    "rule_files": [str(RULES / "fjmcp-broker.rules.yml")],
                    "scrape_configs": [
                        {
                            "job_name": "fjmcp-broker",
                            "static_configs": [{"targets": [f"127.0.0.1:{metrics}"]}],
                        }
                    ],
                }
            )
        )
        prometheus = Program.start(
            [
                binary,
                f"--config.file={config}",
                f"--storage.tsdb.path={self.directory}/tsdb",
                f"--web.listen-address=127.0.0.1:{port}",
            ]
        )

        async def stop() -> None:
            prometheus.signal_with(15)
            await prometheus.wait()

        self.addCleanup(stop)
        # Rates need two looks, the first of them before the calls.
        await self.until(port, 'up{job="fjmcp-broker"} == 1')
        client = await self.session(daemon, forgejo)
        deadline = CLOCK.seconds() + 60
        missing = expressions()
        while missing and CLOCK.seconds() < deadline:
            await deferToThread(client.call, "get_my_user_info")
            await deferToThread(client.refresh)
            # Nobody has this document, which takes a moment to find out.
            moment = int(CLOCK.seconds())
            document = quote(f"https://client-{moment}.invalid/x", safe="")
            await daemon.fetch("GET", f"/oauth/authorize?client_id={document}")
            await pause(1)
            missing = [
                each for each in missing if not self.shown(await self.query(port, each))
            ]
        self.assertEqual(missing, [])

    def shown(self, result: list[Any]) -> bool:
        """Whether there is a number in it."""
        return any(series["value"][1] != "NaN" for series in result)

    async def until(self, port: int, expression: str) -> None:
        """Wait until something is there."""
        deadline = CLOCK.seconds() + 60
        while CLOCK.seconds() < deadline:
            try:
                if await self.query(port, expression):
                    return
            except (OSError, ValueError):
                pass
            await pause(0.3)
        self.fail(f"{expression} stays empty")
