"""
The pages of an authorization request whose client cannot be told of an error: where a
redirect would lead is not known (RFC 6749 section 4.1.2.1).
"""

from typing import Final

from twisted.web.iweb import IRequest

from fjmcp_broker.oauth.document_urls import document_host, document_url_problem
from fjmcp_broker.upstream.document_http import DocumentError
from fjmcp_broker.web.pages.errors import try_again
from fjmcp_broker.web.pages.html import Html, element
from fjmcp_broker.web.pages.page import GO_BACK, problem

#: When to try again what has passed by then, in seconds.
RETRY_AFTER_SECONDS: Final = 30

_SHOWN_CHARACTERS: Final = 200


def unknown_client(request: IRequest) -> bytes:
    """
    @param request: gets status and headers.
    @return: the page for a client id that nobody has registered.
    """
    return problem(
        request,
        400,
        "This application is not registered here",
        element(
            "p",
            "It used a registration that this service does not know. That happens "
            "when the registration was made a long time ago or with another "
            "service.",
        ),
        element(
            "p",
            "Remove the connection in the application, then add it again so that "
            "it registers anew.",
        ),
        GO_BACK,
    )


def no_document(request: IRequest, client_id: str, error: DocumentError) -> bytes:
    """
    @param request: gets status and headers.
    @param client_id: the URL of a client metadata document, or what claims to be one;
        controlled by whoever made the link.
    @param error: why it is of no use.
    @return: the page that says so. It is the client's to mend, unless it passes.
    """
    if error.is_passing:
        request.setHeader(b"Retry-After", b"%d" % RETRY_AFTER_SECONDS)
        status = 503
        advice = [
            element(
                "p",
                f"That may pass. Wait {RETRY_AFTER_SECONDS} seconds, then try again. "
                "If that does not help, go back to the application that you came from "
                "and connect again.",
            ),
            *([try_again(request)] if request.method == b"GET" else []),
        ]
    else:
        status = 400
        advice = [
            element(
                "p",
                "Only whoever makes the application can mend that. If it offers "
                "another way to connect, without such an address, use that.",
            ),
            GO_BACK,
        ]
    return problem(
        request,
        status,
        "This application could not be identified",
        element(
            "p",
            "Its address ",
            _named(client_id),
            " should tell what it is. What is there ",
            element("strong", str(error)),
            ".",
        ),
        *advice,
    )


def _named(client_id: str) -> Html:
    is_url = document_url_problem(client_id) is None
    shown = document_host(client_id) if is_url else client_id[:_SHOWN_CHARACTERS]
    return element("bdi", shown)
