"""Clients, and who may sign in, in the configuration."""

import tomllib
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from fjmcp_broker.config.load import LoadedConfig, load
from fjmcp_broker.config.problems import ConfigError
from fjmcp_broker.config.render import effective_values

HEAD = """
[server]
public_url = "https://mcp.example.org"
[forgejo]
url = "https://git.example.org"
oauth_client_id = "client"
oauth_client_secret = "the-secret"
"""
GOOD = """
[[clients.static]]
client_id = "our-tool"
client_name = "Our tool"
redirect_uris = ["http://127.0.0.1/callback", "cursor://x"]

[[clients.static]]
client_id = "https://app.example.com/client.json"
redirect_uris = ["https://app.example.com/callback"]
token_endpoint_auth_method = "client_secret_basic"
client_secret = "0123456789abcdef"
"""


class ClientsCase(SynchronousTestCase):
    """Files."""

    def setUp(self) -> None:
        self.directory = Path(self.mktemp())
        self.directory.mkdir()

    def path(self, text: str, name: str = "broker.toml") -> str:
        """
        @return: the path of a new file.
        """
        path = self.directory / name
        path.write_text(text, encoding="utf-8")
        return str(path)

    def load(self, text: str, **environment: str) -> LoadedConfig:
        """
        @return: the configuration.
        """
        return load(self.path(HEAD + text), environment)

    def problem(self, text: str, **environment: str) -> str:
        """
        @return: the one thing that is wrong.
        """
        path = self.path(HEAD + text)
        error = self.assertRaises(ConfigError, load, path, environment)
        (problem,) = error.problems
        self.assertIn("clients.static", problem)
        self.assertNotIn("0123456789", problem)
        assert isinstance(problem, str)
        return problem


class StaticClientTests(ClientsCase):
    """C{[[clients.static]]}"""

    def test_tables(self) -> None:
        """Public, confidential, and one whose id is the URL of a document."""
        tool, server = self.load(GOOD).config.clients.static
        self.assertEqual(tool.client_id, "our-tool")
        self.assertEqual(tool.client_name, "Our tool")
        self.assertFalse(tool.is_confidential)
        self.assertIsNone(tool.client_secret)
        self.assertTrue(server.is_confidential)
        assert server.client_secret is not None
        self.assertEqual(server.client_secret.reveal(), "0123456789abcdef")

    def test_none_by_default(self) -> None:
        """And documents are on."""
        clients = self.load("").config.clients
        self.assertEqual(clients.static, ())
        self.assertTrue(clients.metadata_documents)
        off = self.load("[clients]\nmetadata_documents = false").config.clients
        self.assertFalse(off.metadata_documents)

    def test_effective_values_hide_the_secret(self) -> None:
        """And are TOML."""
        text = effective_values(self.load(GOOD))
        self.assertNotIn("0123456789", text)
        written = tomllib.loads(text)["clients"]["static"]
        self.assertEqual(written[0]["client_id"], "our-tool")
        self.assertEqual(written[1]["client_secret"], "[redacted]")

    def test_repr_hides_the_secret(self) -> None:
        """Whoever logs a configuration logs no secret."""
        self.assertNotIn("0123456789", repr(self.load(GOOD).config))

    def test_secret_from_a_file(self) -> None:
        """Without the line end."""
        path = self.path("0123456789abcdef\n", "secret")
        text = GOOD.replace(
            'client_secret = "0123456789abcdef"', f'client_secret_file = "{path}"'
        )
        server = self.load(text).config.clients.static[1]
        assert server.client_secret is not None
        self.assertEqual(server.client_secret.reveal(), "0123456789abcdef")
        self.assertIsNone(server.client_secret_file)

    def test_secret_from_a_credential(self) -> None:
        """Of systemd, named after the client."""
        text = """
[[clients.static]]
client_id = "our-server"
redirect_uris = ["https://app.example.com/callback"]
token_endpoint_auth_method = "client_secret_post"
"""
        self.path("0123456789abcdef", "clients.static.our-server")
        config = self.load(text, CREDENTIALS_DIRECTORY=str(self.directory)).config
        secret = config.clients.static[0].client_secret
        assert secret is not None
        self.assertEqual(secret.reveal(), "0123456789abcdef")
        missing = self.problem(text)
        self.assertIn("clients.static.our-server", missing)

    def test_secret_problems(self) -> None:
        """Each is said, without the secret."""
        client = '[[clients.static]]\nclient_id = "x"\nredirect_uris = ["a.b:/c"]\n'
        post = 'token_endpoint_auth_method = "client_secret_post"\n'
        other = self.path("0123456789abcdeX", "other")
        for text, why in (
            (client + post, "has no secret"),
            (client + 'client_secret = "0123456789abcdef"', "is none"),
            (client + post + 'client_secret = "0123456789"', "shorter than 16"),
            (client + post + 'client_secret_file = "/missing"', "cannot be read"),
            (
                client
                + post
                + 'client_secret = "0123456789abcdef"\n'
                + f'client_secret_file = "{other}"',
                "different secrets",
            ),
        ):
            self.assertIn(why, self.problem(text))

    def test_table_problems(self) -> None:
        """What is wrong is named."""
        client = '[[clients.static]]\nclient_id = "x"\n'
        uris = 'redirect_uris = ["https://a.example/cb"]\n'
        for text, why in (
            ("[[clients.static]]\n" + uris, "client_id"),
            (f'[[clients.static]]\nclient_id = "a b"\n{uris}', "client_id"),
            ('[[clients.static]]\nclient_id = "fjmcp_client_x"\n', "fjmcp_client_"),
            (client, "redirect_uris"),
            (client + "redirect_uris = []", "redirect_uris"),
            (client + "redirect_uris = [7]", "redirect_uris"),
            (client + 'redirect_uris = ["javascript:x"]', "redirect URI 1"),
            (client + 'redirect_uris = ["http://a.example/"]', "redirect URI 1"),
            (client + 'redirect_uris = ["ourapp:/x"]', "redirect URI 1"),
            (client + uris + 'redirect_uri = "x"', "redirect_uri"),
            (client + uris + "client_name = 7", "client_name"),
            (client + uris + 'client_name = ""', "client_name"),
            (
                client + uris + 'token_endpoint_auth_method = "private_key_jwt"',
                "token_endpoint_auth_method",
            ),
            (client + uris + client + uris, "twice"),
            ('[clients]\nstatic = "x"', "[[clients.static]]"),
            ('[clients]\nstatic = ["x"]', "[[clients.static]]"),
        ):
            self.assertIn(why, self.problem(text))

    def test_configured_schemes_count(self) -> None:
        """Of the same file."""
        text = """
[clients]
application_schemes = ["ourapp"]
[[clients.static]]
client_id = "x"
redirect_uris = ["ourapp:/x"]
"""
        self.assertEqual(
            self.load(text).config.clients.static[0].redirect_uris, ("ourapp:/x",)
        )

    def test_authority_file_is_read_at_the_start(self) -> None:
        """Not at the first sign-in."""
        path = self.path(HEAD + '[clients]\nmetadata_documents_ca_file = "/missing"')
        error = self.assertRaises(ConfigError, load, path, {})
        self.assertIn("metadata_documents_ca_file", error.problems[0])


