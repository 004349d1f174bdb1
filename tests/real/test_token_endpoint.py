"""Concurrent token requests on a store in a file, with its threads."""

import json
import secrets
import sqlite3
import threading
from collections import Counter
from collections.abc import Callable
from io import BytesIO
from typing import Any, TypeVar, cast
from urllib.parse import urlencode

from twisted.internet import reactor as _reactor
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.task import Clock
from twisted.trial.unittest import TestCase
from twisted.web.iweb import IRequest
from twisted.web.test.requesthelper import DummyRequest

from fjmcp_broker.oauth.errors import OAuthError
from fjmcp_broker.store import migrations
from fjmcp_broker.store.database import Database
from fjmcp_broker.store.sealing import Sealer
from fjmcp_broker.store.token_endpoint import TokenTransactions
from fjmcp_broker.web.bearer import BearerAuthenticator
from fjmcp_broker.web.oauth.token import TokenEndpoint
from tests.unit.web.token_fixture import (
    NOW,
    PUBLIC_URL,
    VERIFIER,
    insert_code,
    insert_people,
)

T = TypeVar("T")

reactor: Any = _reactor  # a module to mypy
MANY = 20


class CountingDatabase(Database):
    """
    Counts the transactions that changed something, and can hold one back when all
    is done but the commit.
    """

    changes = 0
    held: "Deferred[None] | None" = None
    release: threading.Event

    async def write(self, transaction: Callable[[sqlite3.Connection], T]) -> T:
        """
        @return: what the transaction gave.
        """

        def counting(connection: sqlite3.Connection) -> T:
            before = connection.total_changes
            result = transaction(connection)
            self.changes += connection.total_changes != before
            if self.held is not None:
                reactor.callFromThread(self.held.callback, None)
                self.release.wait(30)
            return result

        return await super().write(counting)


