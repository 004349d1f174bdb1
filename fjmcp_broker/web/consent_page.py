"""
The consent page: who wants access, where it will go, what it allows.
"""

from urllib.parse import urlsplit

from twisted.web.iweb import IRequest

from fjmcp_broker.oauth.authorization import AuthorizationRequest
from fjmcp_broker.oauth.clients import Client
from fjmcp_broker.oauth.document_urls import document_host
from fjmcp_broker.oauth.redirect_uris import (
    csp_source,
    display_host,
    is_loopback,
    is_private_scheme,
)
from fjmcp_broker.oauth.vocabulary import CONSENT_PATH, Policy, Scope
from fjmcp_broker.web.html import Html, element
from fjmcp_broker.web.pages import answer_page, render

#: Names of the form's fields and the one value that is not a policy.
PENDING_FIELD = "pending"
TOKEN_FIELD = "form_token"  # noqa: S105 - the name of a field
DECISION_FIELD = "decision"
CANCEL = "cancel"

_LOOPBACK_NOTE = (
    "This leads to a program on the computer in front of you. Continue only if you "
    "have just started this sign-in yourself, on this computer."
)
_APPLICATION_NOTE = (
    "This opens an application installed on this device. Continue only if you have "
    "just started this sign-in yourself, in that application."
)


def offered_policies(request: AuthorizationRequest) -> tuple[Policy, ...]:
    """
    @param request: what the client asked for.
    @return: what the user may choose from. A client that asked for C{read} alone
        gets no more, and its grant remembers that this was its own wish.
    """
    if request.scope == (Scope.READ,):
        return (Policy.READ_ONLY_REQUESTED,)
    return (Policy.FULL, Policy.READ_ONLY)


class ConsentPage:
    """
    Makes the page for one request. The name on it is the client's own word, so the
    host that the code will be sent to stands larger.
    """

    def __init__(self, public_url: str, forgejo_url: str) -> None:
        """
        @param public_url: the issuer, an origin without trailing slash.
        @param forgejo_url: where people use Forgejo.
        """
        self._public_url = public_url
        self._forgejo_url = forgejo_url
        self._forgejo_host = urlsplit(forgejo_url).netloc

    def show(
        self,
        request: IRequest,
        client: Client,
        wanted: AuthorizationRequest,
        pending_id: str,
        token: str,
    ) -> bytes:
        """
        @param request: gets status and headers.
        @param client: who asks; its name is its own word.
        @param wanted: what it asks for.
        @param pending_id: for the form.
        @param token: for the form, see L{form_token
            <fjmcp_broker.web.cookies.form_token>}.
        @return: the page, for a route to return.
        """
        policies = offered_policies(wanted)
        document = render(
            f"Allow access to {self._forgejo_host}?",
            element(
                "p",
                "An application that calls itself ",
                element("strong", element("bdi", client.name)),
                " wants to work with Forgejo on your behalf.",
            ),
            *_described(client),
            _target(wanted.redirect_uri),
            element("h2", "What it will be able to do"),
            _abilities(policies),
            self._form(policies, pending_id, token),
            element(
                "p",
                "After this page you sign in at ",
                element("bdi", self._forgejo_host),
                ", unless you are signed in there already. If you did not expect this "
                "page, choose Cancel.",
                class_="soft",
            ),
        )
        return answer_page(request, document, form_sources=self._sources(wanted))

    def _sources(self, wanted: AuthorizationRequest) -> list[str]:
        # Browsers hold every redirect after the form against form-action: the one to
        # Forgejo, those of a single sign-on behind it, which may be anywhere, and
        # the last one to the client. Schemes are as narrow as this can be.
        schemes = {
            "https:",
            csp_source(self._public_url),
            csp_source(self._forgejo_url),
            csp_source(wanted.redirect_uri),
        }
        return ["'self'", *sorted(schemes)]

    def _form(self, policies: tuple[Policy, ...], pending_id: str, token: str) -> Html:
        labels = {
            Policy.FULL: "Allow full access",
            Policy.READ_ONLY: "Allow read-only access",
            Policy.READ_ONLY_REQUESTED: "Allow read-only access",
        }
        first, *others = policies
        return element(
            "form",
            element("input", type="hidden", name=PENDING_FIELD, value=pending_id),
            element("input", type="hidden", name=TOKEN_FIELD, value=token),
            _button(labels[first], first, class_="main"),
            *(_button(labels[policy], policy) for policy in others),
            _button("Cancel", CANCEL),
            method="post",
            action=CONSENT_PATH,
        )


def _button(label: str, value: str, **attributes: str) -> Html:
    return element(
        "button",
        label,
        type="submit",
        name=DECISION_FIELD,
        value=str(value),
        **attributes,
    )


def _target(redirect_uri: str) -> Html:
    shown = element(
        "div",
        "Access will be given to",
        element("strong", element("bdi", display_host(redirect_uri))),
        class_="target",
    )
    if is_loopback(redirect_uri):
        note = _LOOPBACK_NOTE
    elif is_private_scheme(redirect_uri):
        note = _APPLICATION_NOTE
    else:
        return shown
    return element("div", shown, element("p", note, class_="note"))


def _described(client: Client) -> tuple[Html, ...]:
    """
    The host of a client's metadata document, as draft
    client-id-metadata-document-01 section 6.4 recommends: TLS has proven it, while
    the name is the document's own word.
    """
    if client.kind != "metadata-document":
        return ()
    host = element("strong", element("bdi", document_host(client.client_id)))
    return (element("p", "It says so at ", host, ", which has been checked."),)


def _abilities(policies: tuple[Policy, ...]) -> Html:
    reading = element(
        "li",
        "Read everything you can read: repositories, issues, pull requests, "
        "organizations, notifications",
    )
    if Policy.FULL not in policies:
        return element("ul", reading, element("li", "Change nothing"))
    writing = element(
        "li", "With full access also create, change and delete these in your name"
    )
    return element("ul", reading, writing)
