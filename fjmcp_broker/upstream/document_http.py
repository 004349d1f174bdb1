"""
Fetching what a stranger named, without being of use to the stranger's aims.

Whoever asks to sign in may name any URL as a client id, so a fetch must reach nothing
but a web server of the public Internet: a name is resolved once, and the connection
goes to the address that was looked at, whatever the name says a moment later
(rebinding). TLS still proves the name. Redirects lead nowhere, and everything has an
end: bytes, seconds, lookups and fetches at once.
"""

import socket
from collections.abc import Callable, Sequence
from contextlib import closing
from ipaddress import ip_address
from typing import Any, Final, NoReturn, Protocol

import msgspec
from OpenSSL.SSL import Error as TLSError
from service_identity import VerificationError
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.endpoints import (
    TCP4ClientEndpoint,
    TCP6ClientEndpoint,
    wrapClientTLS,
)
from twisted.internet.error import ConnectingCancelledError
from twisted.internet.interfaces import IReactorTime, IStreamClientEndpoint
from twisted.logger import Logger
from twisted.web.client import (
    URI,
    Agent,
    BrowserLikePolicyForHTTPS,
    HTTPConnectionPool,
    ResponseFailed,
)
from twisted.web.http_headers import Headers
from twisted.web.iweb import IAgentEndpointFactory, IPolicyForHTTPS, IResponse
from zope.interface import implementer

from fjmcp_broker.errors import BrokerError
from fjmcp_broker.oauth.document_cache import CacheHeaders
from fjmcp_broker.oauth.document_urls import document_host, is_public_name
from fjmcp_broker.oauth.documents import MAXIMUM_DOCUMENT_BYTES
from fjmcp_broker.oauth.public_addresses import vetted_addresses
from fjmcp_broker.version import VERSION

from .bounded import BoundedEndpoint
from .http import read_body, trust_roots
from .resolver import TooManyLookups

FETCH_TIMEOUT_SECONDS: Final = 5.0
CONNECT_TIMEOUT_SECONDS: Final = 2.0
DOCUMENT_PORT: Final = 443

#: On the wire, TLS and headers included: Twisted bounds a header, not their number.
MAXIMUM_WIRE_BYTES: Final = 256 * 1024

#: How long to believe what our own name resolved to.
OWN_ADDRESSES_SECONDS: Final = 60.0

#: One for each kind of address.
_ATTEMPTS: Final = 2

_JSON_TYPES: Final = ("application/json",)


class DocumentError(BrokerError):
    """
    There is no document to use. The text completes "its document …" in our own
    words, for the page and the log.

    @ivar is_passing: whether it may be otherwise in a moment.
    """

    def __init__(self, message: str, *, is_passing: bool = False) -> None:
        """
        @param message: what is wrong, without anything that the peer wrote.
        @param is_passing: see above.
        """
        super().__init__(message)
        self.is_passing = is_passing


class DocumentLimitError(DocumentError):
    """
    It was not fetched because of us: too much at once.
    """

    def __init__(self) -> None:
        """There is only one way to say so."""
        super().__init__(
            "is not fetched now: too many were asked for in a short time",
            is_passing=True,
        )


class FetchedBody(msgspec.Struct, frozen=True):
    """
    A response that may hold a document.

    @ivar body: at most L{MAXIMUM_DOCUMENT_BYTES}, controlled by the client.
    @ivar headers: those on which its freshness depends.
    """

    body: bytes
    headers: CacheHeaders


class Resolve(Protocol):
    """Looks up a name."""

    def __call__(self, host: str) -> Deferred[Sequence[str]]:
        """
        @param host: a DNS name.
        @return: fires with its addresses in numbers, none when there are none.
        """


#: Tells before a connection is made whether it may be: given the address.
Admit = Callable[[str], None]


def is_own_address(address: str) -> bool:
    """
    @param address: an address in numbers.
    @return: whether it belongs to an interface of this machine: only then packets to
        it would come from itself. None is sent.
    """
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        with closing(socket.socket(family, socket.SOCK_DGRAM)) as probe:
            probe.connect((address, DOCUMENT_PORT))
            source: str = probe.getsockname()[0]
    except OSError:
        # There is no way to it at all.
        return False
    return ip_address(source.partition("%")[0]) == ip_address(address)


