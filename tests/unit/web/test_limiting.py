"""Too many requests: who is refused, with what, and who is not."""

import json
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlencode

from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.logger import ILogObserver, LogEvent, formatEvent, globalLogPublisher
from twisted.web.http_headers import Headers
from twisted.web.iweb import IRequest
from twisted.web.resource import Resource
from zope.interface import implementer

from fjmcp_broker.config.addresses import LOOPBACK_PROXIES
from fjmcp_broker.limits.policy import Limited, Limiter, RateLimits
from fjmcp_broker.limits.rates import Rate
from fjmcp_broker.store.errors import StoreUnavailable
from fjmcp_broker.web.app import Route, build_web_resource
from fjmcp_broker.web.limiting import (
    ClientAddresses,
    RateLimiter,
    SessionLimiter,
    Source,
)
from fjmcp_broker.web.mcp.admission import McpAdmission
from fjmcp_broker.web.mcp.endpoint import McpEndpoint
from fjmcp_broker.web.origins import OriginPolicy
from fjmcp_broker.web.pages.errors import error_page
from fjmcp_broker.web.site import BrokerSite
from tests.unit.web.mcp_world import McpWorld, Wire, initialize
from tests.unit.web.mcp_world import request as call

FORM = "application/x-www-form-urlencoded"
ALICE, BOB = "203.0.113.7", "203.0.113.8"
PATHS = {
    Limited.REGISTER: "/oauth/register",
    Limited.AUTHORIZE: "/oauth/authorize",
    Limited.CONSENT: "/oauth/consent",
    Limited.CODE: "/oauth/token",
    Limited.REFRESH: "/oauth/token",
    Limited.REVOKE: "/oauth/revoke",
}


class LimitedWorld(McpWorld):
    """
    The site with three requests a minute of everything, and endpoints that only say
    that they were asked.
    """

    shown = "network"

    def build(self) -> None:
        """Put the limiter before everything."""
        super().build()
        self.refused: list[Limited] = []
        self.addresses = ClientAddresses(LOOPBACK_PROXIES, self.shown)
        self.limiter = RateLimiter(
            Limiter(RateLimits({what: Rate(3, 60) for what in Limited}, 4)),
            self.addresses,
            self.clock,
            self.refused.append,
        )
        authenticator: Any = self.authenticator
        origins = OriginPolicy("https://mcp.example", [])
        self.admission = McpAdmission(
            authenticator, origins, self.maximum_body_bytes, self.limiter
        )

        async def served(request: IRequest) -> bytes:
            return b"served"

        pages = ("/oauth/authorize", "/oauth/consent", "/oauth/callback")
        routes = [
            Route(
                method,
                path,
                served,
                error_page=error_page if path in pages else None,
            )
            for path in (*dict.fromkeys(PATHS.values()), "/oauth/callback", "/")
            for method in ("GET", "POST")
        ]
        root = Resource()
        others = build_web_resource(self.limiter.guard(routes), origins)
        root.getChild = (  # type: ignore[method-assign]
            lambda path, request: self.endpoint if path == b"mcp" else others
        )
        self.site = BrokerSite(
            root,
            self.clock,
            {b"/mcp": self.admission},
            shown_client=self.addresses.shown,
        )

    def ask(
        self,
        what: Limited,
        address: str | None = ALICE,
        headers: Mapping[str, str | None] | None = None,
    ) -> Wire:
        """A request behind the proxy on loopback."""
        if what in (Limited.ANONYMOUS, Limited.BAD_BEARER):
            return self.send(
                initialize(),
                token=None if what is Limited.ANONYMOUS else "mallory",
                headers={"X-Forwarded-For": address, **(headers or {})},
            )
        grant = "refresh_token" if what is Limited.REFRESH else "authorization_code"
        return self.send(
            urlencode({"grant_type": grant}).encode(),
            path=PATHS[what],
            token=None,
            headers={
                "Content-Type": FORM,
                "X-Forwarded-For": address,
                **(headers or {}),
            },
        )

    def statuses(self, what: Limited, address: str | None, times: int) -> list[Any]:
        """The statuses of some requests."""
        return [self.ask(what, address).status for _ in range(times)]


