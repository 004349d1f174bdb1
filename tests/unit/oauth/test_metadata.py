"""The discovery documents, member by member."""

from twisted.trial.unittest import SynchronousTestCase

from fjmcp_broker.oauth.metadata import (
    authorization_server_metadata,
    protected_resource_metadata,
    resource_metadata_url,
)

URL = "https://mcp.example.org"


class AuthorizationServerTests(SynchronousTestCase):
    """RFC 8414."""

    def test_members(self) -> None:
        """The whole document, so that nothing is advertised by accident."""
        self.assertEqual(
            authorization_server_metadata(URL),
            {
                "issuer": URL,
                "authorization_endpoint": f"{URL}/oauth/authorize",
                "token_endpoint": f"{URL}/oauth/token",
                "registration_endpoint": f"{URL}/oauth/register",
                "revocation_endpoint": f"{URL}/oauth/revoke",
                "scopes_supported": ["read", "write"],
                "response_types_supported": ["code"],
                "response_modes_supported": ["query"],
                "grant_types_supported": ["authorization_code", "refresh_token"],
                "token_endpoint_auth_methods_supported": [
                    "none",
                    "client_secret_basic",
                    "client_secret_post",
                ],
                "revocation_endpoint_auth_methods_supported": [
                    "none",
                    "client_secret_basic",
                    "client_secret_post",
                ],
                "code_challenge_methods_supported": ["S256"],
                "authorization_response_iss_parameter_supported": True,
            },
        )

    def test_metadata_documents_are_advertised_when_they_work(self) -> None:
        """The flag is absent, not false, while they do not."""
        name = "client_id_metadata_document_supported"
        self.assertNotIn(name, authorization_server_metadata(URL))
        document = authorization_server_metadata(URL, client_id_metadata_documents=True)
        self.assertIs(document[name], True)


class ProtectedResourceTests(SynchronousTestCase):
    """RFC 9728."""

    def test_names_the_same_issuer(self) -> None:
        """The same bytes in both documents, no trailing slash."""
        document = protected_resource_metadata(URL)
        self.assertEqual(
            document["authorization_servers"],
            [authorization_server_metadata(URL)["issuer"]],
        )

    def test_members(self) -> None:
        """The resource is exactly the MCP endpoint."""
        self.assertEqual(
            protected_resource_metadata(URL),
            {
                "resource": f"{URL}/mcp",
                "authorization_servers": [URL],
                "scopes_supported": ["read", "write"],
                "bearer_methods_supported": ["header"],
                "resource_name": "Forgejo",
            },
        )

    def test_own_address(self) -> None:
        """RFC 9728 section 3.1: the well-known path precedes the resource's."""
        self.assertEqual(
            resource_metadata_url(URL),
            f"{URL}/.well-known/oauth-protected-resource/mcp",
        )
