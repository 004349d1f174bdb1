"""A daemon, a Forgejo with five users, and what is known of both from outside."""

from __future__ import annotations

import json
import os
import random
import re
import sqlite3
import time
from contextlib import closing, suppress
from hashlib import sha256
from pathlib import Path
from typing import Final

import attrs
from twisted.internet.threads import deferToThread

from tests import SEED
from tests.real import real_forgejo_mcp
from tests.real.broken_broker import runner
from tests.real.broker_case import BrokerCase
from tests.real.client import McpClient
from tests.real.daemon import Daemon, children_of, free_port, pause, processes
from tests.slow.chaos import Run
from tests.slow.chaos_client import ChaosClient

LOGINS: Final = ("alice", "bob", "carol", "dave", "erin")
IDLE_SECONDS: Final = 3
UPSTREAM_LIFETIME_SECONDS: Final = 45
"""A child is replaced when its token lives for 25 seconds more, at a call."""

REAL_CHILD: Final = "FJMCP_CHAOS_REAL_CHILD"
"""Names the variable that asks for the real forgejo-mcp of a version, everywhere."""

_ENTERED: Final = re.compile(r"session ([0-9a-f]{10}): (\w+) -> (\w+) \(")
_KILLED: Final = re.compile(r"session ([0-9a-f]{10}): child_\w+ \(signal 9")


@attrs.define
class Sample:
    """The daemon's memory and descriptors at some time of the run."""

    seconds: float
    resident_kib: int
    descriptors: int


class World(BrokerCase):
    """
    Everything that a run needs.

    @ivar steps: the directory where children halt.
    """

    lifetime_seconds = UPSTREAM_LIFETIME_SECONDS
    real = ""
    """Version of the real forgejo-mcp, empty for the stand-in child."""

    async def prepare(self, sessions: int, fault: str | None) -> list[ChaosClient]:
        """
        @param sessions: how many clients.
        @param fault: of the broker, if any.
        @return: the clients, whose sessions are open.
        """
        self.texts: list[str] = []
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
        self.steps = Path(self.directory) / "steps"
        self.steps.mkdir()
        self.file = Path(self.directory) / "broker.toml"
        self.file.write_text(
            f"[child.env]\nSTANDIN_CHILD_LEDGER = {json.dumps(str(self.ledger))}\n"
            f"STANDIN_CHILD_STEPS = {json.dumps(str(self.steps))}\n"
        )
        self.people()
        await self.start()
        self.first_descriptors = self.descriptors()
        self.run_ = Run(self.tokens_lost, has_ledger=not self.real)
        clients = await deferToThread(self.clients, sessions)
        self.names = {
            sha256((each.session_id or "").encode()).hexdigest()[:10]: each.name
            for each in clients
        }
        return clients

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

    async def end(self, number: int) -> None:
        """
        End the daemon, and see that no child outlives it.

        @param number: the signal.
        """
        self.daemon.signal_with(number)
        await self.daemon.wait()
        self.texts.append(self.daemon.text)
        ends = time.monotonic() + 5
        while left := processes(self.forgejo.stand_in.base_url):
            if time.monotonic() > ends:
                self.run_.problem(f"the daemon is gone, but not {left}")
                break
            await pause(0.02)

    # What is known from outside

    def children(self) -> list[int]:
        """
        @return: the children that run.
        """
        return sorted(children_of(self.daemon, self.forgejo.stand_in.base_url))

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

    def states(self) -> dict[str, tuple[str, str]]:
        """
        @return: the sessions' states by name, each with the one before it, as the
            daemon's log has them.
        """
        entered = {
            session: (before, now)
            for session, before, now in _ENTERED.findall(self.daemon.text)
        }
        asleep = ("dormant", "dormant")
        return {
            name: entered.get(session, asleep) for session, name in self.names.items()
        }

    def killed(self) -> list[str]:
        """
        @return: the sessions whose children were seen to die of SIGKILL, in order.
        """
        found = _KILLED.findall(self.daemon.text)
        return [self.names.get(session, session) for session in found]

    def descriptors(self) -> int:
        """
        @return: how many the daemon has.
        """
        return len(os.listdir(f"/proc/{self.daemon.pid}/fd"))

    def sample(self, seconds: float) -> None:
        """
        Look at the daemon.

        @param seconds: since the begin.
        """
        status = Path(f"/proc/{self.daemon.pid}/status").read_text()
        (line,) = (each for each in status.splitlines() if each.startswith("VmRSS"))
        self.samples.append(Sample(seconds, int(line.split()[1]), self.descriptors()))

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


def send(pid: int, number: int) -> None:
    """
    Signal a child, which may have gone by itself.
    """
    with suppress(ProcessLookupError):
        os.kill(pid, number)
