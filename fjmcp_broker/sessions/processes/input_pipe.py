"""
The pipe to a process's standard input.

What is written to one that has nothing to do leaves at once. While it has, what a turn
of the event loop brings leaves together at its end: each write wakes the process, and a
busy client's sixteen messages would wake it sixteen times.
"""

import os
from typing import Any, Final

from twisted.internet.interfaces import IDelayedCall
from twisted.internet.process import ProcessWriter
from twisted.python.failure import Failure

TOGETHER_BYTES: Final = 64 * 1024
"""As many as a pipe takes; more than these do not wait for the end of the turn."""


class InputPipe(ProcessWriter):
    """
    Our end of it.
    """

    def __init__(self, reactor: Any, process: Any, name: int, descriptor: int) -> None:
        """
        @param reactor: writes, and has the turns.
        @param process: hears that the pipe is no more.
        @param name: the number of the descriptor there.
        @param descriptor: ours.
        """
        # That the other end is closed shows when this one becomes readable.
        super().__init__(reactor, process, name, descriptor, forceReadHack=True)
        self._turns = reactor
        self._together: list[bytes] = []
        self._together_bytes = 0
        self._turn: IDelayedCall | None = None
        self._is_busy = False

    def heard(self) -> None:
        """The process has said something: perhaps it has nothing to do any more."""
        self._is_busy = False

    def write(self, data: bytes) -> None:
        """
        @param data: follows what was written before.
        """
        if not self._is_busy and not self._together:
            self._is_busy = True
            self._send(data)
            return
        self._together.append(data)
        self._together_bytes += len(data)
        if not self._is_busy or self._together_bytes > TOGETHER_BYTES:
            self._is_busy = True
            self._send_together()
        elif self._turn is None:
            self._turn = self._turns.callLater(0, self._end_of_turn)

    def loseConnection(self) -> None:
        """Close it behind what was written."""
        self._send_together()
        super().loseConnection()

    def connectionLost(self, reason: Failure) -> None:
        """
        @param reason: why.
        """
        if self._turn is not None:
            self._turn.cancel()
            self._turn = None
        super().connectionLost(reason)

    def _end_of_turn(self) -> None:
        self._turn = None
        self._send_together()

    def _send_together(self) -> None:
        together, self._together = self._together, []
        self._together_bytes = 0
        if together:
            self._send(together[0] if len(together) == 1 else b"".join(together))

    def _send(self, data: bytes) -> None:
        # As L{fjmcp_broker.eager.write_now}, and it goes on being watched for its end.
        if self.connected and not (
            self.disconnecting or self.dataBuffer or self._tempDataLen
        ):
            try:
                written = os.write(self.fd, data)
            except OSError:
                written = 0  # the event loop's own attempt finds it, and tells
            if written == len(data):
                return
            data = data[written:]
        super().write(data)