class RefusalTests(LimitedWorld):
    """What the one too many hears."""

    def test_oauth_endpoints(self) -> None:
        """429 (RFC 6585 section 4), Retry-After, and the error object of OAuth."""
        for what in (Limited.REGISTER, Limited.CODE, Limited.REFRESH, Limited.REVOKE):
            self.assertEqual(self.statuses(what, ALICE, 3), [200] * 3, what)
            wire = self.ask(what)
            self.assertEqual(wire.status, 429)
            self.assertEqual(wire.headers["retry-after"], "20")
            self.assertEqual(wire.headers["content-type"], "application/json")
            self.assertEqual(wire.headers["cache-control"], "no-store")
            self.assertEqual(wire.json["error"], "temporarily_unavailable")
            self.assertEqual(self.refused[-1], what)

    def test_pages(self) -> None:
        """A person is told in words."""
        for what in (Limited.AUTHORIZE, Limited.CONSENT):
            self.assertEqual(self.statuses(what, ALICE, 3), [200] * 3)
            wire = self.ask(what)
            self.assertEqual(wire.status, 429)
            self.assertEqual(wire.headers["retry-after"], "20")
            self.assertEqual(wire.headers["content-type"], "text/html; charset=utf-8")
            self.assertIn(b"Too many sign-ins", wire.body)
            self.assertIn(b"Wait 20 seconds", wire.body)

    def test_mcp(self) -> None:
        """A JSON-RPC error with its reason, before the body was read."""
        for what in (Limited.ANONYMOUS, Limited.BAD_BEARER):
            self.assertEqual(self.statuses(what, ALICE, 3), [401] * 3)
            wire = self.ask(what)
            self.assertEqual(wire.status, 429)
            self.assertEqual(wire.headers["retry-after"], "20")
            self.assertEqual(wire.json["error"]["data"], {"reason": "rate_limited"})
            lookups = self.authenticator.lookups
            self.ask(what)
            self.assertEqual(self.authenticator.lookups, lookups)

    def test_unlimited_paths(self) -> None:
        """The front page has nothing to protect."""
        wires = [self.send(b"", method="GET", path="/") for _ in range(50)]
        self.assertEqual({wire.status for wire in wires}, {200})

    def test_window(self) -> None:
        """Retry-After is true: then the same request is served."""
        self.statuses(Limited.REFRESH, ALICE, 3)
        wait = int(self.ask(Limited.REFRESH).headers["retry-after"])
        self.clock.advance(wait - 1)
        self.assertEqual(self.ask(Limited.REFRESH).status, 429)
        self.clock.advance(1)
        self.assertEqual(self.statuses(Limited.REFRESH, ALICE, 2), [200, 429])
        self.clock.advance(60)
        self.assertEqual(self.statuses(Limited.REFRESH, ALICE, 4), [200] * 3 + [429])


class StarvationTests(LimitedWorld):
    """Nobody pays for somebody else, no endpoint for another."""

    def test_a_flood_of_one_thing_stops_no_other(self) -> None:
        """Each has buckets of its own, those of all networks together included."""
        for flooded in Limited:
            self.build()
            for number in range(20):
                self.ask(flooded, f"198.51.100.{number}")
                self.ask(flooded)
                self.ask(flooded, None)
            self.assertEqual(self.ask(flooded, BOB).status, 429, flooded)
            for other in set(Limited) - {flooded}:
                self.assertIn(self.ask(other, BOB).status, (200, 401), other)

    def test_neighbours(self) -> None:
        """One network's flood is its own."""
        for what in Limited:
            self.statuses(what, ALICE, 9)
            self.assertIn(self.ask(what, BOB).status, (200, 401))

    def test_valid_tokens_cost_nothing(self) -> None:
        """A token that is only not known yet is no bad one."""
        self.authenticator.uncached = {"alice", "mallory"}
        headers = {"X-Forwarded-For": ALICE}
        wires = [self.send(initialize(), headers=headers) for _ in range(30)]
        self.assertEqual({wire.status for wire in wires}, {200})
        self.assertEqual(self.refused, [])

    def test_crowds_do_not_keep_users_out(self) -> None:
        """
        Twenty networks use up what all share. Where somebody has shown a valid token,
        new tokens are looked up and refreshes served all the same.
        """
        self.authenticator.uncached = {"alice", "mallory"}
        headers = {"X-Forwarded-For": ALICE}
        self.assertEqual(self.send(initialize(), headers=headers).status, 200)
        for what in (Limited.BAD_BEARER, Limited.REFRESH):
            for number in range(20):
                self.ask(what, f"198.51.100.{number}")
            self.assertEqual(self.ask(what, BOB).status, 429)
        self.assertEqual(self.send(initialize(), headers=headers).status, 200)
        self.assertEqual(self.ask(Limited.REFRESH, ALICE).status, 200)

    def test_trouble_with_the_store_proves_nothing(self) -> None:
        """Who sends anything while a token cannot be looked up gains nothing by it."""
        self.authenticator.error = StoreUnavailable("busy")
        self.assertEqual(self.ask(Limited.BAD_BEARER, BOB).status, 503)
        self.authenticator.error = None
        for number in range(20):
            self.ask(Limited.BAD_BEARER, f"198.51.100.{number}")
        self.assertEqual(self.ask(Limited.BAD_BEARER, BOB).status, 429)

    def test_known_tokens_pass_in_a_flood(self) -> None:
        """Whoever is signed in does not notice bad ones from the same network."""
        self.statuses(Limited.BAD_BEARER, ALICE, 9)
        wire = self.send(initialize(), headers={"X-Forwarded-For": ALICE})
        self.assertEqual(wire.status, 200)


