"""Forgejo as the broker's OAuth authorization server, over HTTP."""

from base64 import b64encode
from collections.abc import Callable, Mapping
from typing import Final, NoReturn
from urllib.parse import urlencode

import msgspec
from OpenSSL.SSL import Error as TLSError
from treq.client import HTTPClient
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger, LogLevel
from twisted.web.client import ResponseFailed
from twisted.web.http_headers import Headers
from zope.interface import implementer

from fjmcp_broker.secret import Secret
from fjmcp_broker.version import VERSION

from . import answers
from .answers import Answer
from .errors import UpstreamError, UpstreamMisconfigured, UpstreamUnavailable
from .http import MAXIMUM_BODY_BYTES, read_body
from .interfaces import IForgejo, Introspection, TokenAnswer, UserInfo

CALLBACK_PATH: Final = "/oauth/callback"

MAXIMUM_TOKEN_TIMEOUT_SECONDS: Final = 15.0
"""
How long an exchange or a refresh may take. A rejected refresh is judged only after
the exchanges in flight have ended, so this bounds that wait too.
"""


class ForgejoSettings(msgspec.Struct, frozen=True):
    """
    Which Forgejo, and who we are to it.

    @ivar url: the base URL for browsers; may have a path.
    @ivar internal_url: the base URL for our own calls; C{url} when C{None}.
    @ivar client_id: of the OAuth application.
    @ivar client_secret: its secret.
    @ivar scopes: from L{fjmcp_broker.oauth.forgejo_scopes.validate_scopes}.
    @ivar public_url: the broker's own origin, for the redirect URI.
    @ivar token_timeout_seconds: for exchange and refresh, at most
        L{MAXIMUM_TOKEN_TIMEOUT_SECONDS}.
    @ivar call_timeout_seconds: for userinfo and introspection.
    """

    url: str
    client_id: str
    client_secret: Secret
    scopes: tuple[str, ...]
    public_url: str
    internal_url: str | None = None
    token_timeout_seconds: float = MAXIMUM_TOKEN_TIMEOUT_SECONDS
    call_timeout_seconds: float = 10.0

    def __post_init__(self) -> None:
        if self.token_timeout_seconds > MAXIMUM_TOKEN_TIMEOUT_SECONDS:
            raise ValueError("token_timeout_seconds is too long")

    @property
    def redirect_uri(self) -> str:
        """
        @return: where Forgejo sends the browser back to; registered there.
        """
        return self.public_url + CALLBACK_PATH

    @property
    def scope(self) -> str:
        """
        @return: the scopes as one text.
        """
        return " ".join(self.scopes)


