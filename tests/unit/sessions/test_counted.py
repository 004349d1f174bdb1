"""What the metrics say of sessions and their children."""

from typing import Any

from twisted.internet.defer import Deferred

from fjmcp_broker.bookkeeping import Bookkeeping
from fjmcp_broker.config import MetricsConfig
from fjmcp_broker.observing.census import Census
from fjmcp_broker.observing.instruments import Instruments
from fjmcp_broker.sessions.children.population import Limits
from fjmcp_broker.store.errors import StoreUnavailable
from tests.relay_stubs import principal
from tests.unit.sessions.shared_world import SharedWorld, modern
from tests.unit.store.memory import memory_database
from tests.unit.test_metrics import samples
from tests.unit.web.mcp_world import McpWorld, Wire, initialize, request


class Counted:
    """A registry that is watched."""

    registry: Any
    site: Any
    clock: Any
    admission: Any

    def watch(self, test: Any) -> None:
        """Put the instruments in."""
        self.instruments = Instruments(self.clock, MetricsConfig())
        books = Bookkeeping(memory_database(test), self.clock, self.clock)
        self.instruments.watch(self.registry, self.site, self.admission.memory, books)

    def found(self, name: str) -> dict[str, float]:
        """What of a counter or gauge is not nought, by its labels."""
        return {
            key.partition("{")[2].rstrip("}"): value
            for key, value in samples(self.instruments.metrics).items()
            if key.partition("{")[0] == name and value
        }


class LegacyTests(McpWorld, Counted):
    """Sessions with an id."""

    limits = Limits(total=2, per_user=1)

    def setUp(self) -> None:
        """Watched from the beginning."""
        super().setUp()
        self.watch(self)

    def rotate(self) -> None:
        """A newer token is there."""
        self.registry.population.rotate_user(1, int(self.clock.seconds()) + 4000)

    def reap(self) -> None:
        """One tick."""
        self.successResultOf(Deferred.fromCoroutine(self.registry.reap(900, 10**6)))

    def call(self, session: str, token: str = "alice") -> Wire:
        """Call something."""
        return self.send(request(1, "x"), session, token=token)

    def test_reaps(self) -> None:
        """Because of time, and because somebody else needs a child."""
        self.open()
        self.clock.advance(1)
        self.open()
        self.assertEqual(self.found("fjmcp_child_reaps_total"), {"reason=room": 1})
        self.clock.advance(900)
        self.reap()
        self.assertEqual(
            self.found("fjmcp_child_reaps_total"), {"reason=room": 1, "reason=idle": 1}
        )

    def test_nobody_idles(self) -> None:
        """The limit is counted under its key."""
        self.manual.add("x")
        self.call(self.open())
        self.assertEqual(self.send(initialize()).status, 503)
        self.assertEqual(
            self.found("fjmcp_limits_hit_total"), {"limit=sessions.max_per_user": 1}
        )
        self.authenticator.principals["carol"] = principal(4)
        self.call(self.open("bob"), "bob")
        self.assertEqual(self.send(initialize(), token="carol").status, 503)
        self.assertEqual(
            self.found("fjmcp_limits_hit_total"),
            {"limit=sessions.max_per_user": 1, "limit=sessions.max": 1},
        )

    def test_rotations(self) -> None:
        """Replaced, failed, or interrupted by what happens to the old child."""
        session = self.open()
        self.rotate()
        self.assertEqual(
            self.found("fjmcp_child_rotations_total"), {"outcome=replaced": 1}
        )
        self.spawner.refuse = OSError("no")
        self.clock.advance(100)
        self.rotate()
        self.assertEqual(
            self.found("fjmcp_child_rotations_total"),
            {"outcome=replaced": 1, "outcome=failed": 1},
        )
        self.spawner.refuse = None
        self.manual.add("initialize")
        self.clock.advance(100)
        self.rotate()
        self.spawner.processes[1].exit(1)
        self.assertEqual(
            self.found("fjmcp_child_rotations_total"),
            {"outcome=replaced": 1, "outcome=failed": 1, "outcome=interrupted": 1},
        )
        self.assertEqual(
            self.found("fjmcp_session_transitions_total")["event=rotate"], 3
        )
        self.registry.close_grant("g_1")
        self.assertEqual(self.call(session).status, 404)

    def test_states(self) -> None:
        """Those in the store alone are dormant, whatever else happens."""
        rows: list[int | None] = [None]

        async def count() -> int:
            if rows[0] is None:
                raise StoreUnavailable("closed")
            return rows[0]

        census = Census(count, self.registry.population, self.clock.seconds)

        def states() -> dict[str, float]:
            self.successResultOf(Deferred.fromCoroutine(census.count()))
            found = census.states()
            self.assertEqual(len(found), 8)
            return {",".join(key): n for key, n in found.items() if n}

        self.open()
        # The store does not work: what is known is shown.
        self.assertEqual(states(), {"stateful,live": 1})
        rows[0] = 7
        self.assertEqual(states(), {"stateful,live": 1, "stateful,dormant": 6})
        self.clock.advance(900)
        self.reap()
        self.assertEqual(states(), {"stateful,dormant": 7})
        # A count that is behind makes no negative numbers.
        rows[0] = 0
        self.open()
        self.assertEqual(states(), {"stateful,live": 1})
        self.manual.add("initialize")
        self.clock.advance(1)
        self.rotate()
        self.assertEqual(states(), {"stateful,rotating": 1})

    def test_many_rows_are_counted_less_often(self) -> None:
        """A hundredth of the time is spent on it at most."""
        waiting: list[Deferred[int]] = []

        async def count() -> int:
            waiting.append(Deferred())
            return await waiting[-1]

        census = Census(count, (), self.clock.seconds)
        counted = Deferred.fromCoroutine(census.count())
        self.clock.advance(0.5)
        waiting[0].callback(100_000)
        self.successResultOf(counted)
        for _ in range(9):
            self.clock.advance(5)
            self.successResultOf(Deferred.fromCoroutine(census.count()))
        self.assertEqual(len(waiting), 1)
        self.assertEqual(census.states()["stateful", "dormant"], 100_000)
        self.clock.advance(5)
        again = Deferred.fromCoroutine(census.count())
        waiting[1].callback(3)
        self.successResultOf(again)
        self.assertEqual(census.states()["stateful", "dormant"], 3)


class StatelessTests(SharedWorld):
    """Children of clients that have no sessions."""

    def test_states(self) -> None:
        """Are counted as a kind of their own, whatever rows there are."""

        async def count() -> int:
            return 4

        census = Census(count, self.registry.population, self.clock.seconds)
        self.send_modern(modern())
        self.successResultOf(Deferred.fromCoroutine(census.count()))
        found = {key: number for key, number in census.states().items() if number}
        self.assertEqual(found, {("stateless", "live"): 1, ("stateful", "dormant"): 4})
