"""
The life of a session: which child it has, as a machine without any I/O.

The table below is the whole truth: the machine is built from it, and so is the
diagram in C{docs/session-machine.md}. An input that a state does not list is a
mistake of the caller and raises C{automat.NoTransition}.

A replaced child that still finishes its requests is no state of its own: it serves
nobody new, and whatever happens to it changes nothing for the session.
"""

import re
import sys
from collections.abc import Callable
from enum import Enum
from typing import Final, Protocol

import msgspec
from automat import TypeMachineBuilder


class State(Enum):
    """
    Where a session stands.
    """

    DORMANT = "dormant"
    STARTING = "starting"
    LIVE = "live"
    ROTATING = "rotating"
    CLOSED = "closed"


class Lifecycle(Protocol):
    """
    What can happen to a session. An input that comes while another one is being
    carried out is taken after it.
    """

    def wake(self) -> None:
        """Somebody needs a child."""

    def rotate(self) -> None:
        """The child should be replaced by one with a newer token."""

    def sleep(self) -> None:
        """The child should go."""

    def close(self) -> None:
        """The session is over."""

    def child_ready(self) -> None:
        """The starting child has answered C{initialize}."""

    def child_failed(self) -> None:
        """No child could be made ready."""

    def child_ended(self) -> None:
        """The child that requests go to has ended, or takes nothing any more."""


class LifecycleCore(Protocol):
    """
    What a session does about it.
    """

    def entered(self, change: "Change") -> None:
        """
        @param change: has just begun; called before its actions.
        """

    def start_child(self) -> None:
        """Begin to start a child; an input tells how that went."""

    def abandon_start(self) -> None:
        """Give up the child that is being started."""

    def promote(self) -> None:
        """Send requests to the started child; one before it finishes what it has."""

    def stop_child(self) -> None:
        """Stop the child that requests go to."""

    def lose_child(self) -> None:
        """Forget the child that requests went to."""

    def release_waiting(self) -> None:
        """Let those go on who wait for a child: there is one."""

    def fail_waiting(self) -> None:
        """Tell those who wait for a child that there will be none."""


class Change(msgspec.Struct, frozen=True):
    """
    One line of the table.

    @ivar source: the state before.
    @ivar event: name of the input.
    @ivar target: the state after it.
    @ivar actions: names of what the core does, in this order.
    """

    source: State
    event: str
    target: State
    actions: tuple[str, ...] = ()

    @property
    def is_quiet(self) -> bool:
        """
        @return: whether nothing happens at all.
        """
        return self.source is self.target and not self.actions


def _table() -> tuple[Change, ...]:
    dormant, starting, live = State.DORMANT, State.STARTING, State.LIVE
    rotating, closed = State.ROTATING, State.CLOSED
    return (
        Change(dormant, "wake", starting, ("start_child",)),
        Change(dormant, "rotate", dormant),
        Change(dormant, "sleep", dormant),
        Change(dormant, "close", closed),
        Change(starting, "wake", starting),
        Change(starting, "rotate", starting),
        Change(starting, "child_ready", live, ("promote", "release_waiting")),
        Change(starting, "child_failed", dormant, ("fail_waiting",)),
        Change(starting, "sleep", dormant, ("abandon_start", "fail_waiting")),
        Change(starting, "close", closed, ("abandon_start", "fail_waiting")),
        Change(live, "wake", live),
        Change(live, "rotate", rotating, ("start_child",)),
        Change(live, "child_ended", dormant, ("lose_child",)),
        Change(live, "sleep", dormant, ("stop_child",)),
        Change(live, "close", closed, ("stop_child",)),
        Change(rotating, "wake", rotating),
        Change(rotating, "rotate", rotating),
        Change(rotating, "child_ready", live, ("promote", "release_waiting")),
        Change(rotating, "child_failed", live, ("release_waiting",)),
        Change(rotating, "child_ended", starting, ("lose_child",)),
        Change(
            rotating, "sleep", dormant, ("abandon_start", "stop_child", "fail_waiting")
        ),
        Change(
            rotating, "close", closed, ("abandon_start", "stop_child", "fail_waiting")
        ),
        Change(closed, "sleep", closed),
        Change(closed, "rotate", closed),
        Change(closed, "close", closed),
    )


CHANGES: Final = _table()


def _build() -> Callable[[LifecycleCore], Lifecycle]:
    # It only wants to know the type, and so an abstract one does.
    builder = TypeMachineBuilder(Lifecycle, LifecycleCore)  # type: ignore[type-abstract]
    states = {state: builder.state(state.value) for state in State}
    for change in CHANGES:
        event: Callable[[Lifecycle], None] = getattr(Lifecycle, change.event)
        states[change.source].upon(event).to(states[change.target])(_output(change))
    return builder.build()


def _output(change: Change) -> Callable[[Lifecycle, LifecycleCore], None]:
    def carry_out(_machine: Lifecycle, core: LifecycleCore) -> None:
        core.entered(change)
        for action in change.actions:
            getattr(core, action)()

    carry_out.__name__ = f"{change.source.value}_{change.event}"
    return carry_out


make_lifecycle: Final = _build()
"""Makes the machine of one session, which is dormant, around its core."""


def page() -> str:
    """
    @return: the documentation page: a diagram in the notation of Mermaid, and what
        the actions do.
    """
    drawn = ["stateDiagram-v2", f"    [*] --> {State.DORMANT.value}"]
    for change in CHANGES:
        if not change.is_quiet:
            done = f": {change.event}"
            if change.actions:
                done += f" / {', '.join(change.actions)}"
            drawn.append(f"    {change.source.value} --> {change.target.value}{done}")
    drawn.append(f"    {State.CLOSED.value} --> [*]")
    return "\n".join(
        [
            "# The session machine",
            "",
            "`make generate` makes this from the table in `mcp/lifecycle.py`.",
            "Each arrow is an input and what the session does about it; an input that",
            "changes nothing is left out, any other is an error of ours.",
            "",
            "```mermaid",
            *drawn,
            "```",
            "",
            "A child that was replaced and still finishes its requests is no state of",
            "its own: it serves nobody new, and nothing that happens to it changes the",
            "session.",
            "",
            "| input | means |",
            "|---|---|",
            *_rows(Lifecycle),
            "",
            "| action | does |",
            "|---|---|",
            *(row for row in _rows(LifecycleCore) if "`entered`" not in row),
            "",
        ]
    )


def _rows(protocol: type) -> list[str]:
    rows = []
    for name, member in vars(protocol).items():
        if not name.startswith("_") and callable(member):
            means = re.sub(r"C{(.*?)}", r"`\1`", member.__doc__ or "")
            rows.append(f"| `{name}` | {means} |")
    return rows


if __name__ == "__main__":
    sys.stdout.write(page())
