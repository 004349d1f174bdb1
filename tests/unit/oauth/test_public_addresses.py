"""Which addresses a stranger may make this service contact."""

from ipaddress import IPv4Address, IPv6Address, ip_address

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from fjmcp_broker.oauth.public_addresses import (
    is_public_address,
    network_of,
    vetted_addresses,
)

FORBIDDEN = (
    # RFC 6890 and its successors, first and last of each
    *("0.0.0.0", "0.255.255.255", "10.0.0.1", "10.255.255.255"),
    *("100.64.0.1", "100.127.255.255", "127.0.0.1", "127.255.255.254"),
    *("169.254.0.1", "169.254.169.254", "172.16.0.1", "172.31.255.255"),
    *("192.0.0.1", "192.0.0.170", "192.0.2.1", "192.31.196.1", "192.52.193.1"),
    *("192.88.99.1", "192.168.0.1", "192.168.255.255", "192.175.48.1"),
    *("198.18.0.1", "198.19.255.255", "198.51.100.1", "203.0.113.9"),
    *("224.0.0.1", "239.255.255.255", "240.0.0.1", "255.255.255.255"),
    *("::", "::1", "fe80::1", "febf::1", "fec0::1", "fc00::1", "fd00::1", "ff02::1"),
    *("2001:db8::1", "3fff::1", "100::1", "5f00::1", "4000::1", "2620:4f:8000::1"),
    # Forms with an IPv4 address inside: v4-mapped, v4-compatible, v4-translated,
    # NAT64 of both kinds, 6to4, Teredo
    *("::ffff:127.0.0.1", "::ffff:8.8.8.8", "::127.0.0.1", "::8.8.8.8"),
    *("::ffff:0:127.0.0.1", "64:ff9b::127.0.0.1", "64:ff9b::8.8.8.8"),
    *("64:ff9b:1::10.0.0.1", "2002:7f00:1::1", "2002:808:808::1", "2001::1"),
    *("2001:0:4136:e378:8000:63bf:3fff:fdd2",),
    # No addresses, or ones for a single link
    *("", "localhost", "8.8.8.8%eth0", "fe80::1%eth0", "2606:4700::1%1", "08.8.8.8"),
    *("8.8.8", "0x08080808", "134744072", "8.8.8.8 ", "8.8.8.8/32"),
)

PUBLIC = (
    *("1.1.1.1", "8.8.8.8", "100.63.255.255", "100.128.0.1", "126.255.255.255"),
    *("128.0.0.1", "172.15.255.255", "172.32.0.1", "192.0.1.1", "198.17.255.255"),
    *("198.20.0.1", "223.255.255.255", "160.79.104.10"),
    *("2606:4700::1111", "2a00:1450:4001::200e", "2001:4860:4860::8888", "2003::1"),
)


class AddressTests(SynchronousTestCase):
    """One address."""

    def test_special_purpose_addresses_are_refused(self) -> None:
        """Private, link-local, v4-mapped, NAT64 and all the others (RFC 6890)."""
        self.assertEqual([each for each in FORBIDDEN if is_public_address(each)], [])

    def test_ordinary_addresses_are_allowed(self) -> None:
        """The neighbours of what is refused among them."""
        self.assertEqual([each for each in PUBLIC if not is_public_address(each)], [])

    @given(st.ip_addresses())
    def test_no_weaker_than_the_standard_library(
        self, address: IPv4Address | IPv6Address
    ) -> None:
        """What Python takes for private, reserved or the like is refused too."""
        special = (
            address.is_private
            or address.is_loopback
            or address.is_link_local
            or address.is_multicast
            or address.is_reserved
            or address.is_unspecified
        )
        if special:
            self.assertFalse(is_public_address(str(address)))

    @given(st.integers(0, 2**32 - 1), st.sampled_from(["::ffff:0:0", "64:ff9b::"]))
    def test_no_hiding_place_for_ipv4(self, number: int, prefix: str) -> None:
        """No IPv4 address is reachable through a prefix that carries it."""
        carried = IPv6Address(int(IPv6Address(prefix)) + number)
        self.assertFalse(is_public_address(str(carried)))


class VettingTests(SynchronousTestCase):
    """What a name resolved to."""

    def test_only_public_addresses_are_left(self) -> None:
        """A mixed answer is not refused: only what was vetted is contacted."""
        resolved = ["10.0.0.1", "2606:4700::1111", "1.1.1.1", "::1", "1.1.1.1"]
        self.assertEqual(vetted_addresses(resolved), ("1.1.1.1", "2606:4700::1111"))
        self.assertEqual(vetted_addresses(["127.0.0.1", "fe80::1%2"]), ())
        self.assertEqual(vetted_addresses([]), ())

    def test_own_host_is_refused(self) -> None:
        """In whichever spelling."""
        own = ["1.1.1.1", "2606:4700:0:0:0:0:0:1111", "not an address"]
        resolved = ["1.1.1.1", "2606:4700::1111", "1.0.0.1"]
        self.assertEqual(vetted_addresses(resolved, own), ("1.0.0.1",))

    def test_counted_by_network(self) -> None:
        """One IPv6 host has a /64 of addresses."""
        self.assertEqual(network_of("1.1.1.1"), "1.1.1.1")
        self.assertEqual(network_of("2606:4700:0:1:2:3:4:5"), "2606:4700:0:1::/64")
        self.assertEqual(
            ip_address(network_of("2606:4700::1").partition("/")[0]),
            ip_address("2606:4700::"),
        )
