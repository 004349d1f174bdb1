"""Which requests count together."""

from ipaddress import ip_address, ip_network

from twisted.trial.unittest import SynchronousTestCase

from fjmcp_broker.limits.policy import (
    FAMILIAR_SECONDS,
    SITE_FACTOR,
    Limited,
    Limiter,
    RateLimits,
)
from fjmcp_broker.limits.rates import Rate

NOW = 1_800_000_000
ALICE = ip_address("203.0.113.7")
BOB = ip_address("203.0.113.8")
HOSTED = ip_network("198.51.100.0/24")


def limiter(all_networks: int = 2) -> Limiter:
    """Three at once of everything but revocations."""
    rates = {what: Rate(3, 60) for what in Limited}
    return Limiter(
        RateLimits(
            {**rates, Limited.REVOKE: None},
            all_networks,
            {
                HOSTED: {Limited.REGISTER: Rate(10, 60), Limited.CODE: None},
                ip_network("198.51.100.128/25"): {Limited.REGISTER: Rate(1, 60)},
                ip_network("2001:db8:5::/48"): {Limited.REVOKE: Rate(1, 60)},
            },
        )
    )


class LimiterTests(SynchronousTestCase):
    """Buckets per thing and network, and one for all networks."""

    def count(
        self, limiter: Limiter, what: Limited, address: object, times: int = 50
    ) -> int:
        """How many of many requests are let through."""
        return sum(
            limiter.take(what, address, NOW) == 0  # type: ignore[arg-type]
            for _ in range(times)
        )

    def test_networks_do_not_share(self) -> None:
        """One that asks too much takes nothing from its neighbour."""
        each = limiter()
        self.assertEqual(self.count(each, Limited.REFRESH, ALICE), 3)
        self.assertEqual(self.count(each, Limited.REFRESH, BOB), 3)

    def test_a_site_of_ipv6_is_one_network(self) -> None:
        """However many addresses it uses."""
        each = limiter()
        found = [
            each.take(Limited.CODE, ip_address(f"2001:db8:1:2::{n:x}"), NOW)
            for n in range(50)
        ]
        self.assertEqual(found.count(0), 3)

    def test_a_customer_of_ipv6_cannot_use_up_what_all_share(self) -> None:
        """A /48 has as many networks as it likes; others still have their part."""
        each = limiter(all_networks=20)
        found = [
            each.take(Limited.BAD_BEARER, ip_address(f"2001:db8:1:{n:x}::1"), NOW)
            for n in range(200)
        ]
        self.assertEqual(found.count(0), 3 * SITE_FACTOR)
        for other in (ALICE, ip_address("2001:db8:2::1"), None):
            self.assertEqual(each.take(Limited.BAD_BEARER, other, NOW), 0, other)

    def test_a_crowd_cannot_keep_users_out(self) -> None:
        """Where a valid token was shown, what all share does not matter for a day."""
        each = limiter()
        each.prove(ALICE, NOW)
        crowd = [ip_address(f"192.0.2.{n}") for n in range(200)]
        self.assertEqual(
            sum(each.take(Limited.BAD_BEARER, one, NOW) == 0 for one in crowd), 6
        )
        self.assertGreater(each.take(Limited.BAD_BEARER, BOB, NOW), 0)
        self.assertGreater(each.take(Limited.BAD_BEARER, None, NOW), 0)
        # Its own limit stays.
        self.assertEqual(self.count(each, Limited.BAD_BEARER, ALICE), 3)
        for later, expected in (
            (FAMILIAR_SECONDS - 1, True),
            (FAMILIAR_SECONDS, False),
        ):
            for one in crowd:
                each.take(Limited.BAD_BEARER, one, NOW + later)
            wait = each.take(Limited.BAD_BEARER, ALICE, NOW + later)
            self.assertIs(wait == 0, expected)

    def test_familiar_networks_are_bounded(self) -> None:
        """Whoever came longest ago is forgotten; nobody without an address counts."""
        each = Limiter(RateLimits({Limited.CODE: Rate(1, 60)}, 1), maximum_buckets=2)
        each.prove(None, NOW)
        for one in (ALICE, BOB, ip_address("203.0.113.9")):
            each.prove(one, NOW)
        self.assertEqual(each.take(Limited.CODE, None, NOW), 0)
        self.assertEqual(each.take(Limited.CODE, BOB, NOW), 0)
        self.assertGreater(each.take(Limited.CODE, ALICE, NOW), 0)

    def test_endpoints_do_not_share(self) -> None:
        """Whoever has used up one thing can still do every other."""
        each = limiter()
        for what in Limited:
            expected = 50 if what is Limited.REVOKE else 3
            self.assertEqual(self.count(each, what, ALICE), expected, what)
        each = limiter()
        self.assertEqual(self.count(each, Limited.REGISTER, None), 6)
        self.assertEqual(self.count(each, Limited.REFRESH, None), 6)

    def test_all_networks_together(self) -> None:
        """Many networks have a bound, too; who is refused by it pays nothing."""
        each = limiter()
        for address in (ALICE, BOB):
            self.assertEqual(self.count(each, Limited.REGISTER, address), 3)
        third = ip_address("203.0.113.9")
        self.assertGreater(each.take(Limited.REGISTER, third, NOW), 0)
        self.assertEqual(each.remembered, 2)
        self.assertGreater(each.take(Limited.REGISTER, None, NOW), 0)
        self.assertEqual(each.take(Limited.REFRESH, third, NOW), 0)

    def test_refused_request_of_a_network_costs_the_others_nothing(self) -> None:
        """Only what is let through counts for all."""
        each = limiter()
        self.count(each, Limited.REGISTER, ALICE, 1000)
        self.assertEqual(self.count(each, Limited.REGISTER, BOB), 3)

    def test_unknown_address(self) -> None:
        """Only the bound of all together."""
        self.assertEqual(self.count(limiter(), Limited.AUTHORIZE, None), 6)

    def test_network_with_limits_of_its_own(self) -> None:
        """As a whole; the most specific one counts, and others lose nothing by it."""
        each = limiter()
        addresses = [HOSTED[number] for number in range(1, 100)]
        found = [each.take(Limited.REGISTER, one, NOW) for one in addresses]
        self.assertEqual(found.count(0), 10)
        self.assertEqual(self.count(each, Limited.REGISTER, HOSTED[200]), 1)
        self.assertEqual(self.count(each, Limited.CODE, HOSTED[1], 100), 100)
        self.assertEqual(self.count(each, Limited.REGISTER, None), 6)

    def test_what_a_network_does_not_name(self) -> None:
        """Is as for everybody: by address."""
        each = limiter()
        self.assertEqual(self.count(each, Limited.REFRESH, HOSTED[1]), 3)
        self.assertEqual(self.count(each, Limited.REFRESH, HOSTED[2]), 3)

    def test_limit_only_for_one_network(self) -> None:
        """Where everybody else has none."""
        each = limiter()
        self.assertEqual(
            self.count(each, Limited.REVOKE, ip_address("2001:db8:5:6::7")), 1
        )

    def test_windows_end(self) -> None:
        """After the time that is said there is one token, after a period all."""
        each = limiter()
        self.count(each, Limited.CODE, ALICE)
        wait = each.take(Limited.CODE, ALICE, NOW)
        self.assertEqual(wait, 20)
        self.assertGreater(each.take(Limited.CODE, ALICE, NOW + wait - 1), 0)
        self.assertEqual(each.take(Limited.CODE, ALICE, NOW + wait), 0)
        later = [each.take(Limited.CODE, ALICE, NOW + wait + 60) for _ in range(4)]
        self.assertEqual(later.count(0), 3)

    def test_give_back(self) -> None:
        """As if it had not been asked for."""
        each = limiter()
        for address in (ALICE, None, HOSTED[1]):
            for _ in range(50):
                self.assertEqual(each.take(Limited.BAD_BEARER, address, NOW), 0)
                each.give_back(Limited.BAD_BEARER, address, NOW)
        self.assertEqual(each.remembered, 0)
