"""
Client metadata documents: fetched when needed, one fetch at a time for each, and
never so often that this service becomes a tool against the one that serves them.
"""

from collections.abc import Callable, Collection
from enum import StrEnum, unique
from typing import Final, Protocol

import msgspec
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from fjmcp_broker.limits.rates import Buckets, Rate
from fjmcp_broker.oauth.clients import ClientMetadata
from fjmcp_broker.oauth.document_cache import (
    FAILURE_SECONDS,
    RecentOutcomes,
    lifetime_seconds,
)
from fjmcp_broker.oauth.document_urls import document_host
from fjmcp_broker.oauth.documents import read_document
from fjmcp_broker.oauth.errors import OAuthError
from fjmcp_broker.oauth.public_addresses import network_of
from fjmcp_broker.oauth.redirect_uris import DEFAULT_APPLICATION_SCHEMES

from .document_http import Admit, DocumentError, DocumentLimitError, FetchedBody
from .tasks import Task, Tasks

#: Documents of one host that are new to us, and of one domain with all its hosts.
HOST_RATE: Final = Rate(6, 60)
DOMAIN_RATE: Final = Rate(30, 60)
#: Connections to one address; many clients share the address of a large provider.
ADDRESS_RATE: Final = Rate(30, 60)
MAXIMUM_BUCKETS: Final = 1000
FETCHES_AT_ONCE: Final = 16


class FetchedDocument(msgspec.Struct, frozen=True):
    """
    A document, read.

    @ivar metadata: what is kept of it.
    @ivar expires_at: when it has to be fetched again, seconds since the epoch.
    """

    metadata: ClientMetadata
    expires_at: int


@unique
class FetchOutcome(StrEnum):
    """
    What came of a fetch.

    @cvar OK: a document.
    @cvar UNREACHABLE: nothing; it may be otherwise in a moment.
    @cvar UNUSABLE: nothing that can be used, or from nowhere that may be asked.
    @cvar LIMITED: nobody was asked, because of our own limits.
    """

    OK = "ok"
    UNREACHABLE = "unreachable"
    UNUSABLE = "unusable"
    LIMITED = "limited"


class IFetcher(Protocol):
    """What L{GuardedFetcher<fjmcp_broker.upstream.document_http.GuardedFetcher>} is."""

    async def fetch(self, url: str, admit: Admit) -> FetchedBody:
        """
        As L{GuardedFetcher.fetch
        <fjmcp_broker.upstream.document_http.GuardedFetcher.fetch>}.

        @param url: to fetch.
        @param admit: called before a connection.
        @return: what came.
        """


