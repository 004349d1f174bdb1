"""
The doctor in front of real reverse proxies, set up well and badly.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from twisted.internet.threads import deferToThread

from fjmcp_broker.doctor.examine import examine
from fjmcp_broker.doctor.findings import Finding
from tests.deploy.programs import CADDY_2_6, NGINX
from tests.real.broker_case import BrokerCase
from tests.real.daemon import CLOCK, Daemon, Program, free_port, pause
from tests.slow.proxy_case import program

FORWARDED = "proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;"
ALL_WELL = {
    "public_url": "ok",
    "client_address": "ok",
    "discovery": "ok",
    "challenge": "ok",
    "streaming": "ok",
}


class ProxyTests(BrokerCase):
    """What a proxy does to the broker, seen from outside."""

    async def examined(self, proxy: Callable[[int, int], Program]) -> dict[str, str]:
        """
        @param proxy: starts a proxy from one port to another.
        @return: what the doctor says of it, by check.
        """
        front, back = free_port(), free_port()
        settings, _ = await self.settings(front)
        environment = {
            **settings,
            "FJMCP_BROKER_PUBLIC_URL": f"http://127.0.0.1:{front}",
            "FJMCP_BROKER_LISTEN": f"127.0.0.1:{back}",
        }
        daemon = Daemon.launch(environment, port=back)
        self.addCleanup(daemon.stop)
        await daemon.until_ready()
        running = proxy(front, back)

        async def stop() -> None:
            running.signal_with(15)
            await running.wait()

        self.addCleanup(stop)
        before = Daemon()
        before.url = f"http://127.0.0.1:{front}"
        deadline = CLOCK.seconds() + 20
        while CLOCK.seconds() < deadline:
            try:
                await before.fetch("GET", "/readyz")
                break
            except OSError:
                await pause(0.1)

        def look() -> list[Finding]:
            return list(examine(None, environment, 10))

        found = await deferToThread(look)
        return {
            each.check: str(each.status) for each in found if each.check in ALL_WELL
        }

    def nginx(self, extra: str) -> Callable[[int, int], Program]:
        """
        @param extra: lines for its location.
        @return: starts nginx.
        """
        binary = program(NGINX)

        def start(front: int, back: int) -> Program:
            folder = self.directory
            kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
            temporary = "".join(f"{k}_temp_path {folder}/{k};" for k in kinds)
            Path(folder, "nginx.conf").write_text(
                f"daemon off; pid {folder}/pid; error_log {folder}/errors; events {{}}"
                f"http {{ access_log off; {temporary} server {{"
                f"listen 127.0.0.1:{front}; location / {{"
                f"proxy_pass http://127.0.0.1:{back}; proxy_http_version 1.1;"
                f"proxy_set_header Host $http_host; {extra} }} }} }}"
            )
            return Program.start([binary, "-c", f"{folder}/nginx.conf", "-p", folder])

        return start

    async def test_caddy(self) -> None:
        """As it comes."""
        binary = program(CADDY_2_6)

        def start(front: int, back: int) -> Program:
            path = Path(self.directory, "Caddyfile")
            path.write_text(
                "{\n admin off\n auto_https off\n}\n"
                f"http://127.0.0.1:{front} {{\n reverse_proxy 127.0.0.1:{back}\n}}\n"
            )
            return Program.start(
                [binary, "run", "--config", str(path), "--adapter", "caddyfile"]
            )

        self.assertEqual(await self.examined(start), ALL_WELL)

    async def test_nginx(self) -> None:
        """With the headers that it has to be told to send."""
        self.assertEqual(await self.examined(self.nginx(FORWARDED)), ALL_WELL)

    async def test_nginx_that_compresses_streams(self) -> None:
        """It holds them back until they end."""
        extra = (
            "gzip on; gzip_proxied any; gzip_types text/event-stream;"
            "gzip_min_length 1;"
            "proxy_ignore_headers X-Accel-Buffering;"
        )
        found = await self.examined(self.nginx(FORWARDED + extra))
        self.assertEqual(found, {**ALL_WELL, "streaming": "failed"})

    async def test_nginx_that_hides_the_challenge(self) -> None:
        """Clients would not know where to get a token."""
        extra = "proxy_hide_header WWW-Authenticate;"
        found = await self.examined(self.nginx(FORWARDED + extra))
        self.assertEqual(found, {**ALL_WELL, "challenge": "failed"})

    async def test_nginx_that_keeps_tokens_to_itself(self) -> None:
        """Clients would sign in again and again."""
        extra = 'proxy_set_header Authorization "";'
        found = await self.examined(self.nginx(FORWARDED + extra))
        self.assertEqual(found, {**ALL_WELL, "challenge": "failed"})

    async def test_nginx_with_a_login_of_its_own(self) -> None:
        """Nothing gets through, and the rest is not looked at."""
        extra = 'auth_basic "closed"; auth_basic_user_file /dev/null;'
        found = await self.examined(self.nginx(extra))
        expected = dict.fromkeys(ALL_WELL, "skipped") | {"public_url": "failed"}
        self.assertEqual(found, expected)
