"""
Reading the parameters of a request: the site parses no form by itself.
"""

from typing import Final

from twisted.web.iweb import IRequest

from fjmcp_broker.oauth.errors import invalid_request
from fjmcp_broker.oauth.parameters import Parameters, parse_parameters

#: Far above any OAuth request; two thousand times a token.
MAXIMUM_FORM_BYTES: Final = 65_536
MAXIMUM_QUERY_BYTES: Final = 16_384

_FORM_TYPE: Final = b"application/x-www-form-urlencoded"


def media_type(request: IRequest) -> tuple[bytes, dict[bytes, bytes]]:
    """
    @param request: any request.
    @return: its C{Content-Type} in lower case, without parameters, and these by
        lower-case name, in lower case too; empty when there is none.
    """
    values = request.requestHeaders.getRawHeaders(b"content-type") or [b""]
    kind, *rest = values[-1].lower().split(b";")
    parameters = {}
    for piece in rest:
        name, _, value = piece.partition(b"=")
        parameters[name.strip()] = value.strip().strip(b'"')
    return kind.strip(), parameters


def read_body(request: IRequest, maximum_bytes: int = MAXIMUM_FORM_BYTES) -> bytes:
    """
    @param request: whose body has arrived.
    @param maximum_bytes: more is refused.
    @return: the body, controlled by the peer.
    @raise OAuthError: C{invalid_request} with status 413: it is longer.
    """
    request.content.seek(0)
    body: bytes = request.content.read(maximum_bytes + 1)
    if len(body) > maximum_bytes:
        raise invalid_request("the request body is too large", 413)
    return body


def form_bytes(request: IRequest, maximum_bytes: int = MAXIMUM_FORM_BYTES) -> bytes:
    """
    @param request: whose body has arrived.
    @param maximum_bytes: more is refused.
    @return: its body, which says that it is a form in UTF-8.
    @raise OAuthError: C{invalid_request}, with status 413 for a long body, 415 for
        another media type.
    """
    kind, parameters = media_type(request)
    if kind != _FORM_TYPE:
        raise invalid_request("the body must be application/x-www-form-urlencoded", 415)
    if parameters.get(b"charset", b"utf-8") not in (b"utf-8", b"utf8"):
        raise invalid_request("the body must be UTF-8", 415)
    return read_body(request, maximum_bytes)


def query_bytes(request: IRequest, maximum_bytes: int = MAXIMUM_QUERY_BYTES) -> bytes:
    """
    @param request: any request.
    @param maximum_bytes: more is refused.
    @return: the query of its target, not decoded.
    @raise OAuthError: C{invalid_request} with status 414: it is longer.
    """
    query: bytes = request.uri.partition(b"?")[2]
    if len(query) > maximum_bytes:
        raise invalid_request("the query is too long", 414)
    return query


def read_form(request: IRequest, maximum_bytes: int = MAXIMUM_FORM_BYTES) -> Parameters:
    """
    Read the form of a POST request (RFC 6749 section 4.1.3: form-encoded, UTF-8, in
    the body). What its query says does not count.

    @param request: whose body has arrived.
    @param maximum_bytes: more is refused.
    @return: the parameters.
    @raise OAuthError: C{invalid_request}, see L{form_bytes}.
    """
    return parse_parameters(form_bytes(request, maximum_bytes))


def read_query(request: IRequest) -> Parameters:
    """
    Read the parameters in the request target (RFC 6749 section 4.1.1).

    @param request: any request.
    @return: the parameters.
    @raise OAuthError: C{invalid_request}, see L{query_bytes}.
    """
    return parse_parameters(query_bytes(request))