class SpoofingTests(LimitedWorld):
    """Nobody gets another's bucket, or a new one for each request."""

    def test_header_of_the_client(self) -> None:
        """What it wrote stands left of what the proxy appended."""
        found = [
            self.ask(Limited.REGISTER, f"10.9.8.{number}, {ALICE}").status
            for number in range(5)
        ]
        self.assertEqual(found, [200] * 3 + [429] * 2)
        self.assertEqual(self.ask(Limited.REGISTER, f"{ALICE}, {BOB}").status, 200)

    def test_forwarded_is_not_read(self) -> None:
        """RFC 7239: a proxy that does not know it passes it on."""
        found = [
            self.ask(
                Limited.REGISTER, headers={"Forwarded": f"for=192.0.2.{number}"}
            ).status
            for number in range(5)
        ]
        self.assertEqual(found, [200] * 3 + [429] * 2)

    def test_peer_that_is_no_proxy(self) -> None:
        """Its header is not believed."""
        for peer in (
            IPv4Address("TCP", ALICE, 5),
            IPv6Address("TCP", "2001:db8::1", 5),
        ):
            found = []
            for number in range(5):
                wire = Wire()
                wire.peerAddr = peer
                wire.protocol = self.site.buildProtocol(peer)
                wire.protocol.makeConnection(wire)
                self.wires.append(wire)
                headers: dict[str, str | None] = {
                    "X-Forwarded-For": f"192.0.2.{number}"
                }
                wire.protocol.dataReceived(
                    self.raw(b"", path="/oauth/register", headers=headers)
                )
                found.append(wire.status)
            self.assertEqual(found, [200] * 3 + [429] * 2)

    def test_unknown_address(self) -> None:
        """A proxy that does not say it: only the bound of all together."""
        self.assertEqual(self.statuses(Limited.REGISTER, None, 13), [200] * 12 + [429])


class FakeRequest:
    """A peer and its headers."""

    def __init__(self, peer: Any, *forwarded: str) -> None:
        self._peer = peer
        values = {"X-Forwarded-For": list(forwarded)} if forwarded else {}
        self.requestHeaders = Headers(values)

    def getClientAddress(self) -> Any:  # noqa: N802 - Twisted's
        """The peer."""
        return self._peer


