"""The system clock is set by hours while clients work; nobody is logged out."""

from __future__ import annotations

from pathlib import Path

from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThread

from tests.real.client import McpClient
from tests.real.daemon import Daemon, pause
from tests.real.jumping_clock import runner, set_clock
from tests.real.test_sessions import SessionCase, text_of

HOURS = 5 * 3600.0


class ClockJumpTests(SessionCase):
    """A daemon on a machine with a wrong clock."""

    takes_long = True

    async def start(self) -> None:
        """The daemon, once more."""
        self.wrong = Path(self.directory, "clock")
        if not self.wrong.exists():
            set_clock(self.wrong, 0)
        self.daemon = Daemon.launch(
            self.environment, port=self.port, runner=runner(self.wrong)
        )
        self.addCleanup(self.daemon.stop)
        await self.daemon.until_ready()

    async def works(self, client: McpClient) -> None:
        """A call, after a refresh if the client is asked for one."""
        if (await self.send(client, "who_am_i")).status == 401:
            await deferToThread(client.refresh)
        await self.check(client)

    async def test_set_back(self) -> None:
        """Timers run on, and a token that Forgejo has ended is not used."""
        await self.begin(FJMCP_BROKER_SESSION_IDLE_TIMEOUT="2s")
        # Less than the broker lets a token have left: each call renews it.
        self.forgejo.stand_in.controls.set_lifetimes(access_seconds=14)
        client = await self.signed_in()
        set_clock(self.wrong, -HOURS)
        await self.check(client)
        slow = await self.call(client, "slow", seconds=1)
        self.assertEqual(text_of(slow), "done")
        await self.until(lambda: not self.children(), "timers stand still")
        await pause(12)
        await self.check(client)
        # A start at the earlier time: the stored tokens are from the future.
        await self.daemon.stop()
        await self.start()
        await self.check(client)
        await deferToThread(client.refresh)
        await self.check(client)

    async def test_set_forward_during_a_call(self) -> None:
        """The call ends well, and the next one too."""
        await self.begin()
        client = await self.signed_in()
        slow = Deferred.fromCoroutine(self.call(client, "slow", seconds=4))
        await self.until_called(client)
        set_clock(self.wrong, HOURS)
        # Whatever the daemon does now is done at the new time.
        await self.works(client)
        self.assertEqual(text_of(await slow), "done")
        self.assertEqual(self.daemon.text.count("session_gone"), 0)
        # And put right again.
        set_clock(self.wrong, 0)
        await self.works(client)
        await self.crash()
        await self.works(client)
        await self.daemon.stop()
        await self.start()
        await self.works(client)
