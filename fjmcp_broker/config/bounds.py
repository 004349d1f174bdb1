"""
Keys about how much anybody may ask for.

These records are part of the table of keys: every default, unit and help text stands
here and nowhere else.
"""

import re
from collections.abc import Mapping
from ipaddress import ip_network
from typing import Final

from attrs import Factory, field, frozen

from fjmcp_broker.limits.policy import Limited, Network, RateLimits
from fjmcp_broker.limits.rates import Rate

from .keys import about
from .kinds import COUNT, Kind, parse_duration, scalar

_OFF: Final = "off"
_RATE: Final = re.compile(r"([0-9]{1,9})/([0-9]{0,9}[smhd])")
_UNITS: Final = {1: "s", 60: "m", 3600: "h", 86400: "d"}
_LONGEST_SECONDS: Final = 30 * 86400

NetworkRates = Mapping[Network, Mapping[Limited, Rate | None]]


def parse_rate(text: str) -> Rate | None:
    """
    Read C{60/m}, C{5/10s} or C{off}.

    @param text: from the operator.
    @return: the rate, or C{None}: no limit.
    @raise ValueError: if it is nothing of the kind.
    """
    text = text.strip().lower()
    if text == _OFF:
        return None
    match = _RATE.fullmatch(text)
    if match and int(match[1]) > 0:
        period = match[2] if match[2][0].isdigit() else f"1{match[2]}"
        seconds = parse_duration(period)
        if seconds <= _LONGEST_SECONDS:
            return Rate(int(match[1]), seconds)
    raise ValueError("must be a rate such as 60/m, 20/h or 5/10s, or off")


def format_rate(rate: Rate | None) -> str:
    """
    @param rate: a rate, or C{None}.
    @return: the text that L{parse_rate} reads as the same.
    """
    if rate is None:
        return _OFF
    unit = _UNITS.get(rate.period_seconds, f"{rate.period_seconds}s")
    return f"{rate.count}/{unit}"


RATE: Final = scalar("rate", parse_rate, format_rate)


def _network_rates(value: object) -> NetworkRates:
    if not isinstance(value, dict):
        raise ValueError("must be a table of networks")
    networks: dict[Network, Mapping[Limited, Rate | None]] = {}
    for text, table in value.items():
        try:
            network = ip_network(text, strict=False)
        except ValueError:
            raise ValueError(
                'must have networks such as "198.51.100.0/24" as its keys'
            ) from None
        if network in networks:
            raise ValueError(f"must not name the network {network} twice")
        if not isinstance(table, dict):
            raise ValueError('must have tables such as { register = "500/h" } in it')
        rates: dict[Limited, Rate | None] = {}
        for name, rate in table.items():
            if name not in set(Limited):
                raise ValueError(f"must limit only {', '.join(Limited)}")
            if not isinstance(rate, str):
                raise ValueError("must have rates such as 60/m in it")
            rates[Limited(name)] = parse_rate(rate)
        networks[network] = rates
    return networks


def _write_networks(value: NetworkRates) -> object:
    return {
        str(network): {str(what): format_rate(rate) for what, rate in rates.items()}
        for network, rates in value.items()
    }


NETWORK_RATES: Final = Kind("table of networks", _network_rates, None, _write_networks)


@frozen(kw_only=True)
class LimitsConfig:
    """C{[limits]}: how many requests a client network may make (429 beyond that)."""

    register: Rate | None = field(
        default=Rate(60, 3600),
        metadata=about(
            RATE,
            "Registrations of clients. 60/h is 60 at once and 60 an hour in the long "
            "run; off is no limit. A client network is an address of IPv4 or a /64 of "
            "IPv6.",
        ),
    )
    authorize: Rate | None = field(
        default=Rate(60, 60),
        metadata=about(RATE, "Sign-ins that are begun."),
    )
    consent: Rate | None = field(
        default=Rate(60, 60),
        metadata=about(
            RATE,
            "Sign-ins that go on: answers of the consent page, returns from Forgejo.",
        ),
    )
    code: Rate | None = field(
        default=Rate(60, 60),
        metadata=about(
            RATE,
            "Exchanges of authorization codes, and whatever else the token endpoint is "
            "asked that is no refresh.",
        ),
    )
    refresh: Rate | None = field(
        default=Rate(300, 60),
        metadata=about(RATE, "Refreshes of tokens."),
    )
    revoke: Rate | None = field(
        default=Rate(60, 60),
        metadata=about(RATE, "Revocations of tokens."),
    )
    anonymous: Rate | None = field(
        default=Rate(300, 60),
        metadata=about(
            RATE, "Requests to /mcp without an access token, and to /healthz/stream."
        ),
    )
    bad_bearer: Rate | None = field(
        default=Rate(300, 60),
        metadata=about(
            RATE, "Requests to /mcp with an access token that is not valid."
        ),
    )
    initialize: Rate | None = field(
        default=Rate(300, 60),
        metadata=about(
            RATE,
            "Sessions that one user opens, whatever the network: each starts a child.",
        ),
    )
    all_networks: int = field(
        default=20,
        metadata=about(
            COUNT,
            "So many times as much is allowed to all networks together. Requests whose "
            "network is not known, because a trusted proxy does not say it, have this "
            "limit alone.",
        ),
    )
    networks: NetworkRates = field(
        default=Factory(dict),
        metadata=about(
            NETWORK_RATES,
            "Networks with limits of their own, each counted as a whole: hosted "
            "clients send the requests of all their users from a few addresses. For "
            'example "198.51.100.0/24" = { register = "500/h", refresh = "5000/m" }. '
            "What is not named there is as for everybody.",
        ),
    )

    def rate_limits(self) -> RateLimits:
        """
        @return: the same as the limiter wants it.
        """
        return RateLimits(
            {what: getattr(self, what.value) for what in Limited},
            self.all_networks,
            self.networks,
        )
