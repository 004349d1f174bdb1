"""What a client's streams see of restarts, with the real daemon."""

from __future__ import annotations

import signal
import time

from tests.real.relay import call
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
