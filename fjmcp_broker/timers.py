"""Periodic work that an error does not end."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final

from twisted.application.internet import TimerService
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from fjmcp_broker.errors import BrokerError

log: Final = Logger()


def steady_timer(
    seconds: float,
    work: Callable[[], Awaitable[None]],
    what: str,
    clock: IReactorTime,
) -> TimerService:
    """
    Make a timer that runs its work at the start and then again and again. A
    C{TimerService} alone ends for good with the first error.

    @param seconds: from one beginning to the next; work that takes longer is not
        started twice.
    @param work: what to do.
    @param what: the same in a few words, after "could not".
    @param clock: for the period.
    @return: the timer, not started; its stop waits for work in progress.
    """

    async def tick() -> None:
        try:
            await work()
        except BrokerError as problem:
            log.warn("could not {what}: {problem}", what=what, problem=str(problem))
        except Exception:
            log.failure("could not {what}", what=what)

    timer = TimerService(seconds, tick)
    timer.clock = clock
    return timer
