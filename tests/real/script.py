"""A script on a page, as far as a browser lets it (Fetch standard, CORS protocol)."""

from __future__ import annotations

import http.client
from collections.abc import Mapping

from tests.real.browser import Browser, Page

SIMPLE_HEADERS = {"accept", "accept-language", "content-language", "content-type"}
SIMPLE_TYPES = {
    "application/x-www-form-urlencoded",
    "multipart/form-data",
    "text/plain",
}
READABLE_HEADERS = {
    "cache-control",
    "content-language",
    "content-length",
    "content-type",
    "expires",
    "last-modified",
    "pragma",
}


class Blocked(Exception):  # noqa: N818 - what a script sees of it is "Failed to fetch"
    """The browser lets the script neither send its request nor read the answer."""


class Script(Browser):
    """
    Sends what a script of C{origin} would, preflights included, without cookies.

    @ivar preflights: how many there were.
    """

    def __init__(self, origin: str) -> None:
        """
        @param origin: of the page.
        """
        super().__init__()
        self.origin = origin
        self.preflights = 0

    def request(
        self,
        method: str,
        url: str,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Page:
        """
        @return: the answer, with the headers that the script can read.
        @raise Blocked: see there.
        """
        own = {name.lower(): value for name, value in (headers or {}).items()}
        unsafe = sorted(own.keys() - SIMPLE_HEADERS)
        if own.get("content-type", "text/plain") not in SIMPLE_TYPES:
            unsafe.append("content-type")
        if unsafe or method not in ("GET", "HEAD", "POST"):
            self._preflight(method, url, unsafe)
        answer = super().request(method, url, body, {**own, "origin": self.origin})
        self._check(answer)
        exposed = _names(answer, "Access-Control-Expose-Headers")
        readable = http.client.HTTPMessage()
        for name, value in answer.headers.items():
            if name.lower() in READABLE_HEADERS | exposed:
                readable[name] = value
        return Page(answer.url, answer.status, readable, answer.text)

    def _preflight(self, method: str, url: str, unsafe: list[str]) -> None:
        self.preflights += 1
        asked = {
            "Origin": self.origin,
            "Access-Control-Request-Method": method,
            **({"Access-Control-Request-Headers": ",".join(unsafe)} if unsafe else {}),
        }
        answer = super().request("OPTIONS", url, None, asked)
        self._check(answer)
        if not 200 <= answer.status < 300:
            raise Blocked(f"preflight: {answer.status}")
        if method.lower() not in {
            *("get", "head", "post"),
            *_names(answer, "Access-Control-Allow-Methods"),
        }:
            raise Blocked(f"{method} is not allowed")
        missing = {*unsafe} - _names(answer, "Access-Control-Allow-Headers")
        if missing:
            raise Blocked(f"{missing} are not allowed")

    def _check(self, answer: Page) -> None:
        if answer.headers.get_all("Access-Control-Allow-Origin") not in (
            ["*"],
            [self.origin],
        ):
            raise Blocked(f"{answer.url} is not for {self.origin}")


def _names(answer: Page, header: str) -> set[str]:
    return {name.strip().lower() for name in answer.headers.get(header, "").split(",")}
