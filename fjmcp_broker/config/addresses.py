"""Kinds of configuration values that are URLs and network addresses."""

import re
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from typing import Final
from urllib.parse import SplitResult, urlsplit

import msgspec

from fjmcp_broker.oauth.redirect_uris import FORBIDDEN_SCHEMES
from fjmcp_broker.secret import REDACTED

from .kinds import Kind, listing, plain_text, scalar

LOOPBACK_NAMES: Final = ("localhost", "127.0.0.1", "::1")


def _split(text: str) -> SplitResult:
    text = plain_text(text)
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError:
        raise ValueError("must be a URL") from None
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("must be a URL that begins with https:// or http://")
    if "@" in parts.netloc:
        raise ValueError("must not contain a user name or password")
    if port == 0 or not re.fullmatch(r"[A-Za-z0-9.:_\[\]-]+", parts.netloc):
        raise ValueError("must be a URL with a plain host name and port")
    if "?" in text or "#" in text or re.search(r"[\s\\]", text):
        raise ValueError("must be a URL without query, fragment, space and backslash")
    return parts


def _origin(parts: SplitResult) -> str:
    # Lower case and without the default port: compared byte by byte with `Origin`.
    host = parts.hostname or ""
    shown = f"[{host}]" if ":" in host else host
    usual = {"http": 80, "https": 443}[parts.scheme]
    port = f":{parts.port}" if parts.port not in (None, usual) else ""
    return f"{parts.scheme}://{shown}{port}"


def is_loopback_url(url: str) -> bool:
    """
    @param url: a checked URL.
    @return: whether its host is this machine by name.
    """
    return urlsplit(url).hostname in LOOPBACK_NAMES


def _public_url(text: str) -> str:
    parts = _split(text)
    if parts.path:
        raise ValueError(
            "must be an origin such as https://mcp.example.org, without a path and "
            "without a slash at its end"
        )
    origin = _origin(parts)
    if parts.scheme == "http" and not is_loopback_url(origin):
        raise ValueError("must begin with https:// (http:// only on loopback)")
    return origin


def _base_url(text: str) -> str:
    parts = _split(text)
    return _origin(parts) + parts.path.rstrip("/")


def _proxy_url(text: str) -> str:
    text = plain_text(text)
    scheme, mark, rest = text.partition("://")
    user, at, host = rest.rpartition("@")
    parts = _split(f"{scheme}{mark}{host}")
    if parts.scheme != "http" or parts.path not in ("", "/"):
        raise ValueError("must be the URL of a proxy such as http://proxy.example:3128")
    if re.search(r"[\s/?#\\]", user):
        raise ValueError("must have the user name and password percent-encoded")
    return _origin(parts).replace("://", f"://{user}{at}", 1)


def _without_password(url: str) -> str:
    scheme, mark, rest = url.partition("://")
    user, at, host = rest.rpartition("@")
    return f"{scheme}{mark}{REDACTED if user else ''}{at}{host}"


def _origin_item(text: str) -> str:
    parts = _split(text)
    if parts.path:
        raise ValueError("must hold origins such as https://app.example.org")
    return _origin(parts)


def _scheme(text: str) -> str:
    scheme = text.strip().lower()
    if not re.fullmatch(r"[a-z][a-z0-9+.-]*", scheme):
        raise ValueError("must hold URL schemes such as vscode")
    if scheme in FORBIDDEN_SCHEMES or scheme in ("http", "https"):
        raise ValueError("must not hold a scheme that the browser itself opens")
    return scheme


SCHEMES: Final = listing("list of schemes", _scheme)
PUBLIC_URL: Final = scalar("URL", _public_url)
BASE_URL: Final = scalar("URL", _base_url)
PROXY_URL: Final = scalar("URL", _proxy_url, _without_password)
ORIGINS: Final = listing("list of origins", _origin_item)

_ENDPOINT_NAMES: Final = ("tcp", "tcp6", "ssl", "unix", "systemd", "stdio", "tls")


