"""
The stand-in's pages for people: sign in, consent, and removing an application.
"""

from html import escape
from urllib.parse import urlsplit

from klein import Klein, Response
from twisted.web.iweb import IRequest

from fjmcp_broker.demo.forgejo import http
from fjmcp_broker.demo.forgejo.core import ForgejoCore
from fjmcp_broker.demo.forgejo.http import (
    page,
    redirect,
    serve,
    text_answer,
    with_parameters,
)
from fjmcp_broker.demo.forgejo.sessions import RETURN_COOKIE, BrowserSessions
from fjmcp_broker.demo.forgejo.state import Application, User


class Pages:
    """
    Everything that a browser of a person sees.
    """

    app = Klein()

    def __init__(self, core: ForgejoCore) -> None:
        """
        @param core: the stand-in's state, clock and settings.
        """
        self._core = core
        self._sessions = BrowserSessions(core)

    async def deliver(self, request: IRequest, response: Response) -> Response:
        """
        Pass an answer through the faults.
        """
        return await self._core.traffic.deliver(request, response)

    # Signing in

    @serve(app, "/user/login", "GET", "HEAD")
    def login_form(self, request: IRequest) -> Response:
        """
        The sign-in page, which shows the demo's users and passwords.
        """
        return self._login_page("")

    def _login_page(self, error: str) -> Response:
        rows = "".join(
            f"<tr><td>{escape(user.login)}</td>"
            f"<td><code>{escape(user.password)}</code></td></tr>"
            for user in self._core.state.users.values()
        )
        return page(
            "Sign in",
            (f'<p class="error" role="alert">{escape(error)}</p>' if error else "")
            + f'<form method="post" action="{self._core.url("/user/login")}">'
            '<label>Username <input name="user_name" autocomplete="username" '
            "required autofocus></label>"
            '<label>Password <input name="password" type="password" '
            'autocomplete="current-password" required></label>'
            '<button type="submit">Sign in</button></form>'
            "<p>The users of this demo:</p>"
            f"<table><tr><th>Username<th>Password</tr>{rows}</table>",
        )

    @serve(app, "/user/login", "POST")
    def login(self, request: IRequest) -> Response:
        """
        Check name and password, start a session, go on where the browser was.
        """
        form = http.form(request)
        name, password = form.get("user_name", ""), form.get("password", "")
        for user in self._core.state.users.values():
            if user.login == name and user.password == password:
                break
        else:
            return self._login_page("Username or password is incorrect.")
        if not user.may_sign_in:
            return page("Sign-in prohibited", "<p>Ask your administrator.</p>", 403)
        self._sessions.new(request).user_id = user.id
        self._core.traffic.name_user(request, user.login)
        location = self._sessions.return_location(request)
        self._sessions.set_cookie(request, RETURN_COOKIE, "")
        return redirect(location)

    @serve(app, "/user/logout", "GET", "POST")
    def logout(self, request: IRequest) -> Response:
        """
        End the session.
        """
        self._sessions.of(request).user_id = None
        return redirect(self._core.url("/"))

    # Authorization

    @serve(app, "/login/oauth/authorize", "GET", "POST")
    def authorize(self, request: IRequest) -> Response:
        """
        Check an authorization request; show the consent page, or skip it.
        """
        user = self._sessions.user(request)
        if user is None:
            return self._sessions.sign_in_first(request)
        form = http.query(request)
        if request.method == b"POST":
            form |= http.form(request)
        application = self._core.state.application_of(form.get("client_id", ""))
        if application is None:
            return _refusal("Client ID not registered")
        redirect_uri = form.get("redirect_uri", "")
        if not redirect_uri or not application.accepts(redirect_uri):
            return _refusal("Unregistered Redirect URI")
        problem = _problem(form, application)
        if problem is not None:
            return _error_redirect(redirect_uri, form.get("state", ""), *problem)
        session = self._sessions.of(request)
        # Kept in the session, as Forgejo does: the latest request only.
        if form.get("code_challenge_method"):
            session.values["method"] = form["code_challenge_method"]
            session.values["challenge"] = form.get("code_challenge", "")
        grant = self._core.state.grant_of(user.id, application.id)
        if application.is_confidential and grant is not None:
            code = self._core.state.add_code(
                grant,
                redirect_uri,
                form.get("code_challenge", ""),
                form.get("code_challenge_method", ""),
            )
            if form.get("nonce"):
                grant.nonce = form["nonce"]
            return _code_redirect(redirect_uri, form.get("state", ""), code.text)
        for name in ("client_id", "redirect_uri", "state"):
            session.values[name] = form.get(name, "")
        return self._consent_page(user, application, form)

    def _consent_page(
        self, user: User, application: Application, form: dict[str, str]
    ) -> Response:
        hidden = "".join(
            f'<input type="hidden" name="{name}" value="{escape(form.get(name, ""))}">'
            for name in ("client_id", "state", "scope", "nonce", "redirect_uri")
        )
        scope = form.get("scope", "") or "(none: full access)"
        return page(
            f"Authorize “{application.name}” to access your account?",
            f"<p>Signed in as <b>{escape(user.login)}</b>.</p>"
            f"<p>With scopes: <code>{escape(scope)}</code></p>"
            "<p>You will be redirected to "
            f"<code>{escape(form['redirect_uri'])}</code></p>"
            f'<form method="post" action="{self._core.url("/login/oauth/grant")}">'
            f"{hidden}"
            '<button type="submit" name="granted" value="true">'
            "Authorize application</button>"
            '<button type="submit" name="granted" value="false">Cancel</button>'
            "</form>",
        )

    @serve(app, "/login/oauth/grant", "POST")
    def grant(self, request: IRequest) -> Response:
        """
        The answer to the consent page.
        """
        if not self._is_same_origin(request):
            return text_answer("cross-origin request detected", 403)
        user = self._sessions.user(request)
        if user is None:
            return self._sessions.sign_in_first(request)
        session, form = self._sessions.of(request), http.form(request)
        names = ("client_id", "state", "redirect_uri")
        if any(session.values.get(name) != form.get(name, "") for name in names):
            return text_answer("Bad Request", 400)
        redirect_uri, state = form["redirect_uri"], form.get("state", "")
        if form.get("granted") != "true":
            return _error_redirect(
                redirect_uri, state, "access_denied", "the request is denied"
            )
        application = self._core.state.application_of(form["client_id"])
        if application is None:
            return _refusal("Client ID not registered")
        grant = self._core.consent(
            user, application, form.get("scope", ""), form.get("nonce", "")
        )
        if grant is None:
            return _error_redirect(
                redirect_uri,
                state,
                "server_error",
                "a grant exists with different scope",
            )
        code = self._core.state.add_code(
            grant,
            redirect_uri,
            session.values.pop("challenge", ""),
            session.values.pop("method", ""),
        )
        return _code_redirect(redirect_uri, state, code.text)

    def _is_same_origin(self, request: IRequest) -> bool:
        """
        The cross-origin protection of Go's standard library.
        """
        site = http.header(request, "sec-fetch-site")
        if site:
            return site in ("same-origin", "none")
        origin = http.header(request, "origin")
        return not origin or urlsplit(origin).netloc == http.header(request, "host")

    # Applications of a user

    @serve(app, "/user/settings/applications", "GET")
    def applications(self, request: IRequest) -> Response:
        """
        The applications a user gave access to, each with a button to remove it.
        """
        user = self._sessions.user(request)
        if user is None:
            return self._sessions.sign_in_first(request)
        items = "".join(
            f"<li>{escape(self._core.state.applications[grant.application_id].name)}"
            f" <code>{escape(grant.scope)}</code>"
            f'<form method="post" action="'
            f"{self._core.url(f'/user/settings/applications/oauth2/{grant.id}/revoke')}"
            '"><button type="submit">Revoke</button></form></li>'
            for grant in self._core.state.grants.values()
            if grant.user_id == user.id
        )
        return page("Authorized applications", f"<ul>{items or '<li>None</li>'}</ul>")

    @serve(app, "/user/settings/applications/oauth2/<int:grant_id>/revoke", "POST")
    def revoke(self, request: IRequest, grant_id: int) -> Response:
        """
        Remove one grant of the signed-in user.
        """
        if not self._is_same_origin(request):
            return text_answer("cross-origin request detected", 403)
        user = self._sessions.user(request)
        grant = self._core.state.grants.get(grant_id)
        if user is not None and grant is not None and grant.user_id == user.id:
            self._core.state.remove_grant(grant)
        return redirect(self._core.url("/user/settings/applications"))


def _problem(form: dict[str, str], application: Application) -> tuple[str, str] | None:
    """
    @return: error code and text of a request that is answered by a redirect.
    """
    if form.get("response_type") != "code":
        return (
            "unsupported_response_type",
            "Only code response type is supported.",
        )
    method = form.get("code_challenge_method", "")
    if method not in ("", "S256", "plain"):
        return "invalid_request", "unsupported code challenge method"
    if not method and not application.is_confidential:
        return "invalid_request", "PKCE is required for public clients"
    return None


def _refusal(reason: str) -> Response:
    return page("Authorization failed", f"<p>{escape(reason)}</p>", 400)


def _error_redirect(
    redirect_uri: str, state: str, code: str, description: str
) -> Response:
    return redirect(
        with_parameters(
            redirect_uri,
            {"error": code, "error_description": description, "state": state},
        )
    )


def _code_redirect(redirect_uri: str, state: str, code: str) -> Response:
    parameters = {"code": code}
    if state:
        parameters["state"] = state
    return redirect(with_parameters(redirect_uri, parameters))
