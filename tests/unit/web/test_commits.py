"""How often the store writes to the disk for a sign-in and for a refresh."""

from collections.abc import Callable
from sqlite3 import Connection
from typing import TypeVar

from twisted.trial.unittest import SynchronousTestCase

from fjmcp_broker.store.database import Database
from tests.unit.upstream.tokencase import TokenTestCase
from tests.unit.web.signin import Browser, Site, authorize_target, callback_target
from tests.unit.web.token_fixture import TokenWorld

T = TypeVar("T")


def commits(
    write: Callable[[Callable[[Connection], None]], object], work: Callable[[], object]
) -> int:
    """
    @param write: runs something in the only connection of a store.
    @param work: writes, or not.
    @return: how many transactions it committed.
    """
    seen: list[str] = []
    write(lambda connection: connection.set_trace_callback(seen.append))
    seen.clear()  # the end of that very transaction
    work()
    found = sum(text == "COMMIT" for text in seen)
    write(lambda connection: connection.set_trace_callback(None))
    return found


class Counted(Database):
    """A store that counts its transactions, each of which is one commit."""

    def __init__(self, real: Database) -> None:
        self._real = real
        self.writes = 0

    async def write(self, transaction: Callable[[Connection], T]) -> T:
        self.writes += 1
        return await self._real.write(transaction)

    async def read(self, query: Callable[[Connection], T]) -> T:
        return await self._real.read(query)


class SignInTests(SynchronousTestCase):
    """From the authorization request to the tokens."""

    def test_at_most_five(self) -> None:
        """
        One for each of the request, the approval, the return, the code, and the
        tokens.
        """
        counted: list[Counted] = []

        def wrap(database: Database) -> Database:
            counted.append(Counted(database))
            return counted[0]

        # What Forgejo's token sets take is the business of the last case.
        site = Site(self, wrap=wrap)
        client_id = site.register()
        counted[0].writes = 0
        browser = Browser(site)

        def sign_in() -> None:
            page = browser.get(authorize_target(client_id))
            left = browser.submit(page, "full")
            answer = browser.get(callback_target(left, code="gta_x"))
            self.assertIn("code", answer.query)

        sign_in()
        self.assertEqual(counted[0].writes, 4)
        world = TokenWorld(self)
        code = world.code()

        def exchange() -> None:
            self.assertEqual(world.exchange(code).status, 200)

        self.assertEqual(commits(world.write, exchange), 1)

    def test_a_refresh_is_one(self) -> None:
        """The first, and one that is asked for again."""
        world = TokenWorld(self)
        token = world.exchange(world.code()).document["refresh_token"]

        def refresh() -> None:
            self.assertEqual(world.refresh(token).status, 200)

        self.assertEqual(commits(world.write, refresh), 1)
        self.assertLessEqual(commits(world.write, refresh), 1)


class UpstreamTests(TokenTestCase):
    """What a sign-in brings from Forgejo."""

    def test_three(self) -> None:
        """
        The proof that the set can be stored, which comes before Forgejo's code is
        spent; the set, before it is used; who it is, and what the set may do.
        """
        world = self.world

        def write(transaction: Callable[[Connection], None]) -> object:
            return world.done(world.memory.write(transaction))

        self.assertEqual(commits(write, world.signed_in), 3 + 1)  # its pending row
