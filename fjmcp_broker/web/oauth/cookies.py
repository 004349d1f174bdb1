"""
The two kinds of cookie that bind a sign-in to the browser it began in.

The consent cookie proves that a posted consent form came from a page which this
browser was shown. The approval cookie is set only after that, and the callback wants
it back: whoever approved is who comes back from Forgejo (RFC 9700 section 4.7). It is
named after the state it belongs to, so that sign-ins in several tabs do not disturb
one another.

With https the names begin with C{__Host-}: no other host of the same domain, and
nobody on plain http, can plant such a cookie (RFC 6265bis section 4.1.3.2).
"""

import re
from collections.abc import Callable
from hashlib import sha256
from hmac import compare_digest
from hmac import digest as hmac_digest
from typing import Final

from twisted.web.iweb import IRequest

from fjmcp_broker.oauth.tokens import url_safe_text

#: As long as a pending authorization lives.
COOKIE_LIFETIME_SECONDS: Final = 600

_CONSENT: Final = "fjmcp_consent"
_APPROVAL: Final = "fjmcp_approval_"
_SUFFIX_LENGTH: Final = 22
_VALUE: Final = re.compile(r"[A-Za-z0-9_-]{43}")


class BrowserCookies:
    """
    Reads, sets and clears the cookies of the sign-in pages.
    """

    def __init__(self, public_url: str, random_bytes: Callable[[int], bytes]) -> None:
        """
        @param public_url: with C{https} the cookies get prefix and C{Secure}; plain
            http is only possible on loopback.
        @param random_bytes: gives that many cryptographically random bytes.
        """
        self._secure = public_url.startswith("https://")
        self._random_bytes = random_bytes

    def consent_value(self, request: IRequest) -> str | None:
        """
        @param request: any request.
        @return: the browser's consent cookie, or C{None}: none of the right form.
        """
        return self._read(request, self._name(_CONSENT))

    def keep_consent(self, request: IRequest) -> str:
        """
        Give the browser a consent cookie, or prolong the one it has: a second tab
        must not take the first one's away.

        @param request: gets the header.
        @return: the cookie's value.
        """
        value = self.consent_value(request) or self.new_value()
        self._set(request, self._name(_CONSENT), value, COOKIE_LIFETIME_SECONDS)
        return value

    def new_value(self) -> str:
        """
        @return: 32 random bytes as 43 characters.
        """
        return url_safe_text(self._random_bytes(32))

    def approval_value(self, request: IRequest, state: str) -> str | None:
        """
        @param request: the callback.
        @param state: as it came back, controlled by the caller.
        @return: the approval cookie that belongs to it, or C{None}.
        """
        return self._read(request, self._approval_name(state))

    def set_approval(self, request: IRequest, state: str, value: str) -> None:
        """
        @param request: gets the header.
        @param state: the one sent to Forgejo.
        @param value: from L{BrowserCookies.new_value}.
        """
        name = self._approval_name(state)
        self._set(request, name, value, COOKIE_LIFETIME_SECONDS)

    def clear_approval(self, request: IRequest, state: str) -> None:
        """
        @param request: gets the header.
        @param state: the one that came back.
        """
        self._set(request, self._approval_name(state), "", 0)

    def _approval_name(self, state: str) -> str:
        # The state itself stays out of sight; cookie names are shown in many places.
        suffix = url_safe_text(sha256(b"approval\0" + state.encode()).digest())
        return self._name(_APPROVAL + suffix[:_SUFFIX_LENGTH])

    def _name(self, name: str) -> str:
        return f"__Host-{name}" if self._secure else name

    def _set(self, request: IRequest, name: str, value: str, life: int) -> None:
        parts = [
            f"{name}={value}",
            "Path=/",
            f"Max-Age={life}",
            "HttpOnly",
            "SameSite=Lax",
        ]
        if self._secure:
            parts.append("Secure")
        request.responseHeaders.addRawHeader(
            b"Set-Cookie", "; ".join(parts).encode("ascii")
        )

    def _read(self, request: IRequest, name: str) -> str | None:
        found = set()
        for header in request.requestHeaders.getRawHeaders(b"cookie") or []:
            for piece in header.decode("latin-1").split(";"):
                key, _, value = piece.strip().partition("=")
                if key == name:
                    found.add(value)
        # Two different ones: somebody else has planted one of them.
        if len(found) != 1:
            return None
        value = found.pop()
        return value if _VALUE.fullmatch(value) else None


def form_token(cookie: str, pending_id: str) -> str:
    """
    @param cookie: the consent cookie's value.
    @param pending_id: the pending authorization that the form is about.
    @return: what the form carries: of no use to a browser without the cookie, nor
        for another form.
    """
    tag = hmac_digest(
        cookie.encode("ascii"), b"consent\0" + pending_id.encode(), "sha256"
    )
    return url_safe_text(tag)


def form_token_matches(token: str, cookie: str, pending_id: str) -> bool:
    """
    @param token: as posted, controlled by the browser.
    @param cookie: the consent cookie's value.
    @param pending_id: as posted.
    @return: whether the form was made for this browser and this authorization.
    """
    return compare_digest(token.encode(), form_token(cookie, pending_id).encode())