class MetadataDocuments:
    """
    Gives the document behind a URL.
    """

    _log = Logger()

    def __init__(
        self,
        fetcher: IFetcher,
        clock: IReactorTime,
        *,
        application_schemes: Collection[str] = DEFAULT_APPLICATION_SCHEMES,
        on_asked: Callable[[], Callable[[FetchOutcome], None]] = lambda: _nothing,
    ) -> None:
        """
        @param fetcher: gets the bytes.
        @param clock: tells the time.
        @param application_schemes: see L{redirect_uri_problem
            <fjmcp_broker.oauth.redirect_uris.redirect_uri_problem>}.
        @param on_asked: called when a fetch is wanted; what it gives is told what came
            of that.
        """
        self._on_asked = on_asked
        self._fetcher = fetcher
        self._clock = clock
        self._application_schemes = frozenset(map(str.lower, application_schemes))
        self._recent: RecentOutcomes[FetchedDocument | DocumentError] = RecentOutcomes()
        self._tasks = Tasks(clock)
        self._fetches: dict[str, Task[FetchedDocument]] = {}
        self._hosts = Buckets(HOST_RATE, MAXIMUM_BUCKETS)
        self._domains = Buckets(DOMAIN_RATE, MAXIMUM_BUCKETS)
        self._addresses = Buckets(ADDRESS_RATE, MAXIMUM_BUCKETS)

    def recent(self, url: str) -> FetchedDocument | None:
        """
        @param url: of a document.
        @return: what came of a fetch not long ago; C{None}: there was none.
        @raise DocumentError: that fetch failed.
        """
        outcome = self._recent.find(url, self._now())
        if isinstance(outcome, DocumentError):
            raise DocumentError(str(outcome), is_passing=outcome.is_passing)
        return outcome

    async def fetch(self, url: str, *, is_known: bool) -> FetchedDocument:
        """
        Fetch a document, or wait for the fetch that is under way. It goes on when
        whoever waits has gone.

        @param url: one that L{document_url_problem
            <fjmcp_broker.oauth.document_urls.document_url_problem>} has nothing
            against.
        @param is_known: somebody has signed in with it before. It is not counted
            against the limits of its host, so that strangers cannot use them up for
            it; each document has its own least lifetime.
        @return: the document.
        @raise DocumentError: there is none to use.
        """
        running = self._fetches.get(url)
        if running is None:
            self._admit(url, is_known)
            running = self._tasks.start(
                self._fetch(url, is_known), "fetching a client metadata document"
            )
            if not running.is_done:
                self._fetches[url] = running
        return await running.join()

    async def stop(self, timeout_seconds: float) -> None:
        """
        Let what is under way finish.

        @param timeout_seconds: what takes longer is given up.
        """
        await self._tasks.finish(timeout_seconds)

    def _admit(self, url: str, is_known: bool) -> None:
        try:
            if len(self._fetches) >= FETCHES_AT_ONCE:
                raise DocumentLimitError
            if not is_known:
                self._count_host(document_host(url))
        except DocumentLimitError:
            self._on_asked()(FetchOutcome.LIMITED)
            raise

    async def _fetch(self, url: str, is_known: bool) -> FetchedDocument:
        over, outcome = self._on_asked(), FetchOutcome.UNREACHABLE

        def admit(address: str) -> None:
            if not is_known:
                self._count(self._addresses, network_of(address))

        try:
            try:
                fetched = await self._fetcher.fetch(url, admit)
                document = self._read(url, fetched)
            except DocumentError as error:
                outcome = _outcome(error)
                if not isinstance(error, DocumentLimitError):
                    self._recent.keep(url, error, self._now() + FAILURE_SECONDS)
                self._log.warn(
                    "the client metadata document of {host} {problem}",
                    host=document_host(url),
                    problem=str(error),
                )
                raise
            outcome = FetchOutcome.OK
            self._recent.keep(url, document, document.expires_at)
            self._log.info(
                "client metadata document of {host} fetched", host=document_host(url)
            )
            return document
        finally:
            self._fetches.pop(url, None)
            over(outcome)

    def _read(self, url: str, fetched: FetchedBody) -> FetchedDocument:
        try:
            metadata = read_document(
                fetched.body, url, application_schemes=self._application_schemes
            )
        except OAuthError as error:
            raise DocumentError(f"cannot be used: {error.description}") from None
        now = self._now()
        return FetchedDocument(metadata, now + lifetime_seconds(fetched.headers, now))

    def _count_host(self, host: str) -> None:
        # Hosts cost nothing below a domain of one's own. Where the domain is one that
        # many share (co.uk), its allowance is for all of them.
        domain = ".".join(host.split(".")[-2:])
        now = self._now()
        if self._domains.wait_seconds(domain, now):
            raise DocumentLimitError
        self._count(self._hosts, host)
        self._domains.take(domain, now)

    def _count(self, buckets: Buckets, name: str) -> None:
        now = self._now()
        if buckets.wait_seconds(name, now):
            raise DocumentLimitError
        buckets.take(name, now)

    def _now(self) -> int:
        return int(self._clock.seconds())


def _outcome(error: DocumentError) -> FetchOutcome:
    if isinstance(error, DocumentLimitError):
        return FetchOutcome.LIMITED
    return FetchOutcome.UNREACHABLE if error.is_passing else FetchOutcome.UNUSABLE


def _nothing(outcome: FetchOutcome) -> None:
    """Nobody wants to know."""
