"""
The part of the composition that people see on the way to a grant. It is loaded with the
first sign-in: clients that are signed in need nothing of it.
"""

from __future__ import annotations

from urllib.parse import urlsplit

from fjmcp_broker.endpoints import Surroundings
from fjmcp_broker.store.lane import Lane
from fjmcp_broker.upstream.document_http import GuardedFetcher
from fjmcp_broker.upstream.documents import MetadataDocuments
from fjmcp_broker.upstream.resolver import SystemResolver, system_look_up
from fjmcp_broker.web.app import Route
from fjmcp_broker.web.oauth.authorize import AuthorizeEndpoint
from fjmcp_broker.web.oauth.callback import CallbackEndpoint
from fjmcp_broker.web.oauth.carried import CarriedRequests
from fjmcp_broker.web.oauth.clients import ClientDirectory
from fjmcp_broker.web.oauth.consent import ConsentEndpoint
from fjmcp_broker.web.oauth.cookies import BrowserCookies
from fjmcp_broker.web.oauth.departure import Departure
from fjmcp_broker.web.oauth.outcomes import Outcomes
from fjmcp_broker.web.oauth.register import RegisterEndpoint
from fjmcp_broker.web.pages.consent import ConsentPage
from fjmcp_broker.web.pages.front import FrontPage
from fjmcp_broker.web.routes import sign_in_routes


class SignIn:
    """
    The endpoints on the way to a grant.

    @ivar handlers: of L{fjmcp_broker.web.routes.SIGN_IN}, by method and path.
    """

    def __init__(self, around: Surroundings) -> None:
        """
        @param around: what they work with.
        @raise BrokerError: the file of certificates has become unusable.
        """
        self._documents = _build_documents(around)
        self.handlers = {
            (route.method, route.path): route.handler
            for route in _build_routes(around, self._documents)
        }

    async def stop(self, timeout_seconds: float) -> None:
        """
        Let what is under way finish.

        @param timeout_seconds: what takes longer is given up.
        """
        if self._documents is not None:
            await self._documents.stop(timeout_seconds)


def _build_documents(around: Surroundings) -> MetadataDocuments | None:
    """
    @return: what fetches client metadata documents; C{None}: switched off.
    """
    config = around.config
    if not config.clients.metadata_documents:
        return None
    fetcher = GuardedFetcher(
        around.reactor,
        SystemResolver(system_look_up(around.reactor)),
        own_host=urlsplit(config.server.public_url).hostname or "",
        ca_file=config.clients.metadata_documents_ca_file,
    )
    return MetadataDocuments(
        fetcher,
        around.clock,
        application_schemes=config.clients.application_schemes,
        on_asked=around.document_asked,
    )


def _build_routes(
    around: Surroundings, documents: MetadataDocuments | None
) -> tuple[Route, ...]:
    config, database = around.config, around.database
    clock, random_bytes = around.clock, around.random_bytes
    url, forgejo_url = config.server.public_url, config.forgejo.url
    cookies = BrowserCookies(url, random_bytes)
    departure = Departure(cookies, around.forgejo.authorize_url, around.sealer)
    carried = CarriedRequests(around.sealer)
    outcomes = Outcomes(clock)
    has_documents = documents is not None
    return sign_in_routes(
        FrontPage(url, forgejo_url),
        RegisterEndpoint(
            # Whoever floods this or the answers of the consent page waits for himself.
            Lane(database, clock),
            clock=clock,
            random_bytes=random_bytes,
            application_schemes=config.clients.application_schemes,
        ),
        AuthorizeEndpoint(
            ClientDirectory(database, clock, documents),
            cookies,
            ConsentPage(url, forgejo_url),
            carried,
            clock=clock,
            random_bytes=random_bytes,
            public_url=url,
        ),
        ConsentEndpoint(
            Lane(database, clock),
            cookies,
            departure,
            carried,
            outcomes,
            clock=clock,
            random_bytes=random_bytes,
            public_url=url,
            has_documents=has_documents,
        ),
        CallbackEndpoint(
            database,
            cookies,
            departure,
            outcomes,
            around.upstream,
            clock=clock,
            random_bytes=random_bytes,
            public_url=url,
            forgejo_url=forgejo_url,
            has_documents=has_documents,
        ),
    )
