"""
The revocation endpoint (RFC 7009).
"""

from collections.abc import Callable

from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.web.iweb import IRequest

from fjmcp_broker.oauth.token_request import (
    ClientCredentials,
    parse_client_credentials,
    parse_revocation_request,
)
from fjmcp_broker.store.database import Database
from fjmcp_broker.store.revocation import Refused, Revoked, revoke_token
from fjmcp_broker.web.bearer import authorization_header
from fjmcp_broker.web.errors import NO_STORE, answer_bytes
from fjmcp_broker.web.forms import read_form
from fjmcp_broker.web.oauth.owned import finish


class RevocationEndpoint:
    """
    Ends what a client has no more use for: an access token alone, or with a refresh
    token, rotated or not, the whole grant.
    """

    _log = Logger()

    def __init__(
        self,
        database: Database,
        clock: IReactorTime,
        *,
        on_grant_ended: Callable[[str], None],
        on_token_revoked: Callable[[bytes], None],
    ) -> None:
        """
        @param database: where the transactions run.
        @param clock: tells the time.
        @param on_grant_ended: called with the grant id after the commit that ended
            it, also when the client has gone by then.
        @param on_token_revoked: called likewise with the digest of an access token
            that was revoked alone.
        """
        self._database = database
        self._clock = clock
        self._on_grant_ended = on_grant_ended
        self._on_token_revoked = on_token_revoked

    async def post(self, request: IRequest) -> bytes:
        """
        @param request: a form, authenticated as at the token endpoint.
        @return: nothing, with status 200 for unknown tokens too (RFC 7009 section
            2.2).
        @raise OAuthError: C{invalid_client}; C{invalid_grant}: the token belongs to
            another client (RFC 7009 section 2.1: the request is refused).
        @raise StoreError: the store cannot be used now; RFC 7009 section 2.2.1 has
            503 for that.
        """
        parameters = read_form(request)
        credentials = parse_client_credentials(
            parameters, authorization_header(request)
        )
        token = parse_revocation_request(parameters)
        outcome = await finish(self._revoke(credentials, token), "a revocation")
        if isinstance(outcome, Refused):
            raise outcome.error
        return answer_bytes(request, b"", "application/json", headers=NO_STORE)

    async def _revoke(
        self, credentials: ClientCredentials, token: str
    ) -> Revoked | Refused:
        now = int(self._clock.seconds())
        outcome = await self._database.write(
            lambda connection: revoke_token(connection, credentials, token, now)
        )
        if isinstance(outcome, Refused):
            return outcome
        if outcome.ended_grant_id is not None:
            self._log.info(
                "grant {grant} ended by its client", grant=outcome.ended_grant_id
            )
            self._on_grant_ended(outcome.ended_grant_id)
        if outcome.token_digest is not None:
            self._on_token_revoked(outcome.token_digest)
        return outcome