class GuardedFetcher:
    """
    Fetches documents from the public Internet, and from nowhere else.
    """

    _log = Logger()

    # The reactor is Any: Agent wants more interfaces of it than one type can say.
    def __init__(
        self,
        reactor: Any,
        resolve: Resolve,
        *,
        own_host: str,
        ca_file: str | None = None,
        connect: Callable[[str], IStreamClientEndpoint] | None = None,
        vet: Callable[[Sequence[str], Sequence[str]], Sequence[str]] = vetted_addresses,
        is_own: Callable[[str], bool] = is_own_address,
        timeout_seconds: float = FETCH_TIMEOUT_SECONDS,
    ) -> None:
        """
        @param reactor: provider of C{IReactorTCP} and C{IReactorTime}.
        @param resolve: see L{SystemResolver
            <fjmcp_broker.upstream.resolver.SystemResolver>}.
        @param own_host: the name of this service, lower case; never fetched from, nor
            is anything at its addresses.
        @param ca_file: PEM file; the only authorities to trust. System-wide ones when
            C{None}.
        @param connect: makes an endpoint for a vetted address; port 443 of it unless
            a test has its server elsewhere.
        @param vet: from what was resolved and our own addresses to what may be
            contacted.
        @param is_own: whether an address is one of this machine.
        @param timeout_seconds: for everything together.
        @raise UpstreamMisconfigured: the file is of no use; for the operator.
        """
        self._reactor = reactor
        self._clock: IReactorTime = reactor
        self._resolve = resolve
        self._own_host = own_host
        self._own_addresses: Sequence[str] = ()
        self._own_looked_up_at: float | None = None
        trust = None if ca_file is None else trust_roots(ca_file)
        self._policy: IPolicyForHTTPS = BrowserLikePolicyForHTTPS(trust)
        self._connect = connect or self._port_443
        self._vet = vet
        self._is_own = is_own
        self._timeout_seconds = timeout_seconds

    async def fetch(self, url: str, admit: Admit) -> FetchedBody:
        """
        @param url: one that L{document_url_problem
            <fjmcp_broker.oauth.document_urls.document_url_problem>} has nothing
            against.
        @param admit: called before a connection; raises L{DocumentLimitError} if there
            were too many to that address.
        @return: what came.
        @raise DocumentError: nothing that could be a document.
        """
        fetching = Deferred.fromCoroutine(self._fetch(url, admit))
        try:
            return await fetching.addTimeout(
                self._timeout_seconds, self._clock, _too_late
            )
        except (CancelledError, DocumentError):
            raise
        except TooManyLookups:
            raise DocumentLimitError from None
        # Whatever the HTTP stack raises, there is no document.
        except Exception as error:
            raise DocumentError(*_reason(error), is_passing=True) from None

    async def _fetch(self, url: str, admit: Admit) -> FetchedBody:
        addresses = await self._addresses(document_host(url))
        problem: Exception | None = None
        for address in addresses[:_ATTEMPTS]:
            admit(address)
            endpoint = BoundedEndpoint(self._connect(address), MAXIMUM_WIRE_BYTES)
            try:
                return await self._get(url, endpoint)
            except (CancelledError, ConnectingCancelledError, DocumentError):
                raise
            # Kept, and raised unless another address does better.
            except Exception as error:
                problem = error
                if endpoint.was_connected:
                    break
            finally:
                # Not politely: that would wait for the other side.
                endpoint.abort()
        assert problem is not None  # noqa: S101 - there is an address
        raise problem

    async def _addresses(self, host: str) -> Sequence[str]:
        """
        @return: where to connect to, the one to try first at the front.
        """
        if host == self._own_host:
            raise _nowhere()
        await self._look_up_own()
        resolved = await self._resolve(host)
        vetted = [
            each
            for each in self._vet(resolved, self._own_addresses)
            if not self._is_own(each)
        ]
        if not vetted:
            # Not which of the reasons: names of the local network are not for asking.
            raise _nowhere()
        first = vetted[0]
        other = [each for each in vetted if (":" in each) != (":" in first)]
        return [first, *(other or vetted[1:])]

    async def _look_up_own(self) -> None:
        now = self._clock.seconds()
        last = self._own_looked_up_at
        if is_public_name(self._own_host) and (
            last is None or not 0 <= now - last < OWN_ADDRESSES_SECONDS
        ):
            self._own_addresses = await self._resolve(self._own_host)
            self._own_looked_up_at = now

    async def _get(self, url: str, endpoint: IStreamClientEndpoint) -> FetchedBody:
        agent = Agent.usingEndpointFactory(
            self._reactor,
            _Pinned(endpoint, self._policy),
            HTTPConnectionPool(self._reactor, persistent=False),
        )
        headers = Headers(
            {
                "Accept": ["application/json"],
                "Accept-Encoding": ["identity"],
                "User-Agent": [f"fjmcp-broker/{VERSION}"],
            }
        )
        response = await agent.request(b"GET", url.encode("ascii"), headers)
        _check_head(response)
        body = await read_body(
            response,
            MAXIMUM_DOCUMENT_BYTES,
            lambda: DocumentError(f"is longer than {MAXIMUM_DOCUMENT_BYTES} bytes"),
        )
        return FetchedBody(body, _cache_headers(response.headers))

    def _port_443(self, address: str) -> IStreamClientEndpoint:
        kind = TCP6ClientEndpoint if ":" in address else TCP4ClientEndpoint
        endpoint: IStreamClientEndpoint = kind(
            self._reactor, address, DOCUMENT_PORT, timeout=CONNECT_TIMEOUT_SECONDS
        )
        return endpoint


