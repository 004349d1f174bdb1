"""
Parts of the daemon that are loaded when somebody needs them for the first time.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
from typing import Any, Final, Generic, TypeVar

from twisted.internet.threads import deferToThreadPool

from fjmcp_broker.errors import BrokerError

T = TypeVar("T")


class ProgramChanged(BrokerError):  # noqa: N818 - it says what happened
    """The files of a part are others than when the daemon started."""


class Late(Generic[T]):
    """
    A part that most daemons never need, or not for long. Loading reads files and runs
    for some milliseconds, so that it is done in a thread, beside the event loop.

    Whoever installs another version makes a restart soon. Until then the daemon goes
    on with what it has loaded, and loads nothing that does not belong to it.
    """

    def __init__(self, reactor: Any, module: str, make: Callable[[Any], T]) -> None:
        """
        @param reactor: Twisted's; it is C{Any} because it provides a dozen interfaces.
        @param module: its full name. It is looked for now, and loaded later.
        @param make: gets the module, and makes the part of it; called once.
        @raise ModuleNotFoundError: there is none.
        """
        self._reactor = reactor
        self._name: Final = module
        self._make = make
        self._made: list[T] = []
        self._file = self._found()

    async def get(self) -> T:
        """
        @return: the part, the same for all.
        @raise ProgramChanged: it is not there any more in the form that belongs to us.
        """
        if not self._made:
            # Each caller has a Deferred of its own to cancel; the second waits in its
            # thread for the first.
            pool = self._reactor.getThreadPool()
            module = await deferToThreadPool(self._reactor, pool, self._load)
            if not self._made:
                self._made.append(self._make(module))
        return self._made[0]

    def now(self) -> T:
        """
        @return: the part, loaded at once: for what has to be found out at the start.
        """
        if not self._made:
            self._made.append(self._make(import_module(self._name)))
        return self._made[0]

    @property
    def made(self) -> T | None:
        """
        @return: the part, if anybody has needed it.
        """
        return self._made[0] if self._made else None

    def _load(self) -> Any:
        try:
            is_ours = self._found() == self._file
        except (ModuleNotFoundError, OSError):
            is_ours = False
        if not is_ours:
            raise ProgramChanged("another version was installed; restart the daemon")
        return import_module(self._name)

    def _found(self) -> tuple[str, int, int]:
        """
        @return: which file it is, to be compared.
        """
        spec = find_spec(self._name)
        if spec is None or spec.origin is None:
            raise ModuleNotFoundError(f"no module {self._name}")
        status = os.stat(spec.origin)
        return spec.origin, status.st_size, status.st_mtime_ns
