"""
The daemon, on this machine and as the world sees it.
"""

import json
import socket
import ssl
import time
import zlib
from collections.abc import Iterator, Mapping
from typing import Any, Final
from urllib.parse import urlsplit

from fjmcp_broker.config import ServerConfig
from fjmcp_broker.config.addresses import is_loopback_url
from fjmcp_broker.oauth.vocabulary import (
    AUTHORIZATION_SERVER_PATH,
    MCP_PATH,
    PROTECTED_RESOURCE_PATH,
)
from fjmcp_broker.version import VERSION

from .fetch import Answer, Fetcher, FetchError
from .findings import Finding, failed, ok, skipped, warning

STREAM_PATH: Final = "/healthz/stream"
_LEAST_SECONDS: Final = 0.5
_GZIP: Final = 16 + zlib.MAX_WBITS
SOON_SECONDS: Final = 14 * 86400
_ANYWHERE: Final = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}  # noqa: S104
_PUBLIC_FIXES: Final = {
    "name": "Give the host an entry in DNS, or correct server.public_url.",
    "refused": "Start the reverse proxy, and open its port in the firewall.",
    "timeout": "Look at the firewall and at the reverse proxy; something drops or "
    "holds the connection.",
    "tls": "Give the reverse proxy a certificate that names this host, with the whole "
    "chain.",
    "other": "Look at the reverse proxy's log.",
}


def local_url(server: ServerConfig) -> tuple[str, str | None] | None:
    """
    @param server: the configuration.
    @return: where the daemon answers on this machine, and the Unix socket if it is
        one; C{None}: that cannot be told.
    """
    scheme = "https" if server.tls == "required" else "http"
    address = server.listen_addr
    if address.port is not None:
        host = _ANYWHERE.get(address.host or "", address.host or "")
        shown = f"[{host}]" if ":" in host else host
        return f"{scheme}://{shown}:{address.port}", None
    if address.endpoint.startswith("unix:"):
        path = address.endpoint.removeprefix("unix:").removeprefix("address=")
        return f"{scheme}://localhost", path.partition(":")[0]
    return None


def untrusting() -> ssl.SSLContext:
    """
    @return: for connections that stay on this machine: the certificate names the
        public host.
    """
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


