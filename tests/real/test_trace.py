"""Sign-in traces and the audit trail of a real daemon: what they tell, and what not."""

from __future__ import annotations

import json
import re
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from twisted.internet.threads import deferToThread

from tests.real.browser import Browser
from tests.real.client import REDIRECT_URI, McpClient
from tests.real.daemon import Daemon
from tests.real.test_control import ControlCase
from tests.real.test_journey import SECRET_SHAPES, Journey


class Recorder(Browser):
    """A browser that remembers all that went to and fro."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []

    def request(self, *arguments: Any, **named: Any) -> Any:
        """As it was."""
        page = super().request(*arguments, **named)
        body = arguments[2] if len(arguments) > 2 and arguments[2] else b""
        self.seen += [arguments[1], body.decode("latin-1"), page.url]
        self.seen += [str(page.headers), page.text]
        return page


class TraceTests(ControlCase, Journey):
    """What an operator sees."""

    takes_long = True

    async def traced(self, *arguments: str) -> list[dict[str, Any]]:
        """The traces, the newest first."""
        return await self.rows("trace", *arguments)

    async def test_complete(self) -> None:
        """Every step in its order, with a verdict; on restart it is still there."""
        daemon, forgejo = await self.launch()
        await daemon.fetch("POST", "/mcp", b"{}")
        await self.session(daemon, forgejo)
        (trace,) = await self.traced()
        names = [step["name"] for step in trace["steps"]]
        self.assertEqual(
            names, ["register", "authorize", "consent", "callback", "token", "request"]
        )
        self.assertEqual({step["outcome"] for step in trace["steps"]}, {"ok", "200"})
        self.assertEqual((trace["status"], trace["login"]), ("complete", "alice"))
        self.assertEqual(
            [seen["what"] for seen in trace["possibly_related"]],
            ["/mcp without a token: 401"],
        )
        text = await self.command("trace", trace["trace"].upper())
        self.assertIn("the client made its first request", text)
        self.assertIn(f"trace {trace['trace']}", daemon.text)
        await daemon.stop()
        self.assertEqual(await self.traced(), [trace])

    async def test_token_that_is_never_used(self) -> None:
        """The words of an operator; requests without it are shown."""
        daemon, forgejo = await self.launch()
        client = McpClient(daemon.url)
        await deferToThread(client.sign_in, "alice", forgejo.password("alice"))
        client.access_token = "none"
        await deferToThread(client.request, "tools/list")
        (trace,) = await self.traced()
        self.assertEqual(trace["status"], "going on")
        self.assertIn("never used it", trace["verdict"])
        self.assertIn("/mcp with a token: 401", str(trace["possibly_related"]))

    async def test_sign_in_that_fails(self) -> None:
        """The page has the id under which the operator finds the reason."""
        daemon, _ = await self.launch()
        client = McpClient(daemon.url)
        await deferToThread(client.register)
        query = {
            "response_type": "code",
            "client_id": client.client_id,
            "redirect_uri": REDIRECT_URI,
            "state": "the-state-of-the-client",
            "resource": f"{daemon.url}/mcp",
        }
        page = await daemon.fetch(
            "GET",
            f"/oauth/authorize?{urlencode(query)}",
            headers={"X-Forwarded-For": "203.0.113.77"},
        )
        self.assertEqual(page.status, 400)
        (trace,) = await self.traced()
        self.assertEqual(trace["steps"][-1]["network"], "203.0.113.0/24")
        self.assertNotIn("203.0.113.77", daemon.text + str(trace))
        self.assertIn(f"<code>{trace['trace']}</code>", page.text)
        self.assertEqual(trace["status"], "failed")
        self.assertIn("code_challenge", trace["verdict"])
        page = await daemon.fetch("GET", "/oauth/authorize?client_id=unknown")
        found = re.search("<code>([a-z2-7]{8})</code>", page.text)
        assert found is not None
        text = await self.command("trace", found[1])
        self.assertIn("not registered here", text)

    async def test_cancelled(self) -> None:
        """That is nobody's fault, and an event of the audit trail."""
        daemon, forgejo = await self.launch()
        client = McpClient(daemon.url)
        with self.assertRaises((AssertionError, KeyError)):
            await deferToThread(
                client.sign_in, "alice", forgejo.password("alice"), decision="cancel"
            )
        (trace,) = await self.traced()
        self.assertEqual(trace["status"], "ended")
        (event,) = await self.rows("audit")
        self.assertEqual((event["kind"], event["outcome"]), ("sign_in", "cancelled"))

    async def test_no_secret_anywhere(self) -> None:
        """
        Nothing with which anybody could sign in stands in the dump of the store, in
        the log, in a trace or in the audit trail; nor does an argument of a tool.
        """
        daemon, forgejo = await self.launch(FJMCP_BROKER_DEBUG="1")
        seen = await self.travel(
            daemon,
            forgejo,
            "--show-secrets",
            "--calls",
            '[["get_my_user_info",{}],["create_issue",{"owner":"alice",'
            '"repo":"hello","title":"the-title-of-it","body":"x"}]]',
        )
        client = await self.recorded(daemon, forgejo)
        traces = await self.command("trace", "--json")
        texts = [traces, await self.command("trace")]
        for row in map(json.loads, traces.splitlines()):
            texts.append(await self.command("trace", row["trace"]))
        texts += [await self.command("audit"), await self.command("audit", "--json")]
        self.assertIn("create_issue", texts[-1])
        await daemon.stop()
        with closing(sqlite3.connect(self.store)) as connection:
            dump = "\n".join(connection.iterdump())
        secrets = {
            *seen["secrets"],
            *client,
            forgejo.password("alice"),
            forgejo.settings["FORGEJO_OAUTH_CLIENT_SECRET"],
            Path(f"{self.store}.key").read_text().strip(),
            "the-title-of-it",
        }
        self.assertGreaterEqual(len(secrets), 15)
        for name, text in (
            ("the log", daemon.text),
            ("the dump", dump),
            ("what commands print", "\n".join(texts)),
        ):
            for secret in secrets:
                self.assertNotIn(secret, text, name)
            self.assertIsNone(SECRET_SHAPES.search(text), name)
        for text in texts:
            self.assertNotIn("127.0.0.1", text)

    async def recorded(self, daemon: Daemon, forgejo: Any) -> set[str]:
        """
        @return: all secrets of a journey: values of cookies, codes, states, tokens,
            verifiers, and what stands in the consent form.
        """
        browser = Recorder()
        client = McpClient(daemon.url, browser=browser)
        await deferToThread(client.sign_in, "alice", forgejo.password("alice"))
        await deferToThread(client.refresh)
        await deferToThread(client.initialize)
        everything = "\n".join(browser.seen)
        found = re.findall(
            r"(?:code|state|code_verifier|token|access_token|refresh_token)"
            r"(?:=|\": ?\"|\" value=\")([A-Za-z0-9_.~-]{16,})",
            everything,
        )
        cookies = re.findall(r"[Ss]et-[Cc]ookie: [^=\s]+=([^;\s]{16,})", everything)
        self.assertGreater(len(cookies), 1)
        session = {client.session_id} if client.session_id else set()
        return {*found, *cookies, *session, client.access_token, client.refresh_token}
