"""
How a child process is started, and what stands between it and the event loop.

Twisted's C{spawnProcess} is not used: before each start it asks for the flags of every
open descriptor, of which a thousand sessions have thousands; it makes no process group;
for another directory it copies the whole daemon; and when one process has ended it asks
the system about each that it has started. The standard library starts a process with a
session and a directory of its own and with no other descriptors, by C{vfork}, in a time
that hardly grows; and the kernel tells of its end by a descriptor (pidfd, Linux 5.3).
"""

import os
import signal
import subprocess
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from twisted.internet.error import ProcessDone, ProcessTerminated
from twisted.internet.interfaces import IProcessProtocol, IReadDescriptor
from twisted.internet.main import CONNECTION_DONE, CONNECTION_LOST
from twisted.internet.process import (
    ProcessReader,
    registerReapProcessHandler,
    unregisterReapProcessHandler,
)
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import Interface, implementer

from fjmcp_broker.sessions.processes.input_pipe import InputPipe

STDIN: Final = 0
STDOUT: Final = 1
STDERR: Final = 2

_LOST: Final = 0
"""The status of a process that somebody else has reaped."""

_READ_BYTES: Final = 32 * 1024
"""At once. With Twisted's 8 KiB the loop may take more questions in a turn than
answers, so that they pile up in the child; with much more it may be busy with one child
for too long."""


class ISpawner(Interface):
    """
    Starts processes.
    """

    def spawn(
        protocol: IProcessProtocol,  # noqa: N805 - an interface has no self
        arguments: Sequence[str],
        environment: Mapping[str, str],
        directory: str,
    ) -> object:
        """
        Start a process that leads a session and a process group of its own and has
        pipes for its standard descriptors, and no others.

        @param protocol: hears of it, the first time before this returns.
        @param arguments: the program's path and its arguments.
        @param environment: all of it.
        @param directory: where it runs.
        @return: its transport, as L{ProcessTransport}.
        @raise OSError: there is no such program or directory, or no room.
        """


class _Output(ProcessReader):
    """An output of a process."""

    def doRead(self) -> Exception | None:  # noqa: N802 - Twisted's
        """It has something, or was closed."""
        try:
            data = os.read(self.fd, _READ_BYTES)
        except BlockingIOError:
            return None
        except OSError:
            return CONNECTION_LOST
        if not data:
            return CONNECTION_DONE
        self.proc.childDataReceived(self.name, data)
        return None


