"""
The authorization request: what a client asks for, and the redirect that answers it.

A repeated parameter is no reason to give up before it is known where an error may be
sent: where the client and its redirect URI are beyond doubt, the refusal is told to
the client (RFC 6749 section 4.1.2.1). So these functions take pairs as sent.
"""

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, Final, Self

import msgspec
from msgspec.structs import asdict

from fjmcp_broker.oauth.clients import KNOWN_SCOPES, Client
from fjmcp_broker.oauth.errors import OAuthError
from fjmcp_broker.oauth.parameters import REPEATABLE, Pairs
from fjmcp_broker.oauth.redirect_uris import find_registered, with_parameters
from fjmcp_broker.oauth.vocabulary import ErrorCode
from fjmcp_broker.secret import Confidential

MAXIMUM_STATE_LENGTH: Final = 4096

_CHALLENGE: Final = re.compile(r"[A-Za-z0-9._~-]{43,128}")
_OUR_PARAMETERS: Final = frozenset(
    {
        "client_id",
        "code_challenge",
        "code_challenge_method",
        "redirect_uri",
        "response_type",
        "scope",
        "state",
    }
)


class AuthorizationRequest(Confidential, msgspec.Struct, frozen=True):
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
        return json.dumps(asdict(self), separators=(",", ":"))

    def parameters(self) -> list[tuple[str, str]]:
        """
        @return: the same request as parameters of the authorization endpoint, for a
            link that asks once more.
        """
        optional = (
            ("redirect_uri", self.redirect_uri if self.redirect_uri_given else None),
            ("state", self.state),
            ("scope", None if self.scope is None else " ".join(self.scope)),
        )
        return [
            ("response_type", "code"),
            ("client_id", self.client_id),
            ("code_challenge", self.code_challenge),
            ("code_challenge_method", "S256"),
            ("resource", self.resource),
            *((name, value) for name, value in optional if value is not None),
        ]

    @classmethod
    def from_json(cls, text: str) -> Self:
        """
        @param text: what L{AuthorizationRequest.to_json} gave.
        @return: an equal record.
        """
        return cls.from_values(json.loads(text))

    @classmethod
    def from_values(cls, values: Mapping[str, Any]) -> Self:
        """
        @param values: the members of what L{AuthorizationRequest.to_json} gave.
        @return: an equal record.
        """
        scope = values["scope"]
        return cls(**{**values, "scope": None if scope is None else tuple(scope)})


class Target(msgspec.Struct, frozen=True):
    """
    Where an answer may go, known before anything else about the request is.

    @ivar redirect_uri: allowed and registered, as the request spelt it.
    @ivar given: whether the request named it.
    """

    redirect_uri: str
    given: bool


def present(parameters: Pairs, name: str) -> list[str]:
    """
    @param parameters: name and value in the order sent, controlled by the client.
    @return: the values of one parameter; a parameter without a value counts as
        absent (RFC 6749 section 3.1).
    """
    return [value for key, value in parameters if key == name and value]


def named_client(parameters: Pairs) -> str:
    """
    @param parameters: of the authorization request, controlled by the client.
    @return: the C{client_id}.
    @raise OAuthError: there is not exactly one; to be shown on a page, never
        redirected (RFC 6749 section 4.1.2.1).
    """
    values = present(parameters, "client_id")
    if len(values) != 1:
        raise _refused("the request must name its client_id exactly once")
    return values[0]


def pin_redirect_uri(parameters: Pairs, client: Client) -> Target:
    """
    Find out where the answer goes.

    @param parameters: of the authorization request, controlled by the client.
    @param client: the client it names.
    @return: the redirect URI, one of the registered ones.
    @raise OAuthError: there is none; to be shown on a page, never redirected
        (RFC 6749 section 4.1.2.1, RFC 9700 section 4.1).
    """
    values = present(parameters, "redirect_uri")
    if not values:
        if len(client.redirect_uris) != 1:
            raise _refused("the request must name its redirect_uri")
        return Target(client.redirect_uris[0], given=False)
    if len(values) != 1:
        raise _refused("the request must name its redirect_uri only once")
    uri = find_registered(client.redirect_uris, values[0])
    if uri is None:
        raise _refused("the redirect_uri is not registered for this application")
    return Target(uri, given=True)


def client_state(parameters: Pairs) -> str | None:
    """
    @param parameters: of the authorization request, controlled by the client.
    @return: the C{state} to give back, also with an error, or C{None}: none, or
        more than one.
    """
    values = present(parameters, "state")
    return values[0] if len(values) == 1 else None


