"""
What systemd is told about the daemon: readiness, status, reloads, the end, and that
the reactor still turns.

Twisted has socket activation and nothing of this. The protocol is one datagram of
C{NAME=value} lines for each message; see C{sd_notify(3)}.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import MutableMapping
from typing import Any, Final

from twisted.application.internet import TimerService
from twisted.logger import Logger

from fjmcp_broker.timers import steady_timer

log: Final = Logger()

_VARIABLES: Final = ("NOTIFY_SOCKET", "WATCHDOG_PID", "WATCHDOG_USEC")


def send(address: str, text: str) -> None:
    """
    Send one message. Waits for nothing.

    @param address: the value of C{NOTIFY_SOCKET}: a path, or C{@} and an abstract
        name.
    @param text: lines of C{NAME=value}.
    @raise OSError: nobody reads there, or the queue is full.
    """
    if address.startswith("@"):
        address = f"\0{address[1:]}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
        sender.setblocking(False)
        sender.sendto(text.encode("utf-8", "replace"), address)


class Notifier:
    """
    Tells systemd, or whoever set C{NOTIFY_SOCKET}, how the daemon does; without that
    variable it does nothing. What cannot be said is logged once and dropped.
    """

    def __init__(self, reactor: Any) -> None:
        """
        @param reactor: Twisted's, for its shutdown and its time. It is C{Any} because
            it provides a dozen interfaces.
        """
        self._reactor = reactor
        self._address: str | None = None
        self._watchdog: TimerService | None = None
        self._is_ready = self._is_reloading = self._is_stopping = False
        self._has_failed = False

    def start(self, environment: MutableMapping[str, str]) -> None:
        """
        Take over what the environment says. To be called after the fork of a process
        that becomes a daemon: the watchdog looks at the process id.

        @param environment: its variables of this protocol are removed, so that no
            other program answers for this one.
        """
        address, pid, period = (environment.pop(name, "") for name in _VARIABLES)
        if not address:
            return
        self._address = address
        self._reactor.addSystemEventTrigger("before", "shutdown", self._stopping)
        self._send("STATUS=starting")
        if period.isascii() and period.isdigit() and int(period):
            if pid in ("", str(os.getpid())):
                self._watchdog = steady_timer(
                    int(period) / 2e6, self._ping, "feed the watchdog", self._reactor
                )
                self._watchdog.startService()

    async def stop(self) -> None:
        """End the pings of the watchdog, as the last thing before the process ends."""
        watchdog, self._watchdog = self._watchdog, None
        if watchdog is not None:
            await watchdog.stopService()

    def ready(self, status: str) -> None:
        """
        Say that requests are answered from now on.

        @param status: one sentence for C{systemctl status}.
        """
        if not self._is_stopping:
            self._is_ready = True
            self._send("READY=1", _status(status))

    def reloading(self) -> None:
        """Say that the configuration is being read again."""
        if self._is_ready and not self._is_stopping:
            self._is_reloading = True
            moment = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
            self._send("RELOADING=1", f"MONOTONIC_USEC={moment}")

    def reloaded(self, status: str) -> None:
        """
        Say that the reload is over, however it went.

        @param status: one sentence for C{systemctl status}.
        """
        if self._is_reloading:
            self._is_reloading = False
            self.ready(status)

    def _stopping(self) -> None:
        self._is_stopping = True
        self._send("STOPPING=1", _status("stopping, calls in flight may finish"))

    async def _ping(self) -> None:
        self._send("WATCHDOG=1")

    def _send(self, *lines: str) -> None:
        if self._address is None:
            return
        try:
            send(self._address, "\n".join(lines))
        except OSError as error:
            if not self._has_failed:
                self._has_failed = True
                log.warn(
                    "cannot tell systemd how it goes: {reason}",
                    reason=error.strerror or str(error),
                )


def _status(sentence: str) -> str:
    return f"STATUS={' '.join(sentence.split())}"
