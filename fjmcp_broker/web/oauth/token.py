"""
The token endpoint (RFC 6749 section 3.2).
"""

from collections.abc import Callable

from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.web.iweb import IRequest

from fjmcp_broker.oauth.token_request import (
    ClientCredentials,
    CodeRequest,
    RefreshRequest,
    parse_client_credentials,
    parse_token_request,
)
from fjmcp_broker.oauth.vocabulary import TOKEN_TYPE
from fjmcp_broker.store.database import Database
from fjmcp_broker.store.revocation import Refused
from fjmcp_broker.store.token_endpoint import TokenAnswer, TokenTransactions
from fjmcp_broker.web.bearer import authorization_header
from fjmcp_broker.web.errors import NO_STORE, answer_json
from fjmcp_broker.web.forms import read_form
from fjmcp_broker.web.oauth.owned import finish
from fjmcp_broker.web.tracing import step_of


class TokenEndpoint:
    """
    Exchanges authorization codes and refresh tokens. One request is one transaction;
    its answer leaves after the commit.
    """

    _log = Logger()

    def __init__(
        self,
        database: Database,
        transactions: TokenTransactions,
        clock: IReactorTime,
        public_url: str,
        *,
        on_grant_ended: Callable[[str], None],
    ) -> None:
        """
        @param database: where the transactions run.
        @param transactions: what they do.
        @param clock: tells the time.
        @param public_url: origin of this service.
        @param on_grant_ended: called with the grant id after the commit that ended
            it, also when the client has gone by then.
        """
        self._database = database
        self._transactions = transactions
        self._clock = clock
        self._public_url = public_url
        self._on_grant_ended = on_grant_ended

    async def post(self, request: IRequest) -> bytes:
        """
        @param request: a form; the client's id and secret are there or in the
            C{Authorization} header.
        @return: the JSON object of RFC 6749 section 5.1.
        @raise OAuthError: RFC 6749 section 5.2, RFC 8707 section 2.
        @raise StoreError: the store cannot be used now.
        """
        parameters = read_form(request)
        credentials = parse_client_credentials(
            parameters, authorization_header(request)
        )
        asked = parse_token_request(parameters, self._public_url)
        step = step_of(request)
        if isinstance(asked, RefreshRequest):
            step.is_none()
        tokens = await finish(self._answer(credentials, asked), "a token request")
        if tokens.grant_id is not None:
            step.about(grant_id=tokens.grant_id)
        if isinstance(tokens, Refused):
            raise tokens.error
        return answer_json(
            request,
            {
                "access_token": tokens.access_token,
                "token_type": TOKEN_TYPE,
                "expires_in": tokens.expires_in,
                "refresh_token": tokens.refresh_token,
                "scope": " ".join(tokens.scope),
            },
            headers=NO_STORE,
        )

    async def _answer(
        self, credentials: ClientCredentials, asked: CodeRequest | RefreshRequest
    ) -> TokenAnswer | Refused:
        now = int(self._clock.seconds())
        outcome = await self._database.write(
            lambda connection: self._transactions.answer(
                connection, credentials, asked, now
            )
        )
        if isinstance(outcome, TokenAnswer):
            self._log.info(
                "tokens of grant {grant} {what}",
                grant=outcome.grant_id,
                what=outcome.what,
            )
        elif outcome.ended_grant_id is not None:
            self._log.warn(
                "grant {grant} ended: {reason}",
                grant=outcome.ended_grant_id,
                reason=outcome.reason,
            )
            self._on_grant_ended(outcome.ended_grant_id)
        return outcome
