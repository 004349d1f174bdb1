"""Small real objects that stand for parts of the world in memory."""

import signal
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from twisted.internet.error import ProcessDone, ProcessTerminated
from twisted.python.failure import Failure
from zope.interface import implementer

from fjmcp_broker.sessions.processes.spawn import Launcher
from fjmcp_broker.sessions.processes.transport import ISpawner

LAUNCHER = Launcher(("/setpriv", "--pdeathsig", "KILL"))
"""As if the helper program were there; nothing executes it."""


class FakePipe:
    """The reader of one of a child's outputs."""

    def __init__(self) -> None:
        """Reading at first."""
        self.reading = True
        self.held: list[bytes] = []

    def stopReading(self) -> None:  # noqa: N802 - as Twisted's
        """Hold back what the child writes."""
        self.reading = False

    def startReading(self) -> None:  # noqa: N802 - as Twisted's
        """Go on; what was held back is delivered by L{FakeProcess.deliver}."""
        self.reading = True


class FakeProcess:
    """
    A child process without a process: as L{ProcessTransport}, and the hands of a test
    on the child's side.

    @ivar written: everything that was written to its standard input and taken.
    @ivar signals: every signal sent to it.
    @ivar on_line: called with each line that it reads, if set.
    """

    def __init__(
        self,
        protocol: Any,
        pid: int,
        arguments: list[str],
        environment: dict[str, str],
        directory: str,
    ) -> None:
        """
        @param protocol: the process protocol.
        @param pid: its process id.
        @param arguments: its command line.
        @param environment: its environment.
        @param directory: where it runs.
        """
        self.protocol = protocol
        self.pid = pid
        self.arguments = arguments
        self.environment = environment
        self.directory = directory
        self.pipes: dict[int, FakePipe] = {0: FakePipe(), 1: FakePipe(), 2: FakePipe()}
        self.written = bytearray()
        self.signals: list[int] = []
        self.on_line: Callable[[bytes], None] | None = None
        self.reads_input = True
        self.ends_with_input = True
        self.dies_of: frozenset[int] = frozenset({signal.SIGTERM, signal.SIGKILL})
        self.ended = False
        self.exited = False
        self.stdin_closed = False
        self._producer: Any = None
        self._unread = bytearray()

    # The transport

    def write(self, data: bytes) -> None:
        """Take data; pause the producer beyond 64 KiB that nobody reads."""
        assert not self.stdin_closed
        self._unread += data
        if self.reads_input:
            self._read()
        elif len(self._unread) > 65536 and self._producer is not None:
            self._producer.pauseProducing()

    def registerProducer(self, producer: Any, streaming: bool) -> None:  # noqa: N802
        """Standard input has a producer."""
        assert streaming
        self._producer = producer

    def unregisterProducer(self) -> None:  # noqa: N802
        """Standard input has none any more."""
        self._producer = None

    def closeStdin(self) -> None:
        """The child sees the end of its input."""
        self.stdin_closed = True
        if self.ends_with_input:
            self.exit(0)

    def closeStdout(self) -> None:  # noqa: N802
        """Stop listening to it."""
        self.pipes.pop(1, None)

    def loseConnection(self) -> None:
        """Close every pipe."""
        self.pipes.clear()
        if self.exited:
            self._end()

    # The child's side

    def read_again(self) -> None:
        """Start to read standard input after not doing so."""
        self.reads_input = True
        self._read()
        if self._producer is not None:
            self._producer.resumeProducing()

    def _read(self) -> None:
        lines = self._unread.split(b"\n")
        self.written += self._unread
        self._unread = bytearray(lines.pop())
        if self._unread:
            del self.written[-len(self._unread) :]
        for line in lines:
            if self.on_line is not None:
                self.on_line(bytes(line))

    def say(self, line: bytes) -> None:
        """Write a line to standard output."""
        pipe = self.pipes[1]
        pipe.held.append(line + b"\n")
        self.deliver()

    def deliver(self) -> None:
        """Deliver what standard output holds, if somebody reads it."""
        pipe = self.pipes.get(1)
        while pipe is not None and pipe.reading and pipe.held:
            self.protocol.outReceived(pipe.held.pop(0))

    def complain(self, text: bytes) -> None:
        """Write to standard error."""
        self.protocol.errReceived(text)

    def take_signal(self, number: int) -> None:
        """Get a signal."""
        self.signals.append(number)
        if number in self.dies_of:
            self.exit(None, number)

    def exit(
        self, status: int | None = 0, number: int | None = None, *, held: bool = False
    ) -> None:
        """
        End. With C{held} another process keeps the pipes open.
        """
        if self.exited:
            return
        self.exited = True
        self._reason = Failure(
            ProcessDone(0)
            if status == 0
            else ProcessTerminated(exitCode=status, signal=number)
        )
        self.protocol.processExited(self._reason)
        if not held:
            self.deliver()
            self._end()

    def _end(self) -> None:
        if not self.ended:
            self.ended = True
            if self._producer is not None:
                self._producer.stopProducing()
            self.pipes.clear()
            self.protocol.processEnded(self._reason)


@implementer(ISpawner)
class FakeSpawner:
    """
    Starts processes in memory.

    @ivar processes: every process started so far.
    @ivar on_start: called with each new process before it is used, if set.
    @ivar refuse: raised by the next start, if set.
    @ivar reaped_at_once: whether a process is dead before its start returns, its
        output still in the pipes.
    """

    def __init__(self) -> None:
        """Nothing runs yet."""
        self.processes: list[FakeProcess] = []
        self.on_start: Callable[[FakeProcess], None] | None = None
        self.refuse: Exception | None = None
        self.reaped_at_once = False

    def spawn(
        self,
        protocol: Any,
        arguments: Sequence[str],
        environment: Mapping[str, str],
        directory: str,
    ) -> FakeProcess:
        """Start a process that exists in memory alone."""
        if self.refuse is not None:
            raise self.refuse
        process = FakeProcess(
            protocol,
            1000 + len(self.processes),
            list(arguments),
            dict(environment),
            directory,
        )
        self.processes.append(process)
        if self.on_start is not None:
            self.on_start(process)
        protocol.makeConnection(process)
        if self.reaped_at_once:
            # Twisted may find it dead while it registers it.
            process.exit(1, held=True)
        return process

    def kill_group(self, pid: int, number: int) -> None:
        """As C{os.killpg}."""
        for process in self.processes:
            if process.pid == pid and not process.exited:
                process.take_signal(number)
                return
        raise ProcessLookupError(pid)
