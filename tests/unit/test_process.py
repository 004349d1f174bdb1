"""Tests of what the daemon asks of its C library."""

import ctypes
import subprocess
import sys
from typing import Final

from twisted.trial.unittest import SynchronousTestCase

from fjmcp_broker.process import give_free_memory_back, keep_heap_small

PROGRAM: Final = """
from fjmcp_broker.process import LARGE_BLOCK_BYTES, keep_heap_small

def resident_bytes():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096

assert keep_heap_small()
size = 16 * LARGE_BLOCK_BYTES
# The first one that is given back raises glibc's threshold, left alone.
for _ in range(2):
    block = bytearray(b"x") * size
    above = [bytes(1024) for _ in range(1000)]
    before = resident_bytes()
    del block
    after = resident_bytes()
    assert after < before - size // 2, (before, after)
    del above
"""
"""A process of its own: what other tests have left in the heap may have a gap in which
the block fits."""


LOADED: Final = """
import sys
import fjmcp_broker.tap, fjmcp_broker.reload, fjmcp_broker.services

print(*sys.modules)
"""
SELDOM_NEEDED: Final = (
    "klein",
    "werkzeug",
    "prometheus_client",
    "fjmcp_broker.backup_commands",
    "fjmcp_broker.cli",
    "fjmcp_broker.demo",
    "fjmcp_broker.doctor",
    "fjmcp_broker.exposition",
)
"""Nothing of these is in the memory of a daemon that nobody has asked anything."""


class LoadedTests(SynchronousTestCase):
    """What a daemon loads stays in its memory."""

    def test_what_is_seldom_needed(self) -> None:
        """Is not loaded before somebody needs it."""
        done = subprocess.run(  # noqa: S603 - this interpreter
            [sys.executable, "-W", "error", "-c", LOADED],
            env={"PYTHONPATH": ":".join(sys.path)},
            timeout=60,
            check=True,
            capture_output=True,
            text=True,
        )
        loaded = done.stdout.split()
        self.assertIn("fjmcp_broker.services", loaded)
        self.assertEqual([name for name in SELDOM_NEEDED if name in loaded], [])


class HeapTests(SynchronousTestCase):
    """Memory that was needed once goes back to the system."""

    def test_free_memory(self) -> None:
        """There may be none; a C library that cannot do it is no failure."""
        can = hasattr(ctypes.CDLL(None), "malloc_trim")
        self.assertIn(give_free_memory_back(), (False, can))

    def test_large_blocks(self) -> None:
        """One below others that are still there as well."""
        if not hasattr(ctypes.CDLL(None), "mallopt"):
            self.assertFalse(keep_heap_small())
            return
        subprocess.run(  # noqa: S603 - this interpreter
            [sys.executable, "-W", "error", "-c", PROGRAM],
            env={"PYTHONPATH": ":".join(sys.path)},
            timeout=60,
            check=True,
        )
