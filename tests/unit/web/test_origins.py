"""Host and Origin: what belongs to the service and what does not."""

from typing import Any, cast

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.iweb import IRequest
from twisted.web.test.requesthelper import DummyRequest

from fjmcp_broker.web.origins import OriginPolicy

ALLOWED = ["https://inspector.example", "http://tool.example:6274"]


def request(**headers: list[bytes]) -> IRequest:
    """
    @return: a request with those headers.
    """
    made: Any = DummyRequest([b""])
    for name, values in headers.items():
        made.requestHeaders.setRawHeaders(name.encode("ascii"), values)
    return cast(IRequest, made)


def hosts(policy: OriginPolicy, *values: bytes) -> bool:
    """
    @return: whether the policy allows those C{Host} headers.
    """
    return policy.allows_host(request(host=list(values)))


def origins(policy: OriginPolicy, *values: bytes) -> bool:
    """
    @return: whether the policy allows those C{Origin} headers.
    """
    return policy.allows_origin(request(origin=list(values)))


class PublicTests(SynchronousTestCase):
    """A service with a name in the world."""

    policy = OriginPolicy("https://mcp.example.org", ALLOWED)

    def test_own_host(self) -> None:
        """In any case, with and without the default port."""
        for host in (b"mcp.example.org", b"MCP.Example.ORG", b"mcp.example.org:443"):
            self.assertTrue(hosts(self.policy, host), host)

    def test_other_hosts(self) -> None:
        """DNS rebinding brings names of other people; none or two are wrong too."""
        for host in (
            b"evil.example",
            b"mcp.example.org:8443",
            b"mcp.example.org.evil.example",
            b"evil.example@mcp.example.org",
            b"mcp.example.org/",
            b"mcp.example.org?",
            b"mcp.example.org#",
            b"mcp.example.org:",
            b"mcp.example.org:x",
            b"mcp.example.org:99999",
            b" ",
            b"",
            b"[::1",
            b"localhost",
            b"127.0.0.1",
            b"mcp.ex\xe4mple.org",
        ):
            self.assertFalse(hosts(self.policy, host), host)
        self.assertFalse(hosts(self.policy))
        self.assertFalse(hosts(self.policy, b"mcp.example.org", b"mcp.example.org"))

    def test_no_origin(self) -> None:
        """Programs send none."""
        self.assertTrue(origins(self.policy))

    def test_own_and_configured_origins(self) -> None:
        """A default port may be written or not."""
        for origin in (
            b"https://mcp.example.org",
            b"https://mcp.example.org:443",
            b"https://inspector.example",
            b"http://tool.example:6274",
        ):
            self.assertTrue(origins(self.policy, origin), origin)

    def test_other_origins(self) -> None:
        """Another scheme, host or port is another origin."""
        for origin in (
            b"null",
            b"",
            b"http://mcp.example.org",
            b"https://evil.example",
            b"https://mcp.example.org.evil.example",
            b"https://mcp.example.org/",
            b"https://tool.example:6274",
            b"http://localhost",
            b"file://",
            b"chrome-extension://abc",
        ):
            self.assertFalse(origins(self.policy, origin), origin)
        own = b"https://mcp.example.org"
        self.assertFalse(origins(self.policy, own, own))

    @given(st.binary())
    def test_any_bytes_are_judged(self, value: bytes) -> None:
        """Junk is not ours; it never fails."""
        value = value.replace(b"\r", b"").replace(b"\n", b"")
        hosts(self.policy, value)
        origins(self.policy, value)


class LoopbackTests(SynchronousTestCase):
    """A service on one's own machine: people and tools mix the three names."""

    def test_loopback_names(self) -> None:
        """Any of them, on any port."""
        for url in (
            "http://127.0.0.1:8080",
            "http://localhost:8080",
            "http://[::1]:8080",
        ):
            policy = OriginPolicy(url)
            for name in (b"localhost", b"127.0.0.1", b"[::1]", b"localhost:6274"):
                self.assertTrue(hosts(policy, name), (url, name))
                self.assertTrue(origins(policy, b"http://" + name), (url, name))
            for name in (b"evil.example", b"127.0.0.1.evil.example", b"localhost."):
                self.assertFalse(hosts(policy, name), (url, name))
                self.assertFalse(origins(policy, b"http://" + name), (url, name))
            self.assertFalse(origins(policy, b"null"))
