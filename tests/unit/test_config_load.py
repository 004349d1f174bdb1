"""From all sources to one configuration, or to all problems at once."""

import stat
import tomllib
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
)
from cryptography.x509.oid import NameOID
from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from fjmcp_broker.config.keys import Key
from fjmcp_broker.config.load import LoadedConfig, load
from fjmcp_broker.config.problems import ConfigError
from fjmcp_broker.config.records import KEYS_BY_NAME, SECTIONS
from fjmcp_broker.config.render import (
    documentation_page,
    effective_values,
    example_file,
    options_help,
)
from fjmcp_broker.limits.rates import Rate
from fjmcp_broker.secret import Secret

ENVIRONMENT = {
    "FJMCP_BROKER_PUBLIC_URL": "https://mcp.example.org",
    "FORGEJO_URL": "https://git.example.org",
    "FORGEJO_OAUTH_CLIENT_ID": "client",
    "FORGEJO_OAUTH_CLIENT_SECRET": "the-secret",
}
TOP = Path(__file__).parents[2]


class Loading(SynchronousTestCase):
    """Helpers."""

    def environment(self, **changes: str | None) -> dict[str, str]:
        """
        @param changes: variables to set, or to take away.
        @return: an environment that is enough, changed.
        """
        merged: dict[str, str | None] = {**ENVIRONMENT, **changes}
        return {name: text for name, text in merged.items() if text is not None}

    def file(self, text: str, name: str = "broker.toml") -> str:
        """
        @param text: the content.
        @param name: the file's name.
        @return: the path of a new file.
        """
        directory = Path(self.mktemp())
        directory.mkdir(parents=True)
        path = directory / name
        path.write_text(text, encoding="utf-8")
        return str(path)

    def problems(
        self,
        environment: Mapping[str, str],
        path: str | None = None,
        options: Mapping[str, str | None] | None = None,
    ) -> tuple[str, ...]:
        """
        @param environment: the variables.
        @param path: the file.
        @param options: the options.
        @return: what L{load} complains about.
        """
        error = self.assertRaises(ConfigError, load, path, environment, options)
        for problem in error.problems:
            self.assertIn(problem, str(error))
        problems: tuple[str, ...] = error.problems
        return problems


