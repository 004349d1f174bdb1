"""
Which path belongs to which endpoint, and what every answer has.

An endpoint family is a class with its collaborators as constructor arguments and
C{async} methods that take the request and return the body. A method reports what is
wrong by raising; only this module turns exceptions into answers.

All paths are exact and have no variables, so a dictionary is all the routing that is
needed; a framework's took 2.7 MiB.
"""

from collections.abc import Awaitable, Callable, Iterable
from secrets import token_hex
from typing import Final, cast

import msgspec
from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.iweb import IRequest
from twisted.web.resource import IResource, Resource
from twisted.web.server import NOT_DONE_YET, Request
from zope.interface import implementer

from fjmcp_broker.oauth.errors import OAuthError
from fjmcp_broker.oauth.vocabulary import (
    AUTHORIZE_PATH,
    CALLBACK_PATH,
    CONSENT_PATH,
    ErrorCode,
)
from fjmcp_broker.store.errors import StoreError
from fjmcp_broker.web.cors import answer_all, answer_preflight, is_open_to_all
from fjmcp_broker.web.errors import (
    ErrorAnswer,
    ErrorPage,
    NotFound,
    answer_error,
    store_unavailable,
)
from fjmcp_broker.web.origins import OriginPolicy

log = Logger()

Handler = Callable[[IRequest], Awaitable[bytes]]

#: A navigation arrives at these with no Origin or, after a redirect, with a foreign
#: one or C{null}; the consent form has its own, stricter rule.
_ORIGIN_FREE: Final = frozenset({AUTHORIZE_PATH, CALLBACK_PATH, CONSENT_PATH})

_SECURITY_HEADERS: Final = (
    (b"X-Content-Type-Options", b"nosniff"),
    (b"Referrer-Policy", b"no-referrer"),
    (b"Content-Security-Policy", b"default-src 'none'; frame-ancestors 'none'"),
)


class Route(msgspec.Struct, frozen=True):
    """
    One method of one path.

    @ivar method: C{GET} (HEAD comes with it) or C{POST}.
    @ivar path: exactly as requested, no trailing slash.
    @ivar handler: gives the body; it sets status and headers itself.
    @ivar error_page: for paths that a person visits: makes the page shown instead
        of a JSON error.
    """

    method: str
    path: str
    handler: Handler
    error_page: ErrorPage | None = None


def build_web_resource(routes: Iterable[Route], origins: OriginPolicy) -> IResource:
    """
    @param routes: every route of the service but the MCP endpoint.
    @param origins: the Host and Origin that requests under C{/oauth} may name.
    @return: the resource for the whole tree; it finds the full path of a request
        whatever it is mounted under.
    """
    return _Guard(_Application(tuple(routes)), origins)


class _Application:
    """
    The routes, and the answers to what they raise.
    """

    def __init__(self, routes: tuple[Route, ...]) -> None:
        self._pages = {
            route.path: route.error_page for route in routes if route.error_page
        }
        self._handlers: dict[str, dict[str, Handler]] = {}
        for route in routes:
            handlers = self._handlers.setdefault(route.path, {})
            handlers[route.method] = route.handler
            if route.method == "GET":
                handlers["HEAD"] = route.handler

    def methods_of(self, path: str) -> frozenset[str]:
        """
        @param path: as requested.
        @return: the methods that it has; none when there is no such path.
        """
        return frozenset(self._handlers.get(path, ()))

    def render(self, request: Request) -> None:
        """
        Begin to answer. The work is cancelled when the client goes away.

        @param request: with its body.
        """
        over = request.notifyFinish()
        work = Deferred.fromCoroutine(self._answer(request, over))
        over.addErrback(lambda gone: work.cancel())
        work.addErrback(lambda failure: request.processingFailed(failure) and None)

    async def _answer(self, request: Request, over: Deferred[None]) -> None:
        try:
            body = await self._handled(cast(IRequest, request))
        except Exception:
            failure = Failure()
            if over.called:
                if not failure.check(CancelledError):
                    log.failure("request failed after its client had gone", failure)
                return
            body = self.render_error(cast(IRequest, request), answer_of(failure))
        if not over.called:
            request.write(body)
            request.finish()

    async def _handled(self, request: IRequest) -> bytes:
        path = full_path(request)
        handlers = self._handlers.get(path)
        if handlers is None:
            raise NotFound
        handler = handlers.get(request.method.decode("latin-1"))
        if handler is None:
            return self.render_error(request, self._not_allowed(path))
        return await handler(request)

    def _not_allowed(self, path: str) -> ErrorAnswer:
        methods = self.methods_of(path)
        if is_open_to_all(path):
            methods |= {"OPTIONS"}  # which is answered before it comes here
        return ErrorAnswer(
            405,
            ErrorCode.METHOD_NOT_ALLOWED,
            "the method is not allowed here",
            {"Allow": ", ".join(sorted(methods))},
        )

    def render_error(self, request: IRequest, answer: ErrorAnswer) -> bytes:
        """
        @param request: gets status and headers.
        @param answer: the error.
        @return: a page on the paths that people visit, and for a browser that got
            lost, else JSON.
        """
        body = answer_error(request, answer)
        path = full_path(request)
        page = self._pages.get(path)
        if page is None and answer.status == 404 and _is_visited(request, path):
            page = self._pages.get("/")
        if page is None:
            return body
        body = page(request, answer)
        request.setHeader(b"Content-Type", b"text/html; charset=utf-8")
        request.setHeader(b"Content-Length", b"%d" % len(body))
        return body


