"""
Clients that call for long while tokens rotate, and the daemon's memory meanwhile. Run
by C{make soak}, not with the tests.
"""

from __future__ import annotations

import os
import sys

from tests.slow.chaos_schedule import MILD
from tests.slow.test_chaos import CheckedChaosCase

MINUTES = float(os.environ.get("FJMCP_SOAK_MINUTES", "10"))
SESSIONS = int(os.environ.get("FJMCP_SOAK_SESSIONS", "20"))
GROWTH_KIB = 5 * 1024


class SoakTests(CheckedChaosCase):
    """Mild faults only."""

    timeout = 24 * 3600

    async def test_memory(self) -> None:
        """
        Nothing fails, and the daemon grows by less than 5 MiB after a minute.
        """
        run = await self.go_through(MINUTES * 60, SESSIONS, MILD, quiet_seconds=4)
        first = next((s for s in self.samples if s.seconds >= 60), self.samples[0])
        last = self.samples[-1]
        # About one of each minute.
        step = max(1, round(len(self.samples) / max(1, MINUTES)))
        for sample in (*self.samples[::step], last):
            sys.stderr.write(
                f"{sample.seconds:.0f} s: VmRSS {sample.resident_kib} KiB,"
                f" {sample.descriptors} descriptors\n"
            )
        await self.check(run, SESSIONS)
        self.assertLess(last.resident_kib - first.resident_kib, GROWTH_KIB)