class ListenAddress(msgspec.Struct, frozen=True):
    """Where to listen."""

    text: str
    """As the operator wrote it."""

    endpoint: str
    """The same as a Twisted endpoint string."""

    host: str | None = None
    """The host when the text was C{host:port}, else C{None}."""

    port: int | None = None
    """The port when the text was C{host:port}, else C{None}."""

    def __str__(self) -> str:
        return self.text


def parse_listen_address(text: str) -> ListenAddress:
    """
    Read C{host:port}, C{[v6]:port}, C{:port} or a Twisted endpoint string.

    @param text: from the operator.
    @return: the address; names are not resolved and nothing is bound.
    @raise ValueError: if it is nothing of the kind.
    """
    text = plain_text(text)
    match = re.fullmatch(r"(\[[0-9A-Fa-f:.%]+\]|[A-Za-z0-9._-]*):([0-9]{1,5})", text)
    if match and match[1] not in _ENDPOINT_NAMES:
        host, port = match[1].strip("[]") or "0.0.0.0", int(match[2])  # noqa: S104 - asked for as ":port"
        if port > 65535:
            raise ValueError("must have a port up to 65535")
        if ":" in host:
            ip_address(host.partition("%")[0])
            escaped = host.replace(":", r"\:")
            return ListenAddress(text, f"tcp6:{port}:interface={escaped}", host, port)
        return ListenAddress(text, f"tcp:{port}:interface={host}", host, port)
    if re.match(r"[a-z][a-z0-9_-]*:.", text):
        return ListenAddress(text, text)
    raise ValueError(
        "must be host:port, [address]:port or a Twisted endpoint such as "
        "unix:/run/fjmcp-broker.sock"
    )


LISTEN_ADDRESS: Final = scalar("address", parse_listen_address, str)

UNIX_SOCKETS: Final = "unix"

Network = IPv4Network | IPv6Network


class TrustedProxies(msgspec.Struct, frozen=True):
    """Peers whose word about the client's address is believed."""

    networks: tuple[Network, ...] = ()
    """Of peers over TCP."""

    unix_sockets: bool = False
    """Whether every peer on a Unix socket is one."""

    def trusts(self, address: str | None) -> bool:
        """
        @param address: the peer's IP address, or C{None} on a Unix socket.
        @return: whether it is a trusted proxy; never for what is no address.
        """
        if address is None:
            return self.unix_sockets
        try:
            peer = ip_address(address.partition("%")[0])
        except ValueError:
            return False
        mapped = getattr(peer, "ipv4_mapped", None)
        return any((mapped or peer) in network for network in self.networks)


def _plain_network(text: str) -> Network:
    try:
        return ip_network(text, strict=False)
    except ValueError:
        raise ValueError("must hold addresses or networks such as 10.0.0.0/8") from None


NETWORKS: Final = listing("list of networks", _plain_network, str)


def _network(text: str) -> Network | str:
    if text == UNIX_SOCKETS:
        return text
    try:
        return ip_network(text, strict=False)
    except ValueError:
        raise ValueError(
            "must hold addresses, networks such as 10.0.0.0/8, or the word unix"
        ) from None


def _trusted_proxies() -> Kind[TrustedProxies]:
    names = listing("list of networks", _network)

    def gather(items: tuple[Network | str, ...]) -> TrustedProxies:
        networks = tuple(item for item in items if not isinstance(item, str))
        return TrustedProxies(networks, UNIX_SOCKETS in items)

    def from_text(text: str) -> TrustedProxies:
        assert names.from_text is not None  # noqa: S101 - listing() always sets it
        return gather(names.from_text(text))

    def to_toml(value: TrustedProxies) -> object:
        shown = [str(network) for network in value.networks]
        return shown + [UNIX_SOCKETS] * value.unix_sockets

    return Kind(
        names.name, lambda value: gather(names.from_toml(value)), from_text, to_toml
    )


TRUSTED_PROXIES: Final = _trusted_proxies()
LOOPBACK_PROXIES: Final = TrustedProxies(
    (IPv4Network("127.0.0.0/8"), IPv6Network("::1/128")), True
)
