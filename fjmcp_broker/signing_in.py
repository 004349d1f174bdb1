"""
The part of the composition that people see on the way to a grant. It is loaded with the
first sign-in: clients that are signed in need nothing of it.
"""

from __future__ import annotations

from fjmcp_broker.endpoints import Surroundings
from fjmcp_broker.store.lane import Lane
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


def build_sign_in(around: Surroundings) -> tuple[Route, ...]:
    """
    @param around: what the endpoints work with.
    @return: those of L{fjmcp_broker.web.routes.SIGN_IN}.
    """
    config, database = around.config, around.database
    clock, random_bytes = around.clock, around.random_bytes
    url, forgejo_url = config.server.public_url, config.forgejo.url
    cookies = BrowserCookies(url, random_bytes)
    departure = Departure(cookies, around.forgejo.authorize_url, around.sealer)
    carried = CarriedRequests(around.sealer)
    outcomes = Outcomes(clock)
    has_documents = around.documents is not None
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
            ClientDirectory(database, clock, around.documents),
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
