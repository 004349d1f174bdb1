"""Who and what a daemon lets in: users of a list, clients of the configuration."""

from __future__ import annotations

import json
import secrets
from html import unescape
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from twisted.internet.threads import deferToThread

from tests.real.broker_case import BrokerCase
from tests.real.client import FORM, REDIRECT_URI, McpClient, message_of
from tests.real.daemon import Daemon, free_port


class AllowListTests(BrokerCase):
    """C{access.allowed_organizations}"""

    async def test_refused_suspended_and_revived(self) -> None:
        """
        Somebody who is not in the club gets a page; a member works until Forgejo's
        token has to be refreshed after they left, and again when they are back.
        """
        daemon, forgejo = await self.launch(
            FJMCP_BROKER_ACCESS_ALLOWED_ORGANIZATIONS="club"
        )
        controls = forgejo.stand_in.controls
        stranger = McpClient(daemon.url)
        try:
            await deferToThread(stranger.sign_in, "bob", forgejo.password("bob"))
            self.fail("bob was let in")
        except AssertionError as refused:
            page = str(refused)
        self.assertTrue(page.startswith("403 at "), page)
        back = unescape(page.partition('href="')[2].partition('"')[0])
        query = parse_qs(urlsplit(back).query)
        self.assertTrue(back.startswith(REDIRECT_URI), back)
        self.assertEqual(query["error"], ["access_denied"])
        self.assertEqual(query["iss"], [daemon.url])
        self.assertNotIn("code", query)

        controls.set_groups("alice", "club", "club:board")
        # So that each start of a child needs a refresh.
        controls.set_lifetimes(access_seconds=60)
        client = await self.session(daemon, forgejo)
        who = await deferToThread(client.call, "who_am_i")
        self.assertIn("alice", json.dumps(who))

        controls.set_groups("alice", "other")
        again = McpClient(daemon.url)
        again.client_id, again.access_token = client.client_id, client.access_token
        answer = await deferToThread(again.initialize)
        self.assertEqual(answer.status, 401, answer.text)
        self.assertIn("invalid_token", answer.headers["WWW-Authenticate"])
        # Nothing is deleted: the token is known, and refused for now.
        form = (
            f"grant_type=refresh_token&client_id={client.client_id}"
            f"&refresh_token={client.refresh_token}"
        )
        refused_refresh = await deferToThread(
            client.browser.request,
            "POST",
            f"{daemon.url}/oauth/token",
            form.encode(),
            FORM,
        )
        self.assertEqual(refused_refresh.status, 400)
        self.assertIn("invalid_grant", refused_refresh.text)

        controls.set_groups("alice", "club")
        await self.session(daemon, forgejo)
        who = message_of(
            await deferToThread(
                client.request, "tools/call", name="who_am_i", arguments={}
            )
        )
        self.assertIn("alice", json.dumps(who))
        self.assertEqual((await deferToThread(client.refresh))["token_type"], "Bearer")


class WithSecret(McpClient):
    """A confidential client."""

    secret = ""

    def token(self, **parameters: str) -> dict[str, Any]:
        """As every client, with the secret."""
        return super().token(client_secret=self.secret, **parameters)


class StaticClientTests(BrokerCase):
    """C{[[clients.static]]}"""

    async def test_configured_clients(self) -> None:
        """A public and a confidential one sign in; without their table they cannot."""
        port = free_port()
        settings, forgejo = await self.settings(port)
        secret = secrets.token_urlsafe(24)
        path = Path(self.directory)
        (path / "secret").write_text(f"{secret}\n")
        config = path / "broker.toml"
        config.write_text(
            "[[clients.static]]\n"
            'client_id = "our-tool"\n'
            'client_name = "Our own tool"\n'
            f'redirect_uris = ["{REDIRECT_URI}"]\n'
            "[[clients.static]]\n"
            'client_id = "our-server"\n'
            f'redirect_uris = ["{REDIRECT_URI}"]\n'
            'token_endpoint_auth_method = "client_secret_post"\n'
            f'client_secret_file = "{path}/secret"\n'
        )
        runner = ("twistd", "-n", "--pidfile=", "fjmcp", "--config", str(config))
        daemon = Daemon.launch(settings, port=port, runner=runner)
        self.addCleanup(lambda: daemon.stop())
        await daemon.until_ready()

        tool = McpClient(daemon.url)
        tool.client_id = "our-tool"
        await deferToThread(tool.sign_in, "alice", forgejo.password("alice"))
        answer = await deferToThread(tool.initialize)
        self.assertEqual(answer.status, 200, answer.text)

        server = McpClient(daemon.url)
        server.client_id = "our-server"
        with self.assertRaises(AssertionError) as refused:
            await deferToThread(server.sign_in, "alice", forgejo.password("alice"))
        self.assertIn("invalid_client", str(refused.exception))
        server = WithSecret(daemon.url)
        server.client_id, server.secret = "our-server", secret
        await deferToThread(server.sign_in, "alice", forgejo.password("alice"))
        answer = await deferToThread(server.initialize)
        self.assertEqual(answer.status, 200, answer.text)

        await daemon.stop()
        config.write_text("")
        daemon = Daemon.launch(settings, port=port, runner=runner)
        await daemon.until_ready()
        answer = await deferToThread(tool.request, "ping")
        self.assertEqual(answer.status, 401)
        page = await deferToThread(
            tool.browser.request,
            "GET",
            f"{daemon.url}/oauth/authorize?client_id=our-tool",
        )
        self.assertEqual(page.status, 400)
        self.assertIn("not registered", page.text)
        self.assertNotIn(secret.encode(), daemon.output + daemon.errors)


class DocumentSwitchTests(BrokerCase):
    """C{clients.metadata_documents}"""

    async def metadata(self, daemon: Daemon) -> dict[str, object]:
        """
        @return: the authorization server metadata.
        """
        answer = await daemon.fetch("GET", "/.well-known/oauth-authorization-server")
        document: dict[str, object] = json.loads(answer.text)
        return document

    async def test_advertised_and_guarded(self) -> None:
        """On by default; what is not public is refused by the real daemon too."""
        daemon, _ = await self.launch()
        metadata = await self.metadata(daemon)
        self.assertIs(metadata["client_id_metadata_document_supported"], True)
        for client_id in ("https://127.0.0.1/x", "https://nothing.invalid/x"):
            answer = await daemon.fetch(
                "GET", f"/oauth/authorize?client_id={client_id}"
            )
            self.assertEqual(answer.status, 400, answer.text)
            self.assertIn("public", answer.text)

    async def test_switched_off(self) -> None:
        """Neither advertised nor fetched."""
        daemon, _ = await self.launch(FJMCP_BROKER_CLIENTS_METADATA_DOCUMENTS="false")
        metadata = await self.metadata(daemon)
        self.assertNotIn("client_id_metadata_document_supported", metadata)
        answer = await daemon.fetch(
            "GET", "/oauth/authorize?client_id=https://nothing.invalid/x"
        )
        self.assertEqual(answer.status, 400)
        self.assertIn("not registered", answer.text)
