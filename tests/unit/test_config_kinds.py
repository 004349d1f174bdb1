"""Values of configuration keys."""

import base64

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from fjmcp_broker.config.addresses import (
    BASE_URL,
    ORIGINS,
    PROXY_URL,
    PUBLIC_URL,
    SCHEMES,
    TRUSTED_PROXIES,
    parse_listen_address,
)
from fjmcp_broker.config.bounds import (
    NETWORK_RATES,
    LimitsConfig,
    format_rate,
    parse_rate,
)
from fjmcp_broker.config.kinds import (
    BOOLEAN,
    COMMAND,
    COUNT,
    VARIABLES,
    Kind,
    format_duration,
    format_size,
    parse_duration,
    parse_size,
)
from fjmcp_broker.config.records import KEYS_BY_NAME
from fjmcp_broker.config.secrets import KEYS
from fjmcp_broker.key_text import decode_key
from fjmcp_broker.limits.policy import Limited
from fjmcp_broker.limits.rates import Rate
from fjmcp_broker.secret import Secret


def read(kind: Kind[object], text: str) -> object:
    """
    @param kind: a kind that can stand in a variable.
    @param text: its text.
    @return: the value.
    """
    assert kind.from_text is not None
    return kind.from_text(text)


class DurationTests(SynchronousTestCase):
    """C{15m}, C{90d}, C{1h30m}, seconds."""

    def test_units_add_up(self) -> None:
        """Each unit counts, alone and after larger ones."""
        cases = {"30s": 30, "15m": 900, "90d": 7776000, "1h30m": 5400, "45": 45}
        for text, seconds in cases.items():
            self.assertEqual(parse_duration(text), seconds, text)

    def test_nonsense_is_refused(self) -> None:
        """No unit twice, none in the wrong order, no fractions, nothing empty."""
        for text in ("", "0", "0s", "m", "5m5m", "5s5m", "1.5h", "-5m", "5 m", "1w"):
            self.assertRaises(ValueError, parse_duration, text)
        self.assertRaises(ValueError, parse_duration, "9" * 5000)
        self.assertRaises(ValueError, parse_duration, "٣m")

    @given(st.integers(1, 10**12))
    def test_format_is_inverse(self, seconds: int) -> None:
        """What is documented as a default is read as that default."""
        self.assertEqual(parse_duration(format_duration(seconds)), seconds)


class SizeTests(SynchronousTestCase):
    """C{16MiB}, C{64KiB}, bytes."""

    def test_units_multiply(self) -> None:
        """Binary units and plain bytes."""
        cases = {"16MiB": 2**24, "64KiB": 65536, "1GiB": 2**30, "5B": 5, "123": 123}
        for text, size in cases.items():
            self.assertEqual(parse_size(text), size, text)

    def test_ambiguous_units_are_refused(self) -> None:
        """C{MB} means two things, so it means nothing here."""
        for text in ("", "0", "16MB", "16m", "MiB", "1.5MiB", "-1", "9" * 500):
            self.assertRaises(ValueError, parse_size, text)

    @given(st.integers(1, 10**11))
    def test_format_is_inverse(self, size_bytes: int) -> None:
        """What is documented as a default is read as that default."""
        self.assertEqual(parse_size(format_size(size_bytes)), size_bytes)


