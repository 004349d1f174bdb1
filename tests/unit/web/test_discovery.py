"""The well-known documents over HTTP."""

from twisted.trial.unittest import SynchronousTestCase

from tests.unit.web.token_fixture import TokenWorld

SERVER = "/.well-known/oauth-authorization-server"
RESOURCE = "/.well-known/oauth-protected-resource"
PATHS = (SERVER, RESOURCE, f"{RESOURCE}/mcp")


class DiscoveryTests(SynchronousTestCase):
    """RFC 8414 and RFC 9728."""

    def setUp(self) -> None:
        self.world = TokenWorld(self)

    def test_documents(self) -> None:
        """The resource names the issuer, byte for byte; both paths are the same."""
        server = self.world.request("GET", SERVER).document
        resource = self.world.request("GET", RESOURCE).document
        self.assertEqual(server["issuer"], "https://mcp.example.org")
        self.assertEqual(resource["authorization_servers"], [server["issuer"]])
        self.assertEqual(resource["resource"], "https://mcp.example.org/mcp")
        self.assertEqual(
            self.world.request("GET", f"{RESOURCE}/mcp").document, resource
        )

    def test_host_header_changes_nothing(self) -> None:
        """Every URL comes from the configuration."""
        usual = self.world.request("GET", SERVER).body
        for headers in (
            {"Host": "evil.example"},
            {"X-Forwarded-Host": "evil.example", "X-Forwarded-Proto": "http"},
        ):
            self.assertEqual(
                self.world.request("GET", SERVER, headers=headers).body, usual
            )

    def test_every_origin_may_read_them(self) -> None:
        """A client that runs in a browser discovers from its own origin."""
        for path in PATHS:
            for origin in ("https://inspector.example", "null"):
                answer = self.world.request("GET", path, headers={"Origin": origin})
                self.assertEqual(answer.status, 200)
                self.assertEqual(answer.headers["access-control-allow-origin"], "*")
                self.assertNotIn("access-control-allow-credentials", answer.headers)

    def test_preflight_is_answered(self) -> None:
        """The header of the protocol version makes browsers ask first."""
        for path, methods in [
            *((path, "GET, HEAD, OPTIONS") for path in PATHS),
            ("/.well-known/openid-configuration", "GET, HEAD, OPTIONS"),
            *((f"/oauth/{name}", "OPTIONS, POST") for name in ("token", "revoke")),
        ]:
            answer = self.world.request(
                "OPTIONS",
                path,
                headers={
                    "Origin": "https://inspector.example",
                    "Access-Control-Request-Method": "GET",
                    "Access-Control-Request-Headers": "mcp-protocol-version",
                },
            )
            self.assertEqual((answer.status, answer.body), (204, b""))
            self.assertEqual(answer.headers["access-control-allow-origin"], "*")
            self.assertEqual(answer.headers["access-control-allow-methods"], methods)
            allowed = answer.headers["access-control-allow-headers"].lower()
            for name in ("authorization", "content-type", "mcp-protocol-version"):
                self.assertIn(name, allowed)

    def test_documents_may_be_kept_for_a_while(self) -> None:
        """But not for long: the configuration may change."""
        answer = self.world.request("GET", SERVER)
        self.assertEqual(answer.headers["cache-control"], "public, max-age=300")

    def test_head_and_other_methods(self) -> None:
        """HEAD is GET without its body; POST is told what is allowed."""
        answer = self.world.request("HEAD", SERVER)
        self.assertEqual((answer.status, answer.body), (200, b""))
        answer = self.world.request("POST", SERVER, body=b"")
        self.assertEqual(answer.error, (405, "method_not_allowed"))
        self.assertEqual(answer.headers["allow"], "GET, HEAD, OPTIONS")

    def test_openid_configuration_does_not_exist(self) -> None:
        """It makes clients ask for things that mean nothing here."""
        for path in ("openid-configuration", "oauth-authorization-server/mcp", ""):
            answer = self.world.request(
                "GET", f"/.well-known/{path}", headers={"Origin": "https://x.example"}
            )
            self.assertEqual(answer.error, (404, "not_found"))
            # A script that may not read it takes it for a network that is down.
            self.assertEqual(answer.headers["access-control-allow-origin"], "*")
