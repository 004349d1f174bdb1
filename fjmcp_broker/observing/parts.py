"""
The store, Forgejo, children and what else stands behind the requests, counted.
"""

import sqlite3
from collections.abc import Awaitable, Callable, Collection
from typing import TypeVar

from twisted.internet.defer import CancelledError

from fjmcp_broker.metrics import Metrics
from fjmcp_broker.observing.labels import Limit
from fjmcp_broker.secret import Secret
from fjmcp_broker.series import Tally
from fjmcp_broker.sessions.processes.ending import ChildEnd, ChildObserver
from fjmcp_broker.sessions.rows import SessionRows
from fjmcp_broker.store.database import Database
from fjmcp_broker.store.errors import StoreUnavailable
from fjmcp_broker.store.sealing import Sealer
from fjmcp_broker.upstream.forgejo import Forgejo
from fjmcp_broker.upstream.interfaces import Introspection, TokenAnswer, UserInfo

T = TypeVar("T")


class CountedDatabase(Database):
    """The store, with its transactions counted."""

    metrics: Metrics
    seconds: Callable[[], float]

    async def write(self, transaction: Callable[[sqlite3.Connection], T]) -> T:
        """
        @param transaction: as for L{Database.write}.
        @return: likewise.
        """
        return await self._counted("write", super().write(transaction))

    async def read(self, query: Callable[[sqlite3.Connection], T]) -> T:
        """
        @param query: as for L{Database.read}.
        @return: likewise.
        """
        return await self._counted("read", super().read(query))

    async def _counted(self, kind: str, work: Awaitable[T]) -> T:
        began = self.seconds()
        outcome = "failed"
        try:
            result = await work
            outcome = "ok"
            return result
        except StoreUnavailable:
            outcome = "unavailable"
            raise
        finally:
            self.metrics.store.add(self.seconds() - began, kind, outcome)


class CountedForgejo(Forgejo):
    """Forgejo's OAuth endpoints, with the calls counted."""

    metrics: Metrics
    seconds: Callable[[], float]

    async def exchange_code(self, code: str, verifier: str) -> TokenAnswer:
        """
        @param code: as for L{Forgejo.exchange_code}.
        @param verifier: likewise.
        @return: likewise.
        """
        return await self._counted("code", super().exchange_code(code, verifier))

    async def refresh(self, refresh_token: Secret) -> TokenAnswer:
        """
        @param refresh_token: as for L{Forgejo.refresh}.
        @return: likewise.
        """
        return await self._counted("refresh", super().refresh(refresh_token))

    async def userinfo(self, access_token: Secret) -> UserInfo:
        """
        @param access_token: as for L{Forgejo.userinfo}.
        @return: likewise.
        """
        return await self._counted("userinfo", super().userinfo(access_token))

    async def introspect(self, token: Secret) -> Introspection:
        """
        @param token: as for L{Forgejo.introspect}.
        @return: likewise.
        """
        return await self._counted("introspect", super().introspect(token))

    async def _counted(self, call: str, work: Awaitable[T]) -> T:
        began = self.seconds()
        outcome = "ok"
        try:
            return await work
        except CancelledError:
            outcome = "timeout"
            raise
        except Exception as error:
            outcome = type(error).__name__
            raise
        finally:
            self.metrics.upstream.add(self.seconds() - began, call, outcome)


class CountedChild:
    """Stands between a child and whoever owns it."""

    def __init__(self, observer: ChildObserver, metrics: Metrics) -> None:
        """
        @param observer: owns the child.
        @param metrics: counts.
        """
        self._observer = observer
        self._metrics = metrics
        self.child_line = observer.child_line

    def child_ended(self, end: ChildEnd) -> None:
        """
        @param end: how it ended.
        """
        self._metrics.child_exited(end.reason.value)
        self._observer.child_ended(end)


class CountedRows(SessionRows):
    """The sessions' rows, with those counted that were too many."""

    def __init__(self, database: Database, sealer: Sealer, limits_hit: Tally) -> None:
        """
        @param database: as for L{SessionRows}.
        @param sealer: likewise.
        @param limits_hit: counts.
        """
        super().__init__(database, sealer)
        self._limits_hit = limits_hit

    async def close_surplus(
        self, grant_id: str, keep: int, spared: Collection[bytes], now: int
    ) -> list[bytes]:
        """
        @param grant_id: as for L{SessionRows.close_surplus}.
        @param keep: likewise.
        @param spared: likewise.
        @param now: likewise.
        @return: likewise.
        """
        closed = await super().close_surplus(grant_id, keep, spared, now)
        self._limits_hit.add(Limit.DORMANT_PER_GRANT, len(closed))
        return closed
