"""
One daemon per store: an exclusive lock on a file beside it.

Single flight towards Forgejo, the bearer cache and the ownership of children all rest
on being the only one, and SQLite's own locks do not say that: they are held for
moments.
"""

import fcntl
import os
import time
from collections.abc import Callable
from typing import Final

from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater

from .errors import StoreRefused

DEFAULT_WAIT_SECONDS: Final = 30.0
_RETRY_SECONDS: Final = 0.25


class StoreLock:
    """
    The lock of one store. It ends with the process, however that ends; the file
    stays, because removing it would let two processes lock two files of one name.
    """

    def __init__(self, database_path: str) -> None:
        """
        @param database_path: of the store; a symbolic link is followed, so that every
            name of a store leads to the same lock.
        """
        self._path = f"{os.path.realpath(database_path)}.lock"
        self._database_path = database_path
        self._descriptor: int | None = None

    @property
    def path(self) -> str:
        """
        Of the lock file.
        """
        return self._path

    @property
    def is_held(self) -> bool:
        """
        Whether this object holds the lock.
        """
        return self._descriptor is not None

    def try_acquire(self) -> bool:
        """
        @return: whether the lock is held now.
        @raise StoreRefused: the lock file cannot be made.
        """
        if self._descriptor is not None:
            return True
        try:
            descriptor = os.open(
                self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600
            )
        except OSError as error:
            raise StoreRefused(
                f"the store {self._database_path} cannot be used: cannot write"
                f" {self._path}: {error.strerror}"
            ) from error
        try:
            # Of the kinds of lock, this one survives the fork of a daemon and is
            # not lost when some library opens and closes the same file.
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, f"{os.getpid()} {os.uname().nodename}\n".encode(), 0)
        except BlockingIOError:
            os.close(descriptor)
            return False
        except OSError as error:
            os.close(descriptor)
            raise StoreRefused(
                f"the store {self._database_path} cannot be used: cannot lock"
                f" {self._path}: {error.strerror}"
            ) from error
        self._descriptor = descriptor
        return True

    async def acquire(
        self, clock: IReactorTime, wait_seconds: float = DEFAULT_WAIT_SECONDS
    ) -> None:
        """
        Wait for the lock: the daemon before may be stopping still.

        @param clock: tells the time and waits.
        @param wait_seconds: how long.
        @raise StoreRefused: another process holds it; the message names it.
        """
        deadline = clock.seconds() + wait_seconds
        while not self.try_acquire():
            if clock.seconds() >= deadline:
                raise self._held_by_another(wait_seconds)
            await deferLater(clock, _RETRY_SECONDS)

    def acquire_blocking(
        self,
        wait_seconds: float = DEFAULT_WAIT_SECONDS,
        *,
        sleep: Callable[[float], object] = time.sleep,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """
        As L{StoreLock.acquire}, where no reactor runs: at start, and in commands.

        @param wait_seconds: how long.
        @param sleep: waits.
        @param monotonic: tells the time.
        @raise StoreRefused: another process holds it; the message names it.
        """
        deadline = monotonic() + wait_seconds
        while not self.try_acquire():
            if monotonic() >= deadline:
                raise self._held_by_another(wait_seconds)
            sleep(_RETRY_SECONDS)

    def release(self) -> None:
        """
        Give the lock up; without it nothing happens.
        """
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.close(descriptor)

    def _held_by_another(self, waited_seconds: float) -> StoreRefused:
        return StoreRefused(
            f"the store {self._database_path} is in use by {self._holder()}; only one"
            f" daemon can use a store (waited {waited_seconds:g} s for {self._path})"
        )

    def _holder(self) -> str:
        """
        Name whoever wrote the file. It is read for people only.
        """
        try:
            with open(self._path, encoding="utf-8", errors="replace") as file:
                pid, host = file.read(200).split()
            return f"process {int(pid)} on {host}"
        except (OSError, ValueError):
            return "another process"
