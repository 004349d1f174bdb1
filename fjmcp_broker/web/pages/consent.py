"""
The consent page: who wants access, where it will go, what it allows.
"""

import re
from collections.abc import Iterator
from typing import Final
from urllib.parse import urlsplit

import msgspec
from twisted.web.iweb import IRequest

from fjmcp_broker.oauth.authorization import AuthorizationRequest
from fjmcp_broker.oauth.clients import Client
from fjmcp_broker.oauth.document_urls import document_host
from fjmcp_broker.oauth.redirect_uris import (
    csp_source,
    display_host,
    is_loopback,
    is_private_scheme,
    is_website,
)
from fjmcp_broker.oauth.vocabulary import CONSENT_PATH, Policy, Scope
from fjmcp_broker.secret import Confidential
from fjmcp_broker.web.pages.html import Content, Html, element
from fjmcp_broker.web.pages.page import answer_page, note, render

#: Names of the form's fields and the one value that is not a policy.
PENDING_FIELD = "pending"
CARRIED_FIELD = "request"
TOKEN_FIELD = "form_token"  # noqa: S105 - the name of a field
DECISION_FIELD = "decision"
CANCEL = "cancel"

_LOOPBACK_NOTE: Final = (
    "This is a program on the computer in front of you. Allow it only if you have "
    "just started this sign-in yourself, on this computer."
)
_APPLICATION_NOTE: Final = (
    "This is an application installed on this device. Allow it only if you have just "
    "started this sign-in yourself, in that application."
)
_PUNYCODE_NOTE: Final = (
    "A name that begins with xn-- stands for letters of other alphabets. Some look "
    "like ordinary ones, so check that you know this address as it is written here."
)

_ELSEWHERE_NOTE: Final = (
    "This is another address than the one that was checked. Many people can put files "
    "on one website: allow it only if you know that both belong together."
)

_SHOWN_CHARACTERS: Final = 120

#: The prefix of a label in punycode (RFC 5890 section 2.3.2.1).
_ACE_PREFIX: Final = "xn--"


def offered_policies(request: AuthorizationRequest) -> tuple[Policy, ...]:
    """
    @param request: what the client asked for.
    @return: what the user may choose from. A client that asked for C{read} alone
        gets no more, and its grant remembers that this was its own wish.
    """
    if request.scope == (Scope.READ,):
        return (Policy.READ_ONLY_REQUESTED,)
    return (Policy.FULL, Policy.READ_ONLY)


