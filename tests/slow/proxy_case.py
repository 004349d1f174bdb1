"""
The files of C{deploy/caddy} and C{deploy/nginx} as an operator would use them: only the
name, the certificate, the addresses and the place of the log are put in.
"""

from __future__ import annotations

import os
import re
import ssl
import time
from pathlib import Path
from typing import Any, Final, cast

from twisted.internet.threads import deferToThread

from tests import skip_visibly
from tests.deploy.programs import DebianProgram
from tests.real.certificates import write_certificate
from tests.real.client import McpClient
from tests.real.daemon import Daemon, Program, free_port, pause
from tests.real.modern import ModernCase

DEPLOY: Final = Path(__file__).parent.parent.parent / "deploy"
NAME: Final = "mcp.example.org"


def program(proxy: DebianProgram) -> str:
    """
    @return: its path; without it the test is skipped.
    """
    found = proxy.find()
    if found is None:
        skip_visibly(
            f"deployment behind {proxy}", "run python tests/deploy/programs.py first"
        )
    return found


class Curl(Program):
    """A transfer, and when each part of it came."""

    def __init__(self) -> None:
        super().__init__()
        self.parts: list[tuple[float, bytes]] = []

    @classmethod
    def get(cls, *arguments: str) -> Curl:
        """
        @return: curl, which shows headers and does not wait for a full buffer.
        """
        curl = ["/usr/bin/env", "curl", "-q", "--no-progress-meter", "-N", "-i"]
        started = cls.start([*curl, "--max-time", "60", *arguments])
        return cast(Curl, started)

    def outReceived(self, data: bytes) -> None:
        super().outReceived(data)
        self.parts.append((time.monotonic(), data))

    def when(self, text: bytes) -> float:
        """
        @return: when a text had come, by the monotonic clock.
        """
        seen = b""
        for moment, data in self.parts:
            seen += data
            if text in seen:
                return moment
        raise AssertionError(f"{text!r} did not come:\n{self.text}")

    @property
    def status(self) -> int:
        """
        @return: of the answer, the last one when there were several.
        """
        found = re.findall(rb"^HTTP/[\d.]+ (\d+)", self.output, re.MULTILINE)
        assert found, self.text
        return int(found[-1])


