"""
Reading what Forgejo answers: values out of bodies, and what an error asks us to do.

Nothing here does I/O, and nothing repeats a text of Forgejo's in an error message.
"""

from base64 import urlsafe_b64decode
from binascii import Error as Base64Error
from collections.abc import Callable
from typing import Annotated, Final, TypeVar

import msgspec

from fjmcp_broker.secret import Confidential, Secret

from .errors import (
    DEFAULT_RETRY_AFTER_SECONDS,
    CodeRefused,
    SignInNeeded,
    UpstreamError,
    UpstreamMisconfigured,
    UpstreamUnavailable,
)
from .interfaces import Introspection, TokenAnswer, UserInfo

T = TypeVar("T")

_MAXIMUM_INTEGER: Final = 2**63 - 1
"""The largest number that the store holds."""

_MAXIMUM_LIFE_SECONDS: Final = 10 * 365 * 86_400

_Token = Annotated[str, msgspec.Meta(pattern=r"\A[\x21-\x7e]{1,65536}\Z")]
"""Visible ASCII only: it goes into headers and into a child's environment."""

_Subject = Annotated[str, msgspec.Meta(pattern=r"\A[1-9][0-9]{0,18}\Z")]
"""Forgejo's number of a user, as OpenID Connect writes it."""

_Count = Annotated[int, msgspec.Meta(ge=0, le=_MAXIMUM_INTEGER)]
_Text = Annotated[str, msgspec.Meta(max_length=1024)]


class _TokenBody(Confidential, msgspec.Struct):
    access_token: _Token
    refresh_token: _Token
    expires_in: Annotated[int, msgspec.Meta(ge=1)]
    token_type: str
    # Not worth losing the tokens over; read leniently below.
    id_token: msgspec.Raw = msgspec.Raw()


class _RefreshClaims(msgspec.Struct):
    gnt: _Count
    cnt: _Count


class _IdClaims(msgspec.Struct):
    sub: _Subject
    aud: str | list[str]
    preferred_username: str | None = None
    name: str | None = None


class _UserBody(msgspec.Struct):
    sub: _Subject
    preferred_username: Annotated[str, msgspec.Meta(min_length=1, max_length=1024)]
    name: _Text | None = None
    # Absent for a user without any, whatever the scope (Forgejo 7 to 16).
    groups: list[str] | None = None


class _IntrospectionBody(msgspec.Struct):
    active: bool
    scope: Annotated[str, msgspec.Meta(max_length=4096)] = ""
    username: _Text = ""
    aud: str | list[str] = msgspec.field(default_factory=list)


class _ErrorBody(msgspec.Struct):
    error: str
    error_description: str | None = None


class Answer(Confidential, msgspec.Struct, frozen=True):
    """
    An HTTP answer as far as it matters here.

    @ivar status: of HTTP.
    @ivar body: all of it; controlled by Forgejo or whatever stands in its place.
    @ivar retry_after: the header, if there is one.
    """

    status: int
    body: bytes
    retry_after: bytes | None = None


def token_answer(answer: Answer, client_id: str) -> TokenAnswer:
    """
    Read a success of the token endpoint.

    @param answer: with status 200.
    @param client_id: ours; an id_token for somebody else is not trusted.
    @return: the set, with what the JWTs in it tell. Their signatures are not
        checked: they come straight from the token endpoint (OpenID Connect Core
        section 3.1.3.7 allows that), and C{gnt} and C{cnt} are for ordering only.
    @raise UpstreamUnavailable: it is not such an answer.
    """
    body = _decode(answer.body, _TokenBody)
    if body.token_type.lower() != "bearer":
        raise _not_forgejo()
    refresh = _claims(body.refresh_token, _RefreshClaims)
    identity = _identity(body.id_token, client_id)
    return TokenAnswer(
        access_token=Secret(body.access_token),
        refresh_token=Secret(body.refresh_token),
        expires_in=min(body.expires_in, _MAXIMUM_LIFE_SECONDS),
        user_id=None if identity is None else int(identity.sub),
        login=None if identity is None else identity.preferred_username,
        display_name=None if identity is None else identity.name,
        grant_number=None if refresh is None else refresh.gnt,
        counter=None if refresh is None else refresh.cnt,
    )


def user_info(answer: Answer) -> UserInfo:
    """
    Read an answer of the userinfo endpoint.

    @param answer: of any status.
    @return: the user.
    @raise SignInNeeded: 401.
    @raise UpstreamUnavailable: anything else that is not a user.
    """
    if answer.status == 401:
        raise SignInNeeded("Forgejo refuses the access token")
    if answer.status != 200:
        raise unavailable(answer)
    body = _decode(answer.body, _UserBody)
    return UserInfo(
        _user_id(body.sub),
        body.preferred_username,
        body.name or "",
        tuple(body.groups or ()),
    )


def introspection(answer: Answer, client_id: str) -> Introspection:
    """
    Read an answer of the introspection endpoint.

    @param answer: of any status.
    @param client_id: ours; Forgejo confirms tokens of other applications too, which
        count as inactive here.
    @return: what it says.
    @raise UpstreamMisconfigured: 401, the client is not known.
    @raise UpstreamUnavailable: anything else that is not an introspection.
    """
    if answer.status == 401:
        raise UpstreamMisconfigured(
            "Forgejo refuses the OAuth application's id or secret at introspection"
        )
    if answer.status != 200:
        raise unavailable(answer)
    body = _decode(answer.body, _IntrospectionBody)
    audience = _audience(body.aud)
    return Introspection(
        active=body.active and client_id in audience,
        scope=body.scope,
        audience=audience,
        username=body.username,
    )


