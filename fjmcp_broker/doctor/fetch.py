"""
HTTP as the doctor needs it: one request at a time, no redirects, and a word on what
went wrong.
"""

import http.client
import socket
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import urlsplit

import msgspec

from fjmcp_broker.errors import BrokerError

DEFAULT_TIMEOUT_SECONDS: Final = 10.0
MOST_BYTES: Final = 1024 * 1024
_PIECE_BYTES: Final = 65536


class FetchError(BrokerError):
    """
    There was no answer.

    @ivar kind: C{name}, C{refused}, C{timeout}, C{tls} or C{other}.
    """

    def __init__(self, kind: str, reason: str) -> None:
        """
        @param kind: as above.
        @param reason: end of a sentence.
        """
        super().__init__(reason)
        self.kind = kind


class Answer(msgspec.Struct, frozen=True):
    """
    An answer.

    @ivar status: of HTTP.
    @ivar headers: by lower-case name; of several the last.
    @ivar pieces: its body as it came, up to a mebibyte, each piece with the seconds
        after the request.
    """

    status: int
    headers: Mapping[str, str]
    pieces: tuple[tuple[float, bytes], ...] = ()

    @property
    def body(self) -> bytes:
        """
        The whole of it.
        """
        return b"".join(piece for _, piece in self.pieces)


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *arguments: Any) -> None:  # the base class says so
        """Hand the answer back as it is."""


class _UnixHandler(urllib.request.HTTPHandler):
    """Speaks HTTP to a Unix socket, whatever the host is called."""

    def __init__(self, path: str) -> None:
        super().__init__()
        self._path = path

    def http_open(self, request: urllib.request.Request) -> Any:  # as the base class
        path = self._path

        class Connection(http.client.HTTPConnection):
            def connect(self) -> None:
                self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
                if isinstance(self.timeout, float | int):
                    self.sock.settimeout(self.timeout)
                self.sock.connect(path)

        return self.do_open(Connection, request)


class Fetcher:
    """
    Fetches from one place.
    """

    def __init__(
        self,
        *,
        trust: ssl.SSLContext | None = None,
        proxy: str | None = None,
        unix_path: str | None = None,
        is_direct: bool = False,
        timeout_seconds: float = DEFAULT_TIMEOUT_SECONDS,
    ) -> None:
        """
        @param trust: for https; what the system trusts unless given.
        @param proxy: for every request; C{None}: as the environment says.
        @param unix_path: a socket to speak to instead of the network.
        @param is_direct: whatever the environment says, no proxy.
        @param timeout_seconds: for each step of a request.
        """
        handlers: list[urllib.request.BaseHandler] = [
            _NoRedirects(),
            urllib.request.HTTPSHandler(context=trust or ssl.create_default_context()),
        ]
        if unix_path is not None:
            handlers.append(_UnixHandler(unix_path))
        if proxy is not None:
            both = {"http": proxy, "https": proxy}
            handlers.append(urllib.request.ProxyHandler(both))
        elif is_direct or unix_path is not None:
            handlers.append(urllib.request.ProxyHandler({}))
        self._opener = urllib.request.build_opener(*handlers)
        self._timeout_seconds = timeout_seconds

    def fetch(
        self,
        url: str,
        *,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """
        @param url: what to fetch.
        @param body: makes it a POST.
        @param headers: of the request.
        @return: the answer, whatever its status.
        @raise FetchError: there was none.
        """
        request = urllib.request.Request(  # noqa: S310 - of the configuration's URLs
            url, data=body, headers=dict(headers or {})
        )
        began = time.monotonic()
        try:
            try:
                response = self._opener.open(request, timeout=self._timeout_seconds)
            except urllib.error.HTTPError as error:
                response = error
            with response:
                pieces, size = [], 0
                while size < MOST_BYTES and (piece := response.read1(_PIECE_BYTES)):
                    pieces.append((time.monotonic() - began, piece))
                    size += len(piece)
                return Answer(
                    response.status or 0,
                    {name.lower(): text for name, text in response.headers.items()},
                    tuple(pieces),
                )
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise _explained(error, url, self._timeout_seconds) from None


def _explained(error: Exception, url: str, timeout_seconds: float) -> FetchError:
    cause = error.reason if isinstance(error, urllib.error.URLError) else error
    host = urlsplit(url).hostname
    match cause:
        case ssl.SSLCertVerificationError():
            return FetchError("tls", f"its certificate: {cause.verify_message}")
        case ssl.SSLError():
            return FetchError("tls", f"TLS failed: {cause.reason or cause}")
        case socket.gaierror():
            return FetchError("name", f"the name {host} has no address")
        case TimeoutError():
            return FetchError("timeout", f"no answer within {timeout_seconds:g} s")
        case ConnectionRefusedError() | FileNotFoundError():
            return FetchError("refused", "nothing listens there")
        case OSError():
            return FetchError("other", cause.strerror or str(cause))
    return FetchError("other", str(cause) or type(cause).__name__)
