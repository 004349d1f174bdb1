"""Work that no caller's cancellation ends."""

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from fjmcp_broker.errors import BrokerError
from fjmcp_broker.upstream.tasks import Tasks


class TaskTests(SynchronousTestCase):
    """One task and its callers."""

    def setUp(self) -> None:
        """Some work that ends when the test says so."""
        self.clock = Clock()
        self.tasks = Tasks(self.clock)
        self.signal: Deferred[int] = Deferred()

    async def work(self) -> int:
        """Wait for the signal."""
        return await self.signal + 1

    def test_all_callers_get_the_result(self) -> None:
        """Everybody who joins gets the one result, late ones too."""
        task = self.tasks.start(self.work(), "work")
        first, second = task.join(), task.join()
        self.assertNoResult(first)
        self.assertFalse(task.is_done)
        self.signal.callback(1)
        self.assertTrue(task.is_done)
        for joined in (first, second, task.join()):
            self.assertEqual(self.successResultOf(joined), 2)
        self.successResultOf(task.ended())

    def test_cancelled_caller_leaves_the_work_alone(self) -> None:
        """Cancelling callers, even all of them, does not reach the work."""
        task = self.tasks.start(self.work(), "work")
        first, second = task.join(), task.join()
        first.cancel()
        self.failureResultOf(first, CancelledError)
        second.cancel()
        self.failureResultOf(second, CancelledError)
        self.assertFalse(task.is_done)
        self.signal.callback(1)
        self.assertEqual(self.successResultOf(task.join()), 2)

    def test_caller_that_cancels_another(self) -> None:
        """A caller's reaction to the result may cancel another caller."""
        task = self.tasks.start(self.work(), "work")
        first, second = task.join(), task.join()
        first.addCallback(lambda _: second.cancel())
        self.signal.callback(1)
        self.successResultOf(first)
        self.failureResultOf(second, CancelledError)

    def test_failure_reaches_all_callers(self) -> None:
        """A failure is everybody's."""
        task = self.tasks.start(self.work(), "work")
        first, second = task.join(), task.join()
        self.signal.errback(BrokerError("no"))
        self.failureResultOf(first, BrokerError)
        self.failureResultOf(second, BrokerError)
        self.successResultOf(task.ended())

    def test_failure_that_nobody_hears_is_logged(self) -> None:
        """An unexpected failure does not vanish with its caller."""
        task = self.tasks.start(self.work(), "work")
        task.join().addErrback(lambda _: None).cancel()
        ended = task.ended()
        self.signal.errback(ZeroDivisionError())
        self.successResultOf(ended)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_cancelled_wait_for_the_end(self) -> None:
        """Waiting for the end can be given up too."""
        task = self.tasks.start(self.work(), "work")
        ended = task.ended()
        ended.cancel()
        self.failureResultOf(ended, CancelledError)
        self.signal.callback(1)
        self.assertTrue(task.is_done)

    def test_work_that_is_done_at_once(self) -> None:
        """Work without a wait is done when start returns."""

        async def quick() -> str:
            return "done"

        task = self.tasks.start(quick(), "work")
        self.assertTrue(task.is_done)
        self.assertEqual(self.successResultOf(task.join()), "done")


class FinishTests(SynchronousTestCase):
    """The owner's stop."""

    def test_waits_for_tasks_and_their_successors(self) -> None:
        """Stopping waits for what runs and for what that starts."""
        clock = Clock()
        tasks = Tasks(clock)
        first: Deferred[None] = Deferred()
        second: Deferred[None] = Deferred()

        async def wait_second() -> None:
            await second

        async def wait_first() -> None:
            await first
            tasks.start(wait_second(), "second")

        tasks.start(wait_first(), "first")
        finished = Deferred.fromCoroutine(tasks.finish(10))
        first.callback(None)
        self.assertNoResult(finished)
        second.callback(None)
        self.successResultOf(finished)
        self.assertEqual(clock.getDelayedCalls(), [])

    def test_gives_up_after_the_timeout(self) -> None:
        """Work that hangs is cancelled in the end and leaves nothing behind."""
        clock = Clock()
        tasks = Tasks(clock)
        cancelled: list[object] = []
        never: Deferred[None] = Deferred(cancelled.append)

        async def hang() -> None:
            await never

        task = tasks.start(hang(), "hang")
        finished = Deferred.fromCoroutine(tasks.finish(10))
        clock.advance(9)
        self.assertNoResult(finished)
        clock.advance(1)
        self.successResultOf(finished)
        self.assertEqual(cancelled, [never])
        self.failureResultOf(task.join(), CancelledError)
        self.assertEqual(clock.getDelayedCalls(), [])

    def test_nothing_to_wait_for(self) -> None:
        """Without tasks it is done at once."""
        clock = Clock()
        self.successResultOf(Deferred.fromCoroutine(Tasks(clock).finish(10)))
        self.assertEqual(clock.getDelayedCalls(), [])