class AccessTests(ClientsCase):
    """C{[access]}"""

    def test_everybody_by_default(self) -> None:
        """Both lists are empty."""
        access = self.load("").config.access
        self.assertEqual((access.allowed_users, access.allowed_organizations), ((), ()))

    def test_lists(self) -> None:
        """In the file and in variables."""
        text = '[access]\nallowed_users = ["alice", "b.o-b_1"]\n'
        config = self.load(
            text, FJMCP_BROKER_ACCESS_ALLOWED_ORGANIZATIONS="friends, club:board"
        ).config
        self.assertEqual(config.access.allowed_users, ("alice", "b.o-b_1"))
        self.assertEqual(config.access.allowed_organizations, ("friends", "club:board"))

    def test_names_that_forgejo_does_not_have(self) -> None:
        """A mistake here would let nobody in, or not whom one meant."""
        for key, value in (
            ("allowed_users", "a b"),
            ("allowed_users", "alice@example.org"),
            ("allowed_users", "a:b"),
            ("allowed_organizations", "a:b:c"),
            ("allowed_organizations", "a:"),
            ("allowed_organizations", ""),
        ):
            path = self.path(HEAD + f'[access]\n{key} = ["{value}"]')
            error = self.assertRaises(ConfigError, load, path, {})
            self.assertIn(f"access.{key}", error.problems[0])

    def test_scope_that_hides_memberships(self) -> None:
        """A warning: it depends on a switch of Forgejo's."""
        text = '[access]\nallowed_organizations = ["friends"]'
        self.assertEqual(self.load(text).warnings, ())
        loaded = self.load(
            text, FORGEJO_OAUTH_SCOPES="openid read:user write:organization"
        )
        self.assertIn("read:organization", loaded.warnings[0])
