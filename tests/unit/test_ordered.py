"""The parts of the daemon start and stop in a fixed order."""

from __future__ import annotations

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from fjmcp_broker.errors import BrokerError
from fjmcp_broker.ordered import OrderedService, Part


class OrderedServiceTests(SynchronousTestCase):
    """L{OrderedService} starts in order, stops in reverse, and survives failures."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.events: list[str] = []
        self.gates: dict[str, Deferred[None]] = {}

    def part(self, name: str, **gates: Deferred[None]) -> Part:
        async def start() -> None:
            self.events.append(f"start {name}")
            if "start" in gates:
                await gates["start"]

        async def stop() -> None:
            self.events.append(f"stop {name}")
            if "stop" in gates:
                await gates["stop"]

        return Part(name, start, stop, stop_timeout_seconds=5)

    def service(self, *parts: Part) -> OrderedService:
        return OrderedService(
            parts,
            clock=self.clock,
            on_failure=lambda: self.events.append("failed"),
        )

    def test_a_part_waits_for_the_one_before(self) -> None:
        """The listener does not accept before the store is open."""
        opened: Deferred[None] = Deferred()
        service = self.service(self.part("store", start=opened), self.part("listener"))
        service.startService()
        self.assertEqual(self.events, ["start store"])
        self.assertFalse(service.ready)
        opened.callback(None)
        self.assertEqual(self.events, ["start store", "start listener"])
        self.assertTrue(service.ready)

    def test_stop_is_in_reverse_and_one_after_another(self) -> None:
        """The store closes when the sessions have ended, not before."""
        ended: Deferred[None] = Deferred()
        service = self.service(self.part("store"), self.part("sessions", stop=ended))
        service.startService()
        del self.events[:]
        stopped = service.stopService()
        self.assertFalse(service.ready)
        self.assertEqual(self.events, ["stop sessions"])
        self.assertNoResult(stopped)
        ended.callback(None)
        self.successResultOf(stopped)
        self.assertEqual(self.events, ["stop sessions", "stop store"])

    def test_a_part_that_cannot_start_stops_the_others(self) -> None:
        """A start that fails undoes itself and says so once, in one line."""

        async def refuse() -> None:
            raise BrokerError("the port is taken")

        service = self.service(self.part("store"), Part("listener", refuse))
        service.startService()
        self.assertEqual(self.events, ["start store", "stop store", "failed"])
        self.assertFalse(service.ready)
        self.successResultOf(service.stopService())
        self.assertEqual(self.events[-1], "failed")

    def test_an_unexpected_failure_is_logged_whole(self) -> None:
        """A bug in a part's start leaves its traceback in the log."""

        async def fail() -> None:
            raise ZeroDivisionError

        service = self.service(Part("store", fail))
        service.startService()
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.assertEqual(self.events, ["failed"])

    def test_a_part_that_fails_to_stop_holds_nothing_up(self) -> None:
        """The store is closed even when stopping the sessions raised."""

        async def fail() -> None:
            raise ZeroDivisionError

        service = self.service(self.part("store"), Part("sessions", stop=fail))
        service.startService()
        self.successResultOf(service.stopService())
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.assertEqual(self.events[-1], "stop store")

    def test_a_part_that_never_stops_runs_out_of_time(self) -> None:
        """A part that hangs is given up after its time, and the rest stops."""
        service = self.service(
            self.part("store"), self.part("sessions", stop=Deferred())
        )
        service.startService()
        stopped = service.stopService()
        self.clock.advance(4.9)
        self.assertNoResult(stopped)
        self.clock.advance(0.2)
        self.successResultOf(stopped)
        self.assertEqual(len(self.flushLoggedErrors()), 1)
        self.assertEqual(self.events[-1], "stop store")

    def test_a_stop_in_the_middle_of_the_start(self) -> None:
        """A daemon told to stop while it waits for the store gives up waiting."""
        service = self.service(
            self.part("lock"),
            self.part("store", start=Deferred()),
            self.part("listener"),
        )
        service.startService()
        self.successResultOf(service.stopService())
        self.assertEqual(self.events, ["start lock", "start store", "stop lock"])
