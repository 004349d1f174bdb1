"""
Signs of life of a child that has something to answer.

A call may take as long as it needs, so that silence alone says nothing. Two things do:
a process that is stopped (SIGSTOP, a debugger, a frozen control group of its own) will
not answer before somebody lets it go on; and the specification has every party answer
C{ping} promptly (MCP 2025-11-25, basic, utilities, ping). Servers that work in a single
thread cannot do that during a call, so that there is much patience with them. A child
that waits for a person's answer owes nothing.
"""

from pathlib import Path
from typing import Final

from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from fjmcp_broker.mcp.modern.profiles import DISCOVER
from fjmcp_broker.sessions.children.attachment import Attachment
from fjmcp_broker.sessions.children.greeting import STATELESS_PARAMS
from fjmcp_broker.sessions.processes.ending import ChildEnd, ChildObserver, EndReason

LOOK_SECONDS: Final = 5.0
STOPPED_SECONDS: Final = 10.0
"""A stopped child that owes an answer is given up after so long without a word."""

PING_SECONDS: Final = 60.0
"""One that runs is asked after so long."""

UNANSWERED_SECONDS: Final = 300.0
"""And given up when it says nothing at all for so long after that."""


class Liveness:
    """
    Stands between a child and its attachment, and notices when it speaks.
    """

    log = Logger()

    def __init__(self, observer: ChildObserver, clock: IReactorTime) -> None:
        """
        @param observer: the attachment.
        @param clock: tells the time.
        """
        self._observer = observer
        self._clock = clock
        self._quiet_since: float | None = None
        self._asked_at: float | None = None

    def child_line(self, line: bytes) -> None:
        """
        @param line: what the child said.
        """
        self._quiet_since = None
        passed_on = [line]
        del line  # it may be large: whoever reads it decides how long it is kept
        self._observer.child_line(passed_on.pop())

    def child_ended(self, end: ChildEnd) -> None:
        """
        @param end: how the child ended.
        """
        self._observer.child_ended(end)

    def look(self, attachment: Attachment) -> None:
        """
        To be called every now and then. Kills a child that will not answer.

        @param attachment: with the requests that the child has.
        """
        child, now = attachment.child, self._clock.seconds()
        owes = attachment.in_flight and not attachment.awaits_client
        if child is None or not child.usable() or not owes:
            self._quiet_since = None
            return
        if self._quiet_since is None:
            self._quiet_since, self._asked_at = now, None
        quiet = now - self._quiet_since
        if quiet >= STOPPED_SECONDS and child.pid and is_stopped(child.pid):
            why = "is stopped"
        elif self._asked_at is None:
            if quiet >= PING_SECONDS:
                self._asked_at = now
                if attachment.is_stateless:
                    # These revisions have no ping.
                    attachment.ask(DISCOVER, STATELESS_PARAMS)
                else:
                    attachment.ask("ping", {})
            return
        elif now - self._asked_at >= UNANSWERED_SECONDS:
            why = "does not answer"
        else:
            return
        self.log.warn("child {pid} {why} and is killed", pid=child.pid, why=why)
        child.kill(EndReason.EXITED)


def is_stopped(pid: int, processes: Path = Path("/proc")) -> bool:
    """
    @param pid: of a child.
    @param processes: where the kernel tells of processes, proc(5).
    @return: whether it is stopped by a signal or a debugger.
    """
    try:
        state = (processes / str(pid) / "stat").read_bytes().rpartition(b")")[2]
    except OSError:
        return False
    return state.split()[:1] in ([b"T"], [b"t"])
