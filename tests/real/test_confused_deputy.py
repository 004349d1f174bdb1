"""
The confused deputy: Forgejo knows the broker and answers without asking, and an
attacker has a client of their own.
"""

from __future__ import annotations

import json
import re
from urllib.parse import urlencode

from twisted.internet.threads import deferToThread

from fjmcp_broker.oauth.tokens import code_challenge
from tests.real.broker_case import BrokerCase
from tests.real.browser import Browser, Page
from tests.real.client import McpClient
from tests.real.daemon import Daemon
from tests.real.forgejo import RunningForgejo

EVIL = "https://evil.example.org/back"


class ConfusedDeputyTests(BrokerCase):
    """
    MCP 2026-07-28, security best practices, confused deputy: the victim has allowed an
    honest client, so Forgejo's own consent is skipped from then on.
    """

    async def victim(self) -> tuple[Daemon, RunningForgejo, McpClient]:
        """
        @return: whose browser is signed in at Forgejo, with a grant there.
        """
        daemon, forgejo = await self.launch()
        honest = McpClient(daemon.url)
        await deferToThread(honest.sign_in, "alice", forgejo.password("alice"))
        self.assertTrue(forgejo.stand_in.controls.grant("alice"))
        forgejo.stand_in.controls.forget_requests()
        return daemon, forgejo, honest

    def attack_url(self, attacker: McpClient) -> str:
        """
        @return: a link that begins a sign-in for the attacker's client.
        """
        query = {
            "response_type": "code",
            "client_id": attacker.client_id,
            "redirect_uri": EVIL,
            "state": "evil",
            "code_challenge": code_challenge("v" * 43),
            "code_challenge_method": "S256",
        }
        return f"{attacker.url}/oauth/authorize?{urlencode(query)}"

    def assert_nothing_granted(self, daemon: Daemon, attacker: McpClient) -> None:
        """
        The log has no sign-in for the attacker's client.
        """
        self.assertNotIn(f"signed in for {attacker.client_id}", daemon.text)

    async def test_victim_follows_a_link(self) -> None:
        """
        They see who asks, as everybody does; neither Forgejo nor the attacker hears of
        them, however often they follow it.
        """
        daemon, forgejo, honest = await self.victim()
        attacker = McpClient(daemon.url, redirect_uri=EVIL)
        await deferToThread(attacker.register)
        for _ in range(3):
            page: Page = await deferToThread(
                honest.browser.visit, self.attack_url(attacker), stop_at=EVIL
            )
            self.assertEqual(page.status, 200, page.url)
            self.assertTrue(page.url.startswith(daemon.url), page.url)
            said = re.sub("<[^>]*>", "", page.text)
            self.assertIn("evil.example.org", said)
            self.assertIn("Not verified", said)
        self.assertEqual(forgejo.stand_in.controls.requests, [])
        self.assert_nothing_granted(daemon, attacker)

    async def test_victim_gets_the_state_of_the_attacker(self) -> None:
        """
        The attacker agrees on the consent page, and sends the victim where that leads.
        Forgejo asks nothing and gives the victim's code; the way ends there.
        """
        daemon, forgejo, honest = await self.victim()
        attacker = McpClient(daemon.url, redirect_uri=EVIL)
        await deferToThread(attacker.register)
        own: Browser = attacker.browser

        def approve() -> str:
            page = own.visit(self.attack_url(attacker))
            left = own.submit(page, button="full", stop_at=forgejo.stand_in.base_url)
            return left.url

        at_forgejo = await deferToThread(approve)
        self.assertIn("/login/oauth/authorize", at_forgejo)
        back: Page = await deferToThread(
            honest.browser.visit, at_forgejo, stop_at=f"{daemon.url}/oauth/callback"
        )
        # It is as bad as it can be: a code, and nobody was asked.
        self.assertIn("code=", back.url)
        page: Page = await deferToThread(honest.browser.request, "GET", back.url)
        self.assertEqual(page.status, 400, page.text)
        self.assertIsNone(page.headers["Location"])
        self.assertIn("another browser", page.text)
        self.assert_nothing_granted(daemon, attacker)
        exchanged = [
            request.path
            for request in forgejo.stand_in.controls.requests
            if request.path.endswith("/access_token")
        ]
        self.assertEqual(exchanged, [])
        # The honest client goes on.
        answer = await deferToThread(honest.initialize)
        self.assertEqual(answer.status, 200, answer.text)
        self.assertIn("alice", json.dumps(await deferToThread(honest.call, "who_am_i")))
