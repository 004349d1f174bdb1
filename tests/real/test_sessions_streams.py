"""What a client's streams see of restarts, with the real daemon."""

from __future__ import annotations

import signal
import time
from urllib.parse import urlencode

from twisted.internet.threads import deferToThread

from tests.real.browser import Page
from tests.real.client import FORM, LATEST_LEGACY, McpClient
from tests.real.relay import Answer, call
from tests.real.test_relay_get import whole_events
from tests.real.test_sessions import SessionCase


class StreamRestartTests(SessionCase):
    """Streams of a daemon that is replaced."""

    async def test_listener(self) -> None:
        """
        It holds no daemon up, ends as a stream does, and goes on with the next daemon,
        where a call from before says that it is gone.
        """
        await self.begin()
        client = await self.signed_in()
        listening = await self.ask(client, "GET")
        self.assertEqual(listening.status, 200)
        running = await self.ask(client, "POST", call(7, "slow", {"seconds": 0.1}))
        await running.until(lambda: b"result" in running.raw)
        before = time.monotonic()
        await self.daemon.stop()
        self.assertLess(time.monotonic() - before, 4)
        self.assertEqual(self.daemon.exit_code, 0, self.daemon.text)
        await listening.until(lambda: False)
        self.assertTrue(listening.raw.endswith(b"0\r\n\r\n"))
        await self.start()
        last, _ = whole_events(listening.body)[-1]
        again = await self.ask(client, "GET", Last_Event_ID=last)
        self.assertEqual(again.status, 200)
        changed = "notifications/tools/list_changed"
        await self.call(client, "notify", method=changed)
        await again.until(lambda: b"list_changed" in again.raw)
        gone, _ = whole_events(running.body)[0]
        refused = await self.ask(client, "GET", Last_Event_ID=gone)
        self.assertEqual(refused.status, 410)

    async def test_listener_of_a_killed_daemon(self) -> None:
        """The connection breaks; the same session listens again."""
        await self.begin()
        client = await self.signed_in()
        listening = await self.ask(client, "GET")
        self.daemon.signal_with(signal.SIGKILL)
        await listening.until(lambda: False)
        await self.daemon.wait()
        await self.start()
        last, _ = whole_events(listening.body)[-1]
        again = await self.ask(client, "GET", Last_Event_ID=last)
        self.assertEqual(again.status, 200)
        await self.check(client)


class RightsTests(SessionCase):
    """Streams, and what becomes of the rights that they were opened with."""

    async def listening(self, client: McpClient) -> Answer:
        """Open a GET stream."""
        answer = await self.ask(client, "GET")
        self.assertEqual(answer.status, 200)
        return answer

    async def revoke(self, client: McpClient, token: str) -> None:
        """The client gives a token back."""
        form = urlencode({"token": token, "client_id": client.client_id}).encode()
        url = f"{client.url}/oauth/revoke"
        answer = await deferToThread(client.browser.request, "POST", url, form, FORM)
        self.assertEqual(answer.status, 200, answer.text)

    async def test_stepping_up(self) -> None:
        """
        The stream ends when the session moves to the grant that may write. The next
        one says that there are more tools, and outlives the end of the old grant.
        """
        await self.begin()
        client = await self.session(
            self.daemon, self.forgejo, "alice", decision="read-only"
        )
        old, refresh_token = await self.listening(client), client.refresh_token
        password = self.forgejo.password("alice")
        await deferToThread(client.sign_in, "alice", password)
        again = await self.listening(client)
        await old.until(lambda: old.raw.endswith(b"0\r\n\r\n"))
        await again.until(lambda: b"list_changed" in again.raw)
        self.assertNotIn(b"list_changed", old.raw)
        await self.revoke(client, refresh_token)
        await self.call(client, "notify", method="notifications/prompts/list_changed")
        await again.until(lambda: b"prompts/list_changed" in again.raw)

    async def test_revoked(self) -> None:
        """A token that its client gives back ends its stream alone; a grant, all."""
        await self.begin()
        client = await self.signed_in()
        first, token = await self.listening(client), client.access_token
        await deferToThread(client.refresh)
        second = await self.listening(client)
        await self.revoke(client, token)
        await first.until(lambda: first.raw.endswith(b"0\r\n\r\n"))
        await self.call(client, "notify", method="notifications/prompts/list_changed")
        await second.until(lambda: b"prompts/list_changed" in second.raw)
        await self.revoke(client, client.refresh_token)
        await second.until(lambda: second.raw.endswith(b"0\r\n\r\n"))

    async def test_revoked_while_a_session_is_opened(self) -> None:
        """The answer says what is needed: a connection that breaks says nothing. The
        end of one token of several is not the end of the session."""
        await self.begin()
        client = await self.signed_in()
        password = self.forgejo.password("alice")
        for kind, status in (("refresh_token", 401), ("access_token", 200)):
            await deferToThread(client.sign_in, "alice", password)
            fault = self.forgejo.stand_in.controls.hold_answer("/api/v1/version")
            client.session_id = None
            opening = deferToThread(
                client.request,
                "initialize",
                protocolVersion=LATEST_LEGACY,
                capabilities={},
                clientInfo={"name": "test", "version": "1"},
            )
            # The child asks before it reads.
            await self.until(lambda fault=fault: fault.waiting, "no child")
            await self.revoke(client, getattr(client, kind))
            if status == 200:
                fault.end()
            answer: Page = await opening
            fault.end()
            self.assertEqual(answer.status, status, answer.text)
            if status == 401:
                self.assertIn("invalid_token", answer.headers["WWW-Authenticate"])
