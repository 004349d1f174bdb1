"""
The pages that people see: plain HTML, one style, no script, readable on a phone.
"""

from base64 import b64encode
from collections.abc import Sequence
from hashlib import sha256
from typing import Final

from twisted.web.iweb import IRequest

from fjmcp_broker.web.errors import NO_STORE, ErrorAnswer, answer_bytes
from fjmcp_broker.web.html import Content, Html, element

_STYLE: Final = """
:root{color-scheme:light dark;--paper:#f5f6f8;--card:#fff;--ink:#1b1f24;--soft:#57606a;
--line:#d0d7de;--main:#0a5cb8;--on-main:#fff;--note:#fff4d6;--note-line:#d4a72c}
@media (prefers-color-scheme:dark){:root{--paper:#14171b;--card:#1d2126;--ink:#e7eaee;
--soft:#a3adb8;--line:#3a424c;--main:#6cb0ff;--on-main:#0b1a2b;--note:#332a10;
--note-line:#8a6d1f}}
*{box-sizing:border-box}
body{margin:0;padding:1rem;background:var(--paper);color:var(--ink);
font:1rem/1.5 system-ui,-apple-system,"Segoe UI",Roboto,sans-serif}
main{max-width:34rem;margin:4vh auto;padding:1.5rem;background:var(--card);
border:1px solid var(--line);border-radius:.75rem;overflow-wrap:anywhere}
h1{margin:0 0 1rem;font-size:1.4rem;line-height:1.25}
h2{margin:1.5rem 0 .5rem;font-size:1.05rem}
p,ul,ol{margin:.5rem 0}ul,ol{padding-left:1.3rem}
a{color:var(--main)}
.soft{color:var(--soft);font-size:.9rem}
.target{margin:1rem 0;padding:.75rem 1rem;border:1px solid var(--line);
border-radius:.5rem}
.target strong{display:block;font-size:1.6rem;line-height:1.25}
.note{margin:1rem 0;padding:.75rem 1rem;background:var(--note);
border:1px solid var(--note-line);border-radius:.5rem}
code,pre{font:.9rem/1.45 ui-monospace,Consolas,monospace}
pre{margin:.5rem 0;padding:.75rem;border:1px solid var(--line);border-radius:.5rem;
white-space:pre-wrap}
form{margin:1.5rem 0 1rem;display:grid;gap:.6rem}
button,a.button{display:block;width:100%;padding:.75rem 1rem;
border:1px solid var(--line);border-radius:.5rem;
background:transparent;color:var(--ink);font:inherit;
font-weight:600;text-align:center;text-decoration:none;cursor:pointer}
button.main,a.main{background:var(--main);border-color:var(--main);color:var(--on-main)}
button:focus-visible,a:focus-visible{outline:3px solid var(--main);outline-offset:2px}
@media (max-width:26rem){body{padding:.5rem}main{margin:0;padding:1.1rem}}
"""

_STYLE_SOURCE: Final = (
    f"'sha256-{b64encode(sha256(_STYLE.encode()).digest()).decode('ascii')}'"
)


#: CSP sources for a page without a form.
NO_FORM: Final = ("'none'",)


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
        element("style", Html(_STYLE)),
    )
    body = element("body", element("main", element("h1", title), *content))
    document = element("html", head, body, lang="en")
    return b"<!DOCTYPE html>" + document.markup.encode("utf-8")


def set_page_headers(request: IRequest, form_sources: Sequence[str] = NO_FORM) -> None:
    """
    Set what every page has. C{Referrer-Policy} is not C{no-referrer}, because with
    that browsers send C{Origin: null} on our own form.

    @param request: gets the headers.
    @param form_sources: CSP sources to which a form of the page and the redirects
        after it may lead.
    """
    policy = (
        f"default-src 'none'; style-src {_STYLE_SOURCE}; base-uri 'none'; "
        f"form-action {' '.join(form_sources)}; "
        "frame-ancestors 'none'"
    )
    for name, value in (
        ("Content-Security-Policy", policy),
        ("Referrer-Policy", "same-origin"),
        ("X-Content-Type-Options", "nosniff"),
        ("X-Frame-Options", "DENY"),
        *NO_STORE.items(),
    ):
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
    @param form_sources: see L{set_page_headers}.
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
    return answer_page(request, render(title, *content, *trace_note(request)), status)


