"""
Which addresses may be contacted because a stranger named a host.

The list is that of the special-purpose registries of IANA (RFC 6890), written out:
Python's own C{is_global} differs between its releases. For IPv6 only what is assigned
as global unicast is let through, so that forms which carry an IPv4 address inside
(v4-mapped, NAT64, 6to4, Teredo) cannot reach what their IPv4 form may not.
"""

from collections.abc import Iterable
from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    ip_address,
)
from typing import Final

_FORBIDDEN_V4: Final = tuple(
    map(
        IPv4Network,
        (
            "0.0.0.0/8",  # this network
            "10.0.0.0/8",  # private, RFC 1918
            "100.64.0.0/10",  # carrier-grade NAT, RFC 6598
            "127.0.0.0/8",  # loopback
            "169.254.0.0/16",  # link-local, and the metadata service of clouds
            "172.16.0.0/12",  # private
            "192.0.0.0/24",  # protocol assignments, RFC 6890
            "192.0.2.0/24",  # documentation
            "192.31.196.0/24",  # AS112
            "192.52.193.0/24",  # automatic multicast tunneling
            "192.88.99.0/24",  # relays of 6to4, withdrawn
            "192.168.0.0/16",  # private
            "192.175.48.0/24",  # AS112
            "198.18.0.0/15",  # benchmarks
            "198.51.100.0/24",  # documentation
            "203.0.113.0/24",  # documentation
            "224.0.0.0/4",  # multicast
            "240.0.0.0/4",  # reserved, and broadcast
        ),
    )
)

_GLOBAL_UNICAST: Final = IPv6Network("2000::/3")

_FORBIDDEN_V6: Final = tuple(
    map(
        IPv6Network,
        (
            "2001::/23",  # protocol assignments, Teredo and ORCHID among them
            "2001:db8::/32",  # documentation
            "2002::/16",  # 6to4
            "2620:4f:8000::/48",  # AS112
            "3fff::/20",  # documentation, RFC 9637
        ),
    )
)


def is_public_address(text: str) -> bool:
    """
    @param text: an IPv4 or IPv6 address in numbers, from a resolver; a zone makes
        it no public one.
    @return: whether it is an ordinary address of the public Internet. What is no
        address at all is not.
    """
    if "%" in text:
        return False
    try:
        address = ip_address(text)
    except ValueError:
        return False
    if isinstance(address, IPv4Address):
        return not any(address in network for network in _FORBIDDEN_V4)
    return address in _GLOBAL_UNICAST and not any(
        address in network for network in _FORBIDDEN_V6
    )


def vetted_addresses(
    resolved: Iterable[str], own: Iterable[str] = ()
) -> tuple[str, ...]:
    """
    @param resolved: what a host's name resolved to, controlled by the host.
    @param own: addresses at which this service itself is reached.
    @return: those that may be contacted, IPv4 first, each once, in one spelling.
    """
    ours = {_address(text) for text in own}
    public = {_address(text) for text in resolved if is_public_address(text)}
    allowed = [each for each in public if each is not None and each not in ours]
    return tuple(
        str(each) for each in sorted(allowed, key=lambda a: (a.version, a.packed))
    )


def network_of(text: str) -> str:
    """
    @param text: an address in numbers.
    @return: whom it stands for when requests are counted: an IPv4 address itself,
        of IPv6 the /64, within which one host has all addresses.
    """
    address = ip_address(text)
    if isinstance(address, IPv4Address):
        return str(address)
    return str(IPv6Network((int(address) >> 64 << 64, 64)))


def _address(text: str) -> IPv4Address | IPv6Address | None:
    try:
        return ip_address(text)
    except ValueError:
        return None
