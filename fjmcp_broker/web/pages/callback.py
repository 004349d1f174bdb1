"""
The pages that a browser may see when it comes back from Forgejo.
"""

from urllib.parse import quote, urlencode

from twisted.web.iweb import IRequest

from fjmcp_broker.oauth.authorization import AuthorizationRequest
from fjmcp_broker.oauth.redirect_uris import display_host
from fjmcp_broker.oauth.vocabulary import AUTHORIZE_PATH
from fjmcp_broker.upstream.errors import ScopeMismatch
from fjmcp_broker.web.pages.html import element
from fjmcp_broker.web.pages.page import MAY_BE_DONE, problem


def wrong_browser(request: IRequest) -> bytes:
    """
    @param request: gets status and headers.
    @return: the page for a browser without the approval cookie of its state.
    """
    return problem(
        request,
        400,
        "This sign-in cannot be finished here",
        element(
            "p",
            "It began in another browser, it has been finished already, or it took "
            "longer than ten minutes. Opening this address has allowed nothing.",
        ),
        MAY_BE_DONE,
    )


def not_allowed(
    request: IRequest, wanted: AuthorizationRequest, login: str, back: str
) -> bytes:
    """
    @param request: gets status and headers.
    @param wanted: what the client asked for.
    @param login: the user's name at Forgejo, chosen by the user.
    @param back: the client's redirect URI with C{error=access_denied}.
    @return: the page for a user who is not on the operator's list. It does not go on
        by itself: the client would show less than this page does.
    """
    host = element("bdi", display_host(wanted.redirect_uri))
    return problem(
        request,
        403,
        "This account may not use this service",
        element(
            "p",
            "You are signed in at Forgejo as ",
            element("strong", element("bdi", login)),
            ". Whoever runs this service has not allowed this account, so the "
            "application was given nothing.",
        ),
        element(
            "p",
            "Ask them to allow it, or sign in at Forgejo with another account, then "
            "connect again.",
        ),
        element(
            "p", element("a", "Go back to ", host, href=back, class_="button main")
        ),
    )


def other_scopes(
    request: IRequest,
    wanted: AuthorizationRequest,
    mismatch: ScopeMismatch,
    forgejo_url: str,
) -> bytes:
    """
    @param request: gets status and headers.
    @param wanted: what the client asked for, to be asked once more.
    @param mismatch: which scopes Forgejo has kept.
    @param forgejo_url: where people use Forgejo.
    @return: the page that says how to make Forgejo forget them.
    """
    applications = f"{forgejo_url.rstrip('/')}/user/settings/applications"
    query = urlencode(wanted.parameters(), quote_via=quote, safe="")
    return problem(
        request,
        409,
        "Forgejo remembers an older permission",
        element(
            "p",
            "You allowed this service to use Forgejo at a time when it asked for "
            "other rights. Forgejo keeps those until you remove them, so it has "
            "to be done once by hand.",
        ),
        element(
            "ol",
            element(
                "li",
                "Open ",
                element("a", "your applications in Forgejo", href=applications),
                " and revoke the access of this service under Authorized OAuth2 "
                "applications.",
            ),
            element("li", "Come back to this page and try again."),
        ),
        element(
            "p",
            element(
                "a",
                "Try again",
                href=f"{AUTHORIZE_PATH}?{query}",
                class_="button main",
            ),
        ),
        element("p", f"Needed: {mismatch.requested}", class_="soft"),
        element("p", f"Remembered: {mismatch.granted}", class_="soft"),
    )