class ConsentForm(Confidential, msgspec.Struct, frozen=True):
    """
    What the form sends back beside the decision.

    @ivar pending_id: of the sign-in.
    @ivar token: see L{form_token<fjmcp_broker.web.oauth.cookies.form_token>}.
    @ivar carried: the request itself, see L{CarriedRequests
        <fjmcp_broker.web.oauth.carried.CarriedRequests>}.
    """

    pending_id: str
    token: str
    carried: str


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
        form: ConsentForm,
    ) -> bytes:
        """
        @param request: gets status and headers.
        @param client: who asks; its name is its own word.
        @param wanted: what it asks for.
        @param form: what it sends back.
        @return: the page, for a route to return.
        """
        policies = offered_policies(wanted)
        document = render(
            f"Allow access to {self._forgejo_host}?",
            element("p", "This application asks to work with Forgejo in your name:"),
            _who(client),
            _target(wanted.redirect_uri),
            *_notes(client, wanted.redirect_uri),
            element("h2", "What it will be able to do"),
            _abilities(policies),
            element("p", "It can never do more than you can do yourself."),
            self._form(policies, form),
            element(
                "p",
                "You sign in at ",
                element("bdi", self._forgejo_host),
                " next, unless you are signed in there already. If you did not expect "
                "this page, choose Cancel: nothing happens then.",
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

    def _form(self, policies: tuple[Policy, ...], form: ConsentForm) -> Html:
        labels = {
            Policy.FULL: "Allow full access",
            Policy.READ_ONLY: "Allow read-only access",
            Policy.READ_ONLY_REQUESTED: "Allow read-only access",
        }
        first, *others = policies
        return element(
            "form",
            _hidden(PENDING_FIELD, form.pending_id),
            _hidden(TOKEN_FIELD, form.token),
            _hidden(CARRIED_FIELD, form.carried),
            _button(labels[first], first, class_="main"),
            *(_button(labels[policy], policy) for policy in others),
            _button("Cancel", CANCEL, class_="plain"),
            method="post",
            action=CONSENT_PATH,
        )


def _hidden(name: str, value: str) -> Html:
    return element("input", type="hidden", name=name, value=value)


def _button(label: str, value: str, **attributes: str) -> Html:
    return element(
        "button",
        label,
        type="submit",
        name=DECISION_FIELD,
        value=str(value),
        **attributes,
    )


def _who(client: Client) -> Html:
    """
    The name is always the application's own word, except where the operator chose
    it. The host of a metadata document is proven by TLS (draft
    client-id-metadata-document-02 section 8.5 recommends to show it).
    """
    name = element("p", element("bdi", client.name), class_="name")
    if client.kind == "metadata-document":
        host = element("bdi", document_host(client.client_id))
        badge = element("span", "Verified: ", host, class_="badge good")
        said = element(
            "p",
            "It has proven that it belongs to ",
            element("bdi", _shortened(client.client_id)),
            ". The name is its own choice.",
            class_="soft",
        )
    elif client.kind == "static":
        badge = element("span", "Set up for this service", class_="badge good")
        said = _soft("Whoever runs this service has entered it by hand.")
    else:
        badge = element("span", "Not verified", class_="badge")
        said = _soft(
            "Anybody can choose this name. What counts is where the access goes:"
        )
    return element("div", name, badge, said, class_="who")


def _soft(text: str) -> Html:
    return element("p", text, class_="soft")


def _shortened(url: str) -> str:
    """
    Many people may have documents on one host: what follows it matters, too.
    """
    return url if len(url) <= _SHOWN_CHARACTERS else f"{url[: _SHOWN_CHARACTERS - 1]}…"


def _target(redirect_uri: str) -> Html:
    host = display_host(redirect_uri)
    labels: list[Content] = [host]
    if is_website(redirect_uri):
        # Each stays whole as long as it fits on a line: a name that is cut in two
        # anywhere could be read as another one.
        labels = [
            element("span", label, class_="label")
            for label in re.findall(r"[^.]*\.|[^.]+", host)
        ]
    return element(
        "div",
        element("p", "The access goes to"),
        element("p", element("strong", element("bdi", *labels)), class_="host"),
        class_="target",
    )


def _notes(client: Client, redirect_uri: str) -> Iterator[Html]:
    if is_loopback(redirect_uri):
        yield note(_LOOPBACK_NOTE)
    elif is_private_scheme(redirect_uri):
        yield note(_APPLICATION_NOTE)
    hosts = [display_host(redirect_uri)]
    if client.kind == "metadata-document":
        checked = document_host(client.client_id)
        if is_website(redirect_uri) and hosts != [checked]:
            # Draft client-id-metadata-document-02 section 8.1: else whoever can store
            # a file on a well known host would be introduced by its name.
            yield note(_ELSEWHERE_NOTE)
        hosts.append(checked)
    labels = [label for host in hosts for label in host.split(".")]
    if any(label.startswith(_ACE_PREFIX) for label in labels):
        yield note(_PUNYCODE_NOTE)


def _abilities(policies: tuple[Policy, ...]) -> Html:
    reading = _ability(
        "Read-only access",
        "See everything that you can see, private things too: repositories and their "
        "files, issues, pull requests, organizations, notifications. Change nothing.",
    )
    if Policy.FULL not in policies:
        return element("dl", reading)
    writing = _ability(
        "Full access",
        "All that, and act in your name: write to repositories, open and answer issues "
        "and pull requests, merge, change settings, delete.",
    )
    return element("dl", reading, writing)


def _ability(term: str, description: str) -> Html:
    return element("div", element("dt", term), element("dd", description))
