"""
Loopback ports for servers under test, which stay theirs while the server restarts.

A port that the kernel chose may be chosen again before the server listens, and while it
is down: for another listener, or for the near end of any connection. So these are from
outside of the range that the kernel chooses from, and each process of the tests has a
block of its own.
"""

from __future__ import annotations

import itertools
import socket
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Final

FIRST: Final = 12000
BLOCK: Final = 100
LAST: Final = 32000
"""Of the ports to choose from; the kernel's own begin at 32768 if nobody changed it."""

_CHOSEN_BY_THE_KERNEL: Final = Path("/proc/sys/net/ipv4/ip_local_port_range")


def blocks(lowest_of_the_kernel: int) -> list[range]:
    """
    @param lowest_of_the_kernel: the first port that the kernel chooses by itself.
    @return: blocks of ports, those that the kernel leaves alone first.
    """
    every = [range(start, start + BLOCK) for start in range(FIRST, LAST, BLOCK)]
    return sorted(every, key=lambda block: block.stop > lowest_of_the_kernel)


@cache
def _own() -> Iterator[int]:
    """
    @return: the ports of a block that other processes keep from as long as this one
        lives, again and again.
    @raise RuntimeError: every block is taken.
    """
    lowest = int(_CHOSEN_BY_THE_KERNEL.read_text().split()[0])
    for block in blocks(lowest):
        # A name in the network namespace, as ports are; it goes with the process.
        claim = socket.socket(socket.AF_UNIX)
        try:
            claim.bind(f"\0fjmcp-broker-test-ports-{block.start}")
        except OSError:
            claim.close()
            continue
        claim.detach()  # until the process ends
        return itertools.cycle(block)
    raise RuntimeError("all ports for tests are taken")


def free_port() -> int:
    """
    @return: a loopback TCP port on which nothing listens.
    @raise RuntimeError: there is none.
    """
    for port in itertools.islice(_own(), BLOCK):
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise RuntimeError("no port for tests is free")
