"""
Requests to the token and revocation endpoints: what they ask, and who asks.
"""

import re
from base64 import b64decode
from binascii import Error as Base64Error
from typing import Final

import msgspec

from fjmcp_broker.oauth.authorization import is_our_resource
from fjmcp_broker.oauth.clients import Client
from fjmcp_broker.oauth.errors import OAuthError, invalid_request
from fjmcp_broker.oauth.parameters import Parameters, decode_component
from fjmcp_broker.oauth.tokens import digest_matches
from fjmcp_broker.oauth.vocabulary import ErrorCode, GrantType, Scope
from fjmcp_broker.secret import Confidential

# RFC 6749 section 3.3: scope-token = 1*( %x21 / %x23-5B / %x5D-7E )
_SCOPE: Final = re.compile(r"[\x21\x23-\x5b\x5d-\x7e]+(?: +[\x21\x23-\x5b\x5d-\x7e]+)*")
_BASIC: Final = re.compile(rb"(?i:basic) +([A-Za-z0-9+/]+=*)")
_KNOWN_SCOPES: Final = frozenset(Scope)


class ClientCredentials(Confidential, msgspec.Struct, frozen=True):
    """
    Who a request says it comes from.

    @ivar client_id: controlled by the peer.
    @ivar secret: the client secret as presented, or C{None}.
    """

    client_id: str
    secret: str | None = None


class CodeRequest(Confidential, msgspec.Struct, frozen=True):
    """
    An access token request with an authorization code (RFC 6749 section 4.1.3).

    @ivar code: controlled by the peer.
    @ivar verifier: PKCE verifier, any text (RFC 7636 section 4.5).
    @ivar redirect_uri: to be compared when it is there.
    """

    code: str
    verifier: str
    redirect_uri: str | None = None


class RefreshRequest(Confidential, msgspec.Struct, frozen=True):
    """
    A request to refresh (RFC 6749 section 6).

    @ivar refresh_token: controlled by the peer.
    @ivar scope: the known scopes asked for, or C{None}: all that was granted.
    """

    refresh_token: str
    scope: frozenset[Scope] | None = None


def invalid_client(description: str) -> OAuthError:
    """
    @param description: what is wrong with the client or its proof.
    @return: the 401 of RFC 6749 section 5.2. It always has the challenge that goes
        with a 401 (RFC 9110 section 15.5.2); Basic is the only scheme there is.
    """
    return OAuthError(
        ErrorCode.INVALID_CLIENT,
        description,
        401,
        headers={"WWW-Authenticate": 'Basic realm="fjmcp-broker", charset="UTF-8"'},
    )


def parse_client_credentials(
    parameters: Parameters, authorization: bytes | None
) -> ClientCredentials:
    """
    Read who asks (RFC 6749 sections 2.3.1 and 3.2.1).

    @param parameters: the form.
    @param authorization: the C{Authorization} header, or C{None}.
    @return: what the request says; nothing is proven yet.
    @raise OAuthError: C{invalid_request}: no client id, two different ones, or two
        methods at once (RFC 6749 section 2.3); C{invalid_client}: a header that is
        not Basic.
    """
    body_id, body_secret = parameters.get("client_id"), parameters.get("client_secret")
    if authorization is None:
        if body_id is None:
            raise invalid_request("client_id is missing")
        return ClientCredentials(body_id, body_secret)
    client_id, secret = _parse_basic(authorization)
    if body_secret is not None:
        raise invalid_request("the client must use one authentication method only")
    if body_id is not None and body_id != client_id:
        raise invalid_request("client_id differs from the Authorization header")
    # RFC 6749 section 2.3.1: an empty secret may be left out; so it is no secret.
    return ClientCredentials(client_id, secret or None)


def _parse_basic(authorization: bytes) -> tuple[str, str]:
    match = _BASIC.fullmatch(authorization.strip(b" \t"))
    try:
        if match is None:
            raise ValueError
        user, colon, password = b64decode(match[1], validate=True).partition(b":")
        if not user or not colon:
            raise ValueError
        return decode_component(user), decode_component(password)
    except (ValueError, Base64Error, OAuthError):
        raise invalid_client("the Authorization header is not usable") from None


def authenticate_client(credentials: ClientCredentials, client: Client | None) -> None:
    """
    Check the proof. A confidential client may send its secret in the header or in
    the body, whichever it registered: both prove the same, and clients mix them up.

    @param credentials: what the request says.
    @param client: the registered client of that id, or C{None}.
    @raise OAuthError: C{invalid_client} (RFC 6749 section 5.2).
    """
    if client is None:
        raise invalid_client("the client is not registered")
    if client.secret_digest is None:
        if credentials.secret is not None:
            raise invalid_client("the client was not given a secret")
    elif credentials.secret is None:
        raise invalid_client("the client must authenticate")
    elif not digest_matches(credentials.secret, client.secret_digest):
        raise invalid_client("the client secret is wrong")


def parse_token_request(
    parameters: Parameters, public_url: str
) -> CodeRequest | RefreshRequest:
    """
    Read what is asked for.

    @param parameters: the form.
    @param public_url: origin of this service, which is the authority for
        C{resource}.
    @return: the request.
    @raise OAuthError: C{invalid_request}, C{unsupported_grant_type},
        C{invalid_target} (RFC 8707 section 2), C{invalid_scope}.
    """
    grant_type = parameters.require("grant_type")
    request: CodeRequest | RefreshRequest
    if grant_type == GrantType.AUTHORIZATION_CODE:
        request = CodeRequest(
            code=parameters.require("code"),
            verifier=parameters.require("code_verifier"),
            redirect_uri=parameters.get("redirect_uri"),
        )
    elif grant_type == GrantType.REFRESH_TOKEN:
        request = RefreshRequest(
            refresh_token=parameters.require("refresh_token"),
            scope=_parse_scope(parameters.get("scope")),
        )
    else:
        raise OAuthError(
            ErrorCode.UNSUPPORTED_GRANT_TYPE,
            "the grant type is neither authorization_code nor refresh_token",
        )
    if not all(is_our_resource(value, public_url) for value in parameters.resources):
        raise OAuthError(
            ErrorCode.INVALID_TARGET, "the resource is not the one of this server"
        )
    return request


def _parse_scope(text: str | None) -> frozenset[Scope] | None:
    """
    Unknown scopes are left out, as at the authorization endpoint: clients repeat
    C{offline_access} and the like out of habit. At least one must be known.
    """
    if text is None:
        return None
    words = text.split(" ") if _SCOPE.fullmatch(text) else ()
    scope = frozenset(Scope(word) for word in words if word in _KNOWN_SCOPES)
    if not scope:
        raise OAuthError(ErrorCode.INVALID_SCOPE, "none of the scopes is known")
    return scope


def parse_revocation_request(parameters: Parameters) -> str:
    """
    Read what is to be revoked (RFC 7009 section 2.1). The hint is not needed: one
    look finds a token of either kind.

    @param parameters: the form.
    @return: the token, controlled by the peer.
    @raise OAuthError: C{invalid_request}: there is none.
    """
    return parameters.require("token")
