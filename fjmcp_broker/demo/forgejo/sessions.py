"""
Who is signed in to the stand-in Forgejo with a browser.
"""

from typing import Final, cast
from urllib.parse import quote, unquote, urlsplit

from klein import Response
from twisted.web.iweb import IRequest
from twisted.web.server import Request

from fjmcp_broker.demo.forgejo.core import ForgejoCore
from fjmcp_broker.demo.forgejo.http import redirect
from fjmcp_broker.demo.forgejo.state import User, WebSession

SESSION_COOKIE: Final = b"i_like_gitea"
RETURN_COOKIE: Final = b"redirect_to"


class BrowserSessions:
    """
    Finds and makes sessions by their cookie.
    """

    def __init__(self, core: ForgejoCore) -> None:
        """
        @param core: keeps the sessions.
        """
        self._core = core

    def of(self, request: IRequest) -> WebSession:
        """
        @return: the browser's session, a new one when it has none.
        """
        text = (request.getCookie(SESSION_COOKIE) or b"").decode("ascii", "replace")
        return self._core.state.web_sessions.get(text) or self.new(request)

    def new(self, request: IRequest) -> WebSession:
        """
        @return: a new session; the answer will carry its cookie.
        """
        text = self._core.state.random_text()
        session = self._core.state.web_sessions[text] = WebSession()
        self.set_cookie(request, SESSION_COOKIE, text)
        return session

    def set_cookie(self, request: IRequest, name: bytes, value: str) -> None:
        """
        Give the browser a cookie for all of the stand-in.
        """
        cast(Request, request).addCookie(
            name,
            value,
            path=(self._core.base_path or "/"),
            httpOnly=True,
            sameSite="lax",
            secure=self._core.base_url.startswith("https:"),
        )

    def user(self, request: IRequest) -> User | None:
        """
        @return: who is signed in; None for nobody, and for accounts that may not.
        """
        user = self._core.state.users.get(self.of(request).user_id or 0)
        if user is None or not user.may_sign_in:
            return None
        self._core.traffic.name_user(request, user.login)
        return user

    def sign_in_first(self, request: IRequest) -> Response:
        """
        @return: a redirect to the sign-in page, which will lead back here.
        """
        target = urlsplit(request.uri.decode("utf-8", "replace"))
        self.set_cookie(
            request, RETURN_COOKIE, quote(f"{target.path}?{target.query}", safe="")
        )
        return redirect(self._core.url("/user/login"))

    def return_location(self, request: IRequest) -> str:
        """
        @return: the page to go back to: only ever one of this stand-in.
        """
        text = (request.getCookie(RETURN_COOKIE) or b"").decode("ascii", "replace")
        path = unquote(text)
        if path.startswith(f"{self._core.base_path}/") and not path.startswith("//"):
            root = self._core.base_url.removesuffix(self._core.base_path)
            return root + path
        return self._core.url("/")
