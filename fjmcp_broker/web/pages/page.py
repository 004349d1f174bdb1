"""
The pages that people see: plain HTML, one style, no script, readable on a phone.
"""

from collections.abc import Sequence
from typing import Final

from twisted.web.iweb import IRequest

from fjmcp_broker.web.errors import NO_STORE, answer_bytes
from fjmcp_broker.web.pages.html import Content, Html, element
from fjmcp_broker.web.pages.style import STYLE, STYLE_SOURCE

#: CSP sources for a page without a form.
NO_FORM: Final = ("'none'",)


def icon(drawing: str) -> Html:
    """
    @param drawing: the C{d} of a path in a square of 24, stroked in the text's colour.
    @return: a picture that adds nothing to the words beside it.
    """
    path = element("path", d=drawing)
    return element(
        "svg",
        path,
        viewBox="0 0 24 24",
        fill="none",
        stroke="currentColor",
        stroke_width="2",
        stroke_linecap="round",
        stroke_linejoin="round",
        aria_hidden="true",
    )


def note(text: str) -> Html:
    """
    @param text: what to think about before going on.
    @return: it, so that nobody overlooks it.
    """
    return element("div", icon(_CAUTION), element("p", text), class_="note")


_CAUTION: Final = "M12 3 2.5 20h19ZM12 10v4M12 17.2v.1"
#: Two ends and what joins them.
_MARK: Final = (
    "M6 3a3 3 0 1 1 0 6a3 3 0 0 1 0-6M18 15a3 3 0 1 1 0 6a3 3 0 0 1 0-6"
    "M6 9v6a3 3 0 0 0 3 3h6"
)
_HEADER: Final = element("header", icon(_MARK), element("span", "Forgejo MCP broker"))


def render(title: str, *content: Content) -> bytes:
    """
    @param title: of the page, may contain text of others.
    @param content: what stands on it.
    @return: a complete document, UTF-8.
    """
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", name="robots", content="noindex"),
        element("title", title),
        # The style is ours and has no character that would need escaping.
        element("style", Html(STYLE)),
    )
    main = element("main", element("h1", title), *content)
    body = element("body", _HEADER, main)
    document = element("html", head, body, lang="en")
    return b"<!DOCTYPE html>" + document.markup.encode("utf-8")


def page_headers(form_sources: Sequence[str] = NO_FORM) -> dict[str, str]:
    """
    C{Referrer-Policy} is not C{no-referrer}, because with that browsers send
    C{Origin: null} on our own form.

    @param form_sources: CSP sources to which a form of the page and the redirects
        after it may lead.
    @return: what every page has.
    """
    policy = (
        f"default-src 'none'; style-src {STYLE_SOURCE}; base-uri 'none'; "
        f"form-action {' '.join(form_sources)}; "
        "frame-ancestors 'none'"
    )
    return {
        "Content-Security-Policy": policy,
        "Referrer-Policy": "same-origin",
        "X-Content-Type-Options": "nosniff",
        "X-Frame-Options": "DENY",
        **NO_STORE,
    }


def set_page_headers(request: IRequest, form_sources: Sequence[str] = NO_FORM) -> None:
    """
    @param request: gets the headers.
    @param form_sources: see L{page_headers}.
    """
    for name, value in page_headers(form_sources).items():
        request.setHeader(name.encode("ascii"), value.encode("ascii"))


def answer_page(
    request: IRequest,
    document: bytes,
    status: int = 200,
    form_sources: Sequence[str] = NO_FORM,
) -> bytes:
    """
    @param request: gets status and headers.
    @param document: from L{render}.
    @param status: HTTP status.
    @param form_sources: see L{page_headers}.
    @return: the document, for a route to return.
    """
    set_page_headers(request, form_sources)
    return answer_bytes(request, document, "text/html; charset=utf-8", status)


def see_other(request: IRequest, url: str) -> bytes:
    """
    Send the browser elsewhere with GET. The page it comes from has secrets in its
    address or its form, so nothing of it is told there.

    @param request: gets status and headers.
    @param url: absolute, printable ASCII.
    @return: an empty body, for a route to return.
    """
    request.setHeader(b"Referrer-Policy", b"no-referrer")
    headers = {"Location": url, **NO_STORE}
    return answer_bytes(request, b"", "text/plain; charset=utf-8", 303, headers)


def problem(request: IRequest, status: int, title: str, *content: Content) -> bytes:
    """
    @param request: gets status and headers.
    @param status: HTTP status.
    @param title: what went wrong, one clause.
    @param content: why, and what to do.
    @return: the page, for a route to return.
    """
    return answer_page(request, render(title, *content, reference(request)), status)


def reference(
    request: IRequest, detail: str | None = None, incident: str | None = None
) -> Html:
    """
    @param request: that a page answers.
    @param detail: what went wrong, for whoever made the application.
    @param incident: the id under which the log has the cause, if any.
    @return: the bottom of a page: what an administrator finds in the log. A request
        of a sign-in has the name of its trace, any other its own.
    """
    shown: list[Content] = []
    if detail is not None:
        shown.append(element("p", detail))
    names = [incident, getattr(request, "trace_id", None)]
    if not any(names):
        names = [getattr(request, "request_id", None)]
    told: list[Content] = [element("code", name) for name in names if name]
    if told:
        words = "If you need help, tell your administrator this reference: "
        between = [piece for code in told for piece in (", ", code)][1:]
        shown.append(element("p", words, *between))
    return element("div", *shown, class_="reference") if shown else element("div")


#: What to do with the page of a sign-in that may have succeeded before.
MAY_BE_DONE: Final = element(
    "p",
    "If the application is connected already, there is nothing left to do, and you can "
    "close this page. Otherwise, go back to it and connect again.",
)

#: What to do when a sign-in cannot go on.
GO_BACK: Final = element(
    "p", "Go back to the application that you came from and connect again."
)
