"""
Tests in tiers: C{tests.unit} without sockets, C{tests.real} with sockets and
processes, C{tests.browser} with a browser, C{tests.slow} with packaging.

Random choices follow one seed, printed once: set C{FJMCP_TEST_SEED} to repeat a run.
"""

import os
import sys
from typing import Final, NoReturn

from hypothesis import Phase, settings
from twisted.trial.unittest import SkipTest

SEED: Final = int(os.environ.get("FJMCP_TEST_SEED", "20260701"))
"""Of everything random in the tests; fixed unless asked for otherwise."""


def _follow_seed() -> None:
    import random

    from hypothesis import core

    # hypothesis has no public setting for one seed of a whole run; this is what its
    # own pytest plugin sets for --hypothesis-seed.
    core.global_force_seed = SEED  # type: ignore[assignment] # None or a seed
    random.seed(SEED)


settings.register_profile(
    "fjmcp-broker", deadline=None, print_blob=True, database=None, phases=tuple(Phase)
)
settings.load_profile("fjmcp-broker")
_follow_seed()
sys.stderr.write(f"FJMCP_TEST_SEED={SEED}\n")


def skip_visibly(what: str, reason: str) -> NoReturn:
    """
    Skip a test so that nobody can overlook it.

    @param what: what is not tested.
    @param reason: why.
    @raise SkipTest: always.
    """
    sys.stderr.write(f"SKIPPED {what}: {reason}\n")
    raise SkipTest(f"{what}: {reason}")
