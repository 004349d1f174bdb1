"""
Small real things in the place of Forgejo, for tests of the sign-in side.
"""

from collections.abc import Callable
from sqlite3 import Connection
from typing import TypeVar
from urllib.parse import urlencode

from twisted.internet.defer import Deferred
from zope.interface import implementer

from fjmcp_broker.store import users
from fjmcp_broker.store.database import Database
from fjmcp_broker.upstream.interfaces import (
    IUpstreamTokens,
    SignedInUser,
    UpstreamAccessToken,
)
from tests.unit.store.memory import NOW

T = TypeVar("T")

FORGEJO_URL = "https://git.example.org/forgejo"
USER = SignedInUser(
    user_id=7, login="alice", display_name="Alice", scope="openid read:user"
)


class CountingBytes:
    """
    Random bytes that never repeat and are the same in every run.
    """

    def __init__(self) -> None:
        self._count = 0

    def __call__(self, length: int) -> bytes:
        self._count += 1
        return self._count.to_bytes(8, "big").rjust(length, b"\xa5")


def forgejo_authorize_url(state: str, challenge: str) -> str:
    """
    @return: an address at Forgejo that carries both.
    """
    query = urlencode({"state": state, "code_challenge": challenge})
    return f"{FORGEJO_URL}/login/oauth/authorize?{query}"


@implementer(IUpstreamTokens)
class SmallUpstream:
    """
    Gives what it was told to give, and writes the user as the real one does.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self.calls: list[tuple[str, str, str]] = []
        self.outcomes: list[Exception | SignedInUser] = []
        self.on_call: Callable[[], None] = lambda: None
        self.before_answer: Callable[[], Deferred[None] | None] = lambda: None

    async def sign_in(self, pending_id: str, code: str, verifier: str) -> SignedInUser:
        """
        Give the next outcome.
        """
        self.calls.append((pending_id, code, verifier))
        self.on_call()
        outcome = self.outcomes.pop(0) if self.outcomes else USER
        if isinstance(outcome, Exception):
            raise outcome
        await self._database.write(
            lambda c: users.upsert_user(c, outcome.user_id, "", "", NOW)
        )
        waiting = self.before_answer()
        if waiting is not None:
            await waiting
        return outcome

    async def access_token(
        self, user_id: int, minimum_life_seconds: int = 120
    ) -> UpstreamAccessToken:
        """
        Nothing of a sign-in asks for it.
        """
        raise NotImplementedError


class FragileDatabase(Database):
    """
    Works until it is told what to fail with.

    @ivar failure: of every transaction and query, before it has begun.
    @ivar no_commit: of the next transaction, when all of it has been done.
    """

    def __init__(self, inner: Database) -> None:
        self._inner = inner
        self.failure: Exception | None = None
        self.no_commit: Exception | None = None

    async def write(self, transaction: Callable[[Connection], T]) -> T:
        """
        As the real one, or the failure.
        """
        if self.failure is not None:
            raise self.failure
        failure, self.no_commit = self.no_commit, None
        if failure is None:
            return await self._inner.write(transaction)

        def taken_back(connection: Connection) -> T:
            transaction(connection)
            raise failure

        return await self._inner.write(taken_back)

    async def read(self, query: Callable[[Connection], T]) -> T:
        """
        As the real one, or the failure.
        """
        if self.failure is not None:
            raise self.failure
        return await self._inner.read(query)
