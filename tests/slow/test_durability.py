"""
SIGKILL at chosen and at random moments of sign-ins and refreshes: what a client has
received stays true.
"""

from __future__ import annotations

import os
import random
import signal
import sqlite3
import sys
import time
from collections import Counter
from contextlib import closing
from typing import Final

import attrs
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.threads import deferToThread

from tests import SEED
from tests.real.broken_broker import runner
from tests.real.broker_case import BrokerCase
from tests.real.daemon import CLOCK, Daemon, free_port, pause, processes
from tests.real.forgejo import RunningForgejo
from tests.slow.durability import OPEN, SIGN_IN, DurableClient, Run

OPERATIONS: Final = int(os.environ.get("FJMCP_DURABILITY_OPERATIONS", "500"))
"""Sign-ins and refreshes together; set it higher for a longer run."""

OPERATIONS_FOR_EACH_KILL: Final = 20
USERS: Final = ("alice", "bob")
CLIENTS_OF_EACH: Final = 3

#: So short that each new session takes a refresh towards Forgejo.
UPSTREAM_LIFETIME_SECONDS: Final = 100

ANSWERS, REQUESTS, START = "after an answer", "after a request", "during the start"
EXCHANGE, UPSTREAM = "token:authorization_code", "token:refresh_token"
USERINFO, INTROSPECT = "userinfo", "introspect"
MOMENTS: Final = (
    (ANSWERS, ""),
    (ANSWERS, ""),
    (REQUESTS, ""),
    (REQUESTS, ""),
    (REQUESTS, ""),
    (START, ""),
    (EXCHANGE, "before"),
    (EXCHANGE, "after"),
    (EXCHANGE, "about"),
    (EXCHANGE, "about"),
    (USERINFO, "before"),
    (INTROSPECT, "before"),
    (INTROSPECT, "about"),
    (UPSTREAM, "before"),
    (UPSTREAM, "after"),
    (UPSTREAM, "about"),
    (UPSTREAM, "about"),
)
"""
When to kill: by what the clients see, at the start, or while Forgejo answers the
broker: before it has done anything, after it has, and at some point about its answer.
"""


