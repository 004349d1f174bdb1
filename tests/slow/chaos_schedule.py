"""What happens to the broker, its children and Forgejo while clients call."""

from __future__ import annotations

import json
import os
import random
import signal
import sqlite3
import sys
import threading
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import closing, suppress
from pathlib import Path
from typing import Final

import attrs
from twisted.internet.threads import deferToThread

from tests import SEED
from tests.real import real_forgejo_mcp
from tests.real.broken_broker import runner
from tests.real.broker_case import BrokerCase
from tests.real.client import McpClient
from tests.real.daemon import Daemon, free_port, pause, processes
from tests.slow.chaos import RECOVERY_SECONDS, ChaosClient, Run

LOGINS: Final = ("alice", "bob", "carol", "dave", "erin")
IDLE_SECONDS: Final = 3
UPSTREAM_LIFETIME_SECONDS: Final = 45
"""A child is replaced when its token lives for 25 seconds more, at a call."""

SHORT_LIFETIME_SECONDS: Final = 30
NOTICE_SECONDS: Final = 0.5
"""How long the end of a child may go unnoticed."""

SPARED_SECONDS: Final = 12.0
"""A session whose children end quickly, again and again, has to wait for the next."""

TERM, KILL, CHILD_KILL, CHILD_BORN, CHILD_STOP, CHILD_STUCK = (
    "SIGTERM and start again",
    "SIGKILL and start again",
    "child killed",
    "child killed, and the next one at its start",
    "child stopped for a while",
    "child stopped and killed",
)
ROTATE, SLOW, SIGN_IN, BAD_GATEWAY, HANG, LOST, REAP = (
    "short upstream tokens",
    "slow refreshes of short tokens",
    "second sign-in",
    "Forgejo answers 502",
    "Forgejo hangs",
    "refresh answer lost",
    "idle children reaped",
)
EVENTS: Final = (
    *(TERM, KILL, CHILD_KILL, CHILD_BORN, CHILD_STOP, CHILD_STUCK),
    *(ROTATE, SLOW, SIGN_IN, BAD_GATEWAY, HANG, LOST, REAP),
)
MILD: Final = (ROTATE, SIGN_IN)
REAL_CHILD: Final = "FJMCP_CHAOS_REAL_CHILD"
"""Names the variable that asks for the real forgejo-mcp of a version, everywhere."""


@attrs.define
class Sample:
    """The daemon's memory and descriptors at some time of the run."""

    seconds: float
    resident_kib: int
    descriptors: int


