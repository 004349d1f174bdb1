"""
Server-sent events, the encoding alone (WHATWG HTML, section 9.2; MCP 2025-11-25,
transports, Streamable HTTP).
"""

import re
from typing import Final

KEEPALIVE: Final = b": keepalive\n\n"
"""A comment: it keeps proxies awake and shows a departed client; no event."""

_LINE_END = re.compile(rb"\r\n|\r|\n")


def encode_event(
    data: bytes,
    event_id: str | None = None,
    *,
    retry_milliseconds: int | None = None,
) -> bytes:
    """
    One event of the default type C{message}.

    @param data: UTF-8 text, normally one JSON message. Line ends in it (the event
        stream counts a lone carriage return as one) become several C{data} fields,
        which the client joins with a newline again; in JSON both are white space.
        Empty data with an id primes a stream: a client remembers the id and
        dispatches nothing.
    @param event_id: our own text, without line ends and NUL, or None for no id.
    @param retry_milliseconds: how long the client should wait before it connects
        again, or None to leave that to the client.
    @return: the event, its closing blank line included.
    @raise ValueError: when C{event_id} could not be read back.
    """
    return b"".join(event_parts(data, event_id, retry_milliseconds=retry_milliseconds))


def event_parts(
    data: bytes,
    event_id: str | None = None,
    *,
    retry_milliseconds: int | None = None,
) -> list[bytes]:
    """
    One event, in pieces that are written one after another: C{data} is not copied if
    it is one line.

    @param data: as for L{encode_event}.
    @param event_id: likewise.
    @param retry_milliseconds: likewise.
    @return: the event.
    @raise ValueError: when C{event_id} could not be read back.
    """
    parts: list[bytes] = []
    if event_id is not None:
        if not event_id or any(mark in event_id for mark in "\r\n\0"):
            raise ValueError("an event id is empty or holds a line end or NUL")
        parts += (b"id: ", event_id.encode(), b"\n")
    if retry_milliseconds is not None:
        parts += (b"retry: ", b"%d" % retry_milliseconds, b"\n")
    if b"\n" in data or b"\r" in data:
        for line in _LINE_END.split(data):
            parts += (b"data: ", line, b"\n")
    else:
        parts += (b"data: ", data, b"\n")
    parts.append(b"\n")
    return parts