@implementer(IAgentEndpointFactory)
class _Pinned:
    """
    Leads to one endpoint, whatever the URL says; TLS proves the URL's host there.
    """

    def __init__(
        self, endpoint: IStreamClientEndpoint, policy: IPolicyForHTTPS
    ) -> None:
        self._endpoint = endpoint
        self._policy = policy

    def endpointForURI(self, uri: URI) -> IStreamClientEndpoint:  # noqa: N802 - IAgentEndpointFactory
        creator = self._policy.creatorForNetloc(uri.host, uri.port)
        return wrapClientTLS(creator, self._endpoint)


def _check_head(response: IResponse) -> None:
    """
    @raise DocumentError: the response is not one with a document.
    """
    if response.code != 200:
        what = "redirects elsewhere" if 300 <= response.code < 400 else "is not there"
        raise DocumentError(
            f"{what}: its server answered with status {response.code}",
            is_passing=response.code >= 500 or response.code == 429,
        )
    encodings = response.headers.getRawHeaders("content-encoding", [])
    if any(each.strip().lower() not in ("", "identity") for each in encodings):
        raise DocumentError("is compressed, which was not asked for")
    kinds = response.headers.getRawHeaders("content-type", [])
    kind = kinds[0].partition(";")[0].strip().lower() if len(kinds) == 1 else ""
    if kind not in _JSON_TYPES and not (
        kind.startswith("application/") and kind.endswith("+json")
    ):
        raise DocumentError("is not served as application/json")


def _cache_headers(headers: Headers) -> CacheHeaders:
    def first(name: str) -> str:
        return headers.getRawHeaders(name, [""])[0]

    return CacheHeaders(
        cache_control=headers.getRawHeaders("cache-control", []),
        age=first("age"),
        date=first("date"),
        expires=first("expires"),
    )


def _nowhere() -> DocumentError:
    return DocumentError("cannot be fetched: its host has no public address")


def _too_late(outcome: object, seconds: float) -> NoReturn:
    raise DocumentError(
        f"did not come within {seconds:g} seconds", is_passing=True
    ) from None


def _reason(error: Exception) -> tuple[str]:
    """
    @return: what happened to the connection. The texts of the exceptions may hold
        what the peer wrote.
    """
    causes: list[object] = [error]
    if isinstance(error, ResponseFailed):
        causes = [each.value for each in error.reasons]
    if any(isinstance(each, VerificationError) for each in causes):
        return ("cannot be trusted: the certificate is for another host",)
    if any(isinstance(each, TLSError) for each in causes):
        return ("cannot be trusted: TLS with its server failed",)
    kinds = ", ".join(type(each).__name__ for each in causes)
    return (f"cannot be fetched: {kinds}",)