def trace_note(request: IRequest) -> Sequence[Content]:
    """
    @param request: that a page answers.
    @return: what to tell an administrator, for the bottom of the page; nothing when
        the request belongs to no sign-in.
    """
    trace_id = getattr(request, "trace_id", None)
    if not isinstance(trace_id, str):
        return ()
    shown = element("code", trace_id)
    told = "If you need help, tell your administrator this number: "
    return (element("p", told, shown, class_="soft"),)


#: What to do when a sign-in cannot go on.
GO_BACK: Final = element(
    "p", "Go back to the application that you came from and connect again."
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
        "Too many sign-ins at once",
        "Your network has begun more of them than this service allows at a time.",
    ),
    503: (
        "This service is busy",
        "It cannot write down your sign-in at the moment. Nothing is lost.",
    ),
}


def error_page(request: IRequest, answer: ErrorAnswer) -> bytes:
    """
    The page for an error that nothing more helpful is known about.

    @param request: has status and headers of the answer already.
    @param answer: the error.
    @return: the page.
    """
    set_page_headers(request)
    title, why = _PROBLEMS.get(
        answer.status,
        ("Something went wrong here", "This is a fault of this service, not yours."),
    )
    content: list[Content] = [element("p", why)]
    if answer.status >= 500 or answer.status == 429:
        content.append(element("p", "Wait a moment, then connect again."))
    else:
        content.append(GO_BACK)
    if answer.incident is not None:
        shown = element("code", answer.incident)
        content.append(
            element("p", "If it goes on, tell your administrator this number: ", shown)
        )
    detail = f"{answer.code}: {answer.description}"
    content.append(element("p", detail, class_="soft"))
    content += trace_note(request)
    return render(title, *content)


class FrontPage:
    """
    C{/}: what this is and how to connect to it.
    """

    def __init__(self, public_url: str, forgejo_url: str) -> None:
        """
        @param public_url: the issuer, an origin without trailing slash.
        @param forgejo_url: where people use Forgejo.
        """
        self._document = _front_page(public_url, forgejo_url)

    async def show(self, request: IRequest) -> bytes:
        """
        @param request: GET of C{/}.
        @return: the page.
        """
        return answer_page(request, self._document)


def _front_page(public_url: str, forgejo_url: str) -> bytes:
    mcp_url = f"{public_url}/mcp"
    forgejo = element("a", forgejo_url, href=forgejo_url)
    return render(
        "Forgejo for MCP clients",
        element(
            "p",
            "This service lets AI applications work with ",
            forgejo,
            ". You sign in through Forgejo, and an application can do no more than "
            "you can, less if you allow it to read only.",
        ),
        element("h2", "Address of the MCP server"),
        element("pre", mcp_url),
        element("h2", "Claude.ai and Claude Desktop"),
        element(
            "p",
            "Settings, Connectors, Add custom connector: paste the address. No client "
            "id or secret is needed.",
        ),
        element("h2", "Claude Code"),
        element("pre", f"claude mcp add --transport http forgejo {mcp_url}"),
        element("p", "Then type ", element("code", "/mcp"), " and authenticate."),
        element("h2", "MCP Inspector"),
        element("pre", "npx @modelcontextprotocol/inspector"),
        element("p", "Transport: Streamable HTTP. URL: the address above."),
        element("h2", "Anything else"),
        element(
            "p",
            "Any MCP client with Streamable HTTP and OAuth finds the rest from the "
            "address by itself.",
        ),
    )
