"""
A client that is a web page: everything but the sign-in itself is done by its script, as
by the MCP Inspector in direct mode.
"""

from __future__ import annotations

import json
from urllib.parse import urlencode

from twisted.internet.threads import deferToThread

from tests.real.broker_case import BrokerCase
from tests.real.browser import Browser
from tests.real.client import FORM, McpClient
from tests.real.script import Blocked, Script

PAGE = "https://inspector.example"
JSON = {"Content-Type": "application/json"}
VERSION = {"MCP-Protocol-Version": "2025-11-25"}


class PageTests(BrokerCase):
    """A page whose origin the operator has allowed, and one of anybody."""

    async def test_whole_way(self) -> None:
        """Discovery, registration, sign-in, calls, revocation."""
        daemon, forgejo = await self.launch(FJMCP_BROKER_SERVER_ALLOWED_ORIGINS=PAGE)
        await deferToThread(self.travel, daemon.url, forgejo.password("alice"))

    def travel(self, url: str, password: str) -> None:
        """What the page does."""
        script = Script(PAGE)
        refused = script.request("POST", f"{url}/mcp", b"{}", {**JSON, **VERSION})
        self.assertEqual(refused.status, 401)
        challenge = refused.headers["WWW-Authenticate"]
        found = challenge.partition('resource_metadata="')[2].partition('"')[0]
        resource = json.loads(script.request("GET", found, None, VERSION).text)
        issuer = resource["authorization_servers"][0]
        for path, status in (
            ("oauth-authorization-server/mcp", 404),
            ("openid-configuration", 404),
            ("oauth-authorization-server", 200),
        ):
            answer = script.request(
                "GET", f"{issuer}/.well-known/{path}", None, VERSION
            )
            self.assertEqual(answer.status, status)
        client = McpClient(url, browser=script)
        client.register()
        client.browser = Browser()
        client.sign_in("alice", password)
        client.browser = script
        client.refresh()
        self.assertEqual(client.initialize().status, 200)
        self.assertIsNotNone(client.session_id)
        self.assertIn("alice", json.dumps(client.call("who_am_i")))
        headers = {
            **client.headers(),
            **VERSION,
            "Mcp-Method": "server/discover",
            "Mcp-Param-Region": "eu",
            "Mcp-Name": "x",
        }
        answer = script.request("POST", f"{url}/mcp", b"junk", headers)
        self.assertEqual(answer.status, 400)
        gone = {**client.headers(), "Mcp-Session-Id": "x"}
        self.assertEqual(script.request("DELETE", f"{url}/mcp", None, gone).status, 404)
        ended = script.request("DELETE", f"{url}/mcp", None, client.headers())
        self.assertEqual(ended.status, 204)
        token = {"client_id": client.client_id, "token": client.refresh_token}
        revoked = script.request(
            "POST", f"{url}/oauth/revoke", urlencode(token).encode(), FORM
        )
        self.assertEqual(revoked.status, 200)
        client.session_id = None
        after = client.request("tools/list")
        self.assertEqual(after.status, 401)
        self.assertIn("invalid_token", after.headers["WWW-Authenticate"])
        self.assertGreater(script.preflights, 5)
        self.assertEqual(list(script), [])

    async def test_page_of_anybody(self) -> None:
        """It may discover and hold a token, but reaches neither calls nor pages."""
        daemon, _ = await self.launch(FJMCP_BROKER_SERVER_ALLOWED_ORIGINS=PAGE)
        await deferToThread(self.peek, daemon.url)

    def peek(self, url: str) -> None:
        """What another page can do."""
        script = Script("https://evil.example")
        client = McpClient(url, browser=script)
        client.register()
        form = urlencode({"grant_type": "authorization_code"}).encode()
        for path in ("token", "revoke"):
            answer = script.request("POST", f"{url}/oauth/{path}", form, FORM)
            self.assertEqual(answer.status, 400)
        for method, path, headers in (
            ("POST", "/mcp", JSON),
            ("GET", "/mcp", {}),
            ("POST", "/oauth/consent", FORM),
            ("GET", "/oauth/callback", {}),
            ("GET", "/oauth/authorize", {}),
            ("GET", "/", {}),
        ):
            with self.assertRaises(Blocked):
                script.request(method, url + path, None, headers)
