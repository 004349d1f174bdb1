"""How a child ended, and who wants to know."""

from enum import Enum
from signal import SIGKILL
from typing import Final, Protocol

import msgspec


class EndReason(Enum):
    """
    Why a child is no more. The value is what clients find as C{data.reason}.
    """

    EXITED = "child_exited"
    START_TIMEOUT = "child_start_timeout"
    LINE_TOO_LONG = "child_line_too_long"
    CLOSED_OUTPUT = "child_closed_output"
    STOPPED = "child_stopped"


class ChildEnd(msgspec.Struct, frozen=True):
    """
    How a child ended.

    @ivar reason: who began it.
    @ivar exit_code: the exit status, or C{None} after a signal.
    @ivar signal: the number of the signal, or C{None} after an exit.
    @ivar last_stderr: its last line on standard error, cleaned; may be empty.
    """

    reason: EndReason
    exit_code: int | None
    signal: int | None
    last_stderr: str

    @property
    def is_nobodys_fault(self) -> bool:
        """
        @return: whether it says nothing about the next child: it was stopped by us, or
            killed by somebody else.
        """
        was_killed = self.reason is EndReason.EXITED and self.signal == SIGKILL
        return was_killed or self.reason is EndReason.STOPPED

    def describe(self) -> str:
        """
        @return: one line for the log.
        """
        how = (
            f"signal {self.signal}"
            if self.signal is not None
            else f"exit status {self.exit_code}"
        )
        said = f", last said: {self.last_stderr}" if self.last_stderr else ""
        return f"{self.reason.value} ({how}{said})"


class ChildObserver(Protocol):
    """
    Who owns a child.
    """

    def child_line(self, line: bytes) -> None:
        """
        @param line: one message, without line end, its token already redacted.
        """

    def child_ended(self, end: ChildEnd) -> None:
        """
        Called once, after the last line.

        @param end: how it ended.
        """


class _Nobody:
    """Hears nothing."""

    def child_line(self, line: bytes) -> None:
        """
        @param line: is dropped.
        """

    def child_ended(self, end: ChildEnd) -> None:
        """
        @param end: is dropped.
        """


NOBODY: Final[ChildObserver] = _Nobody()
"""The owner of a child that is no more."""


class Parting(msgspec.Struct, frozen=True):
    """
    Why a child has to go.

    @ivar reason: short, for the log and C{data.reason} of those who wait.
    @ivar told: one sentence for them.
    @ivar at_once: whether it is killed instead of being let finish.
    """

    reason: str
    told: str
    at_once: bool = False


UNMISSED: Final = Parting("child_stopped", "the child was stopped")
EXPIRED: Final = Parting("token_expired", "the user's token has expired")
