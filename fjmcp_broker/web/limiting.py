"""
Who a request counts against, and what is said to the one too many.
"""

from collections.abc import Awaitable, Callable, Iterable, Mapping
from enum import StrEnum, unique
from typing import Final, Protocol

from msgspec.structs import replace
from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.interfaces import IAddress, IReactorTime
from twisted.logger import Logger
from twisted.web.http_headers import Headers
from twisted.web.iweb import IRequest

from fjmcp_broker.config import TrustedProxies
from fjmcp_broker.limits.addresses import (
    Address,
    client_address,
    client_network,
    parse_address,
    shown_network,
)
from fjmcp_broker.limits.policy import Limited, Limiter
from fjmcp_broker.limits.rates import Buckets, Rate
from fjmcp_broker.oauth.errors import OAuthError
from fjmcp_broker.oauth.parameters import parse_parameters
from fjmcp_broker.oauth.vocabulary import (
    AUTHORIZE_PATH,
    CALLBACK_PATH,
    CONSENT_PATH,
    REGISTER_PATH,
    REVOKE_PATH,
    TOKEN_PATH,
    ErrorCode,
    GrantType,
)
from fjmcp_broker.web.app import Route
from fjmcp_broker.web.forms import form_bytes

#: A limit that is in effect all the time is worth one line in the log in that time.
_QUIET_SECONDS: Final = 60.0


_FORWARDED_FOR: Final = b"x-forwarded-for"
_MOST_SAID: Final = 10


class HasClient(Protocol):
    """What a request of every kind tells about its client."""

    requestHeaders: Headers  # noqa: N815 - Twisted's

    def getClientAddress(self) -> IAddress:  # noqa: N802 - Twisted's
        """
        @return: the other end of the connection.
        """


@unique
class Source(StrEnum):
    """
    Where what is known about a client's address comes from.
    """

    PEER = "peer"
    FORWARDED = "forwarded"
    #: The header names nobody but proxies: the request begins on one of them.
    ONLY_PROXIES = "only_proxies"
    NOT_SAID = "not_said"
    NOT_BELIEVED = "not_believed"


class ClientAddresses:
    """
    Finds the address of a client, behind reverse proxies too.
    """

    _log = Logger()

    def __init__(self, proxies: TrustedProxies, shown: str = "network") -> None:
        """
        @param proxies: whose C{X-Forwarded-For} is believed. C{Forwarded} (RFC 7239)
            is not read: a proxy that adds the one passes the other on as it came.
        @param shown: C{network}, C{full} or C{none}, for the log.
        """
        self._proxies = proxies
        self._shown = shown
        self._said: set[str] = set()

    def of(self, request: HasClient) -> Address | None:
        """
        @param request: its headers are complete.
        @return: the address of its client, C{None} when it is not known.
        """
        peer = request.getClientAddress()
        if isinstance(peer, IPv4Address | IPv6Address):
            host = peer.host
        elif isinstance(peer, UNIXAddress):
            host = None
        else:
            return None
        values = request.requestHeaders.getRawHeaders(_FORWARDED_FOR) or []
        if values and not self._proxies.trusts(host):
            self._not_believed(host)
        return client_address(
            host, (value.decode("latin-1") for value in values), self._proxies.trusts
        )

    def source(self, request: HasClient) -> Source:
        """
        @param request: its headers are complete.
        @return: where what is known about its client's address comes from.
        """
        peer = request.getClientAddress()
        host = getattr(peer, "host", None)
        is_forwarded = request.requestHeaders.hasHeader(_FORWARDED_FOR)
        if not self._proxies.trusts(host):
            return Source.NOT_BELIEVED if is_forwarded else Source.PEER
        if self.of(request) is not None:
            return Source.FORWARDED
        return Source.ONLY_PROXIES if is_forwarded else Source.NOT_SAID

    def _not_believed(self, host: str | None) -> None:
        address = None if host is None else parse_address(host)
        network = "a Unix socket" if address is None else shown_network(address)
        if network in self._said or len(self._said) >= _MOST_SAID:
            return
        self._said.add(network)
        self._log.warn(
            "X-Forwarded-For from {network} is not believed; if that is your reverse "
            "proxy, add it to server.trusted_proxies: its clients count as one",
            network=network,
        )

    def network(self, request: HasClient) -> str | None:
        """
        @param request: its headers are complete.
        @return: the network of its client, C{None} when it is not known.
        """
        address = self.of(request)
        return None if address is None else client_network(address)

    def shown(self, request: HasClient) -> str | None:
        """
        @param request: its headers are complete.
        @return: as much of its client's address as the log may have, C{unknown}, or
            C{None}: nothing.
        """
        if self._shown == "none":
            return None
        address = self.of(request)
        if address is None:
            return "unknown"
        return str(address) if self._shown == "full" else shown_network(address)


