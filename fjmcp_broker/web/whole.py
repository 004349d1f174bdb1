"""The head of an answer that is there as a whole."""

from typing import Final

from twisted.web.http import Request
from twisted.web.server import version as server_name

__all__ = ["head_of_whole", "server_name"]

_HEAD: Final = (
    b"%b %d %b\r\nServer: %b\r\nDate: %b\r\nX-Content-Type-Options: nosniff\r\n"
    b"Content-Type: application/json\r\nCache-Control: no-store\r\n"
    b"%bContent-Length: %d\r\n\r\n"
)


def head_of_whole(request: Request, date: bytes, length: int) -> bytes:
    """
    Made in one step, for a fourth of what the steps take.

    @param request: has the status and further headers.
    @param date: C{Date}.
    @param length: of the JSON document that follows.
    @return: the bytes in front of it.
    """
    others = b"".join(
        b"%b: %b\r\n" % (name, value)
        for name, values in request.responseHeaders.getAllRawHeaders()
        for value in values
    )
    return _HEAD % (
        request.clientproto,
        request.code,
        request.code_message,
        server_name,
        date,
        others,
        length,
    )
