"""What systemd is told, by a socket that reads as systemd's does."""

from __future__ import annotations

import os
import secrets
import socket
from collections.abc import Callable
from typing import cast

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.logger import ILogObserver, LogEvent, formatEvent, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from fjmcp_broker.systemd import Notifier


class Reactor(Clock):
    """A clock with the shutdown of a reactor."""

    def __init__(self) -> None:
        super().__init__()
        self.at_shutdown: list[Callable[[], None]] = []

    def addSystemEventTrigger(  # noqa: N802 - Twisted's
        self, phase: str, event: str, call: Callable[[], None]
    ) -> None:
        """Note what runs when the reactor stops."""
        assert (phase, event) == ("before", "shutdown")
        self.at_shutdown.append(call)


class NotifierTests(SynchronousTestCase):
    """L{Notifier} speaks C{sd_notify(3)}, and is silent where nobody asked."""

    def setUp(self) -> None:
        self.reactor = Reactor()
        self.reader: socket.socket | None = None

    def listen(self, address: str | None = None) -> str:
        """
        @return: what C{NOTIFY_SOCKET} is to be.
        """
        # Relative, because a socket's path must be short.
        address = address or os.path.relpath(self.mktemp())
        self.reader = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.addCleanup(self.reader.close)
        self.reader.setblocking(False)
        self.reader.bind(address.replace("@", "\0", 1))
        return address

    def said(self) -> list[str]:
        """
        @return: the messages since the last look.
        """
        assert self.reader is not None
        messages = []
        while True:
            try:
                messages.append(self.reader.recv(4096).decode())
            except BlockingIOError:
                return messages

    def started(self, address: str, **more: str) -> Notifier:
        notifier = Notifier(self.reactor)
        notifier.start({"NOTIFY_SOCKET": address, **more})
        self.addCleanup(lambda: self.successResultOf(_stop(notifier)))
        return notifier

    def test_a_life(self) -> None:
        """Start, readiness and stop, at a path and at an abstract address."""
        for address in (None, f"@fjmcp-broker-test-{secrets.token_hex(8)}"):
            notifier = self.started(self.listen(address))
            self.assertEqual(self.said(), ["STATUS=starting"])
            notifier.ready("serving\nX=1 here")
            self.assertEqual(self.said(), ["READY=1\nSTATUS=serving X=1 here"])
            self.reactor.at_shutdown.pop()()
            self.assertEqual(
                self.said(),
                ["STOPPING=1\nSTATUS=stopping, calls in flight may finish"],
            )
            notifier.ready("too late")
            notifier.reloading()
            self.assertEqual(self.said(), [])

    def test_a_reload(self) -> None:
        """RELOADING=1 with the time, READY=1 again; nothing before the start."""
        notifier = self.started(self.listen())
        notifier.reloading()
        notifier.reloaded("early")
        self.assertEqual(self.said(), ["STATUS=starting"])
        notifier.ready("serving")
        notifier.reloading()
        _, message = self.said()
        self.assertRegex(message, r"\ARELOADING=1\nMONOTONIC_USEC=[0-9]+\Z")
        notifier.reloaded("done")
        self.assertEqual(self.said(), ["READY=1\nSTATUS=done"])

    def test_the_watchdog(self) -> None:
        """A ping at half of the period, until the process ends."""
        for more in ({}, {"WATCHDOG_PID": str(os.getpid())}):
            notifier = self.started(self.listen(), WATCHDOG_USEC="20000000", **more)
            self.assertEqual(self.said(), ["STATUS=starting", "WATCHDOG=1"])
            self.reactor.advance(9.9)
            self.assertEqual(self.said(), [])
            self.reactor.advance(0.1)
            self.assertEqual(self.said(), ["WATCHDOG=1"])
            self.reactor.at_shutdown.pop()()
            self.reactor.pump([10, 10])
            self.assertEqual(self.said()[1:], ["WATCHDOG=1"] * 2)
            self.successResultOf(_stop(notifier))
            self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_no_watchdog(self) -> None:
        """None without a period, with a wrong one, or for another process."""
        for more in (
            {},
            {"WATCHDOG_USEC": "0"},
            {"WATCHDOG_USEC": "soon"},
            {"WATCHDOG_USEC": "20000000", "WATCHDOG_PID": "1"},
        ):
            self.started(self.listen(), **more)
            self.assertEqual(self.said(), ["STATUS=starting"])
            self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_the_environment(self) -> None:
        """No other program inherits the variables, used or not."""
        for variables in (
            {"NOTIFY_SOCKET": self.listen()},
            {"WATCHDOG_PID": "1", "WATCHDOG_USEC": "1"},
        ):
            environment = {**variables, "PATH": "/bin"}
            Notifier(self.reactor).start(environment)
            self.assertEqual(environment, {"PATH": "/bin"})

    def test_nobody_asked(self) -> None:
        """Without C{NOTIFY_SOCKET} nothing is sent and nothing is arranged."""
        notifier = Notifier(self.reactor)
        notifier.start({"WATCHDOG_USEC": "20000000"})
        notifier.ready("serving")
        notifier.reloading()
        notifier.reloaded("done")
        self.assertEqual(self.reactor.at_shutdown, [])
        self.assertEqual(self.reactor.getDelayedCalls(), [])
        self.successResultOf(_stop(notifier))

    def test_nobody_reads(self) -> None:
        """A missing, a closed, a full and an impossible socket cost one line."""
        closed = self.listen()
        assert self.reader is not None
        self.reader.close()
        full = self.listen()
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            sender.setblocking(False)
            with self.assertRaises(BlockingIOError):
                while True:
                    sender.sendto(b"X=1", full)
        events: list[LogEvent] = []
        observer = cast(ILogObserver, events.append)
        globalLogPublisher.addObserver(observer)
        self.addCleanup(globalLogPublisher.removeObserver, observer)
        for address in ("/nowhere/notify", closed, full, "vsock:2:1", "x" * 200):
            notifier = self.started(address)
            notifier.ready("serving")
            [line] = map(formatEvent, events)
            self.assertRegex(line, r"\Acannot tell systemd how it goes: .+\Z")
            events.clear()


def _stop(notifier: Notifier) -> Deferred[None]:
    return Deferred.fromCoroutine(notifier.stop())
