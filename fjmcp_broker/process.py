"""The signals of the daemon's process, and its exit status."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from collections.abc import Callable
from typing import Any, Final

from twisted.logger import Logger

log: Final = Logger()

_M_MMAP_THRESHOLD: Final = -3
_M_ARENA_MAX: Final = -8
"""Of glibc, C{malloc.h}."""

LARGE_BLOCK_BYTES: Final = 1024 * 1024


def keep_heap_small() -> bool:
    """
    Have memory go back to the system. Left alone, glibc gives each thread a heap of its
    own, though Python allocates in one at a time, and takes large blocks from the heap
    once one was given back, so that what is above them keeps their place for ever.

    @return: whether the C library does so; C{False} for those without C{mallopt}.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):
        return False
    settings = ((_M_ARENA_MAX, 1), (_M_MMAP_THRESHOLD, LARGE_BLOCK_BYTES))
    return all([mallopt(name, value) == 1 for name, value in settings])


def give_free_memory_back() -> bool:
    """
    Have the C library give the system all of the heap that is free now, not only what
    is free at its end and is much.

    @return: whether there was any; C{False} for those without C{malloc_trim}.
    """
    try:
        return bool(ctypes.CDLL(None).malloc_trim(0))
    except (AttributeError, OSError):
        return False


class OrderlyExit:
    """
    Makes SIGTERM and SIGINT an orderly end with exit status 0. Left alone, Twisted
    stops its reactor and then dies of the signal, which supervisors take for a
    failure.
    """

    def __init__(self, reactor: Any) -> None:
        """
        @param reactor: Twisted's; it is C{Any} because it provides a dozen interfaces.
        """
        self._reactor = reactor
        self._is_stopping = False
        self._on_hangup: Callable[[], None] | None = None

    def arrange(self, on_hangup: Callable[[], None] | None = None) -> None:
        """
        Handle the signals as soon as the reactor runs: it puts its own handlers in
        place when it begins to.

        @param on_hangup: called on SIGHUP; without it, SIGHUP keeps its meaning.
        """
        self._on_hangup = on_hangup
        self._reactor.callWhenRunning(self._install)

    def fail(self) -> None:
        """
        Stop the reactor, and have the process end with status 1: neither C{twistd}
        nor C{twist} lets a service choose.
        """
        self._reactor.addSystemEventTrigger("after", "shutdown", _exit_with_failure)
        self._stop()

    def _install(self) -> None:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._signalled)
        if self._on_hangup is not None:
            signal.signal(signal.SIGHUP, self._hung_up)

    def _hung_up(self, number: int, frame: object) -> None:
        self._reactor.callFromThread(self._hang_up)

    def _hang_up(self) -> None:
        if self._on_hangup is not None and not self._is_stopping:
            self._on_hangup()

    def _signalled(self, number: int, frame: object) -> None:
        # What a handler may do is little; the reactor does the rest.
        self._reactor.callFromThread(self._stop_on_signal, signal.Signals(number).name)

    def _stop_on_signal(self, name: str) -> None:
        if not self._is_stopping:
            log.info("stopping on {signal}", signal=name)
        self._stop()

    def _stop(self) -> None:
        if self._is_stopping:
            return
        self._is_stopping = True
        if self._reactor.running:
            self._reactor.stop()
        else:
            self._reactor.callWhenRunning(self._reactor.stop)


def _exit_with_failure() -> None:
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(1)
