"""
The protocol's own names, so that none is spelled twice.
"""

from enum import StrEnum, unique
from typing import Final

from fjmcp_broker.rights import Policy as Policy
from fjmcp_broker.rights import Scope as Scope

#: The only method of RFC 7636 that is accepted; C{plain} protects nobody.
CODE_CHALLENGE_METHOD: Final = "S256"

#: RFC 6749 section 3.1.1; the implicit response types are gone in OAuth 2.1.
RESPONSE_TYPE: Final = "code"

#: RFC 6749 section 7.1, RFC 6750.
TOKEN_TYPE: Final = "Bearer"  # noqa: S105 - the name of a type, not a token

#: RFC 8414 section 3 and RFC 9728 section 3.
AUTHORIZATION_SERVER_PATH: Final = "/.well-known/oauth-authorization-server"
PROTECTED_RESOURCE_PATH: Final = "/.well-known/oauth-protected-resource"

AUTHORIZE_PATH: Final = "/oauth/authorize"
CONSENT_PATH: Final = "/oauth/consent"
CALLBACK_PATH: Final = "/oauth/callback"
TOKEN_PATH: Final = "/oauth/token"  # noqa: S105 - a path
REVOKE_PATH: Final = "/oauth/revoke"
REGISTER_PATH: Final = "/oauth/register"
MCP_PATH: Final = "/mcp"


@unique
class GrantType(StrEnum):
    """
    The grant types of RFC 6749 that the token endpoint knows.
    """

    AUTHORIZATION_CODE = "authorization_code"
    REFRESH_TOKEN = "refresh_token"  # noqa: S105 - the name of a grant type


@unique
class AuthMethod(StrEnum):
    """
    How a client proves itself at the token endpoint (RFC 7591 section 2).
    """

    NONE = "none"
    BASIC = "client_secret_basic"
    POST = "client_secret_post"


@unique
class ErrorCode(StrEnum):
    """
    Error codes with the specification that defines them.
    """

    # RFC 6749 sections 4.1.2.1 and 5.2
    INVALID_REQUEST = "invalid_request"
    INVALID_CLIENT = "invalid_client"
    INVALID_GRANT = "invalid_grant"
    UNAUTHORIZED_CLIENT = "unauthorized_client"
    UNSUPPORTED_GRANT_TYPE = "unsupported_grant_type"
    UNSUPPORTED_RESPONSE_TYPE = "unsupported_response_type"
    INVALID_SCOPE = "invalid_scope"
    ACCESS_DENIED = "access_denied"
    SERVER_ERROR = "server_error"
    TEMPORARILY_UNAVAILABLE = "temporarily_unavailable"
    # RFC 6750 section 3.1
    INVALID_TOKEN = "invalid_token"  # noqa: S105 - the name of an error
    INSUFFICIENT_SCOPE = "insufficient_scope"
    # RFC 7591 section 3.2.2
    INVALID_REDIRECT_URI = "invalid_redirect_uri"
    INVALID_CLIENT_METADATA = "invalid_client_metadata"
    # RFC 8707 section 2
    INVALID_TARGET = "invalid_target"
    # Not of a specification: a path or a method that is not ours
    NOT_FOUND = "not_found"
    METHOD_NOT_ALLOWED = "method_not_allowed"
