"""
C{POST /oauth/register}: dynamic client registration (RFC 7591).
"""

from collections.abc import Callable, Collection

from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.web.iweb import IRequest

from fjmcp_broker.oauth.clients import (
    MAXIMUM_REGISTERED_BYTES,
    Client,
    validate_registration,
)
from fjmcp_broker.oauth.errors import OAuthError
from fjmcp_broker.oauth.redirect_uris import DEFAULT_APPLICATION_SCHEMES
from fjmcp_broker.oauth.strict_json import JsonRefused, parse_object
from fjmcp_broker.oauth.tokens import (
    CLIENT_ID_PREFIX,
    CLIENT_SECRET_PREFIX,
    digest,
    new_id,
    new_token,
)
from fjmcp_broker.oauth.vocabulary import ErrorCode
from fjmcp_broker.store import clients
from fjmcp_broker.store.database import Database
from fjmcp_broker.store.lane import Lane
from fjmcp_broker.web.errors import NO_STORE, answer_json
from fjmcp_broker.web.forms import media_type, read_body
from fjmcp_broker.web.tracing import step_of


class RegisterEndpoint:
    """
    Registers clients. Open to everybody, as MCP clients expect; a registration alone
    permits nothing.
    """

    _log = Logger()

    def __init__(
        self,
        database: Database | Lane,
        *,
        clock: IReactorTime,
        random_bytes: Callable[[int], bytes],
        application_schemes: Collection[str] = DEFAULT_APPLICATION_SCHEMES,
    ) -> None:
        """
        @param database: the store.
        @param clock: tells the time.
        @param random_bytes: gives that many cryptographically random bytes.
        @param application_schemes: redirect URI schemes without a dot that are
            allowed, see L{redirect_uri_problem
            <fjmcp_broker.oauth.redirect_uris.redirect_uri_problem>}.
        """
        self._database = database
        self._clock = clock
        self._random_bytes = random_bytes
        self._application_schemes = frozenset(map(str.lower, application_schemes))

    async def register(self, request: IRequest) -> bytes:
        """
        @param request: POST with a JSON object (RFC 7591 section 3.1).
        @return: the client information response (section 3.2.1): all registered
            metadata, and the one time that the client secret is seen.
        @raise OAuthError: C{invalid_client_metadata}, C{invalid_redirect_uri}, or
            C{invalid_request} for something that is not JSON at all.
        """
        kind, _ = media_type(request)
        if kind != b"application/json":
            raise OAuthError(
                ErrorCode.INVALID_REQUEST, "the body must be application/json", 415
            )
        try:
            document = parse_object(read_body(request))
        except JsonRefused as error:
            raise OAuthError(ErrorCode.INVALID_CLIENT_METADATA, str(error)) from None
        metadata = validate_registration(
            document, application_schemes=self._application_schemes
        )
        if metadata.size_bytes > MAXIMUM_REGISTERED_BYTES:
            raise OAuthError(
                ErrorCode.INVALID_CLIENT_METADATA,
                f"the metadata must have at most {MAXIMUM_REGISTERED_BYTES} bytes",
            )
        secret = None
        if metadata.wants_secret:
            secret = new_token(CLIENT_SECRET_PREFIX, self._random_bytes)
        client = Client.from_metadata(
            client_id=new_id(CLIENT_ID_PREFIX, self._random_bytes),
            kind="dynamic",
            metadata=metadata.values,
            secret_digest=None if secret is None else digest(secret),
            created_at=int(self._clock.seconds()),
        )
        await self._database.write(lambda c: clients.insert(c, client))
        step_of(request).about(client_id=client.client_id)
        self._log.info("client {client} registered", client=client.client_id)
        answer: dict[str, object] = {
            "client_id": client.client_id,
            "client_id_issued_at": client.created_at,
            **client.metadata,
        }
        if secret is not None:
            answer["client_secret"] = secret
            answer["client_secret_expires_at"] = 0
        return answer_json(request, answer, 201, NO_STORE)
