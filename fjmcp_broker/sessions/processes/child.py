"""
One child process: started, spoken to in lines, watched, stopped and always reaped.

The child is C{starting} until L{Child.mark_ready}, then C{running}; L{Child.stop} and
every fault make it C{stopping}; C{ended} is reported exactly once, when the process
has been reaped and its pipes are closed.

A stop closes standard input, waits for the grace, sends SIGTERM to the process group,
waits again, and sends SIGKILL. What the child left behind in its group is killed as
soon as the child itself is gone.
"""

import os
import signal
from collections.abc import Callable, Mapping
from typing import Any, Final

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.internet.protocol import ProcessProtocol
from twisted.logger import Logger
from twisted.python.failure import Failure

from fjmcp_broker.mcp.framing import FramingError, LineFramer, frame
from fjmcp_broker.secret import Secret
from fjmcp_broker.sessions.errors import ChildBusy, ChildCannotStart, ChildGone
from fjmcp_broker.sessions.processes.ending import (
    NOBODY,
    ChildEnd,
    ChildObserver,
    EndReason,
)
from fjmcp_broker.sessions.processes.spawn import (
    ChildSettings,
    Launcher,
    child_environment,
    make_working_directory,
    remove_working_directory,
    send_to_group,
)
from fjmcp_broker.sessions.processes.stderr import REDACTED, StderrLog
from fjmcp_broker.sessions.processes.stdin import StdinQueue
from fjmcp_broker.sessions.processes.transport import ISpawner

DRAIN_SECONDS: Final = 1.0
"""How long pipes may stay open after the child is gone: a process that left its group
may hold them."""


