"""
Parameters of OAuth requests, from the query or from a form: strict, once each.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Final

import msgspec

from fjmcp_broker.oauth.errors import invalid_request
from fjmcp_broker.secret import Confidential

#: RFC 8707 section 2 lets this one be repeated, and no other.
REPEATABLE: Final = "resource"

MAXIMUM_PARAMETERS: Final = 100

_ESCAPE: Final = re.compile(rb"%([0-9A-Fa-f]{2})?")
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f]")


Pairs = Sequence[tuple[str, str]]


class Parameters(Confidential, msgspec.Struct, frozen=True):
    """
    Decoded request parameters. One sent without a value counts as not sent (RFC
    6749 sections 3.1 and 3.2).

    @ivar values: by name, C{resource} not among them.
    @ivar resources: the values of C{resource}, in order.
    """

    values: Mapping[str, str] = msgspec.field(default_factory=dict)
    resources: tuple[str, ...] = ()

    def get(self, name: str) -> str | None:
        """
        @param name: of the parameter.
        @return: its value, controlled by the peer; never empty.
        """
        return self.values.get(name)

    def require(self, name: str) -> str:
        """
        @param name: of the parameter.
        @return: its value, controlled by the peer; never empty.
        @raise OAuthError: C{invalid_request}: it is missing.
        """
        value = self.values.get(name)
        if value is None:
            raise invalid_request(f"{name} is missing")
        return value


def decode_component(raw: bytes) -> str:
    """
    Decode one name or value of C{application/x-www-form-urlencoded}.

    @param raw: controlled by the peer.
    @return: text without control characters.
    @raise OAuthError: C{invalid_request}: a broken escape, not UTF-8, or a control
        character, which no OAuth parameter may contain (RFC 6749 appendix A).
    """

    def unescape(match: re.Match[bytes]) -> bytes:
        if match[1] is None:
            raise invalid_request("a parameter has a broken percent escape")
        return bytes((int(match[1], 16),))

    try:
        text = _ESCAPE.sub(unescape, raw.replace(b"+", b" ")).decode("utf-8")
    except UnicodeDecodeError:
        raise invalid_request("a parameter is not UTF-8") from None
    if _CONTROL.search(text):
        raise invalid_request("a parameter has a control character")
    return text


def read_pairs(encoded: bytes) -> Pairs:
    """
    Decode parameters and keep repeated ones.

    @param encoded: a query string or form body, controlled by the peer.
    @return: name and value in the order sent.
    @raise OAuthError: C{invalid_request}: it cannot be decoded, or there are too
        many.
    """
    pieces = encoded.split(b"&", MAXIMUM_PARAMETERS)
    if len(pieces) > MAXIMUM_PARAMETERS:
        raise invalid_request("too many parameters")
    return [
        (decode_component(name), decode_component(value))
        for name, _, value in (piece.partition(b"=") for piece in pieces if piece)
    ]


def parse_parameters(encoded: bytes) -> Parameters:
    """
    @param encoded: a query string or form body, controlled by the peer.
    @return: what it says.
    @raise OAuthError: C{invalid_request}: as L{read_pairs}; or a parameter other
        than C{resource} is repeated (RFC 6749 section 3.1: parameters must not be
        included more than once).
    """
    seen: set[str] = set()
    values: dict[str, str] = {}
    resources: list[str] = []
    for name, value in read_pairs(encoded):
        if name == REPEATABLE:
            if value:
                resources.append(value)
            continue
        if name in seen:
            raise invalid_request("a parameter is repeated")
        seen.add(name)
        if value:
            values[name] = value
    return Parameters(values=values, resources=tuple(resources))
