"""
Which request counts against which buckets.
"""

from collections import OrderedDict
from collections.abc import Mapping
from enum import StrEnum, unique
from ipaddress import IPv4Network, IPv6Network
from typing import Final

import msgspec

from .addresses import Address, client_network, site_network
from .rates import DEFAULT_MAXIMUM_BUCKETS, Buckets, Rate

Network = IPv4Network | IPv6Network


@unique
class Limited(StrEnum):
    """
    What is limited, each by buckets of its own: none can use up another's.
    """

    REGISTER = "register"
    AUTHORIZE = "authorize"
    CONSENT = "consent"
    CODE = "code"
    REFRESH = "refresh"
    REVOKE = "revoke"
    ANONYMOUS = "anonymous"
    BAD_BEARER = "bad_bearer"


Rates = Mapping[Limited, Rate | None]
"""C{None} or absent: no limit."""


class RateLimits(msgspec.Struct, frozen=True):
    """
    All limits.

    @ivar rates: of each client network.
    @ivar all_networks: so many times as much is allowed to all networks together,
        and to all requests whose network is not known.
    @ivar networks: networks that have limits of their own, counted as a whole; what
        they do not name is as for everybody.
    """

    rates: Rates
    all_networks: int = 20
    networks: Mapping[Network, Rates] = msgspec.field(default_factory=dict)


class _Place(msgspec.Struct, frozen=True):
    """A bucket that a request counts against."""

    buckets: Buckets
    key: str


SITE_FACTOR: Final = 4
"""So many times as much is allowed to all /64 of a /48 together: who has one could
otherwise use up what all networks share."""

FAMILIAR_SECONDS: Final = 24 * 3600
"""A network from which somebody has shown a valid token is known for so long."""

_TOGETHER: Final = "together"
"""The key of a bucket that several share; no network is called so."""


class Limiter:
    """
    The buckets of everything that is limited.
    """

    def __init__(
        self, limits: RateLimits, maximum_buckets: int = DEFAULT_MAXIMUM_BUCKETS
    ) -> None:
        """
        @param limits: how much.
        @param maximum_buckets: that are remembered for each thing that is limited.
        """
        self._each = {
            what: Buckets(rate, maximum_buckets)
            for what, rate in limits.rates.items()
            if rate is not None
        }
        self._sites = {
            what: Buckets(rate.times(SITE_FACTOR), maximum_buckets)
            for what, rate in limits.rates.items()
            if rate is not None
        }
        self._all = {
            what: Buckets(rate.times(limits.all_networks), 1)
            for what, rate in limits.rates.items()
            if rate is not None
        }
        # The most specific one counts.
        self._networks = sorted(
            limits.networks, key=lambda network: network.prefixlen, reverse=True
        )
        self._maximum_familiar = maximum_buckets
        self._familiar: OrderedDict[str, int] = OrderedDict()
        self._own: dict[tuple[Network, Limited], Buckets | None] = {
            (network, what): None if rate is None else Buckets(rate, 1)
            for network, rates in limits.networks.items()
            for what, rate in rates.items()
        }

    def take(self, what: Limited, address: Address | None, now: int) -> int:
        """
        Count a request, unless it is too much.

        @param what: it asks for.
        @param address: of the client, C{None} when it is not known.
        @param now: whole seconds since the epoch.
        @return: 0: it was counted and may go on; else in how many seconds it could.
        """
        places = self._places(what, address, now)
        wait = max(
            (place.buckets.wait_seconds(place.key, now) for place in places), default=0
        )
        if wait == 0:
            for place in places:
                place.buckets.take(place.key, now)
        return wait

    def give_back(self, what: Limited, address: Address | None, now: int) -> None:
        """
        Undo L{take}: the request has turned out to be none of those that are limited.

        @param what: as before.
        @param address: as before.
        @param now: whole seconds since the epoch.
        """
        for place in self._places(what, address, now):
            place.buckets.give_back(place.key, now)

    def prove(self, address: Address | None, now: int) -> None:
        """
        Somebody has shown a valid token: for a day the requests from there do not
        count against what all networks share, so that a crowd of others cannot keep
        users out. The limits of the network itself stay.

        @param address: of the client.
        @param now: whole seconds since the epoch.
        """
        if address is None:
            return
        network = client_network(address)
        self._familiar[network] = now + FAMILIAR_SECONDS
        self._familiar.move_to_end(network)
        while len(self._familiar) > self._maximum_familiar:
            self._familiar.popitem(last=False)

    @property
    def remembered(self) -> int:
        """
        @return: how many buckets are not full.
        """
        return sum(
            len(self._each[what]) + len(self._sites[what]) for what in self._each
        )

    def _places(self, what: Limited, address: Address | None, now: int) -> list[_Place]:
        if address is not None:
            for network in self._networks:
                if (network, what) in self._own and address in network:
                    own = self._own[network, what]
                    return [] if own is None else [_Place(own, _TOGETHER)]
        if what not in self._all:
            return []
        together = _Place(self._all[what], _TOGETHER)
        if address is None:
            return [together]
        name = client_network(address)
        places = [_Place(self._each[what], name)]
        site = site_network(address)
        if site is not None:
            places.append(_Place(self._sites[what], site))
        if self._familiar.get(name, 0) <= now:
            places.append(together)
        return places
