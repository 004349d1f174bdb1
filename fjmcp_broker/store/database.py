"""
The connections: one that writes, a few that read, all in threads of their own.

Statements are plain functions of a C{sqlite3.Connection}. L{Database.write} runs one
such function as one transaction and answers after its commit; what is decided together
is therefore written together.
"""

import sqlite3
import time
from collections.abc import Callable
from typing import Protocol, TypeVar, cast

from twisted.enterprise import adbapi
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorCore
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.python.threadpool import ThreadPool

from .connection import (
    MEMORY,
    connection_target,
    reading,
    set_up_reader,
    set_up_writer,
    touch,
    writing,
)
from .errors import StoreRefused, StoreUnavailable, is_unavailable

T = TypeVar("T")


class ThreadPoolFactory(Protocol):
    """
    Makes the threads of a pool of connections. Tests give one that runs everything
    inline.
    """

    def __call__(self, minthreads: int, maxthreads: int, name: str) -> ThreadPool:
        """
        @param minthreads: as many threads as connections.
        @param maxthreads: the same number.
        @param name: seen in thread names.
        @return: a pool that is not started.
        """


class _Pool(adbapi.ConnectionPool):
    """
    A pool that hands out the C{sqlite3.Connection} itself. adbapi's wrapper exists to
    reconnect to a server, which a file does not need.
    """

    def __init__(self, threads: ThreadPool, target: str, **options: object) -> None:
        """
        @param threads: where the work is done, not started.
        @param target: the database as a URI.
        @param options: of adbapi and of C{sqlite3.connect}.
        """
        self._given_threads = threads
        super().__init__("sqlite3", target, **options)

    @property
    def threadpool(self) -> ThreadPool:
        """
        The given threads. adbapi makes some of its own and may start them before
        its constructor returns; a property is the only moment to give others.
        """
        return self._given_threads

    @threadpool.setter
    def threadpool(self, adbapis_own: ThreadPool) -> None:
        pass

    @staticmethod
    def connectionFactory(  # type: ignore[override]  # noqa: N802 - adbapi's name
        pool: adbapi.ConnectionPool,
    ) -> sqlite3.Connection:
        """
        @return: the calling thread's connection, opened when there is none.
        """
        return cast(sqlite3.Connection, pool.connect())


