"""
What a person sees who opens the MCP endpoint in a browser. The status and the challenge
stay what clients get, so nothing but the body differs (RFC 9110 section 12.5.1).
"""

from functools import lru_cache
from typing import Final

from fjmcp_broker.web.pages.html import element
from fjmcp_broker.web.pages.page import page_headers, render
from fjmcp_broker.web.refusal import Refusal

_REMEMBERED: Final = 64
_HTML: Final = "text/html"
_OURS: Final = ("application/json", "text/event-stream")


@lru_cache(maxsize=_REMEMBERED)
def prefers_html(header: bytes | None) -> bool:
    """
    @param header: C{Accept}, controlled by the peer.
    @return: whether it names C{text/html} itself, and rates it higher than all that
        the endpoint speaks. Browsers do; a client that takes anything does not.
    """
    rates: dict[str, float] = {}
    for part in (header or b"").decode("latin-1").lower().split(","):
        kind, *parameters = (piece.strip() for piece in part.split(";"))
        rates[kind] = max(rates.get(kind, 0.0), _rate(parameters))
    html = rates.get(_HTML, 0.0)
    return html > 0 and all(html > _rate_of(kind, rates) for kind in _OURS)


def _rate(parameters: list[str]) -> float:
    """
    @return: the weight, from 0 to 1; what cannot be read counts as nothing.
    """
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        if name.strip() == "q":
            try:
                rate = float(value)
            except ValueError:
                return 0.0
            # Not a number fails both comparisons.
            return rate if 0 <= rate <= 1 else 0.0
    return 1.0


def _rate_of(kind: str, rates: dict[str, float]) -> float:
    """
    @return: what the most specific range that covers a type gives it.
    """
    ranges = (kind, f"{kind.partition('/')[0]}/*", "*/*")
    return next((rates[each] for each in ranges if each in rates), 0.0)


class Visitors:
    """
    Shows the page at C{/mcp}. It is the same for everybody, so it is made once.
    """

    def __init__(self, mcp_url: str) -> None:
        """
        @param mcp_url: the address of the MCP endpoint.
        """
        self._document = render(
            "This address is for applications",
            element(
                "p",
                "An AI application connects here to work with Forgejo in your name. "
                "A browser has nothing to show at this address.",
            ),
            element("p", "Give the address to your application:"),
            element("pre", mcp_url, class_="address"),
            element(
                "p",
                element(
                    "a",
                    "How to connect your application",
                    href="/",
                    class_="button main",
                ),
            ),
        )

    def page_for(self, answer: Refusal) -> Refusal:
        """
        @param answer: what a client gets.
        @return: the same for a person.
        """
        headers = {
            **answer.headers,
            **{k.encode("ascii"): v.encode("ascii") for k, v in page_headers().items()},
            b"Content-Type": b"text/html; charset=utf-8",
            b"Vary": b"Accept",
        }
        return Refusal(answer.status, headers, self._document)
