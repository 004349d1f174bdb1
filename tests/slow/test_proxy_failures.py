"""
What docs/deploy-caddy.md says of a proxy that is set up wrongly: how it looks from
outside, tried as the page does it.
"""

from __future__ import annotations

import json
import socket
import time
from contextlib import closing

from tests.deploy.programs import CADDY_2_11, NGINX
from tests.real.daemon import Program
from tests.slow.proxy_case import Curl, ProxyCase, header_arguments, program

METADATA = "/.well-known/oauth-authorization-server"
FLUSH = "flush_interval -1"
UPSTREAM = "reverse_proxy 127.0.0.1:"


class FailureTests(ProxyCase):
    """A name that only C{--resolve} knows, and one mistake in each test."""

    public = "mcp.example.test"

    def curl(self, path: str, *arguments: str) -> Curl:
        """
        @return: a transfer as the page makes it. The certificate is for another name.
        """
        return super().curl(
            path, "-k", "--resolve", f"{self.public}:{self.front}:127.0.0.1", *arguments
        )

    async def until_waiting_ends(self, transfer: Curl) -> float:
        """
        @return: how long that took, in seconds.
        """
        began = time.monotonic()
        await transfer.wait(40)
        return time.monotonic() - began

    async def issuer(self) -> str:
        """
        @return: whom the metadata names.
        """
        answer = await self.fetched(METADATA)
        self.assertEqual(answer.status, 200, answer.text)
        found: str = json.loads(answer.output.rpartition(b"\r\n\r\n")[2])["issuer"]
        return found

    async def test_all_well(self) -> None:
        """What the page shows first: the issuer, and the challenge."""
        await self.launch_daemon()
        await self.launch_proxy(CADDY_2_11)
        self.assertEqual(await self.issuer(), self.url)
        answer = await self.fetched("/mcp", "-X", "POST")
        self.assertEqual(answer.status, 401, answer.text)
        self.assertIn(
            f'resource_metadata="{self.url}/.well-known'.encode(), answer.output
        )

    async def test_wrong_issuer(self) -> None:
        """C{server.public_url} is another name: 403, and metadata that name it."""
        other = "https://other.example.test"
        await self.launch_daemon(FJMCP_BROKER_PUBLIC_URL=other)
        await self.launch_proxy(CADDY_2_11)
        self.assertEqual(await self.issuer(), other)
        answer = await self.fetched("/mcp", "-X", "POST")
        self.assertEqual(answer.status, 403, answer.text)

    async def test_host_header(self) -> None:
        """A proxy that names itself or the upstream in C{Host}: 403."""
        await self.launch_daemon()
        await self.launch_proxy(
            CADDY_2_11,
            (
                "flush_interval -1",
                "flush_interval -1\nheader_up Host {upstream_hostport}",
            ),
        )
        self.assertEqual(await self.issuer(), self.url)
        answer = await self.fetched("/mcp", "-X", "POST")
        self.assertEqual(answer.status, 403, answer.text)

    async def test_unreachable_upstream(self) -> None:
        """No daemon: 502 after the time for which requests wait."""
        await self.launch_daemon()
        await self.launch_proxy(
            CADDY_2_11, ("lb_try_duration 10s", "lb_try_duration 2s")
        )
        await self.daemon.stop()
        transfer = self.curl("/healthz")
        self.assertGreater(await self.until_waiting_ends(transfer), 1.5)
        self.assertEqual(transfer.status, 502, transfer.text)

    async def test_both_end_tls(self) -> None:
        """
        The daemon has C{server.tls = "required"} and the proxy speaks plain HTTP to
        it: 502. With https:// and the name that it must keep, it works.
        """
        await self.launch_daemon()
        await self.daemon.stop()
        self.environment |= {
            "FJMCP_BROKER_SERVER_TLS": "required",
            "FJMCP_BROKER_SERVER_TLS_CERT": self.certificate,
            "FJMCP_BROKER_SERVER_TLS_KEY": self.key,
        }
        before = self.daemon
        self.daemon = type(before).launch(self.environment, port=self.port)
        self.addCleanup(self.daemon.stop)
        wrong = await self.launch_proxy(CADDY_2_11)
        await self.until(lambda: "listening on" in self.daemon.text, "not ready")
        transfer = self.curl("/healthz")
        await transfer.wait(40)
        self.assertEqual(transfer.status, 502, transfer.text)
        wrong.signal_with(15)
        await wrong.wait()
        await self.launch_proxy(
            CADDY_2_11,
            (UPSTREAM, "reverse_proxy https://127.0.0.1:"),
            (FLUSH, f"{FLUSH}\nheader_up Host {{hostport}}"),
            (
                "dial_timeout 5s",
                f"tls_trust_pool file {self.certificate}\ntls_server_name localhost",
            ),
        )
        answer = await self.fetched("/mcp", "-X", "POST")
        self.assertEqual(answer.status, 401, answer.text)

    async def test_port_in_use(self) -> None:
        """Another server has it: Caddy ends and says so."""
        await self.launch_daemon()
        with closing(socket.socket()) as other:
            other.bind(("0.0.0.0", self.front))
            other.listen()
            refused = Program.start(
                self.caddy(program(CADDY_2_11), ()),
                environment={"HOME": self.directory},
            )
            await refused.wait()
        self.assertEqual(refused.exit_code, 1, refused.text)
        self.assertIn("address already in use", refused.text)


class HeldBackTests(ProxyCase):
    """A client that signs in has to find the name."""

    async def test_held_back_streams(self) -> None:
        """nginx that compresses whatever comes: all events at the end."""
        await self.launch_daemon()
        await self.launch_proxy(
            NGINX,
            ("gzip off;", "gzip on; gzip_proxied any; gzip_types text/event-stream;"),
            ("proxy_buffering off;", "proxy_ignore_headers X-Accel-Buffering;"),
        )
        client = await self.outside_client()
        message = {
            "jsonrpc": "2.0",
            "id": 1,
            "method": "tools/call",
            "params": {
                "name": "progress",
                "arguments": {"steps": 3, "seconds": 1},
                "_meta": {"progressToken": "t"},
            },
        }
        held = await self.fetched(
            "/mcp",
            "--compressed",
            *("--resolve", f"{self.public}:{self.front}:127.0.0.1"),
            *header_arguments(client),
            *("--data-binary", json.dumps(message)),
        )
        self.assertEqual(held.status, 200, held.text)
        self.assertLess(held.when(b'"result"') - held.when(b"step 1"), 1)