class SourceTests(Loading):
    """Which source wins."""

    def test_environment_alone_is_enough(self) -> None:
        """A container needs no file."""
        config = load(None, ENVIRONMENT).config
        self.assertEqual(config.server.public_url, "https://mcp.example.org")
        self.assertEqual(config.forgejo.oauth_client_secret, Secret("the-secret"))
        self.assertEqual(config.tokens.access_lifetime_seconds, 3600)
        self.assertEqual(config.sessions.idle_timeout_seconds, 900)

    def test_file_alone_is_enough(self) -> None:
        """The shipped example, with its placeholders, is a right configuration."""
        config = load(self.file(example_file()), {}).config
        self.assertEqual(config.forgejo.url, "https://git.example.org")

    def test_port_beats_option_beats_variable_beats_file_beats_default(self) -> None:
        """The order of precedence, one source after another taken away."""
        path = self.file('[server]\nlisten_addr = "127.0.0.1:4"\n')
        environment = self.environment(PORT="1", FJMCP_BROKER_LISTEN="127.0.0.1:3")
        options = {"server-listen-addr": "127.0.0.1:2"}

        def listen(loaded: LoadedConfig) -> str:
            return str(loaded.config.server.listen_addr)

        self.assertEqual(listen(load(path, environment, options)), "0.0.0.0:1")
        no_port = load(path, environment, options, obey_port=False)
        self.assertEqual(listen(no_port), "127.0.0.1:2")
        del environment["PORT"]
        self.assertEqual(listen(load(path, environment, options)), "127.0.0.1:2")
        self.assertEqual(listen(load(path, environment)), "127.0.0.1:3")
        self.assertEqual(listen(load(path, ENVIRONMENT)), "127.0.0.1:4")
        self.assertEqual(listen(load(None, ENVIRONMENT)), "127.0.0.1:8080")

    def test_every_key_has_a_variable_and_an_option(self) -> None:
        """What the file can say, the generic variable and the option can say too."""
        values = {
            "server.tls_cert": "/etc/hostname",
            "server.public_url": "https://other.example",
            "forgejo.url": "https://other.example",
            "forgejo.internal_url": "https://other.example",
            "forgejo.proxy": "http://other.example",
            "forgejo.oauth_scopes": "read:user",
            "database.encryption_keys": "22" * 32,
            "tokens.refresh_lifetime": "91d",
        }
        certificates = (
            "clients.metadata_documents_ca_file",
            "forgejo.ca_file",
            "server.tls",
        )
        for key in KEYS_BY_NAME.values():
            if not key.option or key.file_key in certificates:
                continue  # need files that are certificates
            text = values.get(key.file_key) or self._other_text(key)
            special = {v.name: None for v in key.variables[:-1]}
            environment = self.environment(**special)
            by_variable = load(None, environment | {key.generic_variable: text})
            option = self.file(text) if key.about.secret else text
            by_option = load(None, ENVIRONMENT, {key.option: option})
            by_default = load(None, ENVIRONMENT)
            found = [
                getattr(getattr(loaded.config, key.section), key.attribute)
                for loaded in (by_variable, by_option, by_default)
            ]
            self.assertEqual(found[0], found[1], key.file_key)
            self.assertNotEqual(found[1], found[2], key.file_key)

    def _other_text(self, key: Key) -> str:
        samples = {
            bool: "false" if key.default else "true",
            int: "77",
            tuple: "https://x.example",
        }
        words = {
            "log.level": "warn",
            "log.format": "json",
            "server.listen_addr": "127.0.0.1:5",
            "metrics.listen_addr": "127.0.0.1:5",
            "metrics.allow": "10.0.0.0/8",
            "server.trusted_proxies": "10.0.0.0/8",
            "access.allowed_organizations": "friends",
            "access.allowed_users": "alice",
            "child.allowed_tools": "download_issue_attachment",
            "clients.application_schemes": "other",
            "log.addresses": "none",
            "server.max_body_memory_bytes": "128MiB",
        }
        if isinstance(key.default, Rate):
            return "7/s"
        return words.get(key.file_key) or samples.get(type(key.default), "OTHER_TEXT")

    def test_binary_variable_replaces_the_program(self) -> None:
        """FORGEJO_MCP_BINARY keeps the arguments; an option for all beats it."""
        environment = self.environment(FORGEJO_MCP_BINARY="/opt/mcp")
        path = self.file('[child]\ncommand = ["x", "--flag"]\n')
        config = load(path, environment).config
        self.assertEqual(config.child.command, ("/opt/mcp", "--flag"))
        config = load(path, environment, {"child-command": "y"}).config
        self.assertEqual(config.child.command, ("y",))
        config = load(None, environment).config
        self.assertEqual(config.child.command, ("/opt/mcp", "--transport", "stdio"))

    def test_debug_variable(self) -> None:
        """FJMCP_BROKER_DEBUG=1 is the level debug; 0 and nothing change nothing."""
        for text, level in (("1", "debug"), ("0", "info"), ("", "info")):
            loaded = load(None, self.environment(FJMCP_BROKER_DEBUG=text))
            self.assertEqual(loaded.config.log.level, level)
        found = self.problems(self.environment(FJMCP_BROKER_DEBUG="maybe"))
        self.assertEqual(len(found), 1)

    def test_tables_come_from_the_file(self) -> None:
        """The child's variables have no variable of their own."""
        path = self.file('[child.env]\nHTTPS_PROXY = "http://p"\n')
        loaded = load(path, ENVIRONMENT)
        self.assertEqual(loaded.config.child.env, {"HTTPS_PROXY": "http://p"})
        self.assertNotIn("http://p", effective_values(loaded))


