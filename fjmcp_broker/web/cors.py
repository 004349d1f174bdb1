"""
What scripts of other sites may do here (Fetch standard, section 3.3, CORS protocol).

Discovery, registration and the token side answer every origin: they use no cookie, and
whoever calls them proves everything in the request itself. The MCP endpoint answers the
origins that L{fjmcp_broker.web.origins.OriginPolicy} allows. Pages that people visit
answer none. C{Access-Control-Allow-Credentials} is never sent.
"""

import re
from collections.abc import Iterable
from typing import Any, Final

from twisted.web.http import Request

from fjmcp_broker.oauth.vocabulary import REGISTER_PATH, REVOKE_PATH, TOKEN_PATH

WELL_KNOWN: Final = "/.well-known/"
"""Clients try several documents below; a script has to be able to read that one is
not there."""

MCP_METHODS: Final = b"POST, GET, DELETE, OPTIONS"

_OPEN_PATHS: Final = frozenset({REGISTER_PATH, REVOKE_PATH, TOKEN_PATH})

_MAXIMUM_AGE_SECONDS: Final = b"86400"
_OAUTH_REQUEST_HEADERS: Final = (
    b"Authorization, Content-Type, Accept, MCP-Protocol-Version, X-Requested-With"
)
_OAUTH_EXPOSED: Final = b"WWW-Authenticate, Retry-After"
_MCP_REQUEST_HEADERS: Final = (
    b"Authorization, Content-Type, Accept, Last-Event-ID, Mcp-Session-Id,"
    b" MCP-Protocol-Version, Mcp-Method, Mcp-Name"
)
_MCP_EXPOSED: Final = (
    b"Mcp-Session-Id, MCP-Protocol-Version, WWW-Authenticate, Retry-After"
)
_PARAMETER_HEADER: Final = re.compile(rb"(?i:mcp-param-)[!#$%&'*+.^_`|~0-9A-Za-z-]+")


def is_open_to_all(path: str) -> bool:
    """
    @param path: as requested, without the query; controlled by the client.
    @return: whether scripts of every site may read the answers there.
    """
    return path in _OPEN_PATHS or path.startswith(WELL_KNOWN)


def answer_all(request: Request) -> None:
    """
    Let scripts of every site read this answer, whatever it will be.

    @param request: of a path that L{is_open_to_all}.
    """
    headers = request.responseHeaders
    headers.setRawHeaders(b"Access-Control-Allow-Origin", [b"*"])
    headers.setRawHeaders(b"Access-Control-Expose-Headers", [_OAUTH_EXPOSED])


def answer_preflight(request: Request, methods: Iterable[str]) -> None:
    """
    Set the headers of the answer to an OPTIONS, which has no body.

    @param request: of a path that L{is_open_to_all}.
    @param methods: that the path has.
    """
    allowed = ", ".join(sorted({"OPTIONS", *methods})).encode("ascii")
    request.setResponseCode(204)
    request.setHeader(b"Allow", allowed)
    request.setHeader(b"Access-Control-Allow-Methods", allowed)
    request.setHeader(b"Access-Control-Allow-Headers", _OAUTH_REQUEST_HEADERS)
    request.setHeader(b"Access-Control-Max-Age", _MAXIMUM_AGE_SECONDS)


def has_origin(request: Request) -> bool:
    """
    @param request: any.
    @return: whether it names the site whose script sent it, or pretends to.
    """
    return request.getHeader(b"origin") is not None


def answer_origin(request: Request) -> None:
    """
    Let the script that sent this request to the MCP endpoint read the answer, whatever
    it will be: 401 and 413 leave before anything else is known.

    @param request: its C{Origin}, if it has one, is allowed.
    """
    origin = request.getHeader(b"origin")
    if origin is None:
        return
    headers = request.responseHeaders
    headers.setRawHeaders(b"Access-Control-Allow-Origin", [origin])
    headers.setRawHeaders(b"Access-Control-Expose-Headers", [_MCP_EXPOSED])
    headers.setRawHeaders(b"Vary", [b"Origin"])


def mcp_preflight(request: Request) -> dict[bytes, bytes]:
    """
    @param request: an OPTIONS of the MCP endpoint; its C{Origin} is allowed.
    @return: the headers of the answer. The names of C{Mcp-Param-*} headers are the
        child's choice (MCP 2026-07-28, streamable HTTP, custom headers from tool
        parameters), so whichever of them the browser asks for are allowed.
    """
    headers = {b"Allow": MCP_METHODS}
    if request.getHeader(b"origin") is None:
        return headers
    asked: Any = request.requestHeaders.getRawHeaders(b"access-control-request-headers")
    names = (name.strip() for value in asked or [] for name in value.split(b","))
    parameters = (name for name in names if _PARAMETER_HEADER.fullmatch(name))
    headers[b"Access-Control-Allow-Methods"] = MCP_METHODS
    headers[b"Access-Control-Allow-Headers"] = b", ".join(
        (_MCP_REQUEST_HEADERS, *parameters)
    )
    headers[b"Access-Control-Max-Age"] = _MAXIMUM_AGE_SECONDS
    return headers
