"""
The stand-in's OAuth endpoints that programs use: tokens, userinfo, introspection,
keys and discovery, with Forgejo's own error codes and texts.
"""

from base64 import b64decode
from binascii import Error as Base64Error
from hmac import compare_digest

from klein import Klein, Response
from twisted.web.iweb import IRequest

from fjmcp_broker.demo.forgejo import http
from fjmcp_broker.demo.forgejo.core import ForgejoCore
from fjmcp_broker.demo.forgejo.http import json_answer, serve, text_answer
from fjmcp_broker.demo.forgejo.state import Application, Grant, User
from fjmcp_broker.demo.forgejo.tokens import (
    ACCESS,
    MINIMUM_LENGTH,
    REFRESH,
    InvalidTokenError,
    JsonValue,
)


class TokenError(Exception):
    """
    A refusal of the token endpoint; always status 400.
    """

    def __init__(self, code: str, description: str) -> None:
        """
        @param code: the C{error}.
        @param description: the C{error_description}.
        """
        super().__init__(code, description)
        self.code = code
        self.description = description


class OAuthEndpoints:
    """
    C{/login/oauth/*} except the pages, and C{/.well-known/*}.
    """

    app = Klein()

    def __init__(self, core: ForgejoCore) -> None:
        """
        @param core: the stand-in's state, clock and settings.
        """
        self._core = core

    async def deliver(self, request: IRequest, response: Response) -> Response:
        """
        Pass an answer through the faults.
        """
        return await self._core.traffic.deliver(request, response)

    @serve(app, "/login/oauth/access_token", "POST")
    def access_token(self, request: IRequest) -> Response:
        """
        The token endpoint.
        """
        form = http.form(request)
        try:
            client_id, secret = self._client_credentials(request, form)
            if form.get("grant_type") == "authorization_code":
                grant = self._exchange(form, client_id, secret)
            elif form.get("grant_type") == "refresh_token":
                grant = self._refresh(form, client_id, secret)
            else:
                raise TokenError(
                    "unsupported_grant_type",
                    "Only refresh_token or authorization_code grant type is supported",
                )
            answer = self._token_answer(grant)
        except TokenError as error:
            return json_answer(
                {"error": error.code, "error_description": error.description}, 400
            )
        self._core.traffic.name_user(
            request, self._core.state.users[grant.user_id].login
        )
        return json_answer(answer)

    @serve(app, "/login/oauth/access_token", "OPTIONS")
    def access_token_preflight(self, request: IRequest) -> Response:
        """
        Browsers ask first.
        """
        return Response(200, {}, b"")

    def _client_credentials(
        self, request: IRequest, form: dict[str, str]
    ) -> tuple[str, str]:
        """
        The body's credentials; an absent one is filled from Basic.
        """
        client_id = form.get("client_id", "")
        secret = form.get("client_secret", "")
        kind, _, encoded = http.header(request, "authorization").partition(" ")
        if (client_id and secret) or kind != "Basic":
            return client_id, secret
        pair = _basic(encoded)
        if pair is None:
            raise TokenError("invalid_request", "cannot parse basic auth header")
        for name, body, header in (
            ("client_id", client_id, pair[0]),
            ("client_secret", secret, pair[1]),
        ):
            if body and body != header:
                raise TokenError(
                    "invalid_request",
                    f"{name} in request body inconsistent with Authorization header",
                )
        return pair

    def _application(self, client_id: str) -> Application:
        application = self._core.state.application_of(client_id)
        if application is None:
            raise TokenError(
                "invalid_client", f'cannot load client with client id: "{client_id}"'
            )
        return application

    def _check_secret(self, application: Application, secret: str, code: str) -> None:
        if application.is_confidential and not compare_digest(
            application.client_secret.encode(), secret.encode()
        ):
            empty = "" if secret else "empty "
            raise TokenError(code, f"invalid {empty}client secret")

    def _exchange(self, form: dict[str, str], client_id: str, secret: str) -> Grant:
        application = self._application(client_id)
        self._check_secret(application, secret, "unauthorized_client")
        redirect_uri = form.get("redirect_uri", "")
        if redirect_uri and not application.accepts(redirect_uri):
            raise TokenError("unauthorized_client", "unexpected redirect URI")
        code = self._core.state.codes.get(form.get("code", ""))
        if code is None:
            raise TokenError("unauthorized_client", "client is not authorized")
        if not code.accepts(form.get("code_verifier", "")):
            raise TokenError("unauthorized_client", "failed PKCE code challenge")
        if redirect_uri != code.redirect_uri:
            raise TokenError(
                "unauthorized_client",
                "redirect_uri does not match the authorization request",
            )
        grant = self._core.state.grants[code.grant_id]
        if grant.application_id != application.id:
            raise TokenError("invalid_grant", "invalid grant")
        del self._core.state.codes[code.text]
        if self._core.lost_races.take("code"):
            raise TokenError("invalid_request", "cannot proceed your request")
        self._bump(grant)
        return grant

    def _refresh(self, form: dict[str, str], client_id: str, secret: str) -> Grant:
        application = self._application(client_id)
        self._check_secret(application, secret, "invalid_client")
        try:
            claims = self._core.signer.read(
                form.get("refresh_token", ""), self._core.now()
            )
        except InvalidTokenError:
            raise TokenError(
                "unauthorized_client", "unable to parse refresh token"
            ) from None
        if claims.kind != REFRESH:
            raise TokenError("unauthorized_client", "token is not a refresh token")
        grant = self._core.state.grants.get(claims.grant_id)
        if grant is None or grant.user_id not in self._core.state.users:
            raise TokenError("invalid_grant", "grant does not exist")
        if grant.application_id != application.id:
            raise TokenError(
                "invalid_grant", "refresh token was not issued to this client"
            )
        if self._core.invalidates_refresh_tokens and claims.counter != grant.counter:
            raise TokenError("unauthorized_client", "token was already used")
        self._bump(grant)
        return grant

    def _bump(self, grant: Grant) -> None:
        if not self._core.invalidates_refresh_tokens:
            return
        expected = grant.counter
        if self._core.lost_races.take("counter"):
            # Somebody else's exchange or refresh came in between.
            self._core.state.bump(grant, expected)
        if not self._core.state.bump(grant, expected):
            raise TokenError("invalid_grant", "cannot increase the grant counter")

    def _token_answer(self, grant: Grant) -> dict[str, JsonValue]:
        """
        The fields in Forgejo's order; no scope, and C{bearer} in lower case.
        """
        core = self._core
        access, refresh = core.tokens_for(grant)
        answer: dict[str, JsonValue] = {
            "access_token": access,
            "token_type": "bearer",
            "expires_in": core.access_lifetime_seconds,
            "refresh_token": refresh,
        }
        if "openid" in grant.scopes():
            answer["id_token"] = self._id_token(grant)
        return answer

    def _id_token(self, grant: Grant) -> str:
        core = self._core
        user = core.state.users[grant.user_id]
        now = core.now()
        claims: dict[str, JsonValue] = {
            "iss": core.issuer(),
            "sub": str(user.id),
            "aud": [core.state.applications[grant.application_id].client_id],
            "exp": now + core.access_lifetime_seconds,
            "iat": now,
        }
        if grant.nonce:
            claims["nonce"] = grant.nonce
        if "profile" in grant.scopes():
            claims.update(
                name=user.full_name,
                preferred_username=user.login,
                profile=core.url(f"/{user.login}"),
                picture=core.url(f"/avatars/{user.login}"),
                website="",
                locale="en-US",
                updated_at=now,
            )
        if "email" in grant.scopes():
            claims.update(email=user.email, email_verified=True)
        if "groups" in grant.scopes():
            claims["groups"] = list(user.groups)
        return core.signer.sign(claims, MINIMUM_LENGTH)

    @serve(app, "/login/oauth/userinfo", "GET", "POST")
    def userinfo(self, request: IRequest) -> Response:
        """
        Who the bearer is; any scope will do.
        """
        user, scopes = self._bearer(request)
        if user is None:
            return text_answer(
                "no valid authorization", 401, WWW_Authenticate='Bearer realm=""'
            )
        self._core.traffic.name_user(request, user.login)
        answer: dict[str, JsonValue] = {
            "sub": str(user.id),
            "name": user.full_name,
            "preferred_username": user.login,
            "email": user.email,
            "picture": self._core.url(f"/avatars/{user.login}"),
        }
        groups = user.groups
        if self._core.additional_grant_scopes:
            groups = user.groups_seen(scopes)
        if groups:
            answer["groups"] = list(groups)
        return json_answer(answer)

    def _bearer(self, request: IRequest) -> tuple[User | None, tuple[str, ...]]:
        """
        @return: the user, and the scopes of the grant.
        """
        kind, _, token = http.header(request, "authorization").partition(" ")
        if kind.lower() != "bearer":
            return None, ()
        try:
            user, grant = self._core.authenticate(token, ACCESS)
        except InvalidTokenError:
            return None, ()
        return user, grant.scopes()

    @serve(app, "/login/oauth/introspect", "POST")
    def introspect(self, request: IRequest) -> Response:
        """
        Whether a token works, of whichever kind and application; no expiry.
        """
        kind, _, encoded = http.header(request, "authorization").partition(" ")
        pair = _basic(encoded) if kind == "Basic" else None
        client = self._core.state.application_of(pair[0]) if pair else None
        if (
            pair is None
            or client is None
            or not compare_digest(client.client_secret.encode(), pair[1].encode())
        ):
            return text_answer(
                "no valid authorization", 401, WWW_Authenticate='Basic realm=""'
            )
        try:
            user, grant = self._core.authenticate(
                http.form(request).get("token", ""), None
            )
        except InvalidTokenError:
            return json_answer({"active": False})
        application = self._core.state.applications[grant.application_id]
        return json_answer(
            {
                "active": True,
                "scope": grant.scope,
                "username": user.login,
                "iss": self._core.issuer(),
                "aud": [application.client_id],
                "sub": str(user.id),
            }
        )

    @serve(app, "/login/oauth/keys", "GET")
    def keys(self, request: IRequest) -> Response:
        """
        The JSON web key set.
        """
        return json_answer(self._core.signer.key_set())

    @serve(app, "/.well-known/openid-configuration", "GET")
    def discovery(self, request: IRequest) -> Response:
        """
        The discovery document.
        """
        url = self._core.url
        return json_answer(
            {
                "issuer": self._core.issuer(),
                "authorization_endpoint": url("/login/oauth/authorize"),
                "token_endpoint": url("/login/oauth/access_token"),
                "jwks_uri": url("/login/oauth/keys"),
                "userinfo_endpoint": url("/login/oauth/userinfo"),
                "introspection_endpoint": url("/login/oauth/introspect"),
                "response_types_supported": ["code", "id_token"],
                "id_token_signing_alg_values_supported": ["RS256"],
                "subject_types_supported": ["public"],
                "scopes_supported": ["openid", "profile", "email", "groups"],
                "claims_supported": "aud exp iat iss sub name preferred_username "
                "profile picture website locale updated_at email email_verified "
                "groups".split(),
                "code_challenge_methods_supported": ["plain", "S256"],
                "grant_types_supported": ["authorization_code", "refresh_token"],
            }
        )


def _basic(encoded: str) -> tuple[str, str] | None:
    """
    @return: name and password of Basic credentials, None when malformed.
    """
    try:
        name, colon, password = (
            b64decode(encoded, validate=True).decode().partition(":")
        )
    except (Base64Error, UnicodeDecodeError, ValueError):
        return None
    return (name, password) if colon else None