class SecretTests(Loading):
    """Secrets from files and credentials, and in no message."""

    def test_secret_from_files_and_credentials(self) -> None:
        """_FILE of each variable, the option, and systemd's directory."""
        path = self.file("from-file\n", "forgejo.oauth_client_secret")
        without = self.environment(FORGEJO_OAUTH_CLIENT_SECRET=None)
        for environment in (
            {"FORGEJO_OAUTH_CLIENT_SECRET_FILE": path},
            {"FJMCP_BROKER_FORGEJO_OAUTH_CLIENT_SECRET_FILE": path},
            {"CREDENTIALS_DIRECTORY": str(Path(path).parent)},
        ):
            loaded = load(None, without | environment)
            secret = loaded.config.forgejo.oauth_client_secret
            self.assertEqual(secret.reveal(), "from-file")
            self.assertEqual(loaded.warnings, ())
        options = {"forgejo-oauth-client-secret-file": path}
        secret = load(None, without, options).config.forgejo.oauth_client_secret
        self.assertEqual(secret.reveal(), "from-file")

    def test_unreadable_secret_file(self) -> None:
        """Missing, a directory, binary, too long, empty: each a problem, no more."""
        directory = Path(self.mktemp())
        directory.mkdir()
        binary = directory / "binary"
        binary.write_bytes(b"\xff\xfe")
        long = self.file("x" * 70_000)
        missing = str(directory / "missing")
        for path in (missing, str(directory), str(binary), long, self.file(" \n")):
            environment = self.environment(
                FORGEJO_OAUTH_CLIENT_SECRET=None, FORGEJO_OAUTH_CLIENT_SECRET_FILE=path
            )
            found = self.problems(environment)
            self.assertEqual(len(found), 1, found)
            self.assertIn("FORGEJO_OAUTH_CLIENT_SECRET_FILE", found[0])

    def test_no_message_holds_a_secret(self) -> None:
        """Wrong secrets, contradicting ones, and URLs with passwords."""
        mark = "Sup3rS3cret"
        environment = self.environment(
            FORGEJO_OAUTH_CLIENT_SECRET=f"{mark}\x01",
            FJMCP_BROKER_FORGEJO_OAUTH_CLIENT_SECRET=mark,
            FJMCP_BROKER_ENCRYPTION_KEYS=mark,
            FORGEJO_URL=f"https://user:{mark}@git.example.org",
            FJMCP_BROKER_FORGEJO_PROXY=f"https://user:{mark}@proxy",
        )
        path = self.file(
            f'[child.env]\nFORGEJO_ACCESS_TOKEN = "{mark}"\n'
            f'[database]\nencryption_keys = ["{mark}"]\n'
            f'[forgejo]\noauth_client_secret = ["{mark}"]\n'
        )
        found = "\n".join(self.problems(environment, path))
        self.assertNotIn(mark, found)
        for name in ("oauth_client_secret", "encryption_keys", "forgejo.url", "proxy"):
            self.assertIn(name, found)

    def test_effective_values_are_redacted(self) -> None:
        """check-config shows where a secret came from, not what it is."""
        keys = self.environment(FJMCP_BROKER_ENCRYPTION_KEYS="ab" * 32)
        shown = effective_values(load(None, keys))
        self.assertNotIn("the-secret", shown)
        self.assertNotIn("ab" * 32, shown)
        self.assertIn("# FORGEJO_OAUTH_CLIENT_SECRET", shown)
        tomllib.loads(shown)


