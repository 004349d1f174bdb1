"""
How the stand-in's API finds the function for a request, and checks the caller.
"""

import re
from collections.abc import Callable
from typing import Any, Final

import msgspec
from klein import Response

from fjmcp_broker.demo.forgejo.core import ForgejoCore
from fjmcp_broker.demo.forgejo.http import json_answer
from fjmcp_broker.demo.forgejo.scopes import permitted, required_scopes
from fjmcp_broker.demo.forgejo.shapes import Shapes
from fjmcp_broker.demo.forgejo.state import User
from fjmcp_broker.demo.forgejo.tokens import ACCESS, InvalidTokenError
from fjmcp_broker.demo.forgejo.world import Repository, World

PREFIX: Final = "/api/v1"
DEFAULT_PAGE: Final = 30
LARGEST_PAGE: Final = 50


class ApiError(Exception):
    """
    A refusal: Forgejo's JSON with C{message} and C{url}.
    """

    def __init__(self, status: int, message: str) -> None:
        """
        @param status: the HTTP status.
        @param message: the C{message}.
        """
        super().__init__(status, message)
        self.status = status
        self.message = message


class ApiCall(msgspec.Struct, frozen=True):
    """
    One request for the API, its token already checked.

    @ivar path: below C{/api/v1}.
    @ivar user: None for nobody.
    """

    core: ForgejoCore
    world: World
    shapes: Shapes
    method: str
    path: str
    user: User | None
    query: dict[str, str]
    body: dict[str, Any]

    def who(self) -> User:
        """
        @return: the user.
        @raise ApiError: when nobody is signed in.
        """
        if self.user is None:
            raise ApiError(401, "token is required")
        return self.user

    def repository(self, owner: str, name: str) -> Repository:
        """
        @return: a repository that the user may see.
        @raise ApiError: when there is none.
        """
        repository = self.world.find(owner, name)
        if repository is None or not repository.is_visible_to(self.user):
            raise not_found()
        return repository

    def own_repository(self, owner: str, name: str) -> Repository:
        """
        @return: a repository that the user may change.
        @raise ApiError: when there is none, or it is another's.
        """
        repository = self.repository(owner, name)
        if not repository.is_owned_by(self.who()):
            raise ApiError(403, "user should have a permission to write to a repo")
        return repository

    def text(self, name: str) -> str:
        """
        @return: a text member of the body.
        @raise ApiError: when it is missing or empty.
        """
        value = self.body.get(name)
        if not isinstance(value, str) or not value:
            raise ApiError(422, f"[{name.capitalize()}]: Required")
        return value

    def number(self, name: str, default: int) -> int:
        """
        @return: a positive number of the query, the default for anything else.
        """
        value = self.query.get(name, "")
        return int(value) if value.isdecimal() and int(value) else default

    def some(self, items: list[Any]) -> Response:
        """
        @return: the asked page of a list, with the headers that say what is left.
        """
        limit = min(self.number("limit", DEFAULT_PAGE), LARGEST_PAGE)
        page = self.number("page", 1)
        start = (page - 1) * limit
        answer = json_answer(
            items[start : start + limit], X_Total_Count=str(len(items))
        )
        if start + limit < len(items):
            url = self.core.url(f"{PREFIX}{self.path}?limit={limit}&page={page + 1}")
            headers = dict(answer.headers) | {"Link": f'<{url}>; rel="next"'}
            return Response(answer.code, headers, answer.body)
        return answer


Handler = Callable[..., Response]


class Routes:
    """
    An ordered table of patterns; C{{name}} stands for a segment, C{{name*}} for
    the rest of the path.
    """

    def __init__(self) -> None:
        self._routes: list[tuple[str, re.Pattern[str], Handler]] = []

    def on(self, method: str, pattern: str) -> Callable[[Handler], Handler]:
        """
        @param method: the HTTP method; GET stands for HEAD too.
        @param pattern: below C{/api/v1}.
        @return: a decorator for C{handler(call, **segments)}.
        """
        expression = re.sub(r"\{(\w+)\*\}", r"(?P<\1>.*)", pattern)
        expression = re.sub(r"\{(\w+)\}", r"(?P<\1>[^/]+)", expression)

        def decorate(handler: Handler) -> Handler:
            self._routes.append((method, re.compile(expression), handler))
            return handler

        return decorate

    def find(self, method: str, path: str) -> tuple[Handler, dict[str, str]] | None:
        """
        @return: the first handler that fits, with its segments.
        """
        wanted = "GET" if method == "HEAD" else method
        for known, pattern, handler in self._routes:
            found = pattern.fullmatch(path) if known == wanted else None
            if found is not None:
                return handler, found.groupdict()
        return None


def not_found() -> ApiError:
    """
    @return: Forgejo's answer for what is not there or not visible.
    """
    return ApiError(404, "The target couldn't be found.")


def presented_token(authorization: str, query: dict[str, str]) -> str | None:
    """
    @param authorization: the header, empty when absent.
    @return: the token of a request, None when there is none.
    """
    kind, _, token = authorization.partition(" ")
    if kind.lower() in ("bearer", "token"):
        return token.strip()
    return query.get("token") or query.get("access_token")


def identify(
    core: ForgejoCore, method: str, path: str, token: str | None
) -> User | None:
    """
    Who calls, before anything else is looked at: a bad token is refused on every
    path, open ones included.

    @param path: below C{/api/v1}.
    @return: the user; None without a token.
    @raise ApiError: 401 for a useless token, 403 for an account that may not
        sign in or a scope that is not enough.
    """
    if token is None:
        return None
    try:
        user, grant = core.authenticate(token, ACCESS)
    except InvalidTokenError:
        raise ApiError(401, _unauthorized(core, token)) from None
    if not user.is_active:
        raise ApiError(403, "This account is not activated.")
    if user.prohibit_login:
        raise ApiError(
            403,
            "This account is prohibited from signing in, "
            "please contact your site administrator.",
        )
    for scope in required_scopes(method, path):
        if not permitted(grant.scopes(), scope):
            raise ApiError(
                403, f"token does not have at least one of required scope(s): [{scope}]"
            )
    return user


def _unauthorized(core: ForgejoCore, token: str) -> str:
    if core.message_style == "v16":
        return (
            "oauth2 grant not found or revoked\n"
            f"access token does not exist [sha: {token}]"
        )
    return "user does not exist [uid: 0, name: ]"
