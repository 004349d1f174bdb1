"""Children that are killed or stopped at a certain step of the protocol."""

from __future__ import annotations

import random
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

import attrs

from tests.real.daemon import pause
from tests.slow.chaos import RECOVERY_SECONDS, Run, Window
from tests.slow.chaos_client import LIST, WRITE
from tests.slow.chaos_world import send

if TYPE_CHECKING:
    from tests.slow.chaos_world import World

NOTICE_SECONDS: Final = 0.5
"""How long the end of a child may go unnoticed."""

SPARED_SECONDS: Final = 15.0
"""A session whose children end quickly, again and again, has to wait for the next."""

STOPPED_SECONDS: Final = 1.5
HALTED_SECONDS: Final = 0.3
CLAIM_SECONDS: Final = 120.0
"""They come within 25 on a machine that is not slow."""

GONE_SECONDS: Final = 12.0
"""The grace of a stop twice, and some more."""

ASLEEP: Final = 6
"""So many sessions rest, to be woken."""


@attrs.frozen
class Moment:
    """
    When a child is hurt.

    @ivar step: as the stand-in child calls it.
    @ivar wanted: the call that leads there, if any.
    @ivar state: of the session, now or just before; empty for any.
    @ivar excused: whether calls of that session may fail when the child is killed.
    """

    step: str
    wanted: str = ""
    state: str = ""
    excused: bool = True


MOMENTS: Final = {
    "in a wake, before initialize is answered": Moment("initialize", state="starting"),
    "in a wake, before initialized": Moment("initialized", state="starting"),
    "in a rotation, before initialize is answered": Moment(
        "initialize", state="rotating", excused=False
    ),
    "in a rotation, before initialized": Moment("initialized", state="rotating"),
    "in tools/list": Moment("tools-list", LIST),
    "in a call, before its upstream request": Moment("create_issue.before", WRITE),
    "in a call, after its upstream request": Moment("create_issue.after", WRITE),
    "in its shutdown": Moment("shutdown", excused=False),
}
KILLED, STOPPED = "child killed ", "child stopped "
AIMED: Final = tuple(how + moment for how in (KILLED, STOPPED) for moment in MOMENTS)


@attrs.frozen
class Halted:
    """
    A child that stands at a step.

    @ivar name: of its session.
    @ivar file: goes when it may go on.
    """

    name: str
    pid: int
    file: Path


@attrs.define
class Aim:
    """
    Hurts the children of a world, whose clients call.

    @ivar hurt_at: when each session was hit.
    @ivar aimed_at: those that are about to be.
    """

    world: World
    draw: random.Random
    hurt_at: dict[str, float] = attrs.Factory(dict)
    aimed_at: set[str] = attrs.Factory(set)

    @property
    def run(self) -> Run:
        """
        @return: what the clients share.
        """
        return self.world.run_

    def names(self, state: str) -> list[str]:
        """
        @return: the sessions in that state that have had their rest.
        """
        now = time.monotonic()
        return sorted(
            name
            for name, (_, its) in self.world.states().items()
            if its == state
            and name not in self.aimed_at
            and now - self.hurt_at.get(name, -SPARED_SECONDS) >= SPARED_SECONDS
        )

    def let_rest(self) -> None:
        """
        Some sessions make no calls, so that their children go.
        """
        names = [name for name in self.names("live") if name not in self.run.resting]
        self.draw.shuffle(names)
        self.run.resting.update(names[: max(0, ASLEEP - len(self.run.resting))])

    async def hurt(self, event: str) -> None:
        """
        Halt a child at a step and kill or stop it there, until all is well again.

        @param event: one of L{AIMED}.
        """
        killed = event.startswith(KILLED)
        moment = MOMENTS[event.removeprefix(KILLED).removeprefix(STOPPED)]
        halted = await self.halted(moment)
        if halted is None:
            self.run.problem(f"no {event}")
            return
        # Something may come to wait for it.
        await pause(self.draw.uniform(0, HALTED_SECONDS))
        if killed:
            await self.kill(event, halted, moment)
        else:
            await self.stop(halted, moment)
        self.hurt_at[halted.name] = time.monotonic()
        self.aimed_at.discard(halted.name)

    async def kill(self, event: str, halted: Halted, moment: Moment) -> None:
        """
        Only calls of that session may fail, which works again in a moment.
        """
        window = self.run.begin(event, 0) if moment.excused else None
        if window is not None:
            window.hit.add(halted.name)
        send(halted.pid, signal.SIGKILL)
        halted.file.unlink()
        await self.gone(halted.pid)
        if window is not None:
            self.run.end(window, NOTICE_SECONDS)
            await self.recovered(window, halted.name)

    async def stop(self, halted: Halted, moment: Moment) -> None:
        """
        Nothing fails: what waits for the child waits longer. One that does not end is
        killed in the end.
        """
        send(halted.pid, signal.SIGSTOP)
        halted.file.unlink()
        if moment.step == "shutdown":
            await self.gone(halted.pid)
        else:
            await pause(STOPPED_SECONDS)
            send(halted.pid, signal.SIGCONT)

    async def gone(self, pid: int) -> None:
        """
        Wait for the end of a child.
        """
        ends = time.monotonic() + GONE_SECONDS
        while pid in self.world.children():
            if time.monotonic() > ends:
                self.run.problem(f"child {pid} does not end")
                return
            await pause(0.05)

    async def recovered(self, window: Window, name: str) -> None:
        """
        Wait until a session works again.
        """
        ends = time.monotonic() + RECOVERY_SECONDS
        while name not in window.recovered:
            if time.monotonic() > ends:
                self.run.problem(f"{name} does not work after: {window.what}")
                return
            await pause(0.05)

    async def halted(self, moment: Moment) -> Halted | None:
        """
        @return: a child at a step, C{None} when none came there.
        """
        ends = time.monotonic() + CLAIM_SECONDS
        wakes = moment.state == "starting"
        while time.monotonic() < ends:
            self.let_rest()
            names = self.names("dormant" if wakes else "live")
            names = [name for name in names if (name in self.run.resting) == wakes]
            if names:
                name = self.draw.choice(names)
                self.aimed_at.add(name)
                halted = await self.standing(moment, name, ends)
                if halted is not None:
                    # The broker may have read the answer, and gone on.
                    if not moment.state or moment.state in self.world.states()[name]:
                        return halted
                    halted.file.unlink()
                self.aimed_at.discard(name)
            await pause(0.1)
        return None

    async def standing(self, moment: Moment, name: str, ends: float) -> Halted | None:
        """
        @param name: the session whose child to wait for.
        @param ends: until when.
        @return: the child, at that step.
        """
        asked = self.world.steps / f"{moment.step}@{name}"
        asked.touch()
        self.run.resting.discard(name)
        if moment.wanted:
            self.run.wanted[name] = moment.wanted
        while time.monotonic() < ends:
            await pause(0.02)
            for file in self.world.steps.glob(f"{asked.name}.*"):
                return Halted(name, int(file.suffix[1:]), file)
        asked.unlink(missing_ok=True)
        for file in self.world.steps.glob(f"{asked.name}.*"):
            file.unlink()
        return None
