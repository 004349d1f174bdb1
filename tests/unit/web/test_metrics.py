"""Who may read the metrics."""

from ipaddress import ip_network
from typing import Any

from fjmcp_broker.config.addresses import LOOPBACK_PROXIES, TrustedProxies
from fjmcp_broker.metrics import Metrics
from fjmcp_broker.web.app import Route, build_web_resource
from fjmcp_broker.web.limiting import ClientAddresses
from fjmcp_broker.web.metrics import METRICS_PATH, MetricsEndpoint
from fjmcp_broker.web.origins import OriginPolicy
from fjmcp_broker.web.site import BrokerSite
from tests.unit.web.mcp_world import McpWorld, Wire


class MetricsTests(McpWorld):
    """C{/metrics} beside everything else."""

    def scrape(
        self,
        address: str | None,
        *networks: str,
        proxies: TrustedProxies = LOOPBACK_PROXIES,
        **named: Any,
    ) -> Wire:
        """A request by way of the proxy on loopback."""
        endpoint = MetricsEndpoint(
            Metrics(), ClientAddresses(proxies), [ip_network(n) for n in networks]
        )
        root = build_web_resource(
            [Route("GET", METRICS_PATH, endpoint.get)],
            OriginPolicy("https://mcp.example"),
        )
        self.site = BrokerSite(root, self.clock, {})
        headers = {"X-Forwarded-For": address}
        named = {"path": METRICS_PATH, "method": "GET", **named}
        return self.send(b"", token=None, headers=headers, **named)

    def test_off(self) -> None:
        """Nobody is allowed unless it is said; the answer is that of any path."""
        wire = self.scrape("203.0.113.7")
        self.assertEqual(wire.status, 404)
        other = self.scrape("203.0.113.7", path="/nothing")
        self.assertEqual(wire.json["error"], other.json["error"])

    def test_allowed_networks(self) -> None:
        """Their clients, and nobody else's."""
        networks = ("203.0.113.0/24", "2001:db8::/32")
        for address in ("203.0.113.7", "2001:db8:1::2"):
            wire = self.scrape(address, *networks)
            self.assertEqual(wire.status, 200)
            self.assertTrue(wire.headers["content-type"].startswith("text/plain"))
            self.assertEqual(wire.headers["cache-control"], "no-store")
            self.assertIn(b"fjmcp_build_info", wire.body)
        for address in ("203.0.114.7", "2001:db9::1", "203.0.113.7, 198.51.100.1"):
            self.assertEqual(self.scrape(address, *networks).status, 404)

    def test_unknown_client(self) -> None:
        """A proxy that says nothing about its clients does not open it to all."""
        self.assertEqual(self.scrape(None, "127.0.0.0/8", "0.0.0.0/0").status, 404)

    def test_loopback_without_a_proxy(self) -> None:
        """Where no proxy on this machine is trusted, this machine can be allowed."""
        nobody = TrustedProxies()
        wire = self.scrape("203.0.113.7", "127.0.0.1", proxies=nobody)
        self.assertEqual(wire.status, 200)
        self.assertEqual(self.scrape(None, "10.0.0.0/8", proxies=nobody).status, 404)

    def test_other_methods(self) -> None:
        """There is nothing to change."""
        wire = self.scrape("203.0.113.7", "203.0.113.7", method="POST")
        self.assertEqual(wire.status, 405)
