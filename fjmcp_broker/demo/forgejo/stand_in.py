"""
A stand-in Forgejo for the demo and the tests.

It answers as Forgejo v15 does wherever the broker or forgejo-mcp look: OAuth with
one grant and counter per user and application, the API with real state. It keeps
everything in memory, sees time only through its clock, and works both on a port
and in memory (C{treq.testing.StubTreq(forgejo.resource)}).
"""

import secrets
from collections.abc import Callable
from typing import cast

from klein import Response
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.iweb import IRequest
from twisted.web.resource import IResource, Resource
from twisted.web.server import NOT_DONE_YET, Request

from fjmcp_broker.demo.forgejo import http
from fjmcp_broker.demo.forgejo.api import Api
from fjmcp_broker.demo.forgejo.controls import Controls
from fjmcp_broker.demo.forgejo.core import ForgejoCore
from fjmcp_broker.demo.forgejo.http import page, text_answer
from fjmcp_broker.demo.forgejo.oauth import OAuthEndpoints
from fjmcp_broker.demo.forgejo.pages import Pages
from fjmcp_broker.demo.forgejo.panel import Panel
from fjmcp_broker.demo.forgejo.site import SitePages
from fjmcp_broker.demo.forgejo.state import Application
from fjmcp_broker.demo.forgejo.world import World, demo_world

OAUTH_PATHS = (
    "/login/oauth/access_token",
    "/login/oauth/userinfo",
    "/login/oauth/introspect",
    "/login/oauth/keys",
    "/.well-known/",
)

log = Logger()


class StandInForgejo:
    """
    One Forgejo with two users, C{alice} and C{bob}, and no application yet.

    @ivar controls: what tests do to it.
    @ivar world: its repositories and issues.
    @ivar resource: the root resource; it expects the base path in requests.
    """

    def __init__(
        self,
        clock: IReactorTime,
        base_url: str = "http://forgejo.test",
        *,
        controls_key: str | None = None,
        random_bytes: Callable[[int], bytes] = secrets.token_bytes,
    ) -> None:
        """
        @param clock: the time of tokens and delays.
        @param base_url: where browsers and programs find it; may have a path.
            It can be set later, when the port is known.
        @param controls_key: makes the controls reachable over HTTP, below
            C{/-/controls/KEY/}; None for not at all.
        @param random_bytes: the source of ids, codes and secrets.
        """
        self._core = ForgejoCore(clock, base_url, random_bytes)
        self._core.state.add_user("alice", "Alice Example")
        self._core.state.add_user("bob", "Bob Example")
        self.world = demo_world(self._core.state, self._core.now())
        self.controls = Controls(self._core)
        self.resource: IResource = _Front(
            self._core, self.world, Panel(self.controls, controls_key)
        )

    @property
    def base_url(self) -> str:
        """
        @return: the base URL without a trailing slash.
        """
        return self._core.base_url

    @base_url.setter
    def base_url(self, value: str) -> None:
        self._core.base_url = value.rstrip("/")

    def add_application(
        self,
        *redirect_uris: str,
        name: str = "fjmcp-broker",
        is_confidential: bool = True,
    ) -> Application:
        """
        Register an OAuth application.

        @param redirect_uris: its redirect URIs.
        @return: the application with C{client_id} and C{client_secret}.
        """
        return self._core.state.add_application(
            name, redirect_uris, is_confidential=is_confidential
        )


class _Front(Resource):
    """
    Records requests, applies faults, strips the base path, picks the endpoint.
    """

    isLeaf = True

    def __init__(self, core: ForgejoCore, world: World, panel: Panel) -> None:
        super().__init__()
        self._panel = panel
        self._core = core
        self._oauth = OAuthEndpoints(core).app.resource()
        self._api = Api(core, world).app.resource()
        self._pages = Pages(core).app.resource()
        self._site = SitePages(core, world).app.resource()

    def render(self, request: IRequest) -> int:
        """
        Take one request of any method.
        """
        serving = Deferred.fromCoroutine(self._serve(request))
        cast(Request, request).notifyFinish().addErrback(lambda _: serving.cancel())
        serving.addErrback(self._failed, request)
        return NOT_DONE_YET

    async def _serve(self, request: IRequest) -> None:
        base = self._core.base_path
        full = b"/" + b"/".join(request.postpath)
        path = full.decode("utf-8", "replace")
        if base and not path.startswith(f"{base}/"):
            self._write(request, text_answer("Not found.", 404))
            return
        path = path.removeprefix(base)
        if self._panel.is_for(path):
            method, body = request.method.decode(), http.json_body(request)
            self._write(request, self._panel.answer(method, path, body))
            return
        is_token = path == "/login/oauth/access_token"
        detail = http.form(request).get("grant_type", "") if is_token else ""
        record = self._core.traffic.arrived(request, path, detail)
        answer = await self._core.traffic.before(record)
        if answer is not None:
            self._write(request, answer)
            return
        segments = len([each for each in base.split("/") if each])
        request.prepath.extend(request.postpath[:segments])
        del request.postpath[:segments]
        target = self._target(path)
        body = target.render(request)
        if isinstance(body, bytes):
            cast(Request, request).write(body)
            cast(Request, request).finish()

    def _target(self, path: str) -> IResource:
        if path.startswith(OAUTH_PATHS):
            return self._oauth
        if path.startswith("/api/"):
            return self._api
        if path.startswith(("/user/", "/login/")):
            return self._pages
        return self._site

    def _write(self, request: IRequest, response: Response) -> None:
        plain = cast(Request, request)
        plain.setResponseCode(response.code)
        for name, value in response.headers.items():
            plain.setHeader(name, value)
        plain.write(response.body)
        plain.finish()

    def _failed(self, failure: Failure, request: IRequest) -> None:
        if failure.check(CancelledError):
            return
        log.failure("the stand-in Forgejo failed", failure=failure)
        self._write(request, page("Internal Server Error", "", 500))
