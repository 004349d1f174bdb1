"""An answer that is there as a whole."""

from typing import Final

from twisted.web.http import Request
from twisted.web.http_headers import Headers
from twisted.web.server import version as server_name

__all__ = ["server_name", "whole_answer"]

_WHOLE: Final = (
    b"%b %d %b\r\nServer: %b\r\nDate: %b\r\nX-Content-Type-Options: nosniff\r\n"
    b"Content-Type: application/json\r\nCache-Control: no-store\r\n"
    b"%bContent-Length: %d\r\n\r\n%b"
)


def whole_answer(
    request: Request, headers: Headers | None, date: bytes, document: bytes
) -> bytes:
    """
    Made in one step, for a fourth of what the steps take.

    @param request: has the status.
    @param headers: further ones.
    @param date: C{Date}.
    @param document: JSON, its body.
    @return: the bytes of the answer.
    """
    others = b""
    if headers is not None:
        others = b"".join(
            b"%b: %b\r\n" % (name, value)
            for name, values in headers.getAllRawHeaders()
            for value in values
        )
    return _WHOLE % (
        request.clientproto,
        request.code,
        request.code_message,
        server_name,
        date,
        others,
        len(document),
        document,
    )