class Child(ProcessProtocol):
    """
    A running child process.
    """

    log = Logger()

    def __init__(
        self,
        *,
        spawner: ISpawner,
        clock: IReactorTime,
        launcher: Launcher,
        settings: ChildSettings,
        token: Secret,
        observer: ChildObserver,
        name: str,
        inherited: Mapping[str, str] = os.environ,
        kill_group: Callable[[int, int], None] = os.killpg,
    ) -> None:
        """
        @param spawner: starts processes.
        @param clock: for the start deadline and the steps of a stop.
        @param launcher: what to put in front of the command.
        @param settings: the configured child.
        @param token: the user's Forgejo access token.
        @param observer: gets lines and the end.
        @param name: short name for the log, not secret.
        @param inherited: the daemon's own environment.
        @param kill_group: sends a signal to a process group.
        """
        self._spawner = spawner
        self._clock = clock
        self._launcher = launcher
        self._settings = settings
        self._token = token
        self._token_bytes = token.reveal_bytes()
        self._observer = observer
        self._name = name
        self._inherited = inherited
        self._kill_group = kill_group

        self._framer = LineFramer(settings.maximum_line_bytes)
        self._stderr = StderrLog(name, (self._token_bytes,), clock.seconds)
        self._stdin = StdinQueue(settings.maximum_queued_bytes)
        # ProcessTransport, or what stands for it in tests.
        self._process: Any = None
        self._pid: int | None = None
        self._directory: str | None = None
        self._stopping: EndReason | None = None
        self._signalled = False
        self._exited = False
        self._end: ChildEnd | None = None
        self._timer: IDelayedCall | None = None
        self._waiting: list[Deferred[ChildEnd]] = []
        self._pausers: set[object] = set()
        self._output_open = True

    # Towards the owner

    @property
    def pid(self) -> int | None:
        """
        @return: the process id, C{None} before the start and after the end.
        """
        return self._pid

    @property
    def last_stderr(self) -> str:
        """
        @return: its last line on standard error, cleaned; may be empty.
        """
        return self._stderr.last_line

    def usable(self) -> bool:
        """
        @return: whether messages may still be sent.
        """
        return self._pid is not None and self._stopping is None and not self._exited

    def start(self) -> None:
        """
        Launch the process. The start deadline runs until L{mark_ready}.

        @raise ChildCannotStart: it could not even be launched.
        """
        try:
            self._directory = make_working_directory()
            self._spawner.spawn(
                self,
                self._launcher.command_line(self._settings.command),
                child_environment(self._settings, self._token, self._inherited),
                self._directory,
            )
        except ChildCannotStart:
            self._remove_directory()
            raise
        except Exception as error:
            # The text of the error may hold the environment, its type does not.
            self._remove_directory()
            raise ChildCannotStart(
                f"child could not be launched: {type(error).__name__}"
            ) from None
        if not self._exited:
            # A quick one may have been reaped in there already.
            self._timer = self._clock.callLater(
                self._settings.start_timeout_seconds, self._start_timed_out
            )

    def mark_ready(self) -> None:
        """
        The answer to C{initialize} came: the start deadline is met.
        """
        if self._stopping is None:
            self._cancel_timer()

    def send(self, message: bytes) -> None:
        """
        Write one message to the child's standard input.

        @param message: JSON; white space in it may be a client's.
        @raise ChildGone: it has ended or is being stopped.
        @raise ChildBusy: too much is waiting to be read by it; nothing was queued.
        """
        if not self.usable():
            raise ChildGone("the child has ended")
        if not self._stdin.write(frame(message)):
            raise ChildBusy("the child does not read its input")

    def pause_output(self, who: object) -> None:
        """
        Stop reading the child's standard output, for everybody; standard error is
        read on. Each pauser must resume.

        @param who: identifies the pauser.
        """
        if not self._pausers and self._output_open and not self._exited:
            self._reader_of_stdout("stopReading")
        self._pausers.add(who)

    def resume_output(self, who: object) -> None:
        """
        Take back L{pause_output}; reading goes on when nobody pauses any more.

        @param who: as given to L{pause_output}; unknown ones are ignored.
        """
        if who in self._pausers:
            self._pausers.remove(who)
            if not self._pausers and self._output_open and not self._exited:
                self._reader_of_stdout("startReading")

    async def stop(self, grace_seconds: float | None = None) -> ChildEnd:
        """
        Stop the child and wait until it is reaped. May be called again and by
        several callers at once; a shorter grace given later shortens the rest.

        @param grace_seconds: instead of the configured one; 0 sends SIGTERM at once.
        @return: how it ended.
        """
        if self._end is None:
            if grace_seconds is None:
                grace_seconds = self._settings.stop_grace_seconds
            self._begin_stop(EndReason.STOPPED, grace_seconds)
        return await self.when_ended()

    def kill(self, reason: EndReason = EndReason.STOPPED) -> None:
        """
        Kill the whole process group now. The end is reported as after L{stop}.

        @param reason: what is reported, unless a stop has begun already.
        """
        if self._end is None and self._pid is not None:
            self._stopping = self._stopping or reason
            self._cancel_timer()
            self._signalled = True
            self._signal_group(signal.SIGKILL)

    def when_ended(self) -> Deferred[ChildEnd]:
        """
        @return: a Deferred of its own for each caller, which fires when the process
            is reaped and its working directory removed.
        """
        waiting: Deferred[ChildEnd] = Deferred()
        if self._end is not None:
            waiting.callback(self._end)
        else:
            self._waiting.append(waiting)
        return waiting

    # From Twisted

    def connectionMade(self) -> None:
        """The process runs."""
        self._process = self.transport
        self._pid = self._process.pid
        self._stdin.attach(self._process)

    def outReceived(self, data: bytes) -> None:
        """
        @param data: the next bytes of standard output.
        """
        try:
            lines = self._framer.receive(data)
        except FramingError:
            self.log.error(
                "child {child} wrote a line that is too long", child=self._name
            )
            self._output_open = False
            self._process.closeStdout()
            self.kill(EndReason.LINE_TOO_LONG)
            return
        token = self._token_bytes
        lines.reverse()
        while lines:
            try:
                # Kept by nobody here: it may be large, and so are its parts.
                self._observer.child_line(lines.pop().replace(token, REDACTED))
            except Exception:
                # Raised further it would close the pipe.
                self.log.failure("a line of child {child} failed", child=self._name)

    def errReceived(self, data: bytes) -> None:
        """
        @param data: the next bytes of standard error.
        """
        self._stderr.receive(data)

    def inConnectionLost(self) -> None:
        """The child closed its standard input, or we did."""
        self._stdin.detach()
        if self._stopping is None and not self._exited:
            # It can be given nothing more, so that it is of no more use.
            self._begin_stop(EndReason.CLOSED_OUTPUT, DRAIN_SECONDS)

    def outConnectionLost(self) -> None:
        """The child closed its standard output, or ended."""
        self._output_open = False
        if self._stopping is None and not self._exited:
            # Most often it is about to be reaped: the next thing heard of it.
            self._begin_stop(EndReason.CLOSED_OUTPUT, self._settings.stop_grace_seconds)

    def processExited(self, reason: Failure) -> None:
        """
        The process is reaped; its pipes may still hold data, or be held open by
        processes that it started.
        """
        self._exited = True
        self._cancel_timer()
        self._signal_group(signal.SIGKILL)
        if self._pausers and self._output_open:
            # No more than what fits into a pipe is still to come.
            self._reader_of_stdout("startReading")
        self._timer = self._clock.callLater(DRAIN_SECONDS, self._drop_pipes)

    def processEnded(self, reason: Failure) -> None:
        """
        Everything is over: the single place that ends a child.

        @param reason: holds exit status and signal.
        """
        self._exited = True
        self._cancel_timer()
        self._stdin.detach()
        self._pid = None
        self._stderr.finish()
        self._remove_directory()
        status: Any = reason.value  # ProcessDone or ProcessTerminated
        why = self._stopping or EndReason.EXITED
        if why is EndReason.CLOSED_OUTPUT and not self._signalled:
            why = EndReason.EXITED  # its pipes were only seen to close first
        self._end = end = ChildEnd(
            why, status.exitCode, status.signal, self.last_stderr
        )
        try:
            self._observer.child_ended(end)
        except Exception:
            self.log.failure(
                "the end of child {child} was mishandled", child=self._name
            )
        # It knows this child, too, and such rings would stay in memory until the
        # garbage collector has looked at everything, which it seldom does.
        self._observer = NOBODY
        waiting, self._waiting = self._waiting, []
        for each in waiting:
            each.callback(end)

    # Inside

    def _start_timed_out(self) -> None:
        self._timer = None
        self.log.warn(
            "child {child} did not become ready in {seconds} s",
            child=self._name,
            seconds=self._settings.start_timeout_seconds,
        )
        self.kill(EndReason.START_TIMEOUT)

    def _begin_stop(self, reason: EndReason, grace_seconds: float) -> None:
        first = self._stopping is None
        self._stopping = self._stopping or reason
        if self._pid is None or self._exited:
            return
        if first:
            self._schedule(grace_seconds)
            self._stdin.close()
        elif self._timer is not None:
            left = self._timer.getTime() - self._clock.seconds()
            if grace_seconds < left:
                self._schedule(grace_seconds)

    def _schedule(self, grace_seconds: float) -> None:
        self._cancel_timer()
        if grace_seconds <= 0:
            self._terminate(grace_seconds)
        else:
            self._timer = self._clock.callLater(
                grace_seconds, self._terminate, grace_seconds
            )

    def _terminate(self, grace_seconds: float) -> None:
        self._timer = self._clock.callLater(max(grace_seconds, 0.1), self.kill)
        self._signalled = True
        self._signal_group(signal.SIGTERM)
        # A stopped process gets its SIGTERM only when it goes on.
        self._signal_group(signal.SIGCONT)

    def _signal_group(self, number: int) -> None:
        if self._pid is not None:
            send_to_group(self._kill_group, self._pid, number, self._name)

    def _drop_pipes(self) -> None:
        self._timer = None
        self._process.loseConnection()

    def _reader_of_stdout(self, method: str) -> None:
        reader = self._process.pipes.get(1)
        if reader is not None:
            getattr(reader, method)()

    def _cancel_timer(self) -> None:
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        self._timer = None

    def _remove_directory(self) -> None:
        if self._directory is not None:
            remove_working_directory(self._directory)
            self._directory = None
