"""
Which C{Host} and C{Origin} a request may name: against DNS rebinding and against
pages of other sites.
"""

from collections.abc import Iterable
from functools import lru_cache
from urllib.parse import urlsplit

from twisted.web.iweb import IRequest

_DEFAULT_PORTS = {"http": 80, "https": 443}
_LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "::1"})


class OriginPolicy:
    """
    The origins that belong to C{public_url}, and those the operator added. When
    C{public_url} is a loopback URL, the three loopback names are allowed with any
    port, because people and tools mix them.

    @ivar public_url: the validated origin of this service.
    """

    def __init__(self, public_url: str, allowed_origins: Iterable[str] = ()) -> None:
        """
        @param public_url: the validated origin of this service.
        @param allowed_origins: further origins of browser-based clients.
        """
        self.public_url = public_url
        parts = urlsplit(public_url)
        self._scheme = parts.scheme
        self._host = (parts.hostname or "", parts.port or _DEFAULT_PORTS[parts.scheme])
        self._origins = frozenset(
            origin
            for origin in map(_split_origin, (public_url, *allowed_origins))
            if origin is not None
        )
        self._loopback = self._host[0] in _LOOPBACK_NAMES

    def allows_host(self, request: IRequest) -> bool:
        """
        @param request: any request.
        @return: whether its one C{Host} header names this service. None at all is
            not allowed either: HTTP/1.1 requires it (RFC 9112 section 3.2).
        """
        values = request.requestHeaders.getRawHeaders(b"host") or []
        if len(values) != 1:
            return False
        origin = _split_origin(f"{self._scheme}://{values[0].decode('latin-1')}")
        if origin is None:
            return False
        _, host, port = origin
        if self._loopback and host in _LOOPBACK_NAMES:
            return True
        return (host, port) == self._host

    def allows_origin(self, request: IRequest) -> bool:
        """
        @param request: any request.
        @return: whether it names no C{Origin}, as everything but browsers does, or
            one that is allowed.
        """
        values = request.requestHeaders.getRawHeaders(b"origin") or []
        if not values:
            return True
        if len(values) != 1:
            return False
        origin = _split_origin(values[0].decode("latin-1"))
        if origin is None:
            return False
        scheme, host, _ = origin
        if self._loopback and scheme in _DEFAULT_PORTS and host in _LOOPBACK_NAMES:
            return True
        return origin in self._origins


@lru_cache(maxsize=64)
def _split_origin(text: str) -> tuple[str, str, int] | None:
    """
    Scheme, host and port of an origin; C{None} when it is not one (C{null} too).
    """
    try:
        parts = urlsplit(text)
        host, port = parts.hostname, parts.port
    except ValueError:
        return None
    if (
        not host
        or not text.isascii()
        or not text.isprintable()
        or " " in text
        or parts.path
        or parts.query
        or parts.fragment
        or "?" in text
        or "#" in text
        or "@" in parts.netloc
        or parts.netloc.endswith(":")
    ):
        return None
    if port is None:
        port = _DEFAULT_PORTS.get(parts.scheme)
        if port is None:
            return None
    return parts.scheme, host, port
