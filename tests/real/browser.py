"""
A browser of a few dozen lines for tests: cookies, redirects, forms, no script.

It is synchronous and uses the standard library only, so that it runs in a thread of
trial's process as well as in the script that drives the MCP SDK.
"""

from __future__ import annotations

import http.client
import ssl
from collections.abc import Iterator, Mapping
from html.parser import HTMLParser
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import Any
from urllib.parse import urlencode, urljoin
from urllib.request import (
    HTTPCookieProcessor,
    HTTPErrorProcessor,
    HTTPHandler,
    HTTPSHandler,
    OpenerDirector,
    Request,
)

import attrs

MAXIMUM_REDIRECTS = 20


@attrs.define
class Form:
    """A form of a page, with the values that a browser would send by itself."""

    action: str
    method: str
    fields: list[tuple[str, str]] = attrs.Factory(list)
    inputs: list[str] = attrs.Factory(list)
    buttons: list[tuple[str, str]] = attrs.Factory(list)


@attrs.frozen
class Page:
    """What the last request ended with."""

    url: str
    status: int
    headers: http.client.HTTPMessage
    text: str

    @property
    def forms(self) -> list[Form]:
        """
        @return: the forms of the page, in order.
        """
        parser = _Forms(self.url)
        parser.feed(self.text)
        return parser.forms


class _Forms(HTMLParser):
    def __init__(self, url: str) -> None:
        super().__init__()
        self._url = url
        self.forms: list[Form] = []
        self._open = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attrs}
        if tag == "form":
            self._open = True
            action = urljoin(self._url, values.get("action") or self._url)
            self.forms.append(Form(action, values.get("method", "get").upper()))
        elif self._open and tag in ("input", "button"):
            form = self.forms[-1]
            name, value = values.get("name", ""), values.get("value", "")
            kind = values.get("type", "submit" if tag == "button" else "text").lower()
            if not name:
                return
            if kind == "submit":
                form.buttons.append((name, value))
            elif kind not in ("checkbox", "radio") or "checked" in values:
                form.fields.append((name, value))
                if kind in ("text", "password", "email"):
                    form.inputs.append(name)

    def handle_endtag(self, tag: str) -> None:
        if tag == "form":
            self._open = False


class _KeepErrors(HTTPErrorProcessor):
    """Hands every answer to the caller, redirects and errors included."""

    def http_response(self, request: Any, response: Any) -> Any:
        return response

    https_response = http_response


class Browser:
    """One browser profile: it keeps its cookies from page to page."""

    def __init__(self, *, timeout_seconds: float = 20.0) -> None:
        self.cookies = CookieJar(
            DefaultCookiePolicy(strict_ns_domain=DefaultCookiePolicy.DomainLiberal)
        )
        self._timeout_seconds = timeout_seconds
        self._opener = OpenerDirector()
        for handler in (
            HTTPHandler(),
            HTTPCookieProcessor(self.cookies),
            _KeepErrors(),
        ):
            self._opener.add_handler(handler)

    def trust(self, context: ssl.SSLContext) -> None:
        """
        Speak HTTPS too, which a browser does not until it is told whom to trust.
        """
        self._opener.add_handler(HTTPSHandler(context=context))

    def request(
        self,
        method: str,
        url: str,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Page:
        """
        Send one request; redirects are not followed.
        """
        # Only handlers of HTTP are installed, so no other scheme can be opened.
        request = Request(  # noqa: S310
            url, data=body, method=method, headers=dict(headers or {})
        )
        with self._opener.open(request, timeout=self._timeout_seconds) as answer:
            text = answer.read().decode("utf-8", "replace")
            return Page(url, answer.status, answer.headers, text)

    def visit(self, url: str, *, stop_at: str = "\0") -> Page:
        """
        Open a URL and follow redirects until a page, or until one leads to an
        address that starts with C{stop_at}: that page has status 0 and no text.
        """
        return self._follow(self.request("GET", url), stop_at)

    def submit(
        self,
        page: Page,
        values: Mapping[str, str] | None = None,
        *,
        button: str | None = None,
        form: int = 0,
        stop_at: str = "\0",
    ) -> Page:
        """
        Fill in a form and press a button (the first, or the one with this value).
        """
        target = page.forms[form]
        wanted = dict(values or {})
        fields = [(name, wanted.pop(name, value)) for name, value in target.fields]
        fields += list(wanted.items())
        pressed = [b for b in target.buttons if button in (None, b[1])][:1]
        if button is not None and not pressed:
            raise AssertionError(f"no button {button!r} among {target.buttons}")
        data = urlencode(fields + pressed)
        origin = "/".join(page.url.split("/")[:3])
        if target.method == "POST":
            answer = self.request(
                "POST",
                target.action,
                data.encode(),
                {
                    "Content-Type": "application/x-www-form-urlencoded",
                    "Origin": origin,
                    "Sec-Fetch-Site": "same-origin",
                },
            )
        else:
            answer = self.request("GET", target.action + "?" + data)
        return self._follow(answer, stop_at)

    def _follow(self, page: Page, stop_at: str) -> Page:
        for _ in range(MAXIMUM_REDIRECTS):
            location = page.headers.get("Location")
            if page.status not in (301, 302, 303, 307, 308) or location is None:
                return page
            url = urljoin(page.url, location)
            if url.startswith(stop_at):
                return Page(url, 0, http.client.HTTPMessage(), "")
            page = self.request("GET", url)
        raise AssertionError(f"more than {MAXIMUM_REDIRECTS} redirects")

    def __iter__(self) -> Iterator[str]:
        return (cookie.name for cookie in self.cookies)


def sign_in(
    browser: Browser,
    authorize_url: str,
    redirect_uri: str,
    login: str,
    password: str,
    *,
    decision: str = "full",
) -> str:
    """
    Do what a person does between the client's authorization request and its
    redirect back: the broker's consent page, Forgejo's sign-in, Forgejo's consent.

    @return: the address at the client that the browser was sent to.
    """
    page = browser.visit(authorize_url, stop_at=redirect_uri)
    for _ in range(6):
        if page.status == 0:
            return page.url
        if page.status >= 400 or not page.forms:
            raise AssertionError(f"{page.status} at {page.url}\n{page.text}")
        form = page.forms[0]
        values: dict[str, str] = {}
        button = None
        if any("password" in name for name in form.inputs):
            values = {"user_name": login, "password": password}
        elif any(value == decision for _, value in form.buttons):
            button = decision
        page = browser.submit(page, values, button=button, stop_at=redirect_uri)
    raise AssertionError(f"no redirect to the client; the last page was {page.url}")
