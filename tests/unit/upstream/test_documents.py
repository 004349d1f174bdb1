"""Fetching client metadata documents: once for all who ask, and not too often."""

from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from fjmcp_broker.upstream.document_http import (
    DocumentError,
    DocumentLimitError,
)
from fjmcp_broker.upstream.documents import (
    ADDRESS_RATE,
    FETCHES_AT_ONCE,
    HOST_RATE,
    FetchedDocument,
    MetadataDocuments,
)

from .document_fakes import SmallFetcher

NOW = 1_800_000_000
URL = "https://app.example.com/client.json"


class DocumentsCase(SynchronousTestCase):
    """What is under test, with a clock."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.clock.advance(NOW)
        self.fetcher = SmallFetcher()
        self.outcomes: list[str] = []
        self.documents = MetadataDocuments(
            self.fetcher, self.clock, on_asked=lambda: self.outcomes.append
        )
        self.addCleanup(self.assertEqual, self.clock.getDelayedCalls(), [])

    def begin(self, url: str = URL, *, is_known: bool = False) -> Deferred[Any]:
        """
        @return: a fetch, begun.
        """
        return Deferred.fromCoroutine(self.documents.fetch(url, is_known=is_known))

    def fetch(self, url: str = URL, *, is_known: bool = False) -> FetchedDocument:
        """
        @return: what a fetch gives at once.
        """
        document: FetchedDocument = self.successResultOf(
            self.begin(url, is_known=is_known)
        )
        return document

    def refused(self, url: str = URL, *, is_known: bool = False) -> DocumentError:
        """
        @return: why a fetch fails at once.
        """
        failure = self.failureResultOf(
            self.begin(url, is_known=is_known), DocumentError
        )
        error: DocumentError = failure.value
        return error


class FetchTests(DocumentsCase):
    """One document."""

    def test_document_with_its_lifetime(self) -> None:
        """Read, and remembered for as long as HTTP says."""
        self.assertIsNone(self.documents.recent(URL))
        document = self.fetch()
        self.assertEqual(document.metadata.values["client_name"], "App")
        self.assertEqual(document.expires_at, NOW + 600)
        self.clock.advance(599)
        self.assertEqual(self.documents.recent(URL), document)
        self.clock.advance(1)
        self.assertIsNone(self.documents.recent(URL))

    def test_failure_is_remembered_for_a_moment(self) -> None:
        """So that nobody makes us knock without pause; then it is tried anew."""
        self.fetcher.error = DocumentError("is not there", is_passing=True)
        self.assertEqual(str(self.refused()), "is not there")
        error = self.assertRaises(DocumentError, self.documents.recent, URL)
        self.assertEqual((str(error), error.is_passing), ("is not there", True))
        self.clock.advance(30)
        self.assertIsNone(self.documents.recent(URL))
        self.fetcher.error = None
        self.fetch()

    def test_bad_document(self) -> None:
        """What it says wrong is told, in our words."""
        self.fetcher.name = ""
        error = self.refused()
        self.assertEqual(str(error), "cannot be used: it must have a client_name")
        self.assertFalse(error.is_passing)
        self.assertRaises(DocumentError, self.documents.recent, URL)

    def test_single_flight(self) -> None:
        """Everybody who comes during a fetch gets its result."""
        self.fetcher.is_slow = True
        waiters = [self.begin() for _ in range(20)]
        other = self.begin("https://other.example.com/x")
        self.assertEqual(len(self.fetcher.fetched), 2)
        self.fetcher.answer()
        results = {id(self.successResultOf(each)) for each in waiters}
        self.assertEqual(len(results), 1)
        self.successResultOf(other)

    def test_single_flight_of_a_failure(self) -> None:
        """Also when there is none."""
        self.fetcher.is_slow = True
        self.fetcher.error = DocumentError("is not there")
        waiters = [self.begin() for _ in range(3)]
        self.fetcher.answer()
        for each in waiters:
            self.failureResultOf(each, DocumentError)
        self.assertEqual(len(self.fetcher.fetched), 1)

    def test_who_leaves_stops_nobody(self) -> None:
        """A closed tab does not end the fetch for others, nor for later."""
        self.fetcher.is_slow = True
        first, second = self.begin(), self.begin()
        first.cancel()
        self.failureResultOf(first, CancelledError)
        second.cancel()
        self.failureResultOf(second, CancelledError)
        self.fetcher.answer()
        self.assertIsNotNone(self.documents.recent(URL))
        self.assertEqual(len(self.fetcher.fetched), 1)

    def test_outcomes(self) -> None:
        """Each fetch is heard of once, whoever waits for it, and what came of it."""
        self.fetcher.is_slow = True
        waiters = [self.begin() for _ in range(3)]
        waiters[0].addErrback(lambda failure: failure.trap(CancelledError))
        waiters[0].cancel()
        self.assertEqual(self.outcomes, [])
        self.fetcher.answer()
        self.fetcher.is_slow = False
        for each in waiters:
            self.successResultOf(each)
        self.fetcher.error = DocumentError("is not there", is_passing=True)
        self.refused("https://a.example.org/x")
        self.fetcher.error = DocumentError("is a redirection")
        self.refused("https://b.example.org/x")
        self.fetcher.error, self.fetcher.name = None, ""
        self.refused("https://c.example.org/x")
        self.assertEqual(self.outcomes, ["ok", "unreachable", "unusable", "unusable"])

    def test_stop_waits(self) -> None:
        """What is under way may finish."""
        self.fetcher.is_slow = True
        waiter = self.begin()
        stopped = Deferred.fromCoroutine(self.documents.stop(5))
        self.assertNoResult(stopped)
        self.fetcher.answer()
        self.successResultOf(stopped)
        self.successResultOf(waiter)


class ReflectorTests(DocumentsCase):
    """Nobody uses this service to flood a host with requests."""

    def many(self, count: int, form: str) -> int:
        """
        @param form: of a URL, with a number to put in.
        @return: how many of them were fetched.
        """
        before = len(self.fetcher.fetched)
        for number in range(count):
            started = self.begin(form.format(number))
            started.addErrback(lambda failure: failure.trap(DocumentLimitError))
            self.successResultOf(started)
        return len(self.fetcher.fetched) - before

    def test_many_urls_on_one_host(self) -> None:
        """A few a minute, however many are asked for."""
        form = "https://victim.example/{}"
        self.assertEqual(self.many(100, form), HOST_RATE.count)
        self.assertEqual(self.outcomes.count("limited"), 100 - HOST_RATE.count)
        self.assertIsInstance(self.refused(form.format("x")), DocumentLimitError)
        self.clock.advance(HOST_RATE.period_seconds)
        self.assertEqual(self.many(100, form), HOST_RATE.count)
        self.assertEqual(self.many(1, "https://other.example/{}"), 1)

    def test_spelling_does_not_help(self) -> None:
        """A host is one host in any case, with or without its port."""
        self.many(100, "https://victim.example/{}")
        self.assertEqual(self.many(9, "https://VICTIM.example/{}"), 0)
        self.assertEqual(self.many(9, "https://victim.example:443/{}"), 0)

    def test_many_hosts_of_one_domain(self) -> None:
        """Names below a domain cost nothing, so they share its allowance."""
        self.assertEqual(self.many(100, "https://h{}.victim.example/x"), 30)

    def test_many_names_of_one_address(self) -> None:
        """Nor does it help to call one host by many names."""
        self.fetcher.addresses = ["1.1.1.1"]
        count = self.many(100, "https://www.victim{}.example/x")
        self.assertEqual(count, ADDRESS_RATE.count)
        self.assertEqual(self.outcomes.count("limited"), 100 - count)
        self.fetcher.addresses = ["1.0.0.1"]
        self.assertEqual(self.many(5, "https://www.other{}.example/x"), 5)

    def test_many_addresses_of_one_network(self) -> None:
        """One IPv6 host has very many addresses."""
        self.fetcher.addresses = ["2606:4700::1"]
        self.many(29, "https://www.victim{}.example/x")
        self.fetcher.addresses = ["2606:4700::2"]
        self.assertEqual(self.many(9, "https://www.another{}.example/x"), 1)

    def test_refusal_of_ours_is_not_kept(self) -> None:
        """A client does not wait longer because of what others did."""
        self.many(100, "https://victim.example/{}")
        url = "https://victim.example/client"
        self.refused(url)
        self.assertIsNone(self.documents.recent(url))

    def test_known_clients_are_not_locked_out(self) -> None:
        """Strangers cannot use up what a client with users needs."""
        self.fetcher.addresses = ["1.1.1.1"]
        self.many(100, "https://app.example.com/{}")
        self.many(100, "https://www.victim{}.example/x")
        self.assertIsInstance(self.refused(), DocumentLimitError)
        self.fetch(is_known=True)

    def test_fetches_at_once(self) -> None:
        """Slow servers hold only so many."""
        self.fetcher.is_slow = True
        waiters = [
            self.begin(f"https://www.host{number}.example/x")
            for number in range(FETCHES_AT_ONCE)
        ]
        self.assertIsInstance(self.refused(is_known=True), DocumentLimitError)
        self.fetcher.answer()
        for each in waiters:
            self.successResultOf(each)
        self.fetcher.is_slow = False
        self.fetch()
