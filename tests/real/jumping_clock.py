"""
C{twistd} on a machine whose system clock is set while it runs.

Usage: C{python jumping_clock.py FILE -n fjmcp}; FILE holds by how many seconds the
clock is wrong. The time that passes cannot be set, as on a real machine.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path


def runner(file: Path) -> tuple[str, ...]:
    """
    @param file: holds by how many seconds the clock is wrong.
    @return: for C{Daemon.launch}.
    """
    return (sys.executable, __file__, str(file), "-n", "--pidfile=", "fjmcp")


def set_clock(file: Path, seconds: float) -> None:
    """
    @param file: as for L{runner}.
    @param seconds: by how many the clock is wrong from now on.
    """
    fresh = file.with_suffix(".new")
    fresh.write_text(str(seconds))
    fresh.replace(file)


if __name__ == "__main__":
    offset = Path(sys.argv.pop(1))
    right = time.time
    # Before Twisted takes it.
    time.time = lambda: right() + float(offset.read_text())
    from twisted.scripts.twistd import run

    run()