class ShownTests(LimitedWorld):
    """How much of an address is written."""

    def test_ways_to_show(self) -> None:
        """The network unless it is configured otherwise."""
        request = FakeRequest(UNIXAddress(None), ALICE)
        for shown, text in (("network", "203.0.113.0/24"), ("full", ALICE)):
            addresses = ClientAddresses(LOOPBACK_PROXIES, shown)
            self.assertEqual(addresses.shown(request), text)
        self.assertIsNone(ClientAddresses(LOOPBACK_PROXIES, "none").shown(request))
        addresses = ClientAddresses(LOOPBACK_PROXIES)
        self.assertEqual(addresses.shown(FakeRequest(UNIXAddress(None))), "unknown")
        self.assertEqual(addresses.shown(FakeRequest(None, ALICE)), "unknown")

    def test_sources(self) -> None:
        """How the daemon knows its clients, for the operator to see."""
        addresses = ClientAddresses(LOOPBACK_PROXIES)
        near, far = IPv4Address("TCP", "127.0.0.1", 5), IPv4Address("TCP", BOB, 5)
        for request, source in (
            (FakeRequest(near, ALICE), Source.FORWARDED),
            (FakeRequest(UNIXAddress(None), ALICE), Source.FORWARDED),
            (FakeRequest(near, "127.0.0.1"), Source.ONLY_PROXIES),
            (FakeRequest(near), Source.NOT_SAID),
            (FakeRequest(far), Source.PEER),
            (FakeRequest(far, ALICE), Source.NOT_BELIEVED),
        ):
            self.assertEqual(addresses.source(request), source)
            self.assertEqual(self.limiter.source(request), source)

    def test_proxy_that_is_not_believed(self) -> None:
        """One line for its network, and for a few networks at most."""
        events = self.log_events()
        addresses = ClientAddresses(LOOPBACK_PROXIES)
        for number in range(100):
            for _ in range(3):
                peer = IPv4Address("TCP", f"10.0.{number}.7", 5)
                addresses.of(FakeRequest(peer, ALICE))
        lines = [formatEvent(event) for event in events]
        self.assertEqual(len(lines), 10)
        self.assertIn("from 10.0.0.0/24 is not believed", lines[0])
        self.assertIn("server.trusted_proxies", lines[0])

    def log_events(self) -> list[LogEvent]:
        """What is logged from now on."""
        events: list[LogEvent] = []

        @implementer(ILogObserver)
        def keep(event: LogEvent) -> None:
            events.append(event)

        globalLogPublisher.addObserver(keep)
        self.addCleanup(globalLogPublisher.removeObserver, keep)
        return events

    def test_log(self) -> None:
        """One line a minute for each limit; no full address anywhere."""
        events = self.log_events()
        self.statuses(Limited.REGISTER, ALICE, 30)
        lines = [formatEvent(event) for event in events]
        warnings = [line for line in lines if line.startswith("limits.")]
        self.assertEqual(
            warnings, ["limits.register reached by 203.0.113.0/24, more in 20 s"]
        )
        self.assertIn("for 203.0.113.0/24", lines[0])
        self.assertNotIn(ALICE, json.dumps([repr(event) for event in events]))
        self.clock.advance(60)
        self.statuses(Limited.REGISTER, ALICE, 30)
        lines = [formatEvent(event) for event in events]
        self.assertEqual(len([x for x in lines if x.startswith("limits.")]), 2)


class SessionLimiterTests(LimitedWorld):
    """Each session starts a child, and a child calls Forgejo."""

    def build(self) -> None:
        """Three sessions a minute."""
        super().build()
        authenticator: Any = self.authenticator
        self.endpoint = McpEndpoint(
            registry=self.registry,
            authenticator=authenticator,
            clock=self.clock,
            replays=self.replays,
            session_limiter=SessionLimiter(
                Rate(3, 60), self.clock, self.refused_sessions.append
            ),
        )

    def setUp(self) -> None:
        """Nobody refused yet."""
        self.refused_sessions: list[str] = []
        super().setUp()

    def test_one_user(self) -> None:
        """Refused with the request's own id, whatever the network; others are not."""
        headers = [{"X-Forwarded-For": f"203.0.113.{n}"} for n in range(5)]
        wires = [self.send(initialize(id=n), headers=h) for n, h in enumerate(headers)]
        self.assertEqual([wire.status for wire in wires], [200] * 3 + [429] * 2)
        self.assertEqual(wires[4].json["id"], 4)
        self.assertEqual(wires[4].json["error"]["data"], {"reason": "rate_limited"})
        self.assertEqual(wires[4].headers["retry-after"], "20")
        self.assertEqual(len(self.spawner.processes), 3)
        self.assertEqual(self.refused_sessions, ["initialize"] * 2)
        self.assertEqual(self.send(initialize(), token="bob").status, 200)
        session = wires[0].headers["mcp-session-id"]
        self.assertEqual(self.send(call(9, "ping"), session).status, 200)
        self.clock.advance(20)
        self.assertEqual(self.send(initialize()).status, 200)

    def test_no_limit(self) -> None:
        """Off."""
        limiter = SessionLimiter(None, self.clock)
        self.assertEqual({limiter.take(1) for _ in range(1000)}, {0})
