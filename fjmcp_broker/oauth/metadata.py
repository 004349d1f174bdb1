"""
The discovery documents (RFC 8414, RFC 9728).

Clients compare C{issuer}, C{authorization_servers} and the C{iss} parameter byte for
byte: all of them are C{public_url}, which has no trailing slash. What is not
implemented is not advertised; C{offline_access}, C{openid} and an OpenID configuration
make clients ask for things that mean nothing here.
"""

from fjmcp_broker.oauth.vocabulary import (
    AUTHORIZE_PATH,
    CODE_CHALLENGE_METHOD,
    MCP_PATH,
    PROTECTED_RESOURCE_PATH,
    REGISTER_PATH,
    RESPONSE_TYPE,
    REVOKE_PATH,
    TOKEN_PATH,
    AuthMethod,
    GrantType,
    Scope,
)

#: A document as JSON values.
Document = dict[str, object]


def resource_url(public_url: str) -> str:
    """
    @param public_url: origin of this service.
    @return: the protected resource's identifier, in its one spelling.
    """
    return f"{public_url}{MCP_PATH}"


def resource_metadata_url(public_url: str) -> str:
    """
    @param public_url: origin of this service.
    @return: where the metadata of the MCP endpoint is (RFC 9728 section 3.1: the
        well-known path goes in front of the resource's own).
    """
    return f"{public_url}{PROTECTED_RESOURCE_PATH}{MCP_PATH}"


def authorization_server_metadata(
    public_url: str, *, client_id_metadata_documents: bool = False
) -> Document:
    """
    @param public_url: origin of this service: the issuer.
    @param client_id_metadata_documents: whether a client may use the URL of its
        metadata document as its id.
    @return: the document of RFC 8414 section 2, with C{iss} in authorization
        responses (RFC 9207 section 3).
    """
    methods = [str(method) for method in AuthMethod]
    document: Document = {
        "issuer": public_url,
        "authorization_endpoint": f"{public_url}{AUTHORIZE_PATH}",
        "token_endpoint": f"{public_url}{TOKEN_PATH}",
        "registration_endpoint": f"{public_url}{REGISTER_PATH}",
        "revocation_endpoint": f"{public_url}{REVOKE_PATH}",
        "scopes_supported": [str(scope) for scope in Scope],
        "response_types_supported": [RESPONSE_TYPE],
        "response_modes_supported": ["query"],
        "grant_types_supported": [str(grant_type) for grant_type in GrantType],
        "token_endpoint_auth_methods_supported": methods,
        "revocation_endpoint_auth_methods_supported": methods,
        "code_challenge_methods_supported": [CODE_CHALLENGE_METHOD],
        "authorization_response_iss_parameter_supported": True,
    }
    if client_id_metadata_documents:
        document["client_id_metadata_document_supported"] = True
    return document


def protected_resource_metadata(public_url: str) -> Document:
    """
    @param public_url: origin of this service.
    @return: the document of RFC 9728 section 2.
    """
    return {
        "resource": resource_url(public_url),
        "authorization_servers": [public_url],
        "scopes_supported": [str(scope) for scope in Scope],
        "bearer_methods_supported": ["header"],
        "resource_name": "Forgejo",
    }