@implementer(IForgejo)
class Forgejo:
    """
    An OAuth client of one Forgejo instance (L{IForgejo}).

    Client authentication goes in the body, as Forgejo prefers; introspection knows
    Basic only. C{redirect_uri} and C{code_verifier} are always sent. No nonce is
    sent: Forgejo keeps it on the grant, where concurrent sign-ins of one user
    overwrite it, and PKCE binds the code already.
    """

    _log = Logger()

    def __init__(
        self, settings: ForgejoSettings, http: HTTPClient, clock: IReactorTime
    ) -> None:
        """
        @param settings: which Forgejo.
        @param http: see L{fjmcp_broker.upstream.http.build_http}.
        @param clock: for timeouts.
        """
        self._settings = settings
        self._http = http
        self._clock = clock
        self._base = (settings.internal_url or settings.url).rstrip("/")

    def authorize_url(self, state: str, code_challenge: str) -> str:
        """
        As L{IForgejo.authorize_url}.

        @param state: ours.
        @param code_challenge: S256.
        @return: the URL.
        """
        query = urlencode(
            {
                "response_type": "code",
                "client_id": self._settings.client_id,
                "redirect_uri": self._settings.redirect_uri,
                "scope": self._settings.scope,
                "state": state,
                "code_challenge": code_challenge,
                "code_challenge_method": "S256",
            }
        )
        return f"{self._settings.url.rstrip('/')}/login/oauth/authorize?{query}"

    async def exchange_code(self, code: str, verifier: str) -> TokenAnswer:
        """
        As L{IForgejo.exchange_code}.

        @param code: from the callback.
        @param verifier: for PKCE.
        @return: the new set.
        """
        return await self._token(
            {
                "grant_type": "authorization_code",
                "code": code,
                "redirect_uri": self._settings.redirect_uri,
                "code_verifier": verifier,
            },
            "the code exchange",
            answers.refused_exchange,
        )

    async def refresh(self, refresh_token: Secret) -> TokenAnswer:
        """
        As L{IForgejo.refresh}.

        @param refresh_token: spent by this.
        @return: the successor set.
        """
        return await self._token(
            {
                "grant_type": "refresh_token",
                "refresh_token": refresh_token.reveal(),
            },
            "the token refresh",
            answers.refused_refresh,
        )

    async def userinfo(self, access_token: Secret) -> UserInfo:
        """
        As L{IForgejo.userinfo}.

        @param access_token: of the user in question.
        @return: who that is.
        """
        answer = await self._call(
            "GET",
            "/login/oauth/userinfo",
            what="userinfo",
            timeout_seconds=self._settings.call_timeout_seconds,
            authorization=f"Bearer {access_token.reveal()}",
        )
        return answers.user_info(answer)

    async def introspect(self, token: Secret) -> Introspection:
        """
        As L{IForgejo.introspect}.

        @param token: any.
        @return: what Forgejo knows.
        """
        settings = self._settings
        pair = f"{settings.client_id}:{settings.client_secret.reveal()}"
        answer = await self._call(
            "POST",
            "/login/oauth/introspect",
            what="introspection",
            timeout_seconds=settings.call_timeout_seconds,
            authorization="Basic " + b64encode(pair.encode()).decode(),
            form={"token": token.reveal()},
        )
        return answers.introspection(answer, settings.client_id)

    async def _token(
        self,
        form: dict[str, str],
        what: str,
        refused: Callable[[Answer], UpstreamError],
    ) -> TokenAnswer:
        settings = self._settings
        answer = await self._call(
            "POST",
            "/login/oauth/access_token",
            what=what,
            timeout_seconds=settings.token_timeout_seconds,
            form={
                **form,
                "client_id": settings.client_id,
                "client_secret": settings.client_secret.reveal(),
            },
        )
        if answer.status != 200:
            error = refused(answer)
            is_ours = isinstance(error, UpstreamMisconfigured)
            self._log.emit(
                LogLevel.error if is_ours else LogLevel.warn,
                "Forgejo refused {what}: status {status}, {error}",
                what=what,
                status=answer.status,
                error=str(error),
            )
            raise error
        return answers.token_answer(answer, settings.client_id)

    async def _call(
        self,
        method: str,
        path: str,
        *,
        what: str,
        timeout_seconds: float,
        authorization: str | None = None,
        form: Mapping[str, str] | None = None,
    ) -> Answer:
        """
        @return: an answer of any status.
        @raise UpstreamUnavailable: no answer in time, or one too long.
        """
        call = self._round_trip(method, path, authorization, form)
        running = Deferred.fromCoroutine(call).addTimeout(
            timeout_seconds, self._clock, _too_late
        )
        try:
            return await running
        except CancelledError:
            raise
        except UpstreamUnavailable as error:
            why = str(error)
        # Whatever the HTTP stack raises, there is no answer and nothing was refused.
        except Exception as error:
            why = f"no answer from Forgejo: {_reason(error)}"
        self._log.warn("{what} failed: {why}", what=what, why=why)
        raise UpstreamUnavailable(why)

    async def _round_trip(
        self,
        method: str,
        path: str,
        authorization: str | None,
        form: Mapping[str, str] | None,
    ) -> Answer:
        headers = Headers(
            {"Accept": ["application/json"], "User-Agent": [f"fjmcp-broker/{VERSION}"]}
        )
        if authorization is not None:
            headers.addRawHeader("Authorization", authorization)
        response = await self._http.request(
            method,
            self._base + path,
            headers=headers,
            data=None if form is None else dict(form),
            allow_redirects=False,
            unbuffered=True,
            # Only used for treq's own timeout, which is not set; without it treq
            # would import the global reactor.
            reactor=self._clock,  # type: ignore[arg-type]
        )
        retry_after = response.headers.getRawHeaders(b"retry-after", [None])[0]
        body = await read_body(response, MAXIMUM_BODY_BYTES)
        return Answer(response.code, body, retry_after)


def _too_late(outcome: object, seconds: float) -> NoReturn:
    """
    Say so instead of what the cancelled HTTP request makes of it.
    """
    raise UpstreamUnavailable(f"Forgejo did not answer within {seconds:g} seconds")


def _reason(error: Exception) -> str:
    """
    @return: the kinds of the failures in an exception of the HTTP stack; their
        texts may hold what the peer wrote, apart from those of OpenSSL.
    """
    if isinstance(error, ResponseFailed):
        reasons = [each.value for each in error.reasons]
        return ", ".join(
            _reason(each) for each in reasons if isinstance(each, Exception)
        )
    if isinstance(error, TLSError):
        texts = [entry[-1] for entry in (error.args or ([],))[0] if entry]
        return ", ".join(["TLS", *texts])
    return type(error).__name__
