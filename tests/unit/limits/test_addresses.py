"""The client behind proxies, and what it is counted under."""

from ipaddress import ip_address, ip_network

from hypothesis import example, given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from fjmcp_broker.config.addresses import LOOPBACK_PROXIES, TrustedProxies
from fjmcp_broker.limits.addresses import (
    MAXIMUM_HOPS,
    client_address,
    client_network,
    parse_address,
    shown_network,
)

CHAIN = TrustedProxies((ip_network("10.0.0.0/8"), ip_network("fd00::/8")), True)
ADDRESSES = st.ip_addresses().map(str)


def find(
    peer: str | None, *values: str, proxies: TrustedProxies = LOOPBACK_PROXIES
) -> str | None:
    """The client as text."""
    address = client_address(peer, values, proxies.trusts)
    return None if address is None else str(address)


class ClientAddressTests(SynchronousTestCase):
    """Design section 3: the rightmost untrusted hop, from trusted peers only."""

    def test_peer_that_is_no_proxy(self) -> None:
        """It is the client, whatever it writes into the header."""
        self.assertEqual(find("203.0.113.7"), "203.0.113.7")
        self.assertEqual(find("203.0.113.7", "198.51.100.1"), "203.0.113.7")
        self.assertEqual(find("203.0.113.7", "127.0.0.1"), "203.0.113.7")

    def test_trusted_peer(self) -> None:
        """A proxy on loopback or on a Unix socket says whom it serves."""
        for peer in ("127.0.0.1", "::1", "::ffff:127.0.0.1", None):
            self.assertEqual(find(peer, "203.0.113.7"), "203.0.113.7")

    def test_spoofed_header(self) -> None:
        """The client wrote the left ones; the proxy appended the right one."""
        self.assertEqual(find("127.0.0.1", "1.1.1.1, 203.0.113.7"), "203.0.113.7")
        self.assertEqual(find("127.0.0.1", "1.1.1.1", "203.0.113.7"), "203.0.113.7")
        self.assertEqual(find("127.0.0.1", "127.0.0.1, 203.0.113.7"), "203.0.113.7")

    def test_several_proxies(self) -> None:
        """Those of ours are passed over, on both address families."""
        for values in (
            ("6.6.6.6, 203.0.113.7, 10.1.2.3, fd00::1",),
            ("6.6.6.6, 203.0.113.7", "10.1.2.3", "[fd00::1]:443"),
        ):
            self.assertEqual(find("10.0.0.1", *values, proxies=CHAIN), "203.0.113.7")

    def test_unknown(self) -> None:
        """A proxy that does not say it, says nonsense or names only proxies."""
        for values in ((), ("",), ("unknown",), ("203.0.113.7, _hidden",), ("::1",)):
            self.assertIsNone(find("127.0.0.1", *values), values)
        self.assertIsNone(find(None))
        self.assertIsNone(find(None, "1.2.3.4", proxies=TrustedProxies()))

    def test_many_hops(self) -> None:
        """Nobody has that many proxies; the work is bounded."""
        header = ", ".join(["203.0.113.7"] + ["10.0.0.1"] * MAXIMUM_HOPS)
        self.assertIsNone(find("10.0.0.1", header, proxies=CHAIN))
        header = ", ".join(["203.0.113.7"] + ["10.0.0.1"] * (MAXIMUM_HOPS - 1))
        self.assertEqual(find("10.0.0.1", header, proxies=CHAIN), "203.0.113.7")

    @given(st.lists(st.text() | ADDRESSES), ADDRESSES, ADDRESSES)
    @example([], "1.2.3.4", "::ffff:1.2.3.4")
    def test_nothing_that_a_client_writes_counts(
        self, written: list[str], client: str, proxy: str
    ) -> None:
        """Whatever stands left of what our proxy appends."""
        shown = str(parse_address(client))
        trusted = TrustedProxies((ip_network("127.0.0.0/8"),))
        if not trusted.trusts(client):
            header = ",".join([*written, client])
            self.assertEqual(find("127.0.0.1", header, proxies=trusted), shown)
        if not trusted.trusts(proxy):
            found = find(proxy, ",".join(written), proxies=trusted)
            self.assertEqual(found, str(parse_address(proxy)))

    @given(st.text())
    def test_any_text(self, text: str) -> None:
        """An address or none, never a failure."""
        parse_address(text)

    def test_forms(self) -> None:
        """As proxies write them."""
        for text in (
            "203.0.113.7",
            " 203.0.113.7 ",
            "203.0.113.7:1234",
            "::ffff:203.0.113.7",
            "[::ffff:203.0.113.7]:99",
        ):
            self.assertEqual(str(parse_address(text)), "203.0.113.7", text)
        self.assertEqual(str(parse_address("fe80::1%eth0")), "fe80::1")
        for text in (
            "203.0.113.7/24",
            "1.2.3",
            "0x7f000001",
            '"203.0.113.7"',
            "a" * 99,
        ):
            self.assertIsNone(parse_address(text), text)


class NetworkTests(SynchronousTestCase):
    """What is counted together, and what is shown."""

    def test_one_person_is_one_network(self) -> None:
        """An address of IPv4; a /64 of IPv6, of which everybody has one."""
        self.assertEqual(client_network(ip_address("203.0.113.7")), "203.0.113.7")
        for text in ("2001:db8:1:2::1", "2001:db8:1:2:ffff::"):
            self.assertEqual(client_network(ip_address(text)), "2001:db8:1:2::/64")

    def test_the_log_does_not_tell_people_apart(self) -> None:
        """The /24 or /48."""
        self.assertEqual(shown_network(ip_address("203.0.113.7")), "203.0.113.0/24")
        self.assertEqual(
            shown_network(ip_address("2001:db8:1:2::1")), "2001:db8:1::/48"
        )

    @given(st.ip_addresses())
    def test_any_address_is_in_its_network(self, address: object) -> None:
        """Both of them are networks that contain it."""
        found = parse_address(str(address))
        assert found is not None
        self.assertIn(found, ip_network(client_network(found)))
        self.assertIn(found, ip_network(shown_network(found)))
