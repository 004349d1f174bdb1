"""
A service whose parts start one after another and stop in the opposite order.

C{MultiService} ignores what C{startService} returns and stops everything at once;
here the listener must not accept before the store is open, and the store must not
close before the last child is gone.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Final

import msgspec
from twisted.application.service import Service
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from fjmcp_broker.errors import BrokerError


async def _nothing() -> None:
    """The default of a part that has nothing to do at one end of its life."""


class Part(msgspec.Struct, frozen=True):
    """One part of the daemon: a name for the log, and its two ends."""

    name: str
    start: Callable[[], Awaitable[None]] = _nothing
    stop: Callable[[], Awaitable[None]] = _nothing
    stop_timeout_seconds: float = 10.0


class OrderedService(Service):
    """
    Starts parts in order and stops the started ones in the opposite order.

    A part that fails to start stops what was started before it, and then
    C{on_failure} is called, once. A part that fails to stop, or takes longer than
    it said, is logged and does not keep the others from stopping.
    """

    log: Final = Logger()

    def __init__(
        self,
        parts: Sequence[Part],
        *,
        clock: IReactorTime,
        on_failure: Callable[[], None],
    ) -> None:
        """
        @param parts: in the order of their start.
        @param on_failure: called when the start failed and all is stopped again.
        """
        self._parts = parts
        self._clock = clock
        self._on_failure = on_failure
        self._started: list[Part] = []
        self._starting: Deferred[None] | None = None
        self.ready = False

    def startService(self) -> None:
        """
        Begin to start the parts; L{ready} is true once all of them are up.
        """
        super().startService()
        self._starting = Deferred.fromCoroutine(self._start())

    def stopService(self) -> Deferred[None]:
        """
        Stop the parts that were started, also when the start is still under way.

        @return: fires when the last one has stopped or run out of its time.
        """
        super().stopService()
        return Deferred.fromCoroutine(self._stop())

    async def _start(self) -> None:
        name = "nothing"
        try:
            for part in self._parts:
                name = part.name
                await part.start()
                self._started.append(part)
        except CancelledError:
            return
        except BrokerError as problem:
            self.log.critical(
                "cannot start the {part}: {problem}", part=name, problem=str(problem)
            )
        except Exception:
            self.log.failure("cannot start the {part}", part=name)
        else:
            self.ready = True
            return
        self._starting = None
        await self._stop_started()
        self._on_failure()

    async def _stop(self) -> None:
        self.ready = False
        starting, self._starting = self._starting, None
        if starting is not None:
            starting.cancel()
            await starting
        await self._stop_started()

    async def _stop_started(self) -> None:
        while self._started:
            part = self._started.pop()
            try:
                await Deferred.fromCoroutine(_as_coroutine(part.stop())).addTimeout(
                    part.stop_timeout_seconds, self._clock
                )
            except Exception:
                self.log.failure("the {part} did not stop cleanly", part=part.name)


async def _as_coroutine(awaitable: Awaitable[None]) -> None:
    await awaitable