class ProxyCase(ModernCase):
    """A daemon on a loopback port behind a reverse proxy that ends TLS."""

    public = "localhost"
    """The name that clients know."""

    async def launch_daemon(self, **more: str) -> None:
        """
        Start a Forgejo and a daemon, whose public URL is the proxy's to be.
        """
        self.front, self.port = free_port(), free_port()
        self.url = f"https://{self.public}:{self.front}"
        settings, self.forgejo = await self.settings(self.port)
        controls: Any = self.forgejo.stand_in
        application = controls.add_application(f"{self.url}/oauth/callback")
        self.certificate, self.key = write_certificate(self.directory)
        self.environment = {
            **settings,
            "FORGEJO_OAUTH_CLIENT_ID": application.client_id,
            "FORGEJO_OAUTH_CLIENT_SECRET": application.client_secret,
            "FJMCP_BROKER_PUBLIC_URL": self.url,
            "FJMCP_BROKER_LISTEN": f"127.0.0.1:{self.port}",
            **more,
        }
        await self.start()

    async def launch_proxy(
        self, proxy: DebianProgram, *edits: tuple[str, str]
    ) -> Program:
        """
        Start a proxy, stopped with the test.

        @param edits: further replacements in its configuration.
        @return: the proxy, which answers.
        """
        make = self.caddy if proxy.name == "caddy" else self.nginx
        running = Program.start(
            make(program(proxy), edits), environment={"HOME": self.directory}
        )

        async def stop() -> None:
            running.signal_with(15)
            await running.wait()

        self.addCleanup(stop)
        outside = Daemon()
        outside.url = f"http://127.0.0.1:{self.redirects}"
        deadline = time.monotonic() + 20
        while True:
            try:
                answer = await outside.fetch("GET", "/")
                self.assertIn(answer.status, (301, 308))
                return running
            except OSError:
                self.assertIsNone(running.exit_code, running.text)
                self.assertLess(time.monotonic(), deadline, running.text)
                await pause(0.05)

    def caddy(self, binary: str, edits: tuple[tuple[str, str], ...]) -> list[str]:
        """
        @return: the command line of a Caddy.
        """
        self.redirects = free_port()
        text = (DEPLOY / "caddy" / "Caddyfile").read_text()
        tls = f"tls {self.certificate} {self.key}"
        text = replaced(
            text,
            (
                "{\n\tservers",
                f"{{\n\tadmin off\n\tskip_install_trust\n"
                f"\thttp_port {self.redirects}\n\thttps_port {self.front}\n\tservers",
            ),
            (f"\n{NAME} {{\n", f"\nhttps://{self.public}:{self.front} {{\n\t{tls}\n"),
            ("127.0.0.1:8080", f"127.0.0.1:{self.port}"),
            ("/var/log/caddy", self.directory),
            *edits,
        )
        path = Path(self.directory, "Caddyfile")
        path.write_text(text)
        return [binary, "run", "--config", str(path), "--adapter", "caddyfile"]

    def nginx(self, binary: str, edits: tuple[tuple[str, str], ...]) -> list[str]:
        """
        @return: the command line of an nginx.
        """
        self.redirects = free_port()
        text = (DEPLOY / "nginx" / "fjmcp-broker.conf").read_text()
        live = f"/etc/letsencrypt/live/{NAME}"
        text = replaced(
            text,
            ("listen 80;", f"listen 127.0.0.1:{self.redirects};"),
            ("    listen [::]:80;\n", ""),
            ("listen 443 ssl http2;", f"listen 127.0.0.1:{self.front} ssl http2;"),
            ("    listen [::]:443 ssl http2;\n", ""),
            (f"{live}/fullchain.pem", self.certificate),
            (f"{live}/privkey.pem", self.key),
            (NAME, self.public),
            ("127.0.0.1:8080", f"127.0.0.1:{self.port}"),
            ("/var/log/nginx", self.directory),
            *edits,
        )
        folder = self.directory
        kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        temporary = "".join(f"{kind}_temp_path {folder}/{kind};" for kind in kinds)
        path = Path(folder, "nginx.conf")
        path.write_text(
            f"daemon off; pid {folder}/pid; events {{}} http {{ access_log off;"
            f" {temporary}\n{text} }}"
        )
        return [binary, "-c", str(path), "-p", folder, "-e", f"{folder}/nginx.errors"]

    def access_log(self) -> str:
        """
        @return: what the proxy wrote down.
        """
        return Path(self.directory, "fjmcp-broker.log").read_text()

    def curl(self, path: str, *arguments: str) -> Curl:
        """
        @return: a transfer through the proxy, with HTTP/2.
        """
        started = Curl.get(
            *("--http2", "--cacert", self.certificate), *arguments, self.url + path
        )
        self.addCleanup(lambda: started.ended)
        self.addCleanup(started.signal_with, 9)
        return started

    async def fetched(self, path: str, *arguments: str) -> Curl:
        """
        @return: a transfer through the proxy that is over.
        """
        done = self.curl(path, *arguments)
        await done.wait(60)
        return done

    async def outside_client(self, login: str = "alice") -> McpClient:
        """
        @return: a client with a session, that knows the proxy alone.
        """
        client = McpClient(self.url)
        client.browser.trust(ssl.create_default_context(cafile=self.certificate))
        await deferToThread(client.sign_in, login, self.forgejo.password(login))
        await deferToThread(client.initialize)
        return client


def replaced(text: str, *edits: tuple[str, str]) -> str:
    """
    @return: a text with all replacements, each of which is found.
    """
    for old, new in edits:
        assert old in text, f"{old!r} is not in the file"
        text = text.replace(old, new)
    return text


def header_arguments(client: McpClient, **more: str) -> list[str]:
    """
    @return: the arguments of curl for the headers of a request to C{/mcp}.
    """
    fields = {**client.headers(), **more}
    return [part for n, v in fields.items() for part in ("-H", f"{n}: {v}")]


def environment_for_sdk(certificate: str) -> dict[str, str]:
    """
    @return: what lets another process trust the proxy.
    """
    return {**os.environ, "SSL_CERT_FILE": certificate}