class UrlTests(SynchronousTestCase):
    """Our own origin and Forgejo's base."""

    def test_public_url_is_an_origin(self) -> None:
        """https anywhere, http on loopback; normalised to what browsers send."""
        cases = {
            "https://mcp.example.org": "https://mcp.example.org",
            "https://MCP.Example.org:443": "https://mcp.example.org",
            "https://mcp.example.org:8443": "https://mcp.example.org:8443",
            "http://127.0.0.1:8080": "http://127.0.0.1:8080",
            "http://localhost": "http://localhost",
            "http://[::1]:8080": "http://[::1]:8080",
        }
        for text, origin in cases.items():
            self.assertEqual(read(PUBLIC_URL, text), origin, text)

    def test_public_url_refuses_everything_else(self) -> None:
        """Paths, slashes, queries, other schemes, and http beyond loopback."""
        for text in (
            "https://mcp.example.org/",
            "https://mcp.example.org/base",
            "https://mcp.example.org?",
            "https://mcp.example.org#",
            "http://mcp.example.org",
            "http://127.0.0.1.example.org",
            "ftp://mcp.example.org",
            "mcp.example.org",
            "https://",
            "https://user:pass@mcp.example.org",
            "https://mcp.example.org:0",
            "https://mcp.example.org:99999",
            "https://mcp.example.org\\@evil.example",
            "https://mcp example.org",
            "https://[::1",
            "",
        ):
            self.assertRaises(ValueError, read, PUBLIC_URL, text)

    @given(st.text())
    def test_any_text_is_read_or_refused(self, text: str) -> None:
        """No text makes a reader fail in another way than ValueError."""
        for key in KEYS_BY_NAME.values():
            kind = key.about.kind
            for reader in filter(None, (kind.from_text, kind.from_toml)):
                try:
                    reader(text)
                except ValueError as error:
                    if len(text) > 20:
                        self.assertNotIn(text, str(error))

    @given(
        st.recursive(st.none() | st.booleans() | st.integers() | st.floats(), st.lists)
    )
    def test_any_toml_value_is_read_or_refused(self, value: object) -> None:
        """No TOML value makes a reader fail in another way than ValueError."""
        for key in KEYS_BY_NAME.values():
            try:
                key.about.kind.from_toml(value)
            except ValueError:
                continue

    def test_forgejo_may_have_a_path(self) -> None:
        """Forgejo under a sub-path works; a slash at the end means nothing."""
        self.assertEqual(
            read(BASE_URL, "https://a.example/git/"), "https://a.example/git"
        )
        self.assertEqual(read(BASE_URL, "HTTPS://A.example/"), "https://a.example")
        self.assertRaises(ValueError, read, BASE_URL, "https://a.example/?x=1")

    def test_proxy_and_origins(self) -> None:
        """A proxy is an http origin, maybe with credentials; pages are origins."""
        self.assertEqual(
            read(PROXY_URL, "http://proxy.example:3128/"), "http://proxy.example:3128"
        )
        with_password = "http://user:p%40ss@proxy.example:3128"
        self.assertEqual(read(PROXY_URL, with_password), with_password)
        shown = PROXY_URL.to_toml(with_password)
        self.assertEqual(shown, "http://[redacted]@proxy.example:3128")
        self.assertRaises(ValueError, read, PROXY_URL, "http://a/b@proxy.example")
        self.assertRaises(ValueError, read, PROXY_URL, "https://proxy.example")
        self.assertEqual(
            read(ORIGINS, "https://a.example, https://b.example:444"),
            ("https://a.example", "https://b.example:444"),
        )
        self.assertRaises(ValueError, read, ORIGINS, "https://a.example/x")


class ListenAddressTests(SynchronousTestCase):
    """Where to listen."""

    def test_host_and_port_become_an_endpoint(self) -> None:
        """Names, IPv4, IPv6, and a bare port."""
        cases = {
            "127.0.0.1:8080": "tcp:8080:interface=127.0.0.1",
            "localhost:80": "tcp:80:interface=localhost",
            "[::1]:8080": r"tcp6:8080:interface=\:\:1",
            ":8080": "tcp:8080:interface=0.0.0.0",
        }
        for text, endpoint in cases.items():
            self.assertEqual(parse_listen_address(text).endpoint, endpoint)
        parsed = parse_listen_address("[::1]:0")
        self.assertEqual((parsed.host, parsed.port), ("::1", 0))

    def test_endpoint_strings_pass_through(self) -> None:
        """Any Twisted endpoint string is left as it is."""
        for text in ("tcp:8080", "unix:/run/x.sock", "systemd:domain=INET:index=0"):
            address = parse_listen_address(text)
            self.assertEqual((address.endpoint, address.host), (text, None))

    def test_nonsense_is_refused(self) -> None:
        """Neither form."""
        for text in ("", "8080", "127.0.0.1", "a:99999", "[zz]:1", "[1:2]:3", "::1:80"):
            self.assertRaises(ValueError, parse_listen_address, text)


class TrustedProxiesTests(SynchronousTestCase):
    """Whose word about the client's address is believed."""

    def test_networks_and_unix(self) -> None:
        """Addresses, networks and Unix sockets; IPv4 in IPv6 counts as IPv4."""
        proxies = TRUSTED_PROXIES.from_toml(["10.0.0.0/8", "::1", "unix"])
        for peer in ("10.1.2.3", "::1", "::ffff:10.1.2.3", None):
            self.assertTrue(proxies.trusts(peer), peer)
        for peer in ("11.0.0.1", "::2", "nonsense", ""):
            self.assertFalse(proxies.trusts(peer), peer)
        self.assertFalse(TRUSTED_PROXIES.from_toml([]).trusts(None))
        self.assertEqual(
            TRUSTED_PROXIES.to_toml(proxies), ["10.0.0.0/8", "::1/128", "unix"]
        )

    def test_names_are_refused(self) -> None:
        """A name would be looked up by somebody else's server."""
        self.assertRaises(ValueError, TRUSTED_PROXIES.from_toml, ["proxy.example"])