class ChaosCase(BrokerCase):
    """A daemon, a Forgejo with five users, and clients in threads."""

    timeout = 7200
    lifetime_seconds = UPSTREAM_LIFETIME_SECONDS
    real = ""
    """Version of the real forgejo-mcp, empty for the stand-in child."""

    async def go_through(
        self,
        seconds: float,
        sessions: int,
        events: Sequence[str],
        fault: str | None = None,
        *,
        quiet_seconds: float = 1.5,
    ) -> Run:
        """
        Let clients call while things happen.

        @param seconds: for how long.
        @param sessions: how many clients.
        @param events: in a seeded order, again and again.
        @param fault: of the broker, if any.
        @param quiet_seconds: between two of them.
        @return: what the clients saw.
        """
        self.draw = random.Random(SEED)  # noqa: S311 - not a secret
        self.happened: Counter[str] = Counter()
        self.texts: list[str] = []
        self.kills = 0
        self.samples: list[Sample] = []
        self.port = free_port()
        self.fault = fault
        self.environment, self.forgejo = await self.settings(self.port)
        self.real = os.environ.get(REAL_CHILD, self.real)
        if self.real:
            binary = real_forgejo_mcp.require(self.real)
            del self.environment["FJMCP_BROKER_CHILD_COMMAND"]
            self.environment["FORGEJO_MCP_BINARY"] = str(binary)
        self.environment["FJMCP_BROKER_SESSION_IDLE_TIMEOUT"] = f"{IDLE_SECONDS}s"
        self.ledger = Path(self.directory) / "ledger"
        self.file = Path(self.directory) / "broker.toml"
        self.file.write_text(
            f"[child.env]\nSTANDIN_CHILD_LEDGER = {json.dumps(str(self.ledger))}\n"
        )
        self.people()
        await self.start()
        self.first_descriptors = self.descriptors()
        self.run_ = Run(self.tokens_lost, has_ledger=not self.real)
        clients = await deferToThread(self.clients, sessions)
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

    def people(self) -> None:
        """
        Users with a repository each.
        """
        stand_in = self.forgejo.stand_in
        for login in LOGINS:
            if login not in ("alice", "bob"):
                stand_in.controls.add_user(login)
            owner = stand_in.controls.user(login)
            stand_in.world.add_repository(
                owner, "chaos", int(time.time()), private=True
            )
        stand_in.controls.set_lifetimes(access_seconds=self.lifetime_seconds)

    def clients(self, count: int) -> list[ChaosClient]:
        """
        @return: clients with sessions, each user's with two sign-ins.
        """
        signed_in: dict[tuple[str, int], McpClient] = {}
        made = []
        for number in range(count):
            login = LOGINS[number % len(LOGINS)]
            place = (login, number // len(LOGINS) % 2)
            if place not in signed_in:
                client = McpClient(self.daemon.url)
                client.sign_in(login, self.forgejo.password(login))
                signed_in[place] = client
            made.append(
                ChaosClient(
                    self.daemon.url,
                    client_id=signed_in[place].client_id,
                    access_token=signed_in[place].access_token,
                    run=self.run_,
                    login=login,
                    password=self.forgejo.password(login),
                    name=f"{login}-{number}",
                    draw=random.Random(f"{SEED} {number}"),  # noqa: S311
                )
            )
            made[-1].open()
        for each in made:
            each.strangers = [
                other.session_id or "" for other in made if other.login != each.login
            ]
        return made

    async def start(self) -> None:
        """
        A daemon, once more.
        """
        self.daemon = Daemon.launch(
            self.environment,
            port=self.port,
            runner=(*runner(self.fault), "--config", str(self.file)),
        )
        self.addCleanup(self.daemon.stop)
        await self.daemon.until_ready()

    # What is known from outside

    def children(self) -> list[int]:
        """
        @return: the children that run.
        """
        found = processes(self.forgejo.stand_in.base_url)
        return sorted(pid for pid in found if pid != self.daemon.pid)

    def busy(self) -> list[int]:
        """
        @return: children that have taken a slow call lately, the latest at the end.
        """
        if self.real or not self.ledger.exists():
            return []
        with self.ledger.open("rb") as file:
            file.seek(max(0, self.ledger.stat().st_size - 4096))
            lines = file.read().splitlines()[1:]
        entries = [json.loads(line) for line in lines]
        return [entry["pid"] for entry in entries if entry["name"] == "slow"]

    def descriptors(self) -> int:
        """
        @return: how many the daemon has.
        """
        return len(os.listdir(f"/proc/{self.daemon.pid}/fd"))

    def sample(self) -> None:
        """
        Look at the daemon.
        """
        status = Path(f"/proc/{self.daemon.pid}/status").read_text()
        (line,) = (each for each in status.splitlines() if each.startswith("VmRSS"))
        self.samples.append(
            Sample(
                time.monotonic() - self.began, int(line.split()[1]), self.descriptors()
            )
        )

    def tokens_lost(self, login: str) -> bool:
        """
        @return: whether Forgejo has issued tokens that the store has not.
        """
        with closing(sqlite3.connect(f"{self.directory}/broker.db")) as store:
            (stored,) = store.execute(
                "SELECT counter FROM upstream_tokens JOIN users USING (user_id)"
                " WHERE login = ?",
                (login,),
            ).fetchone()
        return bool(stored < self.forgejo.stand_in.controls.grant(login).counter)

    # What happens

    async def happen(
        self, seconds: float, events: Sequence[str], quiet_seconds: float
    ) -> None:
        """
        Let one thing after the other happen until the time is over.
        """
        sys.stderr.write(f"seed {SEED}\n")
        upcoming: list[str] = []
        self.hurt_at = 0.0
        while time.monotonic() - self.began < seconds:
            await pause(quiet_seconds)
            self.sample()
            if self.run_.problems and self.fault is not None:
                return
            if not upcoming:
                upcoming = list(events)
                self.draw.shuffle(upcoming)
            if upcoming:
                event = upcoming.pop()
                at = time.monotonic() - self.began
                sys.stderr.write(f"  {at:6.1f} s {event}\n")
                await self.one(event)

    async def one(self, event: str) -> None:
        """
        Let something happen and wait until it is over.
        """
        controls, run = self.forgejo.stand_in.controls, self.run_
        if event in (TERM, KILL):
            window = run.begin(event)
            number = signal.SIGTERM if event == TERM else signal.SIGKILL
            self.kills += event == KILL
            self.daemon.signal_with(number)
            await self.daemon.wait()
            self.texts.append(self.daemon.text)
            await self.start()
            run.end(window)
        elif event in (CHILD_KILL, CHILD_BORN, CHILD_STOP, CHILD_STUCK):
            event = await self.hurt_child(event)
        elif event in (ROTATE, SLOW):
            controls.set_lifetimes(access_seconds=SHORT_LIFETIME_SECONDS)
            if event == SLOW:
                controls.delay(1.0, "token:refresh_token")
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
            _send(child, signal.SIGSTOP)
            await pause(1.5)
        if event == CHILD_STOP:
            _send(child, signal.SIGCONT)
            return event
        self.hurt_at = now
        window = self.run_.begin(event, sessions=2 if event == CHILD_BORN else 1)
        _send(child, signal.SIGKILL)
        if event == CHILD_BORN:
            born: list[int] = []
            while not born and time.monotonic() < now + RECOVERY_SECONDS:
                await pause(0.005)
                born = [pid for pid in self.children() if pid not in pids]
            for pid in born[:1]:
                _send(pid, signal.SIGKILL)
            self.run_.end(window, RECOVERY_SECONDS)
        else:
            self.run_.end(window, NOTICE_SECONDS)
        return event

    def second_sign_in(self, login: str) -> None:
        """
        Another client of the same user comes, calls and goes.
        """
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
        self.kills += fault.hits
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


def _send(pid: int, number: int) -> None:
    """
    Signal a child, which may have gone by itself.
    """
    with suppress(ProcessLookupError):
        os.kill(pid, number)