@attrs.define
class Killer:
    """
    Starts daemons and kills them.
    """

    run: Run
    forgejo: RunningForgejo
    settings: dict[str, str]
    port: int
    runner: tuple[str, ...]
    draw: random.Random
    texts: list[str] = attrs.Factory(list)
    kills: Counter[str] = attrs.Factory(Counter)
    excuses: int = 0
    daemon: Daemon = attrs.field(init=False)

    async def start(self, *, kill_seconds: float | None = None) -> None:
        """
        Start a daemon and let the clients at it.

        @param kill_seconds: kill a first one that long after its start.
        """
        if os.path.exists(self._path):
            self._excuse()
            self.check_first_uses()
        self.daemon = self._launch()
        if kill_seconds is not None:
            await pause(kill_seconds)
            await self._end(signal.SIGKILL)
            self.daemon = self._launch()
        await self.daemon.until_ready()
        self.run.generation += 1
        self.run.up.set()

    async def stop(self) -> None:
        """
        Kill what still runs.
        """
        await self._end(signal.SIGKILL)

    async def kill_at(self, moment: str, side: str) -> None:
        """
        Wait for a moment, kill the daemon then, and start another one.
        """
        if moment in (ANSWERS, START):
            done = self.run.done + self.draw.randint(1, 15)
            while self.run.done < done and not self.run.over:
                await pause(0.001)
        elif moment == REQUESTS:
            await pause(self.draw.uniform(0.02, 0.3))
        elif not await self._upstream(moment, side):
            return
        if self.run.over:
            return
        self.run.up.clear()
        await self._end(signal.SIGKILL)
        self.kills[f"{moment} {side}".strip()] += 1
        controls = self.forgejo.stand_in.controls
        while controls.in_flight("token"):
            await pause(0.01)
        controls.end_faults()
        again = self.draw.uniform(0.1, 1.2) if moment == START else None
        await self.start(kill_seconds=again)

    async def _upstream(self, target: str, side: str) -> bool:
        """
        @return: whether the moment has come; not, when the clients have finished.
        """
        controls = self.forgejo.stand_in.controls
        hold = controls.hold_request if side == "before" else controls.hold_answer
        self.run.wanted = OPEN if target == UPSTREAM else SIGN_IN
        fault = hold(target, times=1)
        while not fault.waiting and not self.run.over:
            await pause(0.002)
        self.run.wanted = None
        if side == "about":
            fault.end()
            await pause(self.draw.uniform(0.0, 0.02))
        return not self.run.over

    @property
    def _path(self) -> str:
        return self.settings["FJMCP_BROKER_STORE_PATH"]

    def _launch(self) -> Daemon:
        return Daemon.launch(self.settings, port=self.port, runner=self.runner)

    async def _end(self, number: int) -> None:
        self.daemon.signal_with(number)
        await self.daemon.wait()
        self.texts.append(self.daemon.text)

    def _excuse(self) -> None:
        """
        Compare Forgejo's counters with the stored ones, now that nothing runs.
        """
        for login in USERS:
            stored, state = self.stored(login)
            if stored < self.run.counters.get(login, 0):
                self.run.problems.append(f"a sign-in of {login} was not stored")
            if (stored, state) == (self.counter(login), "usable"):
                self.run.excused.discard(login)
            else:
                self.excuses += login not in self.run.excused
                self.run.excused.add(login)

    def check_first_uses(self) -> None:
        """
        An access token that was accepted is known to have been used: the idempotent
        refresh rests on that.
        """
        with closing(sqlite3.connect(self._path)) as store:
            unused = store.execute(
                "SELECT token_digest FROM access_tokens WHERE first_used_at IS NULL"
            )
            forgotten = self.run.used.intersection(digest for (digest,) in unused)
        if forgotten:
            self.run.problems.append(f"{len(forgotten)} first uses were not stored")

    def counter(self, login: str) -> int:
        """
        @return: of the user's grant at Forgejo, which each answer with tokens moves.
        """
        try:
            return self.forgejo.stand_in.controls.grant(login).counter
        except KeyError:
            return 0

    def stored(self, login: str) -> tuple[int, str]:
        """
        @return: the counter and the state of the stored token set.
        """
        with closing(sqlite3.connect(self._path)) as store:
            found: tuple[int, str] | None = store.execute(
                "SELECT counter, state FROM upstream_tokens JOIN users"
                " USING (user_id) WHERE login = ?",
                (login,),
            ).fetchone()
            return found or (0, "usable")