def _is_visited(request: IRequest, path: str) -> bool:
    """
    @return: whether somebody looks at an address that is nobody's: only browsers that
        show it accept HTML by name.
    """
    if request.method not in (b"GET", b"HEAD") or is_open_to_all(path):
        return False
    values = request.requestHeaders.getRawHeaders(b"accept") or []
    return any(b"text/html" in value.lower() for value in values)


def full_path(request: IRequest) -> str:
    """
    @param request: any request.
    @return: its path without the query, as sent; not decoded.
    """
    path: bytes = request.uri.partition(b"?")[0]
    return path.decode("latin-1")


def answer_of(failure: Failure) -> ErrorAnswer:
    """
    @param failure: what a route raised.
    @return: the answer; what nobody expected is logged under the id that it has.
    """
    error = failure.value
    if isinstance(error, OAuthError):
        return ErrorAnswer.of(error)
    if isinstance(error, NotFound):
        return ErrorAnswer(404, ErrorCode.NOT_FOUND, "there is nothing at this path")
    if isinstance(error, StoreError):
        log.warn("request refused, the store is not usable: {error}", error=str(error))
        return store_unavailable()
    if isinstance(error, CancelledError):
        # Something below timed out; a departed client never gets here.
        log.warn("request cancelled below")
        return store_unavailable()
    incident = token_hex(8)
    log.failure("request failed, incident {incident}", failure, incident=incident)
    return ErrorAnswer(
        500,
        ErrorCode.SERVER_ERROR,
        "an unexpected error; the log has it under the incident id",
        incident=incident,
    )


@implementer(IResource)
class _Guard(Resource):
    """
    What comes before routing: headers of every answer, paths in disguise, Host and
    Origin.
    """

    isLeaf = True

    def __init__(self, application: _Application, origins: OriginPolicy) -> None:
        super().__init__()
        self._application = application
        self._origins = origins

    def render(self, request: Request) -> bytes | int:
        """
        @param request: with its body.
        @return: the answer, or that it will come.
        """
        for name, value in _SECURITY_HEADERS:
            request.setHeader(name, value)
        path = full_path(cast(IRequest, request))
        is_open = is_open_to_all(path)
        if is_open:
            answer_all(request)
        refusal = self._refusal(cast(IRequest, request), path)
        if refusal is not None:
            return self._application.render_error(cast(IRequest, request), refusal)
        if is_open and request.method == b"OPTIONS":
            # Also where no document is: the browser goes on and reads the 404.
            methods = self._application.methods_of(path)
            answer_preflight(request, methods or ("GET", "HEAD"))
            return b""
        self._application.render(request)
        return NOT_DONE_YET

    def _refusal(self, request: IRequest, path: str) -> ErrorAnswer | None:
        if not path.startswith("/"):
            return ErrorAnswer(400, ErrorCode.INVALID_REQUEST, "not a path")
        if not path.isascii() or "%" in path or "//" in path:
            # Ours need no escape, and nobody else should take such a path for one
            # of ours.
            return ErrorAnswer(404, ErrorCode.NOT_FOUND, "there is nothing here")
        if not path.startswith("/oauth/"):
            return None
        if not self._origins.allows_host(request):
            return ErrorAnswer(403, ErrorCode.ACCESS_DENIED, "not a host of ours")
        if (
            path not in _ORIGIN_FREE
            and not is_open_to_all(path)
            and not self._origins.allows_origin(request)
        ):
            return ErrorAnswer(403, ErrorCode.ACCESS_DENIED, "not an allowed origin")
        return None