class BrokerChecks:
    """
    Looks at the daemon from both sides.
    """

    def __init__(self, server: ServerConfig, timeout_seconds: float) -> None:
        """
        @param server: the configuration.
        @param timeout_seconds: for each step of a request.
        """
        self._server = server
        self._url = server.public_url
        self._timeout_seconds = timeout_seconds
        self._public = Fetcher(
            is_direct=is_loopback_url(server.public_url),
            timeout_seconds=timeout_seconds,
        )
        self._local_instance: str | None = None
        self._source: object = None

    def run(self) -> Iterator[Finding]:
        """
        @return: what there is to say; what depends on a failed check is left out.
        """
        yield self.daemon()
        yield self.certificate()
        reached = self.public()
        yield reached
        if reached.status == "failed":
            why = "the daemon cannot be reached at its public URL"
            for name in ("client_address", "discovery", "challenge", "streaming"):
                yield skipped(name, why)
            return
        yield self.client_address()
        yield self.discovery()
        yield self.challenge()
        yield self.streaming()

    def daemon(self) -> Finding:
        """
        @return: whether a daemon of this configuration runs on this machine.
        """
        name = "daemon"
        where = local_url(self._server)
        if where is None:
            address = self._server.listen_addr
            return skipped(name, f"{address} cannot be asked from outside")
        url, unix_path = where
        shown = unix_path or url
        local = Fetcher(
            trust=untrusting(),
            unix_path=unix_path,
            is_direct=True,
            timeout_seconds=self._timeout_seconds,
        )
        try:
            health = _health(local.fetch(f"{url}/healthz"))
        except FetchError as error:
            return failed(
                name,
                f"no daemon answers at {shown}: {error}",
                "Start it, or give this command the configuration that it runs with.",
            )
        if health is None:
            return failed(
                name,
                f"what answers at {shown} is no fjmcp-broker",
                "Another program has the address of server.listen_addr: stop it, or "
                "choose another one.",
            )
        self._local_instance = health.get("instance")
        if health.get("status") != "ok":
            return failed(
                name,
                f"the daemon at {shown} says that its store does not work",
                "Look at its log, at the disk and at the rights of database.path.",
            )
        version = health.get("version")
        if version != VERSION:
            return warning(
                name,
                f"version {version} runs at {shown}, but this command is {VERSION}",
                "Restart the daemon, so that it is the installed version.",
            )
        return ok(name, f"version {version} runs at {shown}")

    def public(self) -> Finding:
        """
        @return: whether the same daemon answers at the public URL.
        """
        name = "public_url"
        try:
            answer = self._public.fetch(f"{self._url}/healthz")
        except FetchError as error:
            return failed(name, f"{self._url}: {error}", _PUBLIC_FIXES[error.kind])
        health = _health(answer)
        if health is None:
            return failed(
                name,
                f"{self._url}/healthz is answered by something else (status "
                f"{answer.status})",
                "Have the reverse proxy pass every path of this host to "
                f"{self._server.listen_addr}, unchanged, without a login of its own.",
            )
        self._source = health.get("client")
        if self._local_instance is None:
            return ok(name, f"an fjmcp-broker answers at {self._url}")
        if health.get("instance") != self._local_instance:
            return failed(
                name,
                "another fjmcp-broker than the one on this machine answers at "
                f"{self._url}",
                "Have the reverse proxy or DNS point to this machine, or run this "
                "command where the daemon runs.",
            )
        return ok(name, f"the same daemon answers at {self._url}")

    def client_address(self) -> Finding:
        """
        @return: whether the daemon knows its clients apart; L{public} has been asked.
        """
        name = "client_address"
        match self._source:
            case "forwarded" | "only_proxies":
                return ok(name, "the reverse proxy says whom it serves")
            case "not_said":
                is_behind_a_proxy = not is_loopback_url(self._url)
                if not is_behind_a_proxy:
                    return ok(name, "there is nothing between it and this machine")
                summary = "the reverse proxy does not say whom it serves"
                fix = (
                    "Have it send X-Forwarded-For; Caddy and Traefik do, nginx needs "
                    "`proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for`. "
                    "Until then only the limit of all networks together is in effect."
                )
            case "not_believed":
                summary = (
                    "what the reverse proxy says about its clients is not believed"
                )
                fix = (
                    "Add the proxy's address to server.trusted_proxies; the daemon's "
                    "log names its network. Until then all clients count as one."
                )
            case "peer" if self._server.tls == "off" and self._url.startswith("https"):
                summary = "the daemon takes the reverse proxy for the client"
                fix = (
                    "Have the proxy send X-Forwarded-For, and add its address to "
                    "server.trusted_proxies. Until then all clients count as one."
                )
            case "peer":
                return ok(name, "clients connect directly")
            case _:
                return skipped(name, "the daemon does not say; it is an older version")
        return warning(name, summary, fix)

    def certificate(self) -> Finding:
        """
        @return: whether the certificate at the public URL is good, and for how long.
        """
        name = "certificate"
        parts = urlsplit(self._url)
        if parts.scheme != "https":
            return skipped(name, "the public URL is http on this machine")
        host, port = parts.hostname or "", parts.port or 443
        try:
            with (
                socket.create_connection((host, port), self._timeout_seconds) as plain,
                ssl.create_default_context().wrap_socket(
                    plain, server_hostname=host
                ) as secure,
            ):
                found: Any = secure.getpeercert()
                version = secure.version()
        except ssl.SSLCertVerificationError as error:
            return failed(
                name,
                f"the certificate of {host} is not valid: {error.verify_message}",
                _PUBLIC_FIXES["tls"],
            )
        except OSError as error:
            return skipped(name, f"{host} cannot be reached directly: {_text(error)}")
        left = ssl.cert_time_to_seconds(found["notAfter"]) - time.time()
        days = int(left // 86400)
        if left < SOON_SECONDS:
            return warning(
                name,
                f"the certificate of {host} ends in {days} days",
                "Renew it; look at why that has not happened by itself.",
            )
        return ok(name, f"{host} has a certificate for {days} more days, {version}")

    def discovery(self) -> Finding:
        """
        @return: whether the documents that clients begin with come through unchanged.
        """
        wanted = {
            AUTHORIZATION_SERVER_PATH: ("issuer", self._url),
            PROTECTED_RESOURCE_PATH: ("resource", f"{self._url}{MCP_PATH}"),
            PROTECTED_RESOURCE_PATH + MCP_PATH: ("resource", f"{self._url}{MCP_PATH}"),
        }
        for path, (member, value) in wanted.items():
            problem = self._document_problem(path, member, value)
            if problem is not None:
                return failed(
                    "discovery",
                    f"{self._url}{path}: {problem}",
                    "Have the reverse proxy pass /.well-known/ to the daemon, too, and "
                    "see that server.public_url is the URL that clients use.",
                )
        return ok("discovery", "the discovery documents are as clients need them")

    def _document_problem(self, path: str, member: str, value: str) -> str | None:
        try:
            answer = self._public.fetch(self._url + path)
        except FetchError as error:
            return str(error)
        document = _json(answer)
        if answer.status != 200 or document is None:
            return f"no document, status {answer.status}"
        if document.get(member) != value:
            return f"{member} is {document.get(member)!r}, not {value!r}"
        return None

    def challenge(self) -> Finding:
        """
        @return: whether a client without a token learns where to get one.
        """
        name = "challenge"
        fix = (
            "Have the reverse proxy pass /mcp to the daemon with all methods and "
            "headers, the answer's WWW-Authenticate included, and without a login of "
            "its own."
        )
        try:
            answer = self._ask()
            told = self._ask({"Authorization": "Bearer doctor"})
        except FetchError as error:
            return failed(name, f"{self._url}{MCP_PATH}: {error}", fix)
        if 429 in (answer.status, told.status):
            return skipped(name, "this machine has asked too often; try again later")
        header = answer.headers.get("www-authenticate", "")
        expected = f'resource_metadata="{self._url}{PROTECTED_RESOURCE_PATH}'
        if answer.status != 401 or expected not in header:
            shown = f"status {answer.status}, WWW-Authenticate: {header or 'none'}"
            return failed(name, f"{MCP_PATH} does not ask for a token ({shown})", fix)
        if "invalid_token" not in told.headers.get("www-authenticate", ""):
            return failed(
                name,
                f"a token that is sent to {MCP_PATH} does not arrive",
                "Have the reverse proxy pass the Authorization header to the daemon.",
            )
        return ok(name, f"{MCP_PATH} asks for a token and says where to get one")

    def _ask(self, more: Mapping[str, str] | None = None) -> Answer:
        return self._public.fetch(
            f"{self._url}{MCP_PATH}",
            body=b"{}",
            headers={"Content-Type": "application/json", **(more or {})},
        )

    def streaming(self) -> Finding:
        """
        @return: whether what the daemon says in pieces arrives in pieces.
        """
        name = "streaming"
        try:
            answer = self._public.fetch(
                f"{self._url}{STREAM_PATH}",
                # As clients do: a proxy may hold back what it compresses.
                headers={"Accept": "text/event-stream", "Accept-Encoding": "gzip"},
            )
        except FetchError as error:
            return failed(
                name,
                f"{self._url}{STREAM_PATH}: {error}",
                "Look at the reverse proxy's log.",
            )
        if answer.status == 429:
            return skipped(name, f"{STREAM_PATH} answered with {answer.status}")
        if answer.status != 200:
            return failed(
                name,
                f"{STREAM_PATH} answered with {answer.status}",
                "Have the reverse proxy pass every path of this host to the daemon.",
            )
        if _seconds_between_events(answer) < _LEAST_SECONDS:
            return failed(
                name,
                "a stream arrives all at once: something holds it back until its end",
                "Switch off response buffering in the reverse proxy, and compression "
                "of text/event-stream: `flush_interval -1` in Caddy, `proxy_buffering "
                "off` in nginx.",
            )
        return ok(name, "streams arrive as they are sent")


def _seconds_between_events(answer: Answer) -> float:
    """
    @return: from when the first event could be read until the end; 0 without one.
    """
    is_compressed = answer.headers.get("content-encoding") == "gzip"
    inflate = zlib.decompressobj(wbits=_GZIP).decompress if is_compressed else bytes
    seen = b""
    for seconds, piece in answer.pieces:
        try:
            seen += inflate(piece)
        except zlib.error:
            return 0.0
        if b"\n\n" in seen:
            return answer.pieces[-1][0] - seconds
    return 0.0


def _text(error: OSError) -> str:
    return error.strerror or str(error) or type(error).__name__


def _json(answer: Answer) -> dict[str, Any] | None:
    try:
        document = json.loads(answer.body)
    except ValueError:
        return None
    return document if isinstance(document, dict) else None


def _health(answer: Answer) -> dict[str, Any] | None:
    document = _json(answer)
    is_ours = document is not None and {"status", "store", "version"} <= document.keys()
    return document if is_ours else None