class OtherKindsTests(SynchronousTestCase):
    """Booleans, numbers, lists, tables, keys."""

    def test_booleans(self) -> None:
        """The usual words in variables, only TOML's own in the file."""
        self.assertIs(read(BOOLEAN, "Yes"), True)
        self.assertIs(read(BOOLEAN, "0"), False)
        self.assertRaises(ValueError, read, BOOLEAN, "maybe")
        self.assertRaises(ValueError, BOOLEAN.from_toml, "true")

    def test_counts(self) -> None:
        """Whole numbers from 1 up; true is no number."""
        self.assertEqual(COUNT.from_toml(5), 5)
        for value in (0, -1, True, 1.5, "x"):
            self.assertRaises(ValueError, COUNT.from_toml, value)

    def test_schemes(self) -> None:
        """Applications' own schemes; none that a browser runs or fetches."""
        self.assertEqual(read(SCHEMES, "VSCode,zed"), ("vscode", "zed"))
        for text in ("javascript", "https", "file", "a b", "1x"):
            self.assertRaises(ValueError, read, SCHEMES, text)

    def test_command(self) -> None:
        """A list with a program in it."""
        self.assertEqual(read(COMMAND, "a, b"), ("a", "b"))
        self.assertRaises(ValueError, COMMAND.from_toml, [])
        self.assertRaises(ValueError, COMMAND.from_toml, ["a\0b"])
        self.assertRaises(ValueError, COMMAND.from_toml, "a b")

    def test_file_upload_of_the_child_is_refused(self) -> None:
        """The variable that lets tools read this machine's files."""
        error = self.assertRaises(
            ValueError, VARIABLES.from_toml, {"FORGEJO_MCP_ALLOW_FILE_PATH_UPLOAD": "1"}
        )
        self.assertIn("FORGEJO_MCP_ALLOW_FILE_PATH_UPLOAD", str(error))
        self.assertRaises(ValueError, VARIABLES.from_toml, {"A B": "1"})
        self.assertRaises(ValueError, VARIABLES.from_toml, {"A": 1})
        self.assertEqual(VARIABLES.from_toml({"A": "1"}), {"A": "1"})

    @given(st.binary(min_size=32, max_size=32))
    def test_every_form_of_a_key_is_read(self, key: bytes) -> None:
        """Standard and url-safe base64, with and without padding, hexadecimal."""
        standard = base64.b64encode(key).decode()
        url_safe = base64.urlsafe_b64encode(key).decode()
        for text in (standard, url_safe, url_safe.rstrip("="), key.hex()):
            self.assertEqual(decode_key(text), key)

    def test_keys_of_the_wrong_length_are_refused_without_repeating_them(self) -> None:
        """A message about a key never holds the key."""
        for text in (
            "c2hvcnQ=",
            "ab" * 31,
            "ü" * 43,
            base64.b64encode(b"x" * 33).decode(),
        ):
            error = self.assertRaises(ValueError, read, KEYS, text)
            self.assertNotIn(text, str(error))

    def test_key_lists_take_commas_and_lines(self) -> None:
        """A file of keys has one a line."""
        keys = read(KEYS, f"{'00' * 32}\n{'11' * 32}, {'22' * 32}")
        self.assertEqual(keys, tuple(Secret(pair * 32) for pair in ("00", "11", "22")))


class RateTests(SynchronousTestCase):
    """C{60/m}, C{5/10s}, C{off}, and networks with their own."""

    def test_texts(self) -> None:
        """A number and a time, or none."""
        cases = {
            "60/m": Rate(60, 60),
            "20/h": Rate(20, 3600),
            "5/10s": Rate(5, 10),
            " 1/S ": Rate(1, 1),
            "1000/2d": Rate(1000, 172800),
            "off": None,
            "OFF": None,
        }
        for text, rate in cases.items():
            self.assertEqual(parse_rate(text), rate, text)

    def test_refused(self) -> None:
        """Nothing, no number, no time, too long a time."""
        for text in ("", "60", "0/m", "/m", "60/", "60/x", "-1/m", "1/0s", "1/31d"):
            self.assertRaises(ValueError, parse_rate, text)

    @given(st.none() | st.builds(Rate, st.integers(1, 10**9), st.integers(1, 2592000)))
    def test_what_is_written_is_read_back(self, rate: Rate | None) -> None:
        """Any rate."""
        self.assertEqual(parse_rate(format_rate(rate)), rate)

    def test_networks(self) -> None:
        """A table of tables, and back."""
        table: object = {
            "198.51.100.0/24": {"register": "500/h", "refresh": "off"},
            "2001:db8::/32": {"code": "9/m"},
        }
        networks = NETWORK_RATES.from_toml(table)
        self.assertEqual(NETWORK_RATES.to_toml(networks), table)
        limits = LimitsConfig(networks=networks, revoke=None).rate_limits()
        self.assertEqual(set(limits.rates), set(Limited))
        self.assertIsNone(limits.rates[Limited.REVOKE])
        self.assertEqual(limits.networks, networks)

    def test_networks_refused(self) -> None:
        """What is not of this form."""
        rates = {"register": "1/m"}
        tables: tuple[object, ...] = (
            [],
            {"example.org": rates},
            {"10.0.0.0/8": "1/m"},
            {"10.0.0.0/8": {"registrations": "1/m"}},
            {"10.0.0.0/8": {"register": 5}},
            {"10.0.0.0/8": {"register": "many"}},
            {"10.0.0.0/8": rates, "10.1.2.3/8": rates},
        )
        for table in tables:
            self.assertRaises(ValueError, NETWORK_RATES.from_toml, table)