class RateLimiter:
    """
    Refuses what is too much.
    """

    _log = Logger()

    def __init__(
        self,
        limiter: Limiter,
        addresses: ClientAddresses,
        clock: IReactorTime,
        on_refused: Callable[[Limited], object] = lambda what: None,
    ) -> None:
        """
        @param limiter: counts.
        @param addresses: of clients.
        @param clock: tells how much time has passed.
        @param on_refused: called for each request that is refused.
        """
        self._limiter = limiter
        self._addresses = addresses
        self._clock = clock
        self._on_refused = on_refused
        self._said_at: dict[Limited, float] = {}

    def source(self, request: HasClient) -> Source:
        """
        @param request: any.
        @return: as L{ClientAddresses.source}.
        """
        return self._addresses.source(request)

    def take(self, what: Limited, request: HasClient) -> int:
        """
        @param what: a request asks for.
        @param request: it.
        @return: 0: it may go on; else in how many seconds it could.
        """
        now = self._clock.seconds()
        wait = self._limiter.take(what, self._addresses.of(request), int(now))
        if wait:
            self._on_refused(what)
            if now - self._said_at.get(what, -_QUIET_SECONDS) >= _QUIET_SECONDS:
                self._said_at[what] = now
                self._log.warn(
                    "limits.{what} reached by {client}, more in {wait} s",
                    what=str(what),
                    client=self._addresses.shown(request) or "a client",
                    wait=wait,
                )
        return wait

    def give_back(self, what: Limited, request: HasClient) -> None:
        """
        Undo L{take}.

        @param what: as before.
        @param request: as before.
        """
        now = int(self._clock.seconds())
        self._limiter.give_back(what, self._addresses.of(request), now)

    def prove(self, request: HasClient) -> None:
        """
        @param request: it has a valid access token, which was looked up.
        """
        now = int(self._clock.seconds())
        self._limiter.prove(self._addresses.of(request), now)

    def check(self, what: Limited, request: IRequest) -> None:
        """
        @param what: a request asks for.
        @param request: it.
        @raise OAuthError: C{temporarily_unavailable} with status 429 (RFC 6585
            section 4); clients keep what they have on it.
        """
        wait = self.take(what, request)
        if wait:
            raise OAuthError(
                ErrorCode.TEMPORARILY_UNAVAILABLE,
                "too many requests, try again later",
                429,
                headers={"Retry-After": str(wait)},
            )

    def guard(self, routes: Iterable[Route]) -> tuple[Route, ...]:
        """
        @param routes: of the service.
        @return: the same, those with a limit behind it.
        """
        return tuple(
            replace(route, handler=self._guarded(route, _CLASSIFIED[route.path]))
            if route.path in _CLASSIFIED
            else route
            for route in routes
        )

    def _guarded(
        self, route: Route, classify: Callable[[IRequest], Limited]
    ) -> Callable[[IRequest], Awaitable[bytes]]:
        handler = route.handler

        async def guarded(request: IRequest) -> bytes:
            self.check(classify(request), request)
            return await handler(request)

        return guarded


class SessionLimiter:
    """
    Bounds how many sessions a user opens: each of them starts a child, and a child
    calls Forgejo.
    """

    def __init__(
        self,
        rate: Rate | None,
        clock: IReactorTime,
        on_refused: Callable[[str], object] = lambda what: None,
    ) -> None:
        """
        @param rate: of each user, C{None}: no limit.
        @param clock: tells how much time has passed.
        @param on_refused: called with C{initialize} for each session refused.
        """
        self._buckets = None if rate is None else Buckets(rate)
        self._clock = clock
        self._on_refused = on_refused

    def take(self, user_id: int) -> int:
        """
        @param user_id: who opens a session.
        @return: 0: it may be opened; else in how many seconds it could.
        """
        if self._buckets is None:
            return 0
        now, key = int(self._clock.seconds()), str(user_id)
        wait = self._buckets.wait_seconds(key, now)
        if wait:
            self._on_refused("initialize")
        else:
            self._buckets.take(key, now)
        return wait


def _token_request(request: IRequest) -> Limited:
    """
    Tell a refresh from everything else. What cannot be read is refused later.
    """
    try:
        grant_type = parse_parameters(form_bytes(request)).get("grant_type")
    except OAuthError:
        return Limited.CODE
    return Limited.REFRESH if grant_type == GrantType.REFRESH_TOKEN else Limited.CODE


def _always(what: Limited) -> Callable[[IRequest], Limited]:
    return lambda request: what


_CLASSIFIED: Final[Mapping[str, Callable[[IRequest], Limited]]] = {
    REGISTER_PATH: _always(Limited.REGISTER),
    AUTHORIZE_PATH: _always(Limited.AUTHORIZE),
    CONSENT_PATH: _always(Limited.CONSENT),
    CALLBACK_PATH: _always(Limited.CONSENT),
    TOKEN_PATH: _token_request,
    REVOKE_PATH: _always(Limited.REVOKE),
    # Each one lasts a second.
    "/healthz/stream": _always(Limited.ANONYMOUS),
}
