"""
A migrated C{:memory:} store that answers at once, for tests without a reactor.
"""

from collections.abc import Callable
from typing import Any, cast

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorCore
from twisted.python.failure import Failure
from twisted.python.threadpool import ThreadPool
from twisted.trial.unittest import SynchronousTestCase

from fjmcp_broker.store import migrations
from fjmcp_broker.store.connection import MEMORY
from fjmcp_broker.store.database import Database

#: When tests happen, unless they say otherwise.
NOW = 1_800_000_000


class InlineThreadPool:
    """
    Runs everything at once, in the calling thread.
    """

    def __init__(self, minthreads: int, maxthreads: int, name: str) -> None:
        self.started = False

    def start(self) -> None:
        self.started = True

    def stop(self) -> None:
        self.started = False

    def callInThreadWithCallback(  # noqa: N802 - ThreadPool's name
        self,
        on_result: Callable[[bool, Any], object],
        work: Callable[..., Any],
        *args: Any,
        **kwargs: Any,
    ) -> None:
        try:
            result = work(*args, **kwargs)
        except BaseException:
            on_result(False, Failure())
        else:
            on_result(True, result)


class InlineReactor:
    """
    As much of a reactor as a pool of connections asks for; nothing is put off.
    """

    def callWhenRunning(self, work: Callable[[], object]) -> None:  # noqa: N802
        work()

    def callFromThread(  # noqa: N802 - IReactorFromThreads
        self, work: Callable[..., object], *args: object
    ) -> None:
        work(*args)

    def addSystemEventTrigger(self, *args: object) -> None:  # noqa: N802
        return None

    def removeSystemEventTrigger(self, trigger: object) -> None:  # noqa: N802
        return None


def inline_database(path: str = MEMORY, *, readers: int = 1) -> Database:
    """
    @return: a database, not open, whose calls are done when they return.
    """
    return Database(
        path,
        reactor=cast(IReactorCore, InlineReactor()),
        readers=readers,
        threads=cast("type[ThreadPool]", InlineThreadPool),
    )


def memory_database(test: SynchronousTestCase) -> Database:
    """
    Give a test an empty store of its own, closed when the test ends.

    C{self.successResultOf(Deferred.fromCoroutine(database.write(...)))} works in a
    C{SynchronousTestCase}; C{await database.write(...)} in a C{TestCase}.

    @param test: also a C{TestCase}, which is a kind of C{SynchronousTestCase}.
    @return: an open, migrated database.
    """
    database = inline_database()
    test.successResultOf(Deferred.fromCoroutine(database.open()))
    test.addCleanup(
        lambda: test.successResultOf(Deferred.fromCoroutine(database.close()))
    )
    test.successResultOf(
        Deferred.fromCoroutine(database.write(lambda c: migrations.apply(c, NOW)))
    )
    return database