class DurabilityTests(BrokerCase):
    """The daemon is killed again and again; the clients are not to notice."""

    timeout = 600

    async def go_through(
        self, operations: int, moments: list[tuple[str, str]], fault: str | None
    ) -> Killer:
        """
        Let clients work through kills.

        @param operations: at least so many sign-ins and refreshes.
        @param moments: of the kills.
        @param fault: of the broker, if any.
        """
        port = free_port()
        settings, forgejo = await self.settings(port)
        forgejo.stand_in.controls.set_lifetimes(
            access_seconds=UPSTREAM_LIFETIME_SECONDS
        )
        draw = random.Random(SEED)  # noqa: S311 - not a secret
        run = Run(operations)
        killer = Killer(run, forgejo, settings, port, runner(fault), draw)
        await killer.start()
        self.addCleanup(killer.stop)
        clients = [
            DurableClient(
                killer.daemon.url,
                run=run,
                login=login,
                password=forgejo.password(login),
                draw=random.Random(f"{SEED} {login} {number}"),  # noqa: S311
                counter=killer.counter,
            )
            for login in USERS
            for number in range(CLIENTS_OF_EACH)
        ]
        working: Deferred[list[None]] = gatherResults(
            [deferToThread(client.work) for client in clients]
        )
        try:
            for place, (moment, side) in enumerate(moments, 1):
                await killer.kill_at(moment, side)
                # The kills keep pace with the operations, not the other way round.
                while run.done < operations * place / len(moments) and not run.over:
                    await pause(0.005)
        finally:
            run.over = True
            run.up.set()
            await working
        return killer

    async def test_what_was_received_stays_true(self) -> None:
        """
        Access tokens work, refresh tokens are answered with one pair for ever, and
        nobody is sent to Forgejo again unless its answer died with the daemon.
        """
        began = time.monotonic()
        count = max(len(MOMENTS), OPERATIONS // OPERATIONS_FOR_EACH_KILL)
        moments = list(MOMENTS) * (count // len(MOMENTS) + 1)
        random.Random(SEED).shuffle(moments)  # noqa: S311 - not a secret
        killer = await self.go_through(OPERATIONS, moments[:count], None)
        run = killer.run
        sys.stderr.write(
            f"seed {SEED}: {dict(run.counts)}; killed {dict(killer.kills)};"
            f" excused {killer.excuses}; {time.monotonic() - began:.0f} s\n"
        )
        self.assertEqual(run.problems, [])
        self.assertGreaterEqual(run.done, OPERATIONS)
        self.assertEqual(killer.kills.total(), count)
        self.assertGreater(run.counts[OPEN], 0)
        # Each client finds out by itself, once.
        self.assertLessEqual(
            run.counts["asked to sign in"], killer.excuses * CLIENTS_OF_EACH
        )
        killer.daemon.signal_with(signal.SIGTERM)
        await killer.daemon.wait()
        self.assertEqual(killer.daemon.exit_code, 0, killer.daemon.text)
        for login in set(USERS) - run.excused:
            self.assertEqual(
                killer.stored(login), (killer.counter(login), "usable"), login
            )
        for text in (*killer.texts, killer.daemon.text):
            self.assertNotIn("Traceback", text)
        killer.check_first_uses()
        self.assertEqual(run.problems, [])
        self.check_store(killer.settings["FJMCP_BROKER_STORE_PATH"])
        ends = CLOCK.seconds() + 10
        while left := processes(killer.forgejo.stand_in.base_url):
            self.assertLess(CLOCK.seconds(), ends, left)
            await pause(0.02)

    def check_store(self, path: str) -> None:
        """
        The file is whole, and every code and refresh token has at most one pair.
        """
        with closing(sqlite3.connect(path)) as store:
            whole = store.execute("PRAGMA integrity_check").fetchall()
            self.assertEqual(whole, [("ok",)])
            self.assertEqual(store.execute("PRAGMA foreign_key_check").fetchall(), [])
            # What no rotation made was issued for the grant's one code.
            twice = store.execute(
                "SELECT grant_id, count(*) FROM refresh_tokens WHERE token_digest"
                " NOT IN (SELECT successor_refresh_digest FROM refresh_tokens"
                " WHERE successor_refresh_digest IS NOT NULL)"
                " GROUP BY grant_id HAVING count(*) > 1"
            ).fetchall()
            self.assertEqual(twice, [])
            revoked = store.execute(
                "SELECT grant_id, reason FROM grants WHERE revoked_at IS NOT NULL"
            ).fetchall()
            self.assertEqual(revoked, [])

    async def test_a_late_commit_would_be_seen(self) -> None:
        """A broker that answers before it commits is found out."""
        killer = await self.go_through(40, [(ANSWERS, "")] * 3, "commit-late")
        self.assertIn("was not stored", str(killer.run.problems))

    async def test_a_forgotten_use_would_be_seen(self) -> None:
        """A broker that does not store the first use of a token is found out."""
        killer = await self.go_through(40, [(ANSWERS, "")] * 3, "forget-uses")
        self.assertIn("first uses were not stored", str(killer.run.problems))

    async def test_a_second_pair_would_be_seen(self) -> None:
        """A broker that is not idempotent is found out."""
        killer = await self.go_through(60, [(ANSWERS, "")], "forget-pairs")
        self.assertIn("two different pairs", str(killer.run.problems))
