"""
C{/oauth/authorize}: check a request and show the consent page, which carries it on.

Every request gets the page, whatever the user allowed before: Forgejo answers without
asking once its own grant exists, so without our page any client could sign a user in
behind their back (the confused deputy of the MCP security guidance).
"""

from collections.abc import Callable
from typing import Final

from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.web.iweb import IRequest

from fjmcp_broker.oauth.authorization import (
    AuthorizationRequest,
    Target,
    client_state,
    error_redirect,
    named_client,
    parse_authorization_request,
    pin_redirect_uri,
)
from fjmcp_broker.oauth.errors import OAuthError
from fjmcp_broker.oauth.parameters import Pairs, read_pairs
from fjmcp_broker.oauth.redirect_uris import display_host, is_website
from fjmcp_broker.oauth.tokens import PENDING_ID_PREFIX, new_id
from fjmcp_broker.store.pending import PendingAuthorization
from fjmcp_broker.upstream.document_http import DocumentError
from fjmcp_broker.web.forms import MAXIMUM_QUERY_BYTES, form_bytes, query_bytes
from fjmcp_broker.web.oauth.carried import Asked, CarriedRequests, NewDocument
from fjmcp_broker.web.oauth.clients import ClientDirectory, FoundClient
from fjmcp_broker.web.oauth.cookies import BrowserCookies, form_token
from fjmcp_broker.web.pages.authorize import no_document, unknown_client
from fjmcp_broker.web.pages.consent import ConsentForm, ConsentPage
from fjmcp_broker.web.pages.html import element
from fjmcp_broker.web.pages.page import problem, see_other
from fjmcp_broker.web.tracing import step_of

#: How long a sign-in may take, in seconds.
PENDING_LIFETIME_SECONDS: Final = 600


class AuthorizeEndpoint:
    """
    The authorization endpoint (RFC 6749 section 3.1), GET and POST.
    """

    _log = Logger()

    def __init__(
        self,
        directory: ClientDirectory,
        cookies: BrowserCookies,
        page: ConsentPage,
        carried: CarriedRequests,
        *,
        clock: IReactorTime,
        random_bytes: Callable[[int], bytes],
        public_url: str,
    ) -> None:
        """
        @param directory: knows the clients.
        @param cookies: the browser's.
        @param page: shown to the user.
        @param carried: seals the request for the page.
        @param clock: tells the time.
        @param random_bytes: gives that many cryptographically random bytes.
        @param public_url: the issuer, an origin without trailing slash.
        """
        self._clients = directory
        self._cookies = cookies
        self._page = page
        self._carried = carried
        self._clock = clock
        self._random_bytes = random_bytes
        self._public_url = public_url

    async def get(self, request: IRequest) -> bytes:
        """
        @param request: with the parameters in its query.
        @return: the consent page, an error page or a redirect with an error.
        @raise OAuthError: the parameters cannot be read.
        """
        return await self._authorize(request, read_pairs(query_bytes(request)))

    async def post(self, request: IRequest) -> bytes:
        """
        @param request: with the parameters as a form (RFC 6749 section 3.1: MAY).
        @return: as for L{AuthorizeEndpoint.get}.
        @raise OAuthError: the parameters cannot be read.
        """
        body = form_bytes(request, MAXIMUM_QUERY_BYTES)
        return await self._authorize(request, read_pairs(body))

    async def _authorize(self, request: IRequest, parameters: Pairs) -> bytes:
        client_id = named_client(parameters)
        step = step_of(request)
        try:
            found = await self._clients.find(client_id)
        except DocumentError as error:
            step.says("no_document", str(error))
            return no_document(request, client_id, error)
        if found is None:
            step.says("unknown_client")
            return unknown_client(request)
        client = found.client
        step.about(client_id=client.client_id)
        # What this raises becomes a page: where a redirect would lead is not known.
        target = pin_redirect_uri(parameters, client)
        try:
            wanted = parse_authorization_request(
                parameters, client, target, self._public_url
            )
        except OAuthError as error:
            self._log.info(
                "authorization request of {client} refused: {code}",
                client=client_id,
                code=error.code,
            )
            step.says(str(error.code), error.description)
            return self._refused(request, target, client_state(parameters), error)
        return self._ask(request, wanted, found)

    def _ask(
        self, request: IRequest, wanted: AuthorizationRequest, found: FoundClient
    ) -> bytes:
        now = int(self._clock.seconds())
        pending = PendingAuthorization(
            pending_id=new_id(PENDING_ID_PREFIX, self._random_bytes),
            client_id=wanted.client_id,
            request=wanted,
            created_at=now,
            expires_at=now + PENDING_LIFETIME_SECONDS,
        )
        pending_id = pending.pending_id
        step_of(request).about(pending_id=pending_id)
        until = found.save_until
        document = None
        if until is not None:
            document = NewDocument(found.client, until, found.in_place_of)
        form = ConsentForm(
            pending_id=pending_id,
            token=form_token(self._cookies.keep_consent(request), pending_id),
            carried=self._carried.seal(Asked(pending, document)),
        )
        return self._page.show(request, found.client, wanted, form)

    def _refused(
        self, request: IRequest, target: Target, state: str | None, error: OAuthError
    ) -> bytes:
        """
        Tell the client. A website is told by the user's click only: anybody can
        register one, and an address of ours that leads there by itself would lend it
        our name (RFC 9700 section 4.11.2).
        """
        url = error_redirect(target.redirect_uri, state, error, issuer=self._public_url)
        if not is_website(target.redirect_uri):
            return see_other(request, url)
        host = element("bdi", display_host(target.redirect_uri))
        return problem(
            request,
            400,
            "This sign-in request is not valid",
            element("p", "The application sent a request that cannot be answered."),
            element("p", "Go back only if you came from there:"),
            element("p", element("a", host, href=url, class_="button")),
            element("p", str(error), class_="soft"),
        )
