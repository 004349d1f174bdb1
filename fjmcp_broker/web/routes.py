"""Which endpoint answers on which path, the MCP endpoint aside."""

from fjmcp_broker.oauth.vocabulary import (
    AUTHORIZATION_SERVER_PATH,
    AUTHORIZE_PATH,
    CALLBACK_PATH,
    CONSENT_PATH,
    MCP_PATH,
    PROTECTED_RESOURCE_PATH,
    REGISTER_PATH,
    REVOKE_PATH,
    TOKEN_PATH,
)
from fjmcp_broker.web.app import Route
from fjmcp_broker.web.health import Health
from fjmcp_broker.web.oauth.authorize import AuthorizeEndpoint
from fjmcp_broker.web.oauth.callback import CallbackEndpoint
from fjmcp_broker.web.oauth.consent import ConsentEndpoint
from fjmcp_broker.web.oauth.discovery import Discovery
from fjmcp_broker.web.oauth.register import RegisterEndpoint
from fjmcp_broker.web.oauth.revoke import RevocationEndpoint
from fjmcp_broker.web.oauth.token import TokenEndpoint
from fjmcp_broker.web.pages.errors import error_page
from fjmcp_broker.web.pages.front import FrontPage


def token_side_routes(
    token: TokenEndpoint,
    revocation: RevocationEndpoint,
    discovery: Discovery,
    health: Health,
) -> tuple[Route, ...]:
    """
    @param token: the token endpoint.
    @param revocation: the revocation endpoint.
    @param discovery: the metadata documents.
    @param health: the two health endpoints.
    @return: what programs call.
    """
    return (
        Route("GET", "/healthz", health.healthz),
        Route("GET", "/healthz/stream", health.stream),
        Route("GET", "/readyz", health.readyz),
        Route("GET", AUTHORIZATION_SERVER_PATH, discovery.authorization_server),
        # With and without the path of the resource (RFC 9728 section 3.1).
        *(
            Route("GET", path, discovery.protected_resource)
            for path in (PROTECTED_RESOURCE_PATH, PROTECTED_RESOURCE_PATH + MCP_PATH)
        ),
        Route("POST", TOKEN_PATH, token.post),
        Route("POST", REVOKE_PATH, revocation.post),
    )


def sign_in_routes(
    front: FrontPage,
    register: RegisterEndpoint,
    authorize: AuthorizeEndpoint,
    consent: ConsentEndpoint,
    callback: CallbackEndpoint,
) -> tuple[Route, ...]:
    """
    @param front: the page at C{/}.
    @param register: the registration endpoint.
    @param authorize: the authorization endpoint.
    @param consent: takes the consent form.
    @param callback: where Forgejo sends the browser back to.
    @return: what people see on the way to a grant, and how clients get there.
    """
    return (
        Route("GET", "/", front.show, error_page=error_page),
        Route("POST", REGISTER_PATH, register.register),
        Route("GET", AUTHORIZE_PATH, authorize.get, error_page=error_page),
        Route("POST", AUTHORIZE_PATH, authorize.post, error_page=error_page),
        Route("POST", CONSENT_PATH, consent.post, error_page=error_page),
        Route("GET", CALLBACK_PATH, callback.get, error_page=error_page),
    )