def refused_exchange(answer: Answer) -> UpstreamError:
    """
    @param answer: of the token endpoint to C{authorization_code}, not 200.
    @return: what to raise.
    """
    return _classify(answer, _EXCHANGE)


def refused_refresh(answer: Answer) -> UpstreamError:
    """
    @param answer: of the token endpoint to C{refresh_token}, not 200.
    @return: what to raise.
    """
    return _classify(answer, _REFRESH)


def unavailable(answer: Answer) -> UpstreamUnavailable:
    """
    @param answer: one that Forgejo itself would not give here.
    @return: what to raise.
    """
    seconds = (answer.retry_after or b"").strip()
    retry_after_seconds = (
        int(seconds)
        if seconds.isdigit() and len(seconds) < 9
        else DEFAULT_RETRY_AFTER_SECONDS
    )
    hint = ""
    if 300 <= answer.status < 400:
        hint = ", a redirect: does forgejo.internal_url name the right address?"
    return UpstreamUnavailable(
        f"Forgejo answered with status {answer.status}{hint}", retry_after_seconds
    )


class _Rule(msgspec.Struct, frozen=True):
    """
    An error code, a part of its description (empty: any), and what it means.
    """

    error: str
    part: str
    meaning: Callable[[], UpstreamError]


def _misconfigured() -> UpstreamError:
    return UpstreamMisconfigured(
        "Forgejo refuses the OAuth application: check forgejo.oauth_client_id and "
        "forgejo.oauth_client_secret"
    )


def _not_supported() -> UpstreamError:
    return UpstreamMisconfigured(
        "Forgejo's token endpoint does not know the grant type"
    )


def _code(message: str, *, restart: bool = False) -> Callable[[], UpstreamError]:
    return lambda: CodeRefused(message, restart=restart)


def _sign_in_needed() -> UpstreamError:
    return SignInNeeded("Forgejo refuses the refresh token")


_EXCHANGE: Final = (
    _Rule("invalid_client", "", _misconfigured),
    # Here a wrong secret is unauthorized_client, like most faults of the code.
    _Rule("unauthorized_client", "client secret", _misconfigured),
    _Rule("unsupported_grant_type", "", _not_supported),
    _Rule(
        "invalid_grant",
        "cannot increase the grant counter",
        _code("another sign-in of the same user came first", restart=True),
    ),
    _Rule(
        "unauthorized_client",
        "redirect_uri does not match",
        _code("the redirect URI is not the one that the sign-in began with"),
    ),
    _Rule(
        "unauthorized_client",
        "pkce",
        _code("the code was not issued for this browser's sign-in"),
    ),
    _Rule("unauthorized_client", "", _code("Forgejo does not know the code")),
    _Rule("invalid_grant", "", _code("the code belongs to another application")),
    _Rule(
        "invalid_request",
        "cannot proceed your request",
        _code("the code was exchanged already"),
    ),
)

_REFRESH: Final = (
    _Rule("invalid_client", "", _misconfigured),
    _Rule("unsupported_grant_type", "", _not_supported),
    _Rule("unauthorized_client", "", _sign_in_needed),
    _Rule("invalid_grant", "", _sign_in_needed),
)


def _classify(answer: Answer, rules: tuple[_Rule, ...]) -> UpstreamError:
    """
    All of Forgejo's own token errors have status 400. A 401 from something in
    front of it must not sign anybody out, so only C{invalid_client} counts there.
    """
    if answer.status not in (400, 401):
        return unavailable(answer)
    try:
        body = _decode(answer.body, _ErrorBody)
    except UpstreamUnavailable:
        return unavailable(answer)
    description = (body.error_description or "").lower()
    for rule in rules:
        if rule.error == body.error and rule.part in description:
            if answer.status == 401 and rule.error != "invalid_client":
                break
            return rule.meaning()
    return unavailable(answer)


def _not_forgejo() -> UpstreamUnavailable:
    return UpstreamUnavailable("the answer is not one of Forgejo's")


def _decode(body: bytes, kind: type[T]) -> T:
    try:
        return msgspec.json.decode(body, type=kind)
    # Deep nesting and bad UTF-8 are not DecodeErrors to msgspec.
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        raise _not_forgejo() from None


def _claims(token: str, kind: type[T]) -> T | None:
    """
    @return: the claims of a JWT, unverified, when it is one and has them.
    """
    parts = token.split(".")
    if len(parts) != 3:
        return None
    try:
        payload = urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4))
        return _decode(payload, kind)
    except (Base64Error, ValueError, UpstreamUnavailable):
        return None


def _identity(raw: msgspec.Raw, client_id: str) -> _IdClaims | None:
    if not bytes(raw):
        return None
    try:
        token = _decode(bytes(raw), str)
    except UpstreamUnavailable:
        return None
    claims = _claims(token, _IdClaims)
    if claims is None or client_id not in _audience(claims.aud):
        return None
    return claims if int(claims.sub) <= _MAXIMUM_INTEGER else None


def _user_id(subject: str) -> int:
    number = int(subject)
    if number > _MAXIMUM_INTEGER:
        raise _not_forgejo()
    return number


def _audience(value: str | list[str]) -> tuple[str, ...]:
    return (value,) if isinstance(value, str) else tuple(value)
