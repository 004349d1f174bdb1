"""What happens to the broker, its children and Forgejo while clients call."""

from __future__ import annotations

import json
import random
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Sequence
from typing import Final

from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread

from tests import SEED
from tests.real.client import McpClient
from tests.real.daemon import CLOCK, pause
from tests.slow.chaos import RECOVERY_SECONDS, Run
from tests.slow.chaos_steps import AIMED, NOTICE_SECONDS, Aim
from tests.slow.chaos_world import IDLE_SECONDS, LOGINS, World, send

SHORT_LIFETIME_SECONDS: Final = 30
SPARED_SECONDS: Final = 12.0
"""A session whose children end quickly, again and again, has to wait for the next."""

TERM, KILL, TERM_STUCK, KILL_STUCK, CHILD_KILL, CHILD_BORN, CHILD_STOP, CHILD_STUCK = (
    "SIGTERM and start again",
    "SIGKILL and start again",
    "SIGTERM with stopped children",
    "SIGKILL with stopped children",
    "child killed",
    "child killed, and the next one at its start",
    "child stopped for a while",
    "child stopped and killed",
)
ROTATE, SLOW, SLOW_SIGN_IN, SIGN_IN, BAD_GATEWAY, HANG, LOST, REAP = (
    "short upstream tokens",
    "slow refreshes of short tokens",
    "second sign-in during slow refreshes",
    "second sign-in",
    "Forgejo answers 502",
    "Forgejo hangs",
    "refresh answer lost",
    "idle children reaped",
)
EVENTS: Final = (
    *(TERM, KILL, CHILD_KILL, CHILD_BORN, CHILD_STOP, CHILD_STUCK),
    *(ROTATE, SLOW_SIGN_IN, SIGN_IN, BAD_GATEWAY, HANG, LOST, REAP),
)
STEPS: Final = (*AIMED, TERM_STUCK, KILL_STUCK)
MILD: Final = (ROTATE, SIGN_IN)
STUCK_CHILDREN: Final = 3


