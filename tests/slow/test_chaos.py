"""
Everything that may happen to a broker, its children and Forgejo, while many clients
call: each keeps its session, and nobody gets another's answer.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections import Counter
from typing import Final

from tests.real.daemon import CLOCK, pause, processes
from tests.real.real_forgejo_mcp import VERSIONS, find
from tests.slow.chaos import RECOVERY_SECONDS, Run
from tests.slow.chaos_schedule import (
    CHILD_KILL,
    EVENTS,
    SHORT_LIFETIME_SECONDS,
    SLOW,
    STEPS,
    ChaosCase,
)
from tests.slow.chaos_world import LOGINS

SECONDS: Final = float(os.environ.get("FJMCP_CHAOS_SECONDS", "120"))
SESSIONS: Final = int(os.environ.get("FJMCP_CHAOS_SESSIONS", "50"))
SPARE_DESCRIPTORS: Final = 6


class CheckedChaosCase(ChaosCase):
    """What has to be true at the end."""

    def report(self, run: Run) -> str:
        """
        @return: the counts.
        """
        return (
            f"{dict(run.counts)}; excused by {dict(run.failures)};"
            f" happened {dict(self.happened)}; {self.rotations()} rotations;"
            f" slowest call {run.slowest:.1f} s, the first that worked again"
            f" {run.slowest_recovery:.1f} s after a fault\n"
        )

    def rotations(self) -> int:
        """
        @return: how many children were replaced while they worked.
        """
        return sum(text.count("live -> rotating") for text in self.texts)

    def refused_refreshes(self) -> int:
        """
        @return: how often Forgejo refused a refresh token.
        """
        refreshes = self.forgejo.stand_in.controls.matching("token:refresh_token")
        return sum(each.status == 400 for each in refreshes)

    def check_forgejo(self, run: Run) -> None:
        """
        Only an answer that was lost makes a refresh token useless, and a sign-in of
        the same user that Forgejo takes first.
        """
        excused = self.lost_answers + self.sign_ins
        if self.refused_refreshes() > excused:
            run.problem(f"Forgejo refused {self.refused_refreshes()} refreshes")

    def check_writes(self, run: Run) -> None:
        """
        Each call reached a child at most once, and what was told has happened.
        """
        made: Counter[str] = Counter()
        for login in LOGINS:
            repository = self.forgejo.stand_in.world.find(login, "chaos")
            assert repository is not None
            for issue in repository.issues.values():
                made[issue.title] += 1
                if issue.author.login != login:
                    run.problem(f"{issue.author.login} wrote for {login}")
        self.compare("issue", run.written, made)
        run.counts["issues written"] = made.total()
        if run.has_ledger:
            lines = self.ledger.read_text().splitlines()
            keys = Counter(str(json.loads(line)["key"]) for line in lines)
            del keys["None"]  # the thieves', and those of the second sign-ins
            self.compare("call", run.keys, keys)
            run.counts["calls in the ledger"] = keys.total()

    def compare(self, what: str, told: dict[str, bool], made: Counter[str]) -> None:
        """
        Compare what clients were told with what happened.
        """
        twice = [key for key, count in made.items() if count > 1]
        lost = [key for key, success in told.items() if success and not made[key]]
        self.run_.counts[f"duplicates ({what})"] = len(twice)
        if twice or lost:
            self.run_.problem(f"{what}: twice {twice[:5]}, lost {lost[:5]}")

    async def check_leftovers(self, run: Run) -> None:
        """
        All sessions have ended: no child and no descriptor is left.
        """
        ends = CLOCK.seconds() + 20
        most = self.first_descriptors + SPARE_DESCRIPTORS
        while self.children() or self.descriptors() > most:
            if CLOCK.seconds() > ends:
                run.problem(
                    f"left: {self.children()}, {self.descriptors()} descriptors"
                    f" after {self.first_descriptors}"
                )
                break
            await pause(0.1)
        run.counts["descriptors before"] = self.first_descriptors
        run.counts["descriptors after"] = self.descriptors()
        self.daemon.signal_with(15)
        await self.daemon.wait()
        self.texts.append(self.daemon.text)
        self.assertEqual(self.daemon.exit_code, 0, self.daemon.text)
        self.assertEqual(processes(self.forgejo.stand_in.base_url), [])

    async def check(self, run: Run, sessions: int) -> None:
        """
        All of it, and that something was done.
        """
        self.check_forgejo(run)
        self.check_writes(run)
        await self.check_leftovers(run)
        sys.stderr.write(self.report(run))
        self.assertEqual(run.problems, [])
        self.assertEqual(run.counts["sessions that lasted"], sessions)
        self.assertLess(run.slowest_recovery, RECOVERY_SECONDS)
        for text in self.texts:
            self.assertNotIn("Traceback", text)


class ChaosTests(CheckedChaosCase):
    """Everything at once."""

    async def test_nobody_notices(self) -> None:
        """
        A fault fails the calls in flight and nothing else; no answer is wrong, no
        session lost, no call made twice, nothing left over. With the real forgejo-mcp
        where it is installed, which is hurt at random moments and keeps no ledger.
        """
        if find(VERSIONS[0]) is not None:
            self.real = VERSIONS[0]
        run = await self.go_through(SECONDS, SESSIONS, EVENTS)
        await self.check(run, SESSIONS)

    async def test_nobody_notices_at_any_step(self) -> None:
        """
        The same with the stand-in child, which is killed and stopped at each step of
        the protocol: only calls of that one session may fail, and when it was being
        replaced or was on its way out, none at all.
        """
        run = await self.go_through(None, SESSIONS, STEPS, quiet_seconds=0.5)
        await self.check(run, SESSIONS)
        self.assertEqual(set(self.happened), set(STEPS))

    async def broken(self, fault: str, *events: str, seconds: float = 40) -> str:
        """
        @param seconds: at most; less when a client finds something.
        @return: what was held against a broken broker.
        """
        began = time.monotonic()
        run = await self.go_through(seconds, 10, events, fault, quiet_seconds=0.5)
        self.check_forgejo(run)
        sys.stderr.write(f"{fault}: {time.monotonic() - began:.0f} s\n")
        return str(run.problems)

    async def test_no_replay_would_be_seen(self) -> None:
        """A broker that tells a later child less than the first is found out."""
        self.lifetime_seconds = SHORT_LIFETIME_SECONDS
        problems = await self.broken("forget-handshakes", CHILD_KILL)
        self.assertIn("was told", problems)

    async def test_no_owners_would_be_seen(self) -> None:
        """A broker that does not ask whose a session is is found out."""
        self.assertIn("somebody else", await self.broken("ignore-owners"))

    async def test_separate_refreshes_would_be_seen(self) -> None:
        """A broker that refreshes a user's tokens twice at once is found out."""
        self.lifetime_seconds = SHORT_LIFETIME_SECONDS
        problems = await self.broken("refresh-apart", SLOW, seconds=15)
        self.assertRegex(problems, "Forgejo refused|was signed out")
