"""
The pages for errors that nothing more helpful is known about: what went wrong, what to
do, and what to tell an administrator.
"""

from typing import Final
from urllib.parse import quote

from twisted.web.iweb import IRequest

from fjmcp_broker.oauth.vocabulary import AUTHORIZE_PATH, CALLBACK_PATH, CONSENT_PATH
from fjmcp_broker.web.errors import ErrorAnswer
from fjmcp_broker.web.pages.html import Content, Html, element
from fjmcp_broker.web.pages.page import GO_BACK, reference, render, set_page_headers

#: What opening an address again does no harm to, and may help: nothing is spent
#: before the limits, and nothing when the store cannot be used.
_REPEATABLE: Final = {
    429: (AUTHORIZE_PATH, CALLBACK_PATH),
    500: (AUTHORIZE_PATH,),
    503: (AUTHORIZE_PATH, CALLBACK_PATH),
}
_ANSWERED_AGAIN: Final = (429, 503)
"""What the answer to the consent page may meet before it counts."""

_PRINTABLE: Final = "!$%&'()*+,-./:;=?@_~"
_LONG_WAIT_SECONDS: Final = 90

_START: Final = element(
    "p", element("a", "What this service is, and how to connect to it", href="/")
)

_PROBLEMS: Final = {
    400: (
        "This sign-in request is not valid",
        "The application sent a request that cannot be answered.",
    ),
    403: ("This request was refused", "It did not come from a page of this service."),
    404: ("There is nothing here", "The address is not one of this service."),
    405: (
        "This page cannot be opened this way",
        "The request used a method that this address does not have.",
    ),
    413: (
        "This request is too large",
        "The application sent more than this service reads.",
    ),
    414: (
        "This request is too long",
        "The application sent more than this service reads.",
    ),
    415: (
        "This request has an unknown form",
        "The application sent something that this service does not read.",
    ),
    429: (
        "Too many sign-ins",
        "More sign-ins have begun from your network than this service allows at a "
        "time. Nothing is lost, and nothing was allowed.",
    ),
    503: (
        "This service is busy",
        "It cannot write down your sign-in at the moment. Nothing is lost, and nothing "
        "was allowed.",
    ),
}
_FAULT: Final = (
    "Something went wrong here",
    "This is a fault of this service, not yours. Its log says what happened, under the "
    "reference below.",
)


def error_page(request: IRequest, answer: ErrorAnswer) -> bytes:
    """
    @param request: has status and headers of the answer already.
    @param answer: the error.
    @return: the page.
    """
    set_page_headers(request)
    title, why = _PROBLEMS.get(answer.status, _FAULT)
    content: list[Content] = [element("p", why)]
    if answer.status >= 500 or answer.status == 429:
        content += _when_to_try_again(request, answer)
    elif answer.status == 404:
        content.append(_START)
    else:
        content.append(GO_BACK)
    detail = f"{answer.code}: {answer.description}"
    content.append(reference(request, detail, answer.incident))
    return render(title, *content)


def _when_to_try_again(request: IRequest, answer: ErrorAnswer) -> list[Html]:
    wait = _wait(answer.headers.get("Retry-After", ""))
    path = request.uri.partition(b"?")[0]
    paths = _REPEATABLE.get(answer.status, ())
    if path == CONSENT_PATH.encode() and answer.status in _ANSWERED_AGAIN:
        return [
            element(
                "p",
                f"{wait}, then go back one page and answer again. If that does not "
                "help, go back to the application that you came from and connect "
                "again.",
            )
        ]
    if request.method != b"GET" or path.decode("latin-1") not in paths:
        return [
            element(
                "p",
                f"{wait}, then go back to the application that you came from and "
                "connect again.",
            )
        ]
    return [
        element(
            "p",
            f"{wait}, then try again. If that does not help, go back to the "
            "application that you came from and connect again.",
        ),
        try_again(request),
    ]


def try_again(request: IRequest) -> Html:
    """
    @param request: GET of a path of ours; its query may be anything.
    @return: a link to the same address.
    """
    path, _, query = request.uri.partition(b"?")
    target = path.decode("ascii") + (f"?{quote(query, _PRINTABLE)}" if query else "")
    return element("p", element("a", "Try again", href=target, class_="button main"))


def _wait(seconds: str) -> str:
    """
    @param seconds: C{Retry-After}, ours, or nothing.
    @return: the beginning of a sentence.
    """
    if not seconds.isdecimal():
        return "Wait a moment"
    number = max(int(seconds), 1)
    if number > _LONG_WAIT_SECONDS:
        return f"Wait {-(-number // 60)} minutes"
    return f"Wait {number} second{'' if number == 1 else 's'}"
