"""Work that finishes whether or not anybody waits."""

from twisted.internet.defer import CancelledError, Deferred
from twisted.trial.unittest import SynchronousTestCase

from fjmcp_broker.store.errors import StoreUnavailable
from fjmcp_broker.web.oauth.owned import finish


class FinishTests(SynchronousTestCase):
    """The waiter may go, the work stays."""

    def setUp(self) -> None:
        self.gate: Deferred[int] = Deferred()
        self.done: list[int] = []

    async def work(self) -> int:
        """
        @return: what the gate gave.
        """
        result = await self.gate
        self.done.append(result)
        return result

    def test_result_and_failure_arrive(self) -> None:
        """Somebody waits: nothing is different."""
        waiting = finish(self.work(), "work")
        self.gate.callback(3)
        self.assertEqual(self.successResultOf(waiting), 3)
        self.gate = Deferred()
        waiting = finish(self.work(), "work")
        self.gate.errback(KeyError("x"))
        self.failureResultOf(waiting, KeyError)

    def test_cancelled_waiter_leaves_the_work_alone(self) -> None:
        """It goes on to its end."""
        waiting = finish(self.work(), "work")
        waiting.cancel()
        self.failureResultOf(waiting, CancelledError)
        self.assertFalse(self.gate.called)
        self.gate.callback(4)
        self.assertEqual(self.done, [4])

    def test_failure_after_the_waiter_has_gone_is_logged(self) -> None:
        """Nothing gets lost in silence; what is expected has no traceback."""
        waiting = finish(self.work(), "work")
        waiting.cancel()
        self.failureResultOf(waiting, CancelledError)
        self.gate.errback(KeyError("x"))
        self.assertEqual(len(self.flushLoggedErrors(KeyError)), 1)
        self.gate = Deferred()
        waiting = finish(self.work(), "work")
        waiting.cancel()
        self.failureResultOf(waiting, CancelledError)
        self.gate.errback(StoreUnavailable("busy"))
        self.assertEqual(self.flushLoggedErrors(), [])