class ChaosCase(World):
    """A world where things happen."""

    timeout = 7200

    async def go_through(
        self,
        seconds: float | None,
        sessions: int,
        events: Sequence[str],
        fault: str | None = None,
        *,
        quiet_seconds: float = 1.5,
    ) -> Run:
        """
        Let clients call while things happen.

        @param seconds: for how long; C{None} until everything has happened once.
        @param sessions: how many clients.
        @param events: in a seeded order, again and again.
        @param fault: of the broker, if any.
        @param quiet_seconds: between two of them.
        @return: what the clients saw.
        """
        self.draw = random.Random(SEED)  # noqa: S311 - not a secret
        self.happened: Counter[str] = Counter()
        self.lost_answers = self.sign_ins = 0
        clients = await self.prepare(sessions, fault)
        self.aim = Aim(self, self.draw)
        threads = [threading.Thread(target=each.work) for each in clients]
        self.began = time.monotonic()
        for thread in threads:
            thread.start()
        try:
            await self.happen(seconds, events, quiet_seconds)
        finally:
            self.run_.over.set()
            while any(thread.is_alive() for thread in threads):
                await pause(0.05)
        return self.run_

    async def happen(
        self, seconds: float | None, events: Sequence[str], quiet_seconds: float
    ) -> None:
        """
        Let one thing after the other happen.
        """
        sys.stderr.write(f"seed {SEED}\n")
        upcoming: list[str] = []
        aimed: list[Deferred[None]] = []
        self.hurt_at = 0.0
        while seconds is None or time.monotonic() - self.began < seconds:
            await pause(quiet_seconds)
            self.sample(time.monotonic() - self.began)
            if self.run_.problems and self.fault is not None:
                return
            if not upcoming:
                if seconds is None and self.happened:
                    return
                upcoming = list(events)
                self.draw.shuffle(upcoming)
                # Aimed ones first, side by side, and no restart between them.
                upcoming.sort(key=lambda event: event in AIMED)
            if upcoming:
                event = upcoming.pop()
                at = time.monotonic() - self.began
                sys.stderr.write(f"  {at:6.1f} s {event}\n")
                if event in AIMED:
                    aimed.append(Deferred.fromCoroutine(self.one(event)))
                else:
                    await gatherResults(aimed)
                    await self.one(event)

    async def one(self, event: str) -> None:
        """
        Let something happen and wait until it is over.
        """
        controls, run = self.forgejo.stand_in.controls, self.run_
        if event in (TERM, KILL, TERM_STUCK, KILL_STUCK):
            window = run.begin(event)
            if event in (TERM_STUCK, KILL_STUCK):
                for pid in self.draw.sample(self.children(), STUCK_CHILDREN):
                    send(pid, signal.SIGSTOP)
            killed = event in (KILL, KILL_STUCK)
            await self.end(signal.SIGKILL if killed else signal.SIGTERM)
            # Refreshes were in flight: only after a kill may that be. Some of them
            # Forgejo reads when the daemon is gone, and before the next one is there.
            lost = set(filter(self.tokens_lost, LOGINS))
            await self.start()
            lost.update(filter(self.tokens_lost, LOGINS))
            self.lost_answers += killed and len(lost)
            run.end(window)
        elif event in AIMED:
            await self.aim.hurt(event)
        elif event in (CHILD_KILL, CHILD_BORN, CHILD_STOP, CHILD_STUCK):
            event = await self.hurt_child(event)
        elif event in (ROTATE, SLOW, SLOW_SIGN_IN):
            controls.set_lifetimes(access_seconds=SHORT_LIFETIME_SECONDS)
            if event != ROTATE:
                controls.delay(1.0, "token:refresh_token")
            if event == SLOW_SIGN_IN:
                login = self.draw.choice(LOGINS)
                await gatherResults(
                    [
                        deferToThread(self.second_sign_in, login),
                        deferLater(CLOCK, 6, lambda: None),
                    ]
                )
            else:
                await pause(6)
            controls.end_faults()
            controls.set_lifetimes(access_seconds=self.lifetime_seconds)
        elif event == SIGN_IN:
            await deferToThread(self.second_sign_in, self.draw.choice(LOGINS))
        elif event == BAD_GATEWAY:
            window = run.begin(event)
            controls.bad_gateway()
            await pause(3)
            controls.end_faults()
            run.end(window, RECOVERY_SECONDS)
            await pause(RECOVERY_SECONDS)
        elif event == HANG:
            controls.hold_request()
            await pause(2)
            controls.end_faults()
        elif event == LOST:
            await self.lose_an_answer()
        elif event == REAP:
            await self.reap()
        self.happened[event] += 1

    async def hurt_child(self, event: str) -> str:
        """
        Stop a child, kill it, or both.

        @return: what was done: a session whose children were hurt a moment ago is
            not to be hit again, and nobody knows here whose is which.
        """
        now, pids = time.monotonic(), self.children()
        if now - self.hurt_at < SPARED_SECONDS or not pids:
            event = CHILD_STOP
        busy = [pid for pid in self.busy() if pid in pids]
        child = busy[-1] if busy else self.draw.choice(pids)
        if event in (CHILD_STOP, CHILD_STUCK):
            send(child, signal.SIGSTOP)
            await pause(1.5)
        if event == CHILD_STOP:
            send(child, signal.SIGCONT)
            return event
        self.hurt_at = now
        before = len(self.killed())
        window = self.run_.begin(event, sessions=2 if event == CHILD_BORN else 1)
        send(child, signal.SIGKILL)
        if event == CHILD_BORN:
            born: list[int] = []
            while not born and time.monotonic() < now + RECOVERY_SECONDS:
                await pause(0.005)
                born = [pid for pid in self.children() if pid not in pids]
            for pid in born[:1]:
                send(pid, signal.SIGKILL)
            self.run_.end(window, RECOVERY_SECONDS)
        else:
            self.run_.end(window, NOTICE_SECONDS)
            await pause(NOTICE_SECONDS)
            if seen := self.killed()[before:]:
                self.run_.pin(window, set(seen))
        return event

    def second_sign_in(self, login: str) -> None:
        """
        Another client of the same user comes, calls and goes.
        """
        self.sign_ins += 1
        client = McpClient(self.daemon.url)
        client.sign_in(login, self.forgejo.password(login))
        client.initialize()
        said = json.dumps(client.call("get_my_user_info"))
        if login not in said:
            self.run_.problem(f"a second client of {login} got {said}")
        if client.send(b"", "DELETE").status != 204:
            self.run_.problem(f"a second session of {login} did not end")

    async def lose_an_answer(self) -> None:
        """
        Forgejo's answer to a refresh does not arrive, until somebody signed in again.
        """
        controls, run = self.forgejo.stand_in.controls, self.run_
        before = run.counts["signed in again"]
        fault = controls.drop_answer("token:refresh_token")
        ends = time.monotonic() + 30
        while not fault.hits and time.monotonic() < ends:
            await pause(0.05)
        self.lost_answers += fault.hits
        while run.counts["signed in again"] == before and time.monotonic() < ends:
            await pause(0.05)
        fault.end()

    async def reap(self) -> None:
        """
        Half of the sessions rest until their children are gone.
        """
        names = {key.rsplit(".", 1)[0] for key in list(self.run_.keys)}
        before = len(self.children())
        self.run_.resting = set(sorted(names)[::2])
        await pause(IDLE_SECONDS + 3)
        self.run_.counts["reaped"] += max(0, before - len(self.children()))
        self.run_.resting = set()