class ProblemTests(Loading):
    """What is wrong, all at once."""

    def test_everything_missing_is_listed_at_once(self) -> None:
        """Each required key with file key, variables and option."""
        found = self.problems({})
        self.assertEqual(len(found), 4)
        for name in (
            "forgejo.oauth_client_secret",
            "FORGEJO_OAUTH_CLIENT_SECRET",
            "FJMCP_BROKER_FORGEJO_OAUTH_CLIENT_SECRET",
            "--forgejo-oauth-client-secret-file",
        ):
            self.assertIn(name, found[3])

    def test_losing_sources_are_checked_too(self) -> None:
        """A wrong value is a problem even where another source wins."""
        path = self.file('[server]\ntls = "maybe"\n')
        options = {"server-tls": "nonsense"}
        environment = self.environment(FJMCP_BROKER_SERVER_TLS="never")
        found = self.problems(environment, path, options)
        self.assertEqual(len(found), 3)

    def test_unknown_keys_get_a_suggestion(self) -> None:
        """A mistyped key, one in the wrong table, a mistyped table, none near."""
        path = self.file(
            'public_url = "x"\nzzzzzz = 1\n[server]\npublic_ulr = "x"\n'
            'access_lifetime = "1h"\n[sesions]\nmax = 1\n[log]\n'
        )
        found = "\n".join(self.problems(ENVIRONMENT, path))
        for hint in (
            "unknown key public_url; did you mean server.public_url?",
            "unknown key server.public_ulr; did you mean server.public_url?",
            "server.access_lifetime; did you mean tokens.access_lifetime?",
            "unknown table [sesions]; did you mean [sessions]?",
            "unknown key zzzzzz",
        ):
            self.assertIn(hint, found)

    def test_strange_keys_cannot_forge_lines(self) -> None:
        """A quoted key may hold anything; the message stays one line per problem."""
        path = self.file('["a\\n  - b"]\n[server]\n"\\u001b[2J" = 1\n')
        error = self.assertRaises(ConfigError, load, path, ENVIRONMENT)
        self.assertEqual(len(str(error).splitlines()), 3)
        self.assertNotIn("\x1b", str(error))

    def test_foreign_tables_are_one_note(self) -> None:
        """Platforms put their own tables into every configuration file."""
        path = self.file('[mcias]\nx = 1\n[sso]\n[server]\ngrpc_addr = ":1"\n')
        loaded = load(path, ENVIRONMENT)
        self.assertEqual(len(loaded.notes), 1)
        for name in ("[mcias]", "[sso]", "server.grpc_addr"):
            self.assertIn(name, loaded.notes[0])

    def test_unknown_variables_are_one_warning(self) -> None:
        """Container links set variables that look like ours."""
        environment = self.environment(
            FJMCP_BROKER_PORT_8080_TCP="tcp://x", FJMCP_BROKER_B="1"
        )
        loaded = load(None, environment)
        self.assertEqual(len(loaded.warnings), 1)
        self.assertIn("FJMCP_BROKER_B, FJMCP_BROKER_PORT_8080_TCP", loaded.warnings[0])

    def test_contradicting_variables(self) -> None:
        """The same meaning in two spellings is fine; two meanings are not."""
        both = self.environment(
            FJMCP_BROKER_SESSION_IDLE_TIMEOUT="15m",
            FJMCP_BROKER_SESSIONS_IDLE_TIMEOUT="900",
        )
        self.assertEqual(load(None, both).config.sessions.idle_timeout_seconds, 900)
        both["FJMCP_BROKER_SESSIONS_IDLE_TIMEOUT"] = "901"
        found = self.problems(both)
        self.assertIn("FJMCP_BROKER_SESSION_IDLE_TIMEOUT and", found[0])

    def test_ports(self) -> None:
        """No nonsense, and no two different ones."""
        for text in ("x", "0", "65536", "0000080", "٣", " "):
            self.assertEqual(len(self.problems(self.environment(PORT=text))), 1, text)
        two = self.environment(PORT="1", PORT_HTTP="2")
        self.assertEqual(len(self.problems(two)), 1)
        loaded = load(None, self.environment(PORT="5", PORT_HTTP="5"))
        self.assertEqual(loaded.config.server.listen_addr.port, 5)

    def test_unreadable_files(self) -> None:
        """Missing, binary, no TOML, nested too deep: one problem each."""
        directory = Path(self.mktemp())
        directory.mkdir()
        binary = directory / "binary"
        binary.write_bytes(b"\xff")
        deep = self.file("x = " + "[" * 100_000)
        for path in (str(directory / "no"), str(binary), self.file("x = "), deep):
            found = self.problems(ENVIRONMENT, path)
            self.assertEqual(len(found), 1)
            self.assertIn(path, found[0])

    def test_scopes_are_validated(self) -> None:
        """Empty, mistyped, comma-separated and wide scopes would give full access."""
        for scopes in ("openid", "repo", "read:user,write:issue", "all", "write:admin"):
            found = self.problems(self.environment(FORGEJO_OAUTH_SCOPES=scopes))
            self.assertEqual(len(found), 1, scopes)
            self.assertIn("forgejo.oauth_scopes", found[0])
        self.problems(
            self.environment(FORGEJO_OAUTH_SCOPES=None),
            self.file('[forgejo]\noauth_scopes = ""\n'),
        )
        wide = self.environment(
            FORGEJO_OAUTH_SCOPES="all", FJMCP_BROKER_FORGEJO_ALLOW_WIDE_SCOPES="true"
        )
        self.assertEqual(load(None, wide).config.forgejo.oauth_scopes, "openid all")

    def test_tls_needs_certificate_and_key(self) -> None:
        """required without files, with files that are none, and off with files."""
        required = self.environment(FJMCP_BROKER_SERVER_TLS="required")
        self.assertEqual(len(self.problems(required)), 2)
        nothing = self.file("no certificate")
        files = {
            "FJMCP_BROKER_SERVER_TLS_CERT": nothing,
            "FJMCP_BROKER_SERVER_TLS_KEY": nothing,
        }
        self.assertIn("server.tls_cert", self.problems(required | files)[0])
        self.assertEqual(len(load(None, ENVIRONMENT | files).warnings), 1)

    def test_certificates_that_fit_are_accepted(self) -> None:
        """A certificate with its key, and the same one as private authority."""
        private = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "mcp.example.org")])
        now = datetime(2026, 1, 1, tzinfo=UTC)
        certificate = (
            x509.CertificateBuilder(name, name, private.public_key(), 1)
            .not_valid_before(now)
            .not_valid_after(now + timedelta(days=1))
            .sign(private, hashes.SHA256())
        )
        cert = self.file(certificate.public_bytes(Encoding.PEM).decode())
        plain = private.private_bytes(
            Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()
        ).decode()
        locked = private.private_bytes(
            Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"x")
        ).decode()
        environment = self.environment(
            FJMCP_BROKER_SERVER_TLS="required",
            FJMCP_BROKER_SERVER_TLS_CERT=cert,
            FJMCP_BROKER_SERVER_TLS_KEY=self.file(plain),
            FJMCP_BROKER_FORGEJO_CA_FILE=cert,
        )
        config = load(None, environment).config
        self.assertEqual(
            (config.server.tls, config.forgejo.ca_file), ("required", cert)
        )
        environment["FJMCP_BROKER_SERVER_TLS_KEY"] = self.file(locked)
        self.assertIn("passphrase", self.problems(environment)[0])
        environment["FJMCP_BROKER_SERVER_TLS_KEY"] = self.file(plain)
        environment["FJMCP_BROKER_LISTEN"] = "ssl:8443"
        self.assertIn("server.listen_addr", self.problems(environment)[0])

    def test_authority_file_must_be_usable(self) -> None:
        """A wrong path would show only at the first sign-in."""
        for path in ("/nonexistent/ca.pem", self.file("nothing")):
            found = self.problems(self.environment(FJMCP_BROKER_FORGEJO_CA_FILE=path))
            self.assertIn("forgejo.ca_file cannot be used", found[0])

    def test_values_that_do_not_fit_together(self) -> None:
        """Lifetimes, and the variables of the child."""
        path = self.file(
            '[tokens]\naccess_lifetime = "2d"\nrefresh_lifetime = "1d"\n'
            '[server]\nmax_request_bytes = "40MiB"\n'
            '[child]\ntoken_env = "A"\nurl_env = "A"\nenv = { A = "x" }\n'
        )
        found = "\n".join(self.problems(ENVIRONMENT, path))
        for name in (
            "tokens.access_lifetime",
            "child.url_env",
            "child.env",
            "server.max_body_memory_bytes",
        ):
            self.assertIn(name, found)

    def test_plain_http_to_forgejo_is_a_warning(self) -> None:
        """Tokens in the clear are worth a line, except on this machine."""
        clear = load(None, self.environment(FORGEJO_URL="http://git.example.org"))
        self.assertEqual(len(clear.warnings), 1)
        local = load(None, self.environment(FORGEJO_URL="http://localhost:3000"))
        self.assertEqual(local.warnings, ())

    @given(st.dictionaries(st.sampled_from(sorted(SECTIONS)), st.text(max_size=20)))
    def test_any_file_is_read_or_refused(self, tables: dict[str, str]) -> None:
        """Whatever stands in the file, there are problems or a configuration."""
        path = Path(self.mktemp())
        path.write_text(
            "\n".join(f"[{name}]\n{text}" for name, text in tables.items()),
            encoding="utf-8",
        )
        try:
            load(str(path), ENVIRONMENT)
        except ConfigError as error:
            self.assertTrue(error.problems)


