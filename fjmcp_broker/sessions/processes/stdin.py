"""The queue in front of a child's standard input."""

from collections import deque
from typing import Any

from twisted.internet.interfaces import IPushProducer
from zope.interface import implementer


@implementer(IPushProducer)
class StdinQueue:
    """
    Hands messages to a pipe as fast as its reader takes them.

    Messages go straight through while the pipe takes them. Beyond that they wait
    here up to a limit; at the limit a message is refused, never dropped silently or
    cut, and never kept waiting without bound. Bytes that the pipe's own buffer took
    (64 KiB and the message that went over that) are not counted.
    """

    def __init__(self, maximum_bytes: int) -> None:
        """
        @param maximum_bytes: how much may wait. A single message larger than this
            still passes when nothing waits.
        """
        self._maximum = maximum_bytes
        # IProcessTransport, whose consumer half for standard input has no interface.
        self._transport: Any = None
        # Most children never have one: even empty, it takes 760 bytes.
        self._messages: deque[bytes] | None = None
        self._queued_bytes = 0
        self._paused = False
        self._closing = False

    def attach(self, transport: Any) -> None:
        """
        @param transport: the process transport; standard input is open.
        """
        self._transport = transport
        transport.registerProducer(self, True)

    def write(self, data: bytes) -> bool:
        """
        @param data: one whole message.
        @return: whether it was taken.
        """
        if self._transport is None or self._closing:
            return False
        if not self._paused:
            self._transport.write(data)
            return True
        if self._messages and self._queued_bytes + len(data) > self._maximum:
            return False
        if self._messages is None:
            self._messages = deque()
        self._messages.append(data)
        self._queued_bytes += len(data)
        return True

    def close(self) -> None:
        """
        Close standard input behind what the pipe has taken. Waiting messages are
        dropped: the child is being stopped because nobody wants their answers.
        """
        if self._transport is None or self._closing:
            return
        self._closing = True
        self._messages = None
        self._queued_bytes = 0
        self._transport.unregisterProducer()
        self._transport.closeStdin()

    def detach(self) -> None:
        """
        The pipe is gone.
        """
        self._transport = None
        self._messages = None
        self._queued_bytes = 0

    # From Twisted

    def pauseProducing(self) -> None:
        """The pipe's buffer is full."""
        self._paused = True

    def resumeProducing(self) -> None:
        """The pipe's buffer is empty."""
        self._paused = False
        while self._messages and not self._paused and self._transport is not None:
            data = self._messages.popleft()
            self._queued_bytes -= len(data)
            self._transport.write(data)

    def stopProducing(self) -> None:
        """The pipe is being closed."""
        self.detach()
