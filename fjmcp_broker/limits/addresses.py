"""
Which network a client belongs to, and how much of its address is shown.
"""

import re
from collections.abc import Callable, Iterable
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address
from typing import Final

Address = IPv4Address | IPv6Address

MAXIMUM_HOPS: Final = 20
"""As many of a header are looked at; nobody has more proxies."""

_WITH_PORT: Final = re.compile(r"\[([0-9A-Fa-f:.]+)\](?::[0-9]{1,5})?|([0-9.]+):[0-9]+")
_LONGEST_ADDRESS: Final = 64

#: RFC 6177: a site has no less, so it is the smallest that a person cannot leave.
_CLIENT_PREFIX: Final = 64
_SITE_PREFIX: Final = 48
_SHOWN_PREFIX_4: Final = 24
_SHOWN_PREFIX_6: Final = 48


def parse_address(text: str) -> Address | None:
    """
    @param text: an IP address, perhaps with a port or a zone, perhaps anything.
    @return: the address; one of IPv4 that is written as IPv6 is one of IPv4.
    """
    text = text.strip()[:_LONGEST_ADDRESS]
    match = _WITH_PORT.fullmatch(text)
    if match:
        text = match[1] or match[2]
    try:
        address = ip_address(text.partition("%")[0])
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return mapped or address


def client_address(
    peer: str | None,
    forwarded_for: Iterable[str],
    trusts: Callable[[str | None], bool],
) -> Address | None:
    """
    Find the client behind reverse proxies: the rightmost hop that is no proxy of
    ours. What stands further left was written by whoever is there.

    @param peer: the IP address at the other end of the connection, C{None} on a Unix
        socket.
    @param forwarded_for: the values of C{X-Forwarded-For}, in the order sent.
    @param trusts: whether a peer is a proxy of ours.
    @return: the address, or C{None}: a proxy did not say it.
    """
    if not trusts(peer):
        return None if peer is None else parse_address(peer)
    hops = ",".join(forwarded_for).rsplit(",", MAXIMUM_HOPS)[-MAXIMUM_HOPS:]
    for hop in reversed(hops):
        address = parse_address(hop)
        if address is None or not trusts(str(address)):
            return address
    # Only our own proxies: the first of them kept to itself whom it serves.
    return None


def client_network(address: Address) -> str:
    """
    @param address: of a client.
    @return: what its requests are counted under: an address of IPv4, the /64 of one
        of IPv6, of which everybody has 2**64.
    """
    return (
        str(address)
        if isinstance(address, IPv4Address)
        else _cut(address, _CLIENT_PREFIX)
    )


def site_network(address: Address) -> str | None:
    """
    @param address: of a client.
    @return: of IPv6 the /48, the most that one customer usually gets (RFC 6177
        section 2): 65,536 of what L{client_network} counts. C{None} for IPv4, where
        no size of network is one person's.
    """
    return None if isinstance(address, IPv4Address) else _cut(address, _SITE_PREFIX)


def shown_network(address: Address) -> str:
    """
    @param address: of a client.
    @return: the network that it is in, too large to be one person's.
    """
    if isinstance(address, IPv4Address):
        bits = 32 - _SHOWN_PREFIX_4
        return f"{IPv4Address(int(address) >> bits << bits)}/{_SHOWN_PREFIX_4}"
    return _cut(address, _SHOWN_PREFIX_6)


def _cut(address: IPv6Address, prefix: int) -> str:
    return str(IPv6Network((int(address) >> 128 - prefix << 128 - prefix, prefix)))