class DocumentationTests(Loading):
    """What is made from the table of keys."""

    def test_example_lists_exactly_the_keys_with_their_defaults(self) -> None:
        """Uncommented, the example has every key but no other, at its default."""
        lines = (TOP / "deploy/examples/fjmcp-broker.toml").read_text().splitlines()
        bare = [
            x[1:] if x[:1] == "#" and x[:2] not in ("# ", "#") else x for x in lines
        ]
        document = tomllib.loads("\n".join(bare))
        listed = {
            f"{s}.{name}": v for s, t in document.items() for name, v in t.items()
        }
        self.assertEqual(list(listed), list(KEYS_BY_NAME))
        for name, value in listed.items():
            key = KEYS_BY_NAME[name]
            typed = key.about.kind.from_toml(value)
            if key.default is not None:
                self.assertEqual(typed, key.default, name)

    def test_example_and_page_are_current(self) -> None:
        """`make docs` was run after the last change of a key."""
        example = (TOP / "deploy/examples/fjmcp-broker.toml").read_text()
        self.assertEqual(example, example_file())
        page = (TOP / "docs/configuration.md").read_text()
        self.assertEqual(page, documentation_page())

    def test_page_and_help_name_everything(self) -> None:
        """Every key, variable and option stands in the page and in the help."""
        page, helped = documentation_page(), options_help()
        for key in KEYS_BY_NAME.values():
            names = [key.file_key, *(variable.name for variable in key.variables)]
            names += [f"--{key.option}"] if key.option else []
            for name in names:
                self.assertIn(name, page)
                self.assertIn(name, helped)

    def test_generated_files_are_not_executable(self) -> None:
        """They are text."""
        mode = (TOP / "docs/configuration.md").stat().st_mode
        self.assertFalse(mode & stat.S_IXUSR)
