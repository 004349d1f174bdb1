"""The end of the notification socket that systemd reads, for daemons under test."""

from __future__ import annotations

import secrets
import socket

from tests.real.broker_case import BrokerCase
from tests.real.daemon import CLOCK, pause


class Inbox:
    """The end of the notification socket that systemd reads."""

    def __init__(self) -> None:
        self.messages: list[str] = []
        self.name = f"fjmcp-broker-test-{secrets.token_hex(8)}"
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.setblocking(False)
        self.socket.bind(f"\0{self.name}")

    @property
    def address(self) -> str:
        """
        @return: for C{NOTIFY_SOCKET}.
        """
        return f"@{self.name}"

    def look(self) -> list[str]:
        """
        @return: all messages until now.
        """
        while True:
            try:
                self.messages.append(self.socket.recv(4096).decode())
            except BlockingIOError:
                return self.messages

    async def until(self, beginning: str, seconds: float = 30.0) -> str:
        """
        Wait for a message that was not there at the last call, and drop it and those
        before it.
        """
        deadline = CLOCK.seconds() + seconds
        while CLOCK.seconds() < deadline:
            for index, message in enumerate(self.look()):
                if message.startswith(beginning):
                    del self.messages[: index + 1]
                    return message
            await pause(0.01)
        raise AssertionError(f"no {beginning} among {self.messages}")


class SystemdCase(BrokerCase):
    """A daemon that somebody watches."""

    def inbox(self) -> Inbox:
        inbox = Inbox()
        self.addCleanup(inbox.socket.close)
        return inbox
