"""Which of two token sets is kept, when commits fail or overtake each other."""

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from fjmcp_broker.secret import Secret
from fjmcp_broker.store import upstream_tokens, users
from fjmcp_broker.store.errors import StoreUnavailable
from fjmcp_broker.store.sealing import Sealer
from fjmcp_broker.store.upstream_tokens import UpstreamSet
from fjmcp_broker.upstream.keeper import UNKNOWN, Keeper
from fjmcp_broker.upstream.tasks import Tasks
from tests.unit.store.memory import memory_database

from .standin import NOW
from .stepping import Gates, SteppedDatabase

USER = 7


def token_set(
    counter: int | None, *, grant_number: int | None = 1, name: str = ""
) -> UpstreamSet:
    """A set with that place in the order."""
    text = name or f"{grant_number}-{counter}"
    return UpstreamSet(
        user_id=USER,
        access_token=Secret(f"access {text}"),
        refresh_token=Secret(text),
        expires_at=NOW + 3600,
        grant_number=None if counter is None else grant_number,
        counter=counter,
        updated_at=NOW,
    )


class KeeperTests(SynchronousTestCase):
    """One user's sets."""

    def setUp(self) -> None:
        """A store with one user."""
        self.clock = Clock()
        self.clock.advance(NOW)
        self.gates = Gates()
        memory = memory_database(self)
        self.database = SteppedDatabase(memory, self.gates)
        self.tasks = Tasks(self.clock)
        self.keeper = Keeper(
            self.database,
            Sealer([b"k" * 32]),
            self.clock,
            self.tasks,
            lambda user_id: None,
        )
        self.successResultOf(
            Deferred.fromCoroutine(
                memory.write(lambda c: users.upsert_user(c, USER, "u", "U", NOW))
            )
        )

    def keep(self, new: UpstreamSet, since: int) -> Deferred[bool]:
        """Begin to keep a set."""
        return Deferred.fromCoroutine(self.keeper.keep(new, since))

    def kept(self) -> str:
        """The refresh token that is found."""
        found = self.successResultOf(Deferred.fromCoroutine(self.keeper.find(USER)))
        assert found is not None
        return found.refresh_token.reveal()

    def keep_in_vain(self, new: UpstreamSet, since: int) -> None:
        """Keep a set while the store does not work."""
        self.database.fail_writes = 1
        self.failureResultOf(self.keep(new, since), StoreUnavailable)

    def test_later_request_wins(self) -> None:
        """What was asked for after the last commit is newer, whatever its numbers."""
        self.successResultOf(self.keep(token_set(9), self.keeper.mark()))
        self.assertTrue(
            self.successResultOf(self.keep(token_set(2), self.keeper.mark()))
        )
        self.assertEqual(self.kept(), "1-2")

    def test_numbers_decide_between_requests_that_overlapped(self) -> None:
        """Grant number first, then counter, whichever was committed first."""
        since = self.keeper.mark()
        for counter, grant_number, is_newest in (
            (2, 1, True),
            (3, 1, True),
            (2, 1, False),
            (1, 2, True),
            (9, 1, False),
        ):
            new = token_set(counter, grant_number=grant_number)
            self.assertEqual(self.successResultOf(self.keep(new, since)), is_newest)
        self.assertEqual(self.kept(), "2-1")

    def test_without_numbers_the_later_wins(self) -> None:
        """Tokens that are no JWTs cannot be ordered."""
        since = self.keeper.mark()
        self.successResultOf(self.keep(token_set(None, name="a"), since))
        self.successResultOf(self.keep(token_set(None, name="b"), since))
        self.assertEqual(self.kept(), "b")

    def test_unknown_request_is_ordered_by_numbers(self) -> None:
        """What an earlier process left behind may be older than anything."""
        self.successResultOf(self.keep(token_set(5), self.keeper.mark()))
        self.assertFalse(self.successResultOf(self.keep(token_set(4), UNKNOWN)))
        self.assertEqual(self.kept(), "1-5")

    def test_refresh_of_a_forgotten_set(self) -> None:
        """The user's last grant ended meanwhile: what it brings is for nobody."""
        self.successResultOf(self.keep(token_set(5), self.keeper.mark()))
        since = self.keeper.mark()
        forget = self.database.write(
            lambda c: upstream_tokens.delete_without_grant(c, USER, NOW)
        )
        self.assertTrue(self.successResultOf(Deferred.fromCoroutine(forget)))
        kept = self.keeper.keep(token_set(6), since, is_refreshed=True)
        self.assertFalse(self.successResultOf(Deferred.fromCoroutine(kept)))
        found = Deferred.fromCoroutine(self.keeper.find(USER))
        self.assertIsNone(self.successResultOf(found))
        # A new sign-in brings another one.
        self.assertTrue(
            self.successResultOf(self.keep(token_set(1), self.keeper.mark()))
        )

    def test_two_sets_wait(self) -> None:
        """Of two sets that could not be committed the newer one stays."""
        for first, second in ((5, 4), (4, 5)):
            since = self.keeper.mark()
            self.keep_in_vain(token_set(first), since)
            self.keep_in_vain(token_set(second), since)
            self.assertEqual(self.kept(), "1-5")
        self.clock.advance(60)

    def test_retry_respects_what_came_meanwhile(self) -> None:
        """A retried set does not replace a newer one of an overlapping request."""
        since = self.keeper.mark()
        self.keep_in_vain(token_set(4), since)
        self.successResultOf(self.keep(token_set(5), since))
        self.clock.advance(1)
        self.assertEqual(self.kept(), "1-5")

    def test_retry_keeps_its_first_right(self) -> None:
        """With nothing in between, a retried set is as new as it was."""
        self.successResultOf(self.keep(token_set(9), self.keeper.mark()))
        self.keep_in_vain(token_set(2), self.keeper.mark())
        self.clock.advance(1)
        self.assertEqual(self.kept(), "1-2")

    def test_later_set_ends_the_wait_of_an_older_one(self) -> None:
        """Even when the numbers say nothing."""
        self.keep_in_vain(token_set(None, name="a"), self.keeper.mark())
        self.successResultOf(self.keep(token_set(None, name="b"), self.keeper.mark()))
        self.assertEqual(self.kept(), "b")
        self.clock.advance(60)
        self.assertEqual(self.kept(), "b")

    def test_overtaken_set_leaves_nothing_behind(self) -> None:
        """What belongs to a set's transaction is done even when a newer one has
        come; a parked copy must not stay."""
        done: list[str] = []
        self.database.fail_writes = 1
        failed = Deferred.fromCoroutine(
            self.keeper.keep(
                token_set(4), self.keeper.mark(), lambda _: done.append("unparked")
            )
        )
        self.failureResultOf(failed, StoreUnavailable)
        self.successResultOf(self.keep(token_set(5), self.keeper.mark()))
        self.assertEqual(self.kept(), "1-5")
        self.clock.advance(1)
        self.assertEqual(done, ["unparked"])
        self.assertEqual(self.kept(), "1-5")
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_retry_survives_a_bug(self) -> None:
        """An unexpected error ends neither the retries nor the tokens."""
        attempts: list[int] = []

        def broken(connection: object) -> None:
            attempts.append(1)
            if len(attempts) < 4:
                raise ZeroDivisionError

        failed = Deferred.fromCoroutine(
            self.keeper.keep(token_set(3), self.keeper.mark(), broken)
        )
        self.failureResultOf(failed, ZeroDivisionError)
        for seconds in (1, 2, 4):
            self.clock.advance(seconds)
        self.assertEqual(len(attempts), 4)
        self.assertEqual(self.kept(), "1-3")

    def test_commit_that_is_heard_of_late(self) -> None:
        """A commit does not end the wait of a set that came after it."""
        since = self.keeper.mark()
        self.gates.is_open = False
        first = self.keep(token_set(4), since)
        self.database.fail_writes = 1
        second = self.keep(token_set(5), since)
        self.gates.step(1)
        self.failureResultOf(second, StoreUnavailable)
        self.gates.open()
        self.successResultOf(first)
        self.assertEqual(self.kept(), "1-5")
        self.clock.advance(1)

    def test_unexpected_failure_keeps_the_set_too(self) -> None:
        """A bug in the transaction is no reason to lose tokens."""
        attempts: list[int] = []

        def broken(connection: object) -> None:
            attempts.append(1)
            if len(attempts) == 1:
                raise ZeroDivisionError

        failed = Deferred.fromCoroutine(
            self.keeper.keep(token_set(3), self.keeper.mark(), broken)
        )
        self.failureResultOf(failed, ZeroDivisionError)
        self.assertEqual(self.kept(), "1-3")
        self.clock.advance(1)

    def test_retries_slow_down(self) -> None:
        """A store that is broken for long is not asked every second."""
        self.database.fail_writes = -1
        self.failureResultOf(
            self.keep(token_set(3), self.keeper.mark()), StoreUnavailable
        )
        waits = []
        for _ in range(8):
            (call,) = self.clock.getDelayedCalls()
            waits.append(call.getTime() - self.clock.seconds())
            self.clock.advance(waits[-1])
        self.assertEqual(waits, [1, 2, 4, 8, 16, 30, 30, 30])
        self.database.fail_writes = 0
        self.keeper.stop()
        self.assertEqual(self.kept(), "1-3")
        self.assertEqual(self.clock.getDelayedCalls(), [])
