"""
Secrets where somebody could find them: a whole journey, and then every place that it
left something in is searched for every secret that it made.
"""

from __future__ import annotations

import json
import re
import sqlite3
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from twisted.internet.threads import deferToThread

from fjmcp_broker.key_text import decode_key
from fjmcp_broker.store import upstream_tokens
from fjmcp_broker.store.sealing import Sealer
from tests.real.broker_case import BrokerCase
from tests.real.browser import Browser, Page
from tests.real.client import FORM, REDIRECT_URI, McpClient
from tests.real.daemon import Daemon, free_port, processes

SECRET_FIELDS = frozenset(
    (
        "access_token",
        "client_secret",
        "code",
        "code_verifier",
        "password",
        "refresh_token",
        "state",
        "token",
    )
)
"""Members of forms, queries and JSON whose values are secrets, or were for a moment."""


class Watched(Browser):
    """A browser that remembers each secret that went through it."""

    def __init__(self) -> None:
        super().__init__()
        self.secrets: dict[str, str] = {}

    def request(
        self,
        method: str,
        url: str,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Page:
        """
        As ever.
        """
        page = super().request(method, url, body, headers)
        self._keep("sent", parse_qs(urlsplit(url).query))
        if (headers or {}).get("Content-Type") == FORM["Content-Type"]:
            self._keep("posted", parse_qs((body or b"").decode()))
        self._keep("location", parse_qs(urlsplit(page.headers["Location"] or "").query))
        for form in page.forms:
            self._keep("form", {name: [value] for name, value in form.fields})
        if page.text.startswith("{"):
            members = json.loads(page.text)
            self._keep("answer", {k: [str(v)] for k, v in members.items()})
        for cookie in self.cookies:
            if "fjmcp" in cookie.name:
                self.secrets[f"cookie {cookie.name}"] = str(cookie.value)
        return page

    def _keep(self, where: str, values: Mapping[str, list[str]]) -> None:
        for name in values.keys() & SECRET_FIELDS:
            for value in values[name]:
                if len(value) >= 8:
                    self.secrets[f"{where} {name} {len(self.secrets)}"] = value


class SecretsTests(BrokerCase):
    """Logs, error pages, metrics, arguments, titles and the store."""

    async def journey(self) -> tuple[Daemon, McpClient, dict[str, str]]:
        """Everything that makes a secret, with the log as talkative as it can be."""
        self.metrics_port = free_port()
        daemon, forgejo = await self.launch(
            FJMCP_BROKER_DEBUG="1", PORT_METRICS=str(self.metrics_port)
        )
        self.forgejo_url = forgejo.stand_in.base_url
        browser = Watched()
        client = McpClient(daemon.url, browser)
        await deferToThread(
            browser.request,
            "POST",
            f"{daemon.url}/oauth/register",
            json.dumps({"redirect_uris": [REDIRECT_URI]}).encode(),
            {"Content-Type": "application/json"},
        )
        password = forgejo.password("alice")
        await deferToThread(client.sign_in, "alice", password)
        await deferToThread(client.initialize)
        await deferToThread(client.call, "get_my_user_info")
        await deferToThread(client.refresh)
        await deferToThread(client.call, "get_my_user_info")
        secrets = dict(browser.secrets)
        self.assertGreater(len(set(secrets.values())), 12, sorted(secrets))
        secrets["session id"] = str(client.session_id)
        secrets["client secret at Forgejo"] = forgejo.settings[
            "FORGEJO_OAUTH_CLIENT_SECRET"
        ]
        return daemon, client, secrets

    def upstream(self) -> dict[str, str]:
        """What the store's own key opens, and the key."""
        path = f"{self.directory}/broker.db"
        key = Path(f"{path}.key").read_text(encoding="ascii").strip()
        connection = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
        self.addCleanup(connection.close)
        (user_id,) = connection.execute("SELECT user_id FROM users").fetchone()
        found = upstream_tokens.find(connection, Sealer([decode_key(key)]), user_id)
        assert found is not None
        return {
            "key of the store": key,
            "upstream access token": found.access_token.reveal(),
            "upstream refresh token": found.refresh_token.reveal(),
        }

    def check(self, where: str, text: str | bytes, secrets: Mapping[str, str]) -> None:
        """None of them is in it."""
        raw = text if isinstance(text, bytes) else text.encode()
        found = [name for name, value in secrets.items() if value.encode() in raw]
        self.assertEqual(found, [], where)

    async def test_secrets_are_nowhere(self) -> None:
        """Each place is searched for each of them."""
        daemon, client, secrets = await self.journey()
        secrets |= self.upstream()
        running = processes(self.forgejo_url)
        self.assertGreaterEqual(len(running), 2)
        self.assertIn(daemon.pid, running)
        for pid in running:
            for name in ("cmdline", "comm"):
                self.check(name, Path(f"/proc/{pid}/{name}").read_bytes(), secrets)
        await self.errors(daemon, client, secrets)
        for url in (
            f"http://127.0.0.1:{self.metrics_port}/metrics",
            f"{daemon.url}/healthz",
            f"{daemon.url}/",
        ):
            page = await deferToThread(Browser().request, "GET", url)
            self.assertEqual(page.status, 200, url)
            self.check(url, page.text, secrets)
        store = {name: value for name, value in secrets.items() if " state" not in name}
        for path in Path(self.directory).glob("broker.db*"):
            if path.is_file() and path.suffix != ".key":
                self.check(path.name, path.read_bytes(), store)
        await daemon.stop()
        self.check("the log", daemon.text, secrets)
        # What was searched is really what it should be.
        self.assertIn("/oauth/callback", daemon.text)

    async def errors(
        self, daemon: Daemon, client: McpClient, secrets: Mapping[str, str]
    ) -> None:
        """Every secret, sent to where it is of no use, does not come back."""
        for name, value in secrets.items():
            if name.startswith("cookie ") or not re.fullmatch(r"[\w.-]+", value):
                continue
            for method, path, body, headers in (
                ("GET", f"/oauth/callback?state={value}&code={value}", None, {}),
                ("GET", f"/oauth/authorize?client_id={value}", None, {}),
                ("POST", "/oauth/token", f"code={value}".encode(), FORM),
                ("POST", "/mcp", b"{}", {"Authorization": f"Bearer x{value}"}),
            ):
                page = await deferToThread(
                    Browser().request, method, daemon.url + path, body, headers
                )
                self.assertGreaterEqual(page.status, 400, path)
                self.check(f"the answer to {method} {path}", page.text, secrets)
