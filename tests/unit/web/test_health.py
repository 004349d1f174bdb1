"""C{/healthz} and C{/readyz}."""

from collections.abc import Callable
from sqlite3 import Connection
from typing import TypeVar

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from fjmcp_broker.store.database import Database
from fjmcp_broker.web.health import STREAM_SECONDS
from tests.unit.web.token_fixture import PUBLIC_URL, TokenWorld

T = TypeVar("T")

BUILD = {
    "version": "1.2.3",
    "revision": "abcdef",
    "build_date": "2026-11-21T00:00:00Z",
    "instance": "0123",
}


class SilentDatabase(Database):
    """
    A database that never answers a query.
    """

    async def read(self, query: Callable[[Connection], T]) -> T:
        """
        Wait.
        """
        answer: Deferred[T] = Deferred()
        return await answer


class HealthTests(SynchronousTestCase):
    """What monitors and load balancers read."""

    def setUp(self) -> None:
        self.world = TokenWorld(self)

    def test_healthy(self) -> None:
        """Everything works, and this is what runs."""
        answer = self.world.request("GET", "/healthz")
        self.assertEqual(answer.status, 200)
        self.assertEqual(answer.document, {"status": "ok", "store": "ok", **BUILD})
        self.assertEqual(answer.headers["cache-control"], "no-store")

    def test_failing_store_is_503(self) -> None:
        """The answer still says what runs."""
        self.world.result(self.world.database.close())
        answer = self.world.request("GET", "/healthz")
        self.assertEqual(answer.status, 503)
        self.assertEqual(
            answer.document, {"status": "failed", "store": "failed", **BUILD}
        )

    def test_broken_schema_is_503(self) -> None:
        """A store without our tables is no store."""
        self.world.write(
            lambda connection: connection.execute("DROP TABLE instance").rowcount
        )
        self.assertEqual(self.world.request("GET", "/healthz").status, 503)

    def test_store_that_does_not_answer_is_503(self) -> None:
        """A monitor does not wait for ever."""
        database = self.world.database
        database.__class__ = SilentDatabase
        done = self.world.treq.get("https://mcp.example.org/healthz")
        self.world.treq.flush()
        self.assertNoResult(done)
        self.world.clock.advance(5)
        self.world.treq.flush()
        self.assertEqual(self.successResultOf(done).code, 503)

    def test_readiness_is_what_the_service_says(self) -> None:
        """200 once ready, 503 while stopping."""
        answer = self.world.request("GET", "/readyz")
        self.assertEqual((answer.status, answer.document), (200, {"status": "ready"}))
        self.world.ready = False
        answer = self.world.request("GET", "/readyz")
        self.assertEqual(
            (answer.status, answer.document), (503, {"status": "not ready"})
        )

    def test_monitors_may_use_any_host(self) -> None:
        """They ask by address."""
        for path in ("/healthz", "/readyz"):
            answer = self.world.request("GET", path, headers={"Host": "10.0.0.1:8080"})
            self.assertEqual(answer.status, 200)

    def test_stream_in_two_pieces(self) -> None:
        """Whoever gets both at once has something between that holds streams back."""
        response = self.world.test.successResultOf(
            self.world.treq.request("GET", f"{PUBLIC_URL}/healthz/stream")
        )
        self.assertEqual(response.code, 200)
        pieces: list[bytes] = []
        done = self.world.treq.collect(response, pieces.append)
        self.world.treq.flush()
        self.assertEqual(b"".join(pieces), b": first\n\n")
        self.world.clock.advance(STREAM_SECONDS)
        self.world.treq.flush()
        self.successResultOf(done)
        self.assertEqual(b"".join(pieces), b": first\n\n: second\n\n")
