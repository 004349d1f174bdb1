"""
Protocol errors of the authorization server. Who hears of one, the person at the
browser, the client by a redirect or the caller by a JSON object, is for the endpoint
to know.
"""

from collections.abc import Mapping
from typing import Final

from fjmcp_broker.errors import BrokerError
from fjmcp_broker.oauth.vocabulary import ErrorCode

#: RFC 6749 section 5.2: C{error_description} is %x20-21 / %x23-5B / %x5D-7E.
_DESCRIPTION_ALPHABET: Final = frozenset(
    chr(number) for number in range(0x20, 0x7F) if chr(number) not in '"\\'
)


class OAuthError(BrokerError):
    """
    A request that an OAuth endpoint refuses.

    @ivar code: the error code of the specification.
    @ivar description: for developers; no secret and nothing that the peer sent.
    @ivar status: HTTP status where it is not a redirect, 400 to 599.
    @ivar headers: further response headers by name.
    """

    def __init__(
        self,
        code: ErrorCode,
        description: str,
        status: int = 400,
        *,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        """
        @param code: the error code.
        @param description: one sentence; characters that RFC 6749 section 5.2 does
            not allow become question marks.
        @param status: HTTP status.
        @param headers: further response headers, C{Retry-After} for example.
        """
        self.code = code
        self.description = "".join(
            character if character in _DESCRIPTION_ALPHABET else "?"
            for character in description
        )
        super().__init__(f"{code}: {self.description}")
        self.status = status
        self.headers: Mapping[str, str] = dict(headers or {})


def invalid_request(description: str, status: int = 400) -> OAuthError:
    """
    @param description: what is wrong with the request.
    @param status: 400, or what says it better, such as 413.
    @return: an C{invalid_request} error of RFC 6749.
    """
    return OAuthError(ErrorCode.INVALID_REQUEST, description, status)


def invalid_grant(description: str) -> OAuthError:
    """
    @param description: what is wrong with the code or refresh token.
    @return: an C{invalid_grant} error of RFC 6749 section 5.2.
    """
    return OAuthError(ErrorCode.INVALID_GRANT, description)
