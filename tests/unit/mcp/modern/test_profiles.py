"""What is known of a child without starting it."""

import json

from twisted.trial.unittest import SynchronousTestCase

from fjmcp_broker.mcp.envelope import Request
from fjmcp_broker.mcp.messages import parse_child_line
from fjmcp_broker.mcp.modern.profiles import (
    DISCOVER_TTL_MILLISECONDS,
    ChildEra,
    ChildProfile,
    discover_result,
    initialize_params,
    judge_probe,
    probe,
    supported_by,
)
from fjmcp_broker.mcp.modern.requests import RequestHeaders, judge
from fjmcp_broker.mcp.modern.translation import META_SERVER
from fjmcp_broker.mcp.versions import FIRST_MODERN, LATEST_LEGACY, LEGACY, SUPPORTED

INITIALIZED = (
    b'{"protocolVersion":"2025-11-25","capabilities":{"tools":{ "listChanged":true},'
    b'"tasks":{"list":{}},"logging":{}},"serverInfo":{"name":"child","version":"1.0"},'
    b'"instructions":"be kind"}'
)
DISCOVERED = (
    b'{"resultType":"complete","supportedVersions":["2027-01-01","2026-07-28"],'
    b'"capabilities":{"tools":{}},"ttlMs":5,"cacheScope":"public","x":1.0,'
    b'"_meta":{"io.modelcontextprotocol/serverInfo":{"name":"m","version":"2"}}}'
)


class DiscoverTests(SynchronousTestCase):
    """MCP 2026-07-28, server, discovery."""

    def test_legacy_child(self) -> None:
        """What its C{initialize} said, without what the newer revisions lack."""
        profile = ChildProfile(ChildEra.LEGACY, INITIALIZED)
        self.assertEqual(
            json.loads(discover_result(profile)),
            {
                "resultType": "complete",
                "supportedVersions": list(SUPPORTED),
                "capabilities": {"tools": {"listChanged": True}, "logging": {}},
                "instructions": "be kind",
                "_meta": {META_SERVER: {"name": "child", "version": "1.0"}},
                "ttlMs": DISCOVER_TTL_MILLISECONDS,
                "cacheScope": "private",
            },
        )
        self.assertIn(b'"tools":{ "listChanged":true}', discover_result(profile))

    def test_nothing_known(self) -> None:
        """The versions and tools, to be asked again at once; never a failure."""
        expected = {
            "resultType": "complete",
            "supportedVersions": list(SUPPORTED),
            "capabilities": {"tools": {}},
            "ttlMs": 0,
            "cacheScope": "private",
        }
        for profile in (
            None,
            ChildProfile(ChildEra.LEGACY),
            ChildProfile(ChildEra.LEGACY, b"nonsense"),
            ChildProfile(ChildEra.MODERN),
            ChildProfile(ChildEra.DUAL, INITIALIZED, b"[]"),
        ):
            found = json.loads(discover_result(profile))
            if profile is not None and profile.era is ChildEra.MODERN:
                self.assertEqual(found.pop("supportedVersions"), [FIRST_MODERN])
                found["supportedVersions"] = list(SUPPORTED)
            self.assertEqual(found, expected)

    def test_modern_child(self) -> None:
        """Its own words, with the revisions that both speak, for one person only."""
        profile = ChildProfile(ChildEra.MODERN, None, DISCOVERED)
        changed = DISCOVERED.replace(
            b'["2027-01-01","2026-07-28"]', b'["2026-07-28"]'
        ).replace(b"public", b"private")
        self.assertEqual(discover_result(profile), changed)
        dual = ChildProfile(ChildEra.DUAL, INITIALIZED, DISCOVERED)
        versions = json.loads(discover_result(dual))["supportedVersions"]
        self.assertEqual(versions, list(SUPPORTED))

    def test_an_odd_initialize(self) -> None:
        """What cannot be read is left out."""
        odd = b'{"capabilities":7,"serverInfo":"x","instructions":null}'
        found = json.loads(discover_result(ChildProfile(ChildEra.LEGACY, odd)))
        self.assertEqual(found["capabilities"], {})
        self.assertNotIn("instructions", found)
        self.assertNotIn("_meta", found)

    def test_supported(self) -> None:
        """The refusal of a revision names the same list as the discovery."""
        self.assertEqual(supported_by(None), SUPPORTED)
        self.assertEqual(supported_by(ChildProfile(ChildEra.LEGACY)), SUPPORTED)
        modern = ChildProfile(ChildEra.MODERN, None, DISCOVERED)
        self.assertEqual(supported_by(modern), (FIRST_MODERN,))