class Database:
    """
    The store's connections. Nothing is opened before L{Database.open}, so that the
    object may be made before a daemon forks.
    """

    _log = Logger()

    def __init__(
        self,
        path: str,
        *,
        reactor: IReactorCore,
        readers: int = 2,
        busy_timeout_seconds: float = 5.0,
        threads: ThreadPoolFactory = ThreadPool,
    ) -> None:
        """
        @param path: of a store that preflight has prepared, or C{:memory:}.
        @param reactor: where results are delivered.
        @param readers: connections for reading, at least 1; C{:memory:} has none of
            its own.
        @param busy_timeout_seconds: how long a statement waits for another program's
            lock, and a transaction that writes for its turn.
        @param threads: makes the threads.
        """
        self._path = path
        # Absolute now: a daemon may change its directory before it opens the store.
        self._target = connection_target(path)
        self._reactor = reactor
        self._readers_wanted = readers
        self._busy_timeout_seconds = busy_timeout_seconds
        self._threads = threads
        self._writer: _Pool | None = None
        self._readers: _Pool | None = None
        self._in_flight = 0
        self._waiting_for_idle: list[Deferred[None]] = []

    @property
    def path(self) -> str:
        """
        Where the store is.
        """
        return self._path

    async def open(self) -> None:
        """
        Start the threads and open a connection of each kind.

        @raise StoreRefused: the file is not there or cannot be opened.
        """
        if self._writer is not None:
            raise StoreRefused(f"the store {self._path} is open already")
        writer = self._writer = self._pool("store-writer", 1, read_only=False)
        if self._path != MEMORY:
            self._readers = self._pool(
                "store-reader", self._readers_wanted, read_only=True
            )
        try:
            await self._run(writer, touch)
            if self._readers is not None:
                await self._run(self._readers, touch)
        except StoreUnavailable as error:
            await self.close()
            raise StoreRefused(str(error)) from error
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        """
        Let the transactions that have begun or wait for their turn finish, then close
        every connection and end every thread. Later calls are refused with
        L{StoreUnavailable}. Closing a closed database does nothing.
        """
        pools = [pool for pool in (self._readers, self._writer) if pool is not None]
        self._writer = self._readers = None
        try:
            if self._in_flight:
                # Joining busy threads would stop the reactor for as long as they work.
                idle: Deferred[None] = Deferred()
                self._waiting_for_idle.append(idle)
                await idle
        finally:
            for pool in pools:
                pool.close()

    async def write(self, transaction: Callable[[sqlite3.Connection], T]) -> T:
        """
        Run one transaction on the writer: C{BEGIN IMMEDIATE}, the function, C{COMMIT}.
        Whatever the function raises rolls everything back and is raised here.

        Once asked for, a transaction runs to its end whether or not anybody still
        waits: cancelling the caller drops the result, never half of the work.

        @param transaction: called in the writer's thread with the connection; returns
            values, never a cursor.
        @return: what it returned, after the commit.
        @raise StoreUnavailable: busy, locked, full, read-only, damaged or closed.
        """
        write = writing(transaction)
        asked_at = time.monotonic()

        def write_in_time(connection: sqlite3.Connection) -> T:
            # Behind a lock that stays, each in the queue would wait for as long as
            # all before it together.
            if time.monotonic() - asked_at > self._busy_timeout_seconds:
                raise StoreUnavailable(
                    f"the store {self._path} is not available: too much to do"
                )
            return write(connection)

        return await self._run(self._opened(self._writer), write_in_time)

    async def read(self, query: Callable[[sqlite3.Connection], T]) -> T:
        """
        Run queries on one consistent view of the store. A statement that writes fails.

        @param query: called in a reader's thread with the connection; returns values,
            never a cursor.
        @return: what it returned.
        @raise StoreUnavailable: as for L{Database.write}.
        """
        pool = self._opened(self._writer if self._path == MEMORY else self._readers)
        return await self._run(pool, reading(query))

    def _opened(self, pool: _Pool | None) -> _Pool:
        if pool is None:
            raise StoreUnavailable("the store is closed")
        return pool

    def _pool(self, name: str, connections: int, *, read_only: bool) -> _Pool:
        """
        Make and start one pool.
        """
        return _Pool(
            self._threads(connections, connections, name),
            self._target,
            uri=True,
            isolation_level=None,
            check_same_thread=False,
            timeout=self._busy_timeout_seconds,
            cp_reactor=self._reactor,
            cp_min=connections,
            cp_max=connections,
            cp_openfun=set_up_reader if read_only else set_up_writer,
        )

    def _run(
        self, pool: _Pool, work: Callable[[sqlite3.Connection], T]
    ) -> "Deferred[T]":
        """
        Start the work in a thread.

        @return: a Deferred that is the caller's alone.
        """
        self._in_flight += 1
        answer: Deferred[T] = Deferred()
        pool.runWithConnection(work).addBoth(self._finished, answer)
        return answer

    def _finished(self, result: T | Failure, answer: "Deferred[T]") -> None:
        """
        Hand a result to whoever still waits for it.
        """
        self._in_flight -= 1
        if isinstance(result, Failure):
            error = result.value
            if isinstance(error, sqlite3.Error) and is_unavailable(error):
                unavailable = StoreUnavailable(
                    f"the store {self._path} is not available: {error}"
                )
                unavailable.__cause__ = error
                result = Failure(unavailable)
        if not answer.called:
            if isinstance(result, Failure):
                answer.errback(result)
            else:
                answer.callback(result)
        elif isinstance(result, Failure):
            self._log.warn(
                "a transaction failed after its caller had gone: {error}",
                error=result.value,
            )
        if not self._in_flight:
            waiting, self._waiting_for_idle = self._waiting_for_idle, []
            for idle in waiting:
                if not idle.called:
                    idle.callback(None)