def parse_authorization_request(
    parameters: Pairs, client: Client, target: Target, public_url: str
) -> AuthorizationRequest:
    """
    Check the rest of the request, once it is known where an error may be sent.

    Scopes that we do not know are ignored: clients ask for C{offline_access} or
    C{openid} out of habit, and RFC 6749 section 3.3 lets a server issue less than
    was asked for. When nothing known remains the scope counts as absent, so the user
    chooses. C{invalid_scope} is therefore never sent.

    @param parameters: name and value in the order sent, controlled by the client.
    @param client: the client it names.
    @param target: from L{pin_redirect_uri}.
    @param public_url: the issuer, an origin without trailing slash.
    @return: the request in the form in which it is kept.
    @raise OAuthError: for a redirect with L{error_redirect}.
    """
    repeated = _first_repeated(parameters)
    if repeated is not None:
        # RFC 6749 section 3.1; RFC 8707 section 2 permits several resources.
        raise _refused(f"the parameter {repeated} must not be repeated")
    values = {name: value for name, value in parameters if value}
    response_type = values.get("response_type")
    if response_type is None:
        raise _refused("response_type is missing")
    if response_type != "code":
        raise OAuthError(
            ErrorCode.UNSUPPORTED_RESPONSE_TYPE, "the only response_type is code"
        )
    if len(values.get("state", "")) > MAXIMUM_STATE_LENGTH:
        raise _refused(f"state is longer than {MAXIMUM_STATE_LENGTH} characters")
    return AuthorizationRequest(
        client_id=client.client_id,
        redirect_uri=target.redirect_uri,
        redirect_uri_given=target.given,
        state=values.get("state"),
        scope=known_scopes(values.get("scope", "")),
        code_challenge=_code_challenge(values),
        resource=_resource(present(parameters, REPEATABLE), public_url),
    )


def known_scopes(scope: str) -> tuple[str, ...] | None:
    """
    @param scope: space separated, controlled by the client.
    @return: the ones that we know, sorted, or C{None}: none of them.
    """
    known = {word for word in scope.split(" ") if word in KNOWN_SCOPES}
    return tuple(sorted(known)) or None


def _first_repeated(parameters: Pairs) -> str | None:
    seen: set[str] = set()
    for name, _ in parameters:
        if name != REPEATABLE and name in seen:
            return name if name in _OUR_PARAMETERS else "of another name"
        seen.add(name)
    return None


def _code_challenge(values: Mapping[str, str]) -> str:
    challenge = values.get("code_challenge")
    if challenge is None:
        raise _refused("code_challenge is missing: PKCE is required")
    # RFC 7636 section 4.3: without a method it would be "plain".
    if values.get("code_challenge_method") != "S256":
        raise _refused("code_challenge_method must be S256")
    if _CHALLENGE.fullmatch(challenge) is None:
        raise _refused("code_challenge must be 43 to 128 unreserved characters")
    return challenge


def _resource(values: Sequence[str], public_url: str) -> str:
    if not all(is_our_resource(value, public_url) for value in values):
        raise OAuthError(
            ErrorCode.INVALID_TARGET, "the resource is not one of this server's"
        )
    return f"{public_url}/mcp"


def is_our_resource(resource: str, public_url: str) -> bool:
    """
    @param resource: a resource indicator (RFC 8707), controlled by the client.
    @param public_url: the issuer, an origin without trailing slash.
    @return: whether it is the MCP endpoint or the bare origin, with or without a
        trailing slash; scheme and host in any case (MCP 2026-07-28, authorization,
        canonical server URI).
    """
    origin, path = resource[: len(public_url)], resource[len(public_url) :]
    is_our_origin = origin.isascii() and origin.lower() == public_url.lower()
    return is_our_origin and path in ("", "/", "/mcp", "/mcp/")


def _refused(problem: str) -> OAuthError:
    return OAuthError(ErrorCode.INVALID_REQUEST, problem)


def success_redirect(request: AuthorizationRequest, *, code: str, issuer: str) -> str:
    """
    @param request: the request to answer.
    @param code: the authorization code in plain text.
    @param issuer: for C{iss} (RFC 9207), so that a client can tell which of its
        authorization servers answered.
    @return: the address to send the browser to (RFC 6749 section 4.1.2).
    """
    parameters = [("code", code), *_common(request.state, issuer)]
    return with_parameters(request.redirect_uri, parameters)


def error_redirect(
    redirect_uri: str, state: str | None, error: OAuthError, *, issuer: str
) -> str:
    """
    @param redirect_uri: pinned, registered.
    @param state: the client's own.
    @param error: what to tell the client.
    @param issuer: for C{iss} (RFC 9207 section 2 asks for it in errors too).
    @return: the address to send the browser to (RFC 6749 section 4.1.2.1).
    """
    parameters = [
        ("error", str(error.code)),
        ("error_description", error.description),
        *_common(state, issuer),
    ]
    return with_parameters(redirect_uri, parameters)


def _common(state: str | None, issuer: str) -> list[tuple[str, str]]:
    return [*([] if state is None else [("state", state)]), ("iss", issuer)]