class ProfileTests(SynchronousTestCase):
    """How a child describes itself."""

    def test_parts(self) -> None:
        """Each era has its own place for them."""
        legacy = ChildProfile(ChildEra.LEGACY, INITIALIZED)
        self.assertEqual(legacy.server_info, b'{"name":"child","version":"1.0"}')
        self.assertIn(b"logging", legacy.capabilities)
        modern = ChildProfile(ChildEra.MODERN, None, DISCOVERED)
        self.assertEqual(modern.server_info, b'{"name":"m","version":"2"}')
        self.assertEqual(modern.capabilities, b'{"tools":{}}')
        dual = ChildProfile(ChildEra.DUAL, INITIALIZED)
        self.assertEqual(dual.server_info, legacy.server_info)
        self.assertEqual(discover_result(dual), discover_result(legacy))
        both = ChildProfile(ChildEra.DUAL, INITIALIZED, DISCOVERED)
        self.assertEqual(both.server_info, modern.server_info)

    def test_stored_form(self) -> None:
        """It comes back as it was."""
        for era in ChildEra:
            profile = ChildProfile(era, INITIALIZED, DISCOVERED)
            again = ChildProfile.from_stored(era.value, INITIALIZED, DISCOVERED)
            self.assertEqual(again, profile)
        with self.assertRaises(ValueError):
            ChildProfile.from_stored("older", None, None)


class ProbeTests(SynchronousTestCase):
    """MCP 2026-07-28, transports, stdio, backward compatibility."""

    def test_the_probe_is_a_request_that_we_would_accept(self) -> None:
        """It has all that the revision asks for."""
        message = parse_child_line(probe(b"7", "1.2"))
        assert isinstance(message, Request)
        judged = judge(message, RequestHeaders(FIRST_MODERN, "server/discover"))
        self.assertEqual(json.loads(judged.client_info or b"")["version"], "1.2")

    def test_answers(self) -> None:
        """A list with 2026-07-28 alone makes a child one of these revisions."""
        result = b'{"jsonrpc":"2.0","id":7,"result":{"supportedVersions":%s}}'
        error = b'{"jsonrpc":"2.0","id":%s,"error":{"code":%d,"message":"m"}}'
        for line, era in (
            (result % b'["2026-07-28"]', ChildEra.MODERN),
            (result % b'["2026-07-28","2025-11-25"]', ChildEra.DUAL),
            (result % b'["2027-01-01"]', ChildEra.LEGACY),
            (result % b"7", ChildEra.LEGACY),
            (b'{"jsonrpc":"2.0","id":7,"result":{}}', ChildEra.LEGACY),
            (error % (b"7", -32601), ChildEra.LEGACY),
            (error % (b"7", -32022), ChildEra.LEGACY),
            (error % (b"null", -32700), ChildEra.LEGACY),
            (b'{"jsonrpc":"2.0","id":7,"result":{"a":"\\ud800"}}', ChildEra.LEGACY),
            (None, ChildEra.LEGACY),
            (error % (b"8", -32601), None),
            (b"listening on stdio", None),
            (b'{"jsonrpc":"2.0","method":"notifications/message"}', None),
            (b'{"jsonrpc":"2.0","id":1,"method":"ping"}', None),
        ):
            self.assertEqual(judge_probe(b"7", line), era, line)

    def test_our_own_initialize(self) -> None:
        """It declares all that some client can do."""
        params = json.loads(initialize_params("1.2"))
        self.assertEqual(params["protocolVersion"], LATEST_LEGACY)
        self.assertIn(LATEST_LEGACY, LEGACY)
        self.assertEqual(
            params["capabilities"],
            {
                "elicitation": {"form": {}, "url": {}},
                "roots": {"listChanged": True},
                "sampling": {"context": {}, "tools": {}},
            },
        )
        self.assertEqual(params["clientInfo"]["version"], "1.2")
