"""Tests of what the daemon asks of its C library."""

import ctypes
import subprocess
import sys
from typing import Final

from twisted.trial.unittest import SynchronousTestCase

from fjmcp_broker.process import keep_heap_small

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


class HeapTests(SynchronousTestCase):
    """Memory that was needed once goes back to the system."""

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
