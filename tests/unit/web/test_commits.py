"""How often the store writes to the disk for a sign-in and for a refresh."""

from collections.abc import Callable
from itertools import pairwise
from sqlite3 import Connection
from typing import TypeVar

from twisted.trial.unittest import SynchronousTestCase

from fjmcp_broker.oauth.access import EVERYBODY, AccessRules
from fjmcp_broker.oauth.forgejo_scopes import DEFAULT_SCOPES
from fjmcp_broker.oauth.token_request import ClientCredentials, CodeRequest
from fjmcp_broker.store import upstream_tokens
from fjmcp_broker.store.token_endpoint import TokenAnswer, TokenTransactions
from fjmcp_broker.store.upstream_tokens import UpstreamSet
from fjmcp_broker.upstream.tokens import UpstreamTokens
from tests.unit.store.memory import NOW
from tests.unit.upstream.standin import REDIRECT_URI, InMemoryForgejo
from tests.unit.web.signin import (
    PUBLIC_URL,
    VERIFIER,
    WEB_REDIRECT,
    Browser,
    Site,
    authorize_target,
    callback_target,
)
from tests.unit.web.token_fixture import TokenWorld

T = TypeVar("T")

_TURNS = ("BEGIN", "BEGIN IMMEDIATE", "COMMIT", "ROLLBACK")


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
    turns = [text for text in seen if text in _TURNS]
    # What only reads commits, too, and waits for no disk.
    found = list(pairwise(turns)).count(("BEGIN IMMEDIATE", "COMMIT"))
    write(lambda connection: connection.set_trace_callback(None))
    return found


class SignInTests(SynchronousTestCase):
    """From the authorization request to the tokens, with all that Forgejo brings."""

    def make(self, access: AccessRules = EVERYBODY) -> None:
        """A broker in front of a Forgejo that asks nobody anything."""

        def make_upstream(site: Site) -> UpstreamTokens:
            self.remote = InMemoryForgejo(site.clock)
            return UpstreamTokens(
                site.real_database,
                site.sealer,
                self.remote.forgejo,
                site.clock,
                lambda user_id: None,
                requested_scope=DEFAULT_SCOPES,
                access=access,
            )

        self.site = Site(self, make_upstream=make_upstream)
        self.alice = self.remote.controls.user("alice").id
        self.client_id = self.site.register()
        self.browser = Browser(self.site)
        self.transactions = TokenTransactions(
            self.site.sealer,
            self.site.random_bytes,
            access_lifetime_seconds=3600,
            refresh_lifetime_seconds=86_400,
            resource=f"{PUBLIC_URL}/mcp",
        )

    def sign_in(self, scope: str = DEFAULT_SCOPES) -> list[int]:
        """
        @return: the commits for the request, the answer, the return, and the code.
        """
        page = self.counted(lambda: self.browser.get(authorize_target(self.client_id)))
        leaving = self.counted(lambda: self.browser.submit(page[0], "full"))
        code = self.remote.controls.issue_code(
            "alice",
            REDIRECT_URI,
            code_challenge=leaving[0].query["code_challenge"],
            scope=scope,
        )
        arrived = self.counted(
            lambda: self.browser.get(callback_target(leaving[0], code=code))
        )
        asked = CodeRequest(arrived[0].query["code"], VERIFIER, WEB_REDIRECT)
        now = int(self.site.clock.seconds())
        tokens = self.counted(
            lambda: self.site.write(
                lambda c: self.transactions.answer(
                    c, ClientCredentials(self.client_id), asked, now
                )
            )
        )
        self.assertIsInstance(tokens[0], TokenAnswer)
        return [page[1], leaving[1], arrived[1], tokens[1]]

    def counted(self, work: Callable[[], T]) -> tuple[T, int]:
        """
        @return: what came of it, and how many commits it took.
        """
        results: list[T] = []
        number = commits(self.site.write, lambda: results.append(work()))
        return results[0], number

    def stored(self) -> UpstreamSet:
        """
        @return: what the store has of Forgejo's tokens.
        """
        found = self.site.read(
            lambda c: upstream_tokens.find(c, self.site.sealer, self.alice)
        )
        assert found is not None
        return found

    def test_five(self) -> None:
        """
        The request is written with its answer; the return; Forgejo's token set before
        it is used; grant and code, with what is known of the user by then; our tokens.
        """
        self.make()
        for _ in range(2):
            self.assertEqual(self.sign_in(), [0, 1, 3, 1])
            stored = self.stored()
            self.assertEqual((stored.scope, stored.state), (DEFAULT_SCOPES, "usable"))

    def test_five_with_a_list_of_users(self) -> None:
        """
        Whoever was never here becomes usable with the grant.
        """
        self.make(AccessRules.of(["alice"]))
        for _ in range(2):
            self.assertEqual(self.sign_in(), [0, 1, 3, 1])
            self.assertEqual(self.stored().state, "usable")
        refused = self.stored()
        self.site.write(
            lambda c: upstream_tokens.mark_needs_sign_in(
                c, self.alice, unless_changed_since=refused, now=NOW
            )
        )
        self.assertEqual(self.sign_in(), [0, 1, 3, 1])
        self.assertEqual(self.stored().state, "usable")

    def test_six_without_an_id_token(self) -> None:
        """
        Forgejo gives none to who allowed the application before it asked for openid:
        the set is stored once before its user is known, and once there.
        """
        self.make()
        without = DEFAULT_SCOPES.removeprefix("openid ")
        self.assertEqual(self.sign_in(without), [0, 1, 4, 1])


class RefreshTests(SynchronousTestCase):
    """From one pair of tokens to the next."""

    def test_one(self) -> None:
        """The first, and one that is asked for again."""
        world = TokenWorld(self)
        token = world.exchange(world.code()).document["refresh_token"]

        def refresh() -> None:
            self.assertEqual(world.refresh(token).status, 200)

        self.assertEqual(commits(world.write, refresh), 1)
        self.assertLessEqual(commits(world.write, refresh), 1)

    def test_code_exchange_is_one(self) -> None:
        """By the endpoint, too."""
        world = TokenWorld(self)
        code = world.code()

        def exchange() -> None:
            self.assertEqual(world.exchange(code).status, 200)

        self.assertEqual(commits(world.write, exchange), 1)
