"""
Forgejo and the store, one step at a time: every call waits at a gate that the test
opens, so that a test can look at, cut or reorder what happens between any two steps.
"""

from collections.abc import Callable
from sqlite3 import Connection
from typing import TypeVar

from twisted.internet.defer import Deferred
from zope.interface import implementer

from fjmcp_broker.secret import Secret
from fjmcp_broker.store.database import Database
from fjmcp_broker.store.errors import StoreUnavailable
from fjmcp_broker.upstream.errors import UpstreamUnavailable
from fjmcp_broker.upstream.interfaces import (
    IForgejo,
    Introspection,
    TokenAnswer,
    UserInfo,
)

T = TypeVar("T")


class Gates:
    """
    Where the calls wait.
    """

    def __init__(self) -> None:
        self.is_open = True
        self._waiting: list[Deferred[None]] = []

    def __len__(self) -> int:
        return len(self._waiting)

    async def passing(self) -> None:
        """
        Wait, unless the gates are open.
        """
        if self.is_open:
            return
        waiting: Deferred[None] = Deferred(self._forget)
        self._waiting.append(waiting)
        await waiting

    def step(self, which: int = 0) -> None:
        """
        @param which: who may go on, counted from the oldest.
        """
        self._waiting.pop(which % len(self._waiting)).callback(None)

    def open(self) -> None:
        """
        Let everybody go on, now and later.
        """
        self.is_open = True
        while self._waiting:
            self.step()

    def _forget(self, waiting: Deferred[None]) -> None:
        if waiting in self._waiting:
            self._waiting.remove(waiting)


@implementer(IForgejo)
class SteppedForgejo:
    """
    A Forgejo with a gate before each request and one before each answer.

    @ivar lose_answers: how many of the next token answers get lost on the way.
    @ivar delivered: C{(gnt, cnt)} of the token answers that arrived.
    """

    def __init__(self, inner: IForgejo, gates: Gates) -> None:
        """
        @param inner: the real client.
        @param gates: opened by the test.
        """
        self._inner = inner
        self._gates = gates
        self.lose_answers = 0
        self.delivered: list[tuple[int | None, int | None]] = []

    def authorize_url(self, state: str, code_challenge: str) -> str:
        """As the inner one."""
        return self._inner.authorize_url(state, code_challenge)

    async def exchange_code(self, code: str, verifier: str) -> TokenAnswer:
        """In two steps."""
        await self._gates.passing()
        return await self._answered(await self._inner.exchange_code(code, verifier))

    async def refresh(self, refresh_token: Secret) -> TokenAnswer:
        """In two steps."""
        await self._gates.passing()
        return await self._answered(await self._inner.refresh(refresh_token))

    async def userinfo(self, access_token: Secret) -> UserInfo:
        """In two steps."""
        await self._gates.passing()
        answer = await self._inner.userinfo(access_token)
        await self._gates.passing()
        return answer

    async def introspect(self, token: Secret) -> Introspection:
        """In two steps."""
        await self._gates.passing()
        answer = await self._inner.introspect(token)
        await self._gates.passing()
        return answer

    async def _answered(self, answer: TokenAnswer) -> TokenAnswer:
        await self._gates.passing()
        if self.lose_answers:
            self.lose_answers -= 1
            raise UpstreamUnavailable("the answer was lost")
        self.delivered.append((answer.grant_number, answer.counter))
        return answer


class SteppedDatabase(Database):
    """
    A database with a gate before each transaction, which can be made to fail.

    @ivar fail_writes: how many of the next transactions fail; -1 for all.
    """

    def __init__(self, inner: Database, gates: Gates) -> None:
        """
        @param inner: open.
        @param gates: opened by the test.
        """
        # Without the parent's: nothing of its state is used.
        self._inner = inner
        self._gates = gates
        self.fail_writes = 0

    async def write(self, transaction: Callable[[Connection], T]) -> T:
        """Writes are done in the order in which they were asked for."""
        if self.fail_writes:
            self.fail_writes -= 1 if self.fail_writes > 0 else 0
            await self._gates.passing()
            raise StoreUnavailable("the disk is full")
        # The order of the real writer: taken now, known later.
        result = await self._inner.write(transaction)
        await self._gates.passing()
        return result

    async def read(self, query: Callable[[Connection], T]) -> T:
        """Reads see what was written before they were asked for."""
        result = await self._inner.read(query)
        await self._gates.passing()
        return result
