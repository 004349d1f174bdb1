"""
The authorization request: what a client asks for, and the redirect that answers it.
"""

import json
from typing import Self

import attrs


@attrs.frozen
class AuthorizationRequest:
    """
    A validated authorization request (RFC 6749 section 4.1.1, RFC 7636, RFC 8707).

    @ivar client_id: the client that asks.
    @ivar redirect_uri: where the answer goes; pinned here, never read again from
        anything that the browser sends.
    @ivar redirect_uri_given: whether the request named it (else the client's only
        registered one was taken).
    @ivar state: the client's own, opaque text, or C{None}: it sent none.
    @ivar scope: the known scopes asked for, sorted, or C{None}: the user chooses.
    @ivar code_challenge: S256 challenge, 43 to 128 unreserved characters.
    @ivar resource: the MCP endpoint, in its one spelling.
    """

    client_id: str
    redirect_uri: str
    redirect_uri_given: bool
    state: str | None
    scope: tuple[str, ...] | None
    code_challenge: str
    resource: str

    def to_json(self) -> str:
        """
        @return: one JSON object for the store.
        """
        return json.dumps(attrs.asdict(self), separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> Self:
        """
        @param text: what L{AuthorizationRequest.to_json} gave.
        @return: an equal record.
        """
        values = json.loads(text)
        scope = values.pop("scope")
        return cls(scope=None if scope is None else tuple(scope), **values)
