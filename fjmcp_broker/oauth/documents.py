"""
Client metadata documents: what one must say to be taken for a registration
(draft-ietf-oauth-client-id-metadata-document-02 section 4, and MCP 2026-07-28,
authorization, client registration).
"""

from collections.abc import Collection, Mapping
from typing import Final

from fjmcp_broker.oauth.clients import (
    ClientMetadata,
    sanitise_name,
    validate_registration,
)
from fjmcp_broker.oauth.errors import OAuthError
from fjmcp_broker.oauth.redirect_uris import (
    DEFAULT_APPLICATION_SCHEMES,
    redirect_uri_problem,
)
from fjmcp_broker.oauth.strict_json import JsonRefused, parse_object
from fjmcp_broker.oauth.vocabulary import AuthMethod, ErrorCode

#: The draft recommends 5 kilobytes (section 8.7); this leaves room for long lists.
MAXIMUM_DOCUMENT_BYTES: Final = 16 * 1024

#: Of a document, which no secret can be agreed on with (section 4.1).
_SECRETS: Final = ("client_secret", "client_secret_expires_at")

#: Members of a JSON Web Key that only its owner may have (RFC 7518 section 6; C{priv}
#: is that of the algorithm key pairs of RFC 9964). The exponent alone makes an RSA key
#: private; the others are listed all the same, since nothing good has them.
_PRIVATE: Final = frozenset(
    {"d", "p", "q", "dp", "dq", "qi", "oth", "k", "priv"},
)


def read_document(
    body: bytes,
    url: str,
    *,
    application_schemes: Collection[str] = DEFAULT_APPLICATION_SCHEMES,
) -> ClientMetadata:
    """
    Read a fetched document.

    A document is written for all authorization servers, so a redirect URI that is
    not allowed here is passed over when another one is left. A way to authenticate
    that we do not offer is refused, as in a registration: the client would believe
    itself better protected than it is. Without any, the client is public.

    @param body: at most L{MAXIMUM_DOCUMENT_BYTES}, controlled by the client.
    @param url: it was fetched from; the client id.
    @param application_schemes: see L{redirect_uri_problem}.
    @return: what to keep of it; the client is public.
    @raise OAuthError: C{invalid_client_metadata}, in our own words.
    """
    try:
        document = parse_object(body)
    except JsonRefused as error:
        raise _refused(str(error)) from None
    if document.get("client_id") != url:
        raise _refused("its client_id is not the address it was fetched from")
    for member in _SECRETS:
        if document.get(member) is not None:
            raise _refused(f"it must not have {member}")
    if _has_private_key(document.get("jwks")):
        raise _refused("it must not have private keys in its jwks")
    method = document.get("token_endpoint_auth_method")
    if method not in (None, str(AuthMethod.NONE)):
        raise _refused("its token_endpoint_auth_method must be none")
    name = document.get("client_name")
    if not isinstance(name, str) or not sanitise_name(name):
        raise _refused("it must have a client_name")
    given = dict(document)
    given["token_endpoint_auth_method"] = str(AuthMethod.NONE)
    given["redirect_uris"] = _allowed(document, application_schemes)
    try:
        return validate_registration(given, application_schemes=application_schemes)
    except OAuthError as error:
        raise _refused(error.description) from None


def _has_private_key(jwks: object) -> bool:
    """
    Whoever has published one should learn of it, though nothing here uses it (section
    4.1).

    @param jwks: of a document, any value.
    """
    keys = jwks.get("keys") if isinstance(jwks, dict) else None
    return isinstance(keys, list) and any(
        isinstance(key, dict) and not _PRIVATE.isdisjoint(key) for key in keys
    )


def _allowed(
    document: Mapping[str, object], application_schemes: Collection[str]
) -> object:
    uris = document.get("redirect_uris")
    if not isinstance(uris, list) or not all(isinstance(uri, str) for uri in uris):
        # For the rules of registration to refuse in their words.
        return uris
    allowed = [
        uri for uri in uris if redirect_uri_problem(uri, application_schemes) is None
    ]
    return allowed or uris


def _refused(problem: str) -> OAuthError:
    return OAuthError(ErrorCode.INVALID_CLIENT_METADATA, problem)
