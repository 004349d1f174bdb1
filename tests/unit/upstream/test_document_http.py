"""Where a fetch goes when no test says otherwise."""

from collections.abc import Sequence
from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.internet.testing import MemoryReactorClock
from twisted.trial.unittest import SynchronousTestCase

from fjmcp_broker.upstream.document_http import (
    CONNECT_TIMEOUT_SECONDS,
    FETCH_TIMEOUT_SECONDS,
    DocumentError,
    GuardedFetcher,
)


class TargetTests(SynchronousTestCase):
    """The address that was vetted, port 443, and an end to waiting."""

    def fetch(self, *addresses: str) -> tuple[Any, Deferred[Any], list[str]]:
        """
        @return: a reactor without a network, the fetch, and the names looked up.
        """
        # Its type lacks what it has.
        reactor: Any = MemoryReactorClock()
        names: list[str] = []

        def resolve(host: str) -> Deferred[Sequence[str]]:
            names.append(host)
            return succeed(list(addresses))

        fetcher = GuardedFetcher(reactor, resolve, own_host="127.0.0.1")
        url = "https://app.example.com:443/client.json"
        work = fetcher.fetch(url, lambda address: None)
        return reactor, Deferred.fromCoroutine(work), names

    def targets(self, reactor: Any) -> list[tuple[str, int]]:
        """
        @return: where connections were begun to.
        """
        return [(host, port) for host, port, *_ in reactor.tcpClients]

    def test_vetted_address_and_port(self) -> None:
        """Of IPv4 as of IPv6; the name is looked up once, our own is an address."""
        for address in ("1.1.1.1", "2606:4700::1111"):
            reactor, fetch, names = self.fetch("10.0.0.1", address, "::1")
            self.assertEqual(self.targets(reactor), [(address, 443)])
            self.assertEqual(names, ["app.example.com"])
            fetch.cancel()
            self.failureResultOf(fetch)
            self.assertEqual(reactor.getDelayedCalls(), [])

    def test_nobody_answers(self) -> None:
        """All together has five seconds; nothing more is begun after that."""
        reactor, fetch, _ = self.fetch("1.1.1.1", "2606:4700::1111")
        timeouts = {client[3] for client in reactor.tcpClients}
        self.assertEqual(timeouts, {CONNECT_TIMEOUT_SECONDS})
        reactor.advance(FETCH_TIMEOUT_SECONDS)
        failure = self.failureResultOf(fetch, DocumentError)
        self.assertIn("within 5 seconds", str(failure.value))
        self.assertEqual(len(reactor.tcpClients), 1)
        self.assertEqual(reactor.getDelayedCalls(), [])