@implementer(IReadDescriptor)
class ProcessTransport:
    """
    The daemon's ends of the pipes of a process, which is reaped when it ends. As a
    descriptor to read it is the one that tells of the end.

    @ivar pid: the process id; taken until the protocol hears C{processExited}.
    @ivar pipes: what is still open, by the number that the process knows it by.
    """

    log = Logger()

    # A broker has thousands of them.
    __slots__ = ("_pidfd", "_protocol", "_reactor", "_reason", "pid", "pipes")

    def __init__(
        self,
        reactor: Any,
        protocol: IProcessProtocol,
        pid: int,
        ends: Mapping[int, int],
    ) -> None:
        """
        @param reactor: reads and writes; also what C{IReactorFDSet} lacks.
        @param protocol: hears of the process.
        @param pid: of a process that was just started, and that nobody else reaps.
        @param ends: our ends of its pipes, by the number that it knows them by.
        @raise OSError: there is no room to watch them; the process is killed.
        """
        self.pid = pid
        self.pipes: dict[int, Any] = {}
        self._reactor = reactor
        self._protocol: IProcessProtocol | None = protocol
        self._reason: Failure | None = None
        self._pidfd = -1
        try:
            self.pipes[STDIN] = InputPipe(reactor, self, STDIN, ends[STDIN])
            for number in (STDOUT, STDERR):
                self.pipes[number] = _Output(reactor, self, number, ends[number])
        except BaseException:
            self._give_up(ends)
            raise

    def watch(self, open_pidfd: Callable[[int], int]) -> None:
        """
        Hear of the end, which may have come already.

        @param open_pidfd: gives the descriptor. Where there is none, each SIGCHLD has
            Twisted ask for all processes.
        """
        try:
            self._pidfd = open_pidfd(self.pid)
            self._reactor.addReader(self)
        except OSError:
            self._forget()
            registerReapProcessHandler(self.pid, self)

    # Towards the child's supervisor

    def write(self, data: bytes) -> None:
        """
        @param data: for standard input; dropped when that is closed.
        """
        if STDIN in self.pipes:
            self.pipes[STDIN].write(data)

    def registerProducer(self, producer: Any, streaming: bool) -> None:  # noqa: N802
        """
        @param producer: of what is written to standard input.
        @param streaming: whether it goes on until it is paused.
        """
        if STDIN in self.pipes:
            self.pipes[STDIN].registerProducer(producer, streaming)
        else:
            producer.stopProducing()

    def unregisterProducer(self) -> None:  # noqa: N802 - Twisted's
        """Nobody produces for standard input any more."""
        if STDIN in self.pipes:
            self.pipes[STDIN].unregisterProducer()

    def closeStdin(self) -> None:
        """Close standard input behind what was written."""
        self._close(STDIN)

    def closeStdout(self) -> None:  # noqa: N802 - Twisted's
        """Read standard output no further."""
        self._close(STDOUT)

    def loseConnection(self) -> None:
        """Close all pipes."""
        for number in (STDIN, STDERR, STDOUT):
            self._close(number)

    # From the pipes

    def childDataReceived(self, number: int, data: bytes) -> None:
        """
        @param number: of an output.
        @param data: what it had.
        """
        if number == STDOUT and STDIN in self.pipes:
            self.pipes[STDIN].heard()
        if self._protocol is not None:
            self._protocol.childDataReceived(number, data)

    def childConnectionLost(self, number: int, reason: Failure) -> None:
        """
        @param number: of the pipe that is no more.
        @param reason: why.
        """
        os.close(self.pipes.pop(number).fileno())
        if self._protocol is not None:
            with self.log.failuresHandled(
                "a pipe of process {pid} closed", pid=self.pid
            ):
                self._protocol.childConnectionLost(number)
        self._end_if_over()

    # From the reactor

    def fileno(self) -> int:
        """
        @return: the descriptor that becomes readable when the process ends.
        """
        return self._pidfd

    def logPrefix(self) -> str:  # noqa: N802 - Twisted's
        """
        @return: what it is called in the log.
        """
        return "process"

    def doRead(self) -> None:  # noqa: N802 - Twisted's
        """The process has ended."""
        status = self._wait()
        if status is not None:
            self._reactor.removeReader(self)
            self._forget()
            self.processEnded(status)

    def connectionLost(self, reason: Failure) -> None:
        """
        The event loop ends before the process does.

        @param reason: why.
        """
        self._forget()

    # From Twisted where there is no pidfd

    def reapProcess(self) -> None:  # noqa: N802 - Twisted's
        """Some process has ended."""
        status = self._wait()
        if status is not None:
            unregisterReapProcessHandler(self.pid, self)
            self.processEnded(status)

    def processEnded(self, status: int) -> None:
        """
        The process was reaped.

        @param status: as of C{waitpid}.
        """
        code = os.waitstatus_to_exitcode(status)
        error: Exception
        if code < 0:
            error = ProcessTerminated(None, -code, status)
        elif code:
            error = ProcessTerminated(code, None, status)
        else:
            error = ProcessDone(status)
        self._reason = Failure(error)
        if self._protocol is not None:
            with self.log.failuresHandled("{pid} exited", pid=self.pid):
                self._protocol.processExited(self._reason)
        self._end_if_over()

    # Inside

    def _give_up(self, ends: Mapping[int, int]) -> None:
        # The kernel bounds how much is watched (epoll(7), max_user_watches). Whom
        # nobody hears must not run on, with a user's token.
        self._protocol = None
        for pipe in self.pipes.values():
            pipe.stopReading()
        self.pipes.clear()
        for end in ends.values():
            os.close(end)
        os.killpg(self.pid, signal.SIGKILL)
        registerReapProcessHandler(self.pid, self)

    def _close(self, number: int) -> None:
        if number in self.pipes:
            self.pipes[number].loseConnection()

    def _wait(self) -> int | None:
        try:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
        except ChildProcessError:
            return _LOST
        return status if pid else None

    def _forget(self) -> None:
        pidfd, self._pidfd = self._pidfd, -1
        if pidfd >= 0:
            os.close(pidfd)

    def _end_if_over(self) -> None:
        # What the process has written is read before its end is told.
        if self.pipes or self._reason is None or self._protocol is None:
            return
        protocol, self._protocol = self._protocol, None
        with self.log.failuresHandled("{pid} ended", pid=self.pid):
            protocol.processEnded(self._reason)


def open_pidfd(pid: int) -> int:
    """
    @param pid: of a process.
    @return: a descriptor that becomes readable when it ends.
    @raise OSError: the system has none, or Python was built on one that has none.
    """
    try:
        return os.pidfd_open(pid)
    except AttributeError:
        raise OSError("os.pidfd_open") from None


@implementer(ISpawner)
class Spawner:
    """
    Starts processes for a reactor.
    """

    def __init__(
        self,
        reactor: Any,
        open_pidfd: Callable[[int], int] = open_pidfd,
    ) -> None:
        """
        @param reactor: reads and writes their pipes.
        @param open_pidfd: gives a descriptor that tells of a process's end.
        """
        self._reactor = reactor
        self._open_pidfd = open_pidfd

    def spawn(
        self,
        protocol: IProcessProtocol,
        arguments: Sequence[str],
        environment: Mapping[str, str],
        directory: str,
    ) -> ProcessTransport:
        """
        As L{ISpawner.spawn}.
        """
        ours: dict[int, int] = {}
        theirs: dict[int, int] = {}
        try:
            for number in (STDIN, STDOUT, STDERR):
                reading, writing = os.pipe()
                ours[number], theirs[number] = (
                    (writing, reading) if number == STDIN else (reading, writing)
                )
            process = subprocess.Popen(  # noqa: S603 - the operator's own program
                arguments,
                stdin=theirs[STDIN],
                stdout=theirs[STDOUT],
                stderr=theirs[STDERR],
                close_fds=True,
                cwd=directory,
                env=environment,
                start_new_session=True,
            )
        except BaseException:
            for end in ours.values():
                os.close(end)
            raise
        finally:
            for end in theirs.values():
                os.close(end)
        # Else it would reap the process itself when it is collected.
        process.returncode = _LOST
        transport = ProcessTransport(self._reactor, protocol, process.pid, ours)
        # What it uses of IProcessTransport is there.
        protocol.makeConnection(transport)  # type: ignore[arg-type]
        transport.watch(self._open_pidfd)
        return transport