class ConcurrencyTests(TestCase):
    """Clients ask from several addresses at once."""

    timeout = 60

    async def setUp(self) -> None:  # type: ignore[override]  # trial waits
        path = self.mktemp()
        connection = sqlite3.connect(path, isolation_level=None)
        migrations.migrate(connection, NOW)
        connection.close()
        self.clock = Clock()
        self.clock.advance(NOW)
        self.database = CountingDatabase(path, reactor=reactor)
        self.database.release = threading.Event()
        await self.database.open()
        self.addCleanup(lambda: Deferred.fromCoroutine(self.database.close()))
        sealer = Sealer([b"k" * 32])
        await self.database.write(lambda c: insert_people(c, sealer))
        self.ended: list[str] = []
        self.endpoint = TokenEndpoint(
            self.database,
            TokenTransactions(
                sealer,
                secrets.token_bytes,
                access_lifetime_seconds=3600,
                refresh_lifetime_seconds=86_400,
                resource=f"{PUBLIC_URL}/mcp",
            ),
            self.clock,
            PUBLIC_URL,
            on_grant_ended=self.ended.append,
        )
        self.bearer = BearerAuthenticator(self.database, self.clock, PUBLIC_URL)

    async def post(self, **form: str) -> dict[str, Any] | str:
        """
        @return: the answer's document, or the code of the refusal.
        """
        request: Any = DummyRequest([b""])
        request.content = BytesIO(urlencode({"client_id": "public", **form}).encode())
        request.requestHeaders.setRawHeaders(
            b"content-type", [b"application/x-www-form-urlencoded"]
        )
        try:
            body = await self.endpoint.post(cast(IRequest, request))
        except OAuthError as error:
            return str(error.code)
        return cast("dict[str, Any]", json.loads(body))

    async def exchange(self, code: str) -> dict[str, Any] | str:
        """
        @return: the answer to a code exchange.
        """
        return await self.post(
            grant_type="authorization_code", code=code, code_verifier=VERIFIER
        )

    async def refresh(self, token: str) -> dict[str, Any] | str:
        """
        @return: the answer to a refresh.
        """
        return await self.post(grant_type="refresh_token", refresh_token=token)

    async def signed_in(self) -> dict[str, Any]:
        """
        @return: the tokens of a new sign-in.
        """
        _, code = await self.database.write(lambda c: insert_code(c, NOW))
        answer = await self.exchange(code)
        assert isinstance(answer, dict)
        return answer

    async def at_once(self, *work: Any) -> list[Any]:
        """
        @return: the results of coroutines that run side by side.
        """
        return await gatherResults(
            [Deferred.fromCoroutine(one) for one in work], consumeErrors=True
        )

    async def test_one_code_gives_one_pair(self) -> None:
        """Of twenty exchanges one succeeds; nothing is revoked by the others."""
        _, code = await self.database.write(lambda c: insert_code(c, NOW))
        answers = await self.at_once(*(self.exchange(code) for _ in range(MANY)))
        refused = [answer for answer in answers if isinstance(answer, str)]
        self.assertEqual(Counter(refused), {"invalid_grant": MANY - 1})
        self.assertEqual(self.ended, [])
        [tokens] = [answer for answer in answers if isinstance(answer, dict)]
        await self.bearer.authenticate(b"Bearer " + tokens["access_token"].encode())

    async def test_one_refresh_token_gives_one_pair(self) -> None:
        """Twenty refreshes get the same answer, and one of them wrote."""
        token = (await self.signed_in())["refresh_token"]
        self.database.changes = 0
        answers = await self.at_once(*(self.refresh(token) for _ in range(MANY)))
        self.assertEqual([answers[0]] * MANY, answers)
        self.assertEqual(self.database.changes, 1)
        count = await self.database.read(
            lambda c: c.execute("SELECT count(*) FROM refresh_tokens").fetchone()
        )
        self.assertEqual(count, (2,))

    async def test_refreshes_and_uses_side_by_side(self) -> None:
        """Whoever has an answer uses it while others still ask."""
        token = (await self.signed_in())["refresh_token"]

        async def journey() -> str:
            answer = await self.refresh(token)
            assert isinstance(answer, dict), answer
            header = b"Bearer " + answer["access_token"].encode()
            await self.bearer.authenticate(header)
            return str(answer["refresh_token"])

        journeys = await self.at_once(*(journey() for _ in range(MANY)))
        self.assertEqual(len(set(journeys)), 1)
        self.assertEqual(self.ended, [])

    async def test_reuse_ends_the_grant_once(self) -> None:
        """Twenty thieves at once: one revocation, twenty refusals."""
        token = (await self.signed_in())["refresh_token"]
        answer = await self.refresh(token)
        assert isinstance(answer, dict)
        await self.refresh(answer["refresh_token"])
        self.clock.advance(61)
        answers = await self.at_once(*(self.refresh(token) for _ in range(MANY)))
        self.assertEqual(answers, ["invalid_grant"] * MANY)
        self.assertEqual(len(self.ended), 1)

    async def test_no_answer_leaves_before_the_commit(self) -> None:
        """Everything is written, nothing committed: the client has no token yet."""
        token = (await self.signed_in())["refresh_token"]
        held = self.database.held = Deferred()
        self.addCleanup(self.database.release.set)
        answer = Deferred.fromCoroutine(self.refresh(token))
        await held
        self.assertNoResult(answer)
        count = "SELECT count(*) FROM refresh_tokens"
        self.assertEqual(
            await self.database.read(lambda c: c.execute(count).fetchone()), (1,)
        )
        self.assertNoResult(answer)
        self.database.held = None
        self.database.release.set()
        self.assertIsInstance(await answer, dict)
        self.assertEqual(
            await self.database.read(lambda c: c.execute(count).fetchone()), (2,)
        )

    async def test_tokens_survive_a_restart(self) -> None:
        """A commit is on the disk, and so is the key of the open window."""
        token = (await self.signed_in())["refresh_token"]
        first = await self.refresh(token)
        await self.database.close()
        await self.database.open()
        self.assertEqual(await self.refresh(token), first)
