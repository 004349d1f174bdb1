"""
HTTP/1.1 as a client needs it for measuring: nothing between it and the bytes, and one
connection costs little more than its system calls.
"""

import json
import socket
from collections.abc import Mapping
from typing import Any, Final

import attrs

READ_BYTES: Final = 256 * 1024
PARSED_BYTES: Final = 64 * 1024
"""Answers up to here are parsed; the id of longer ones is looked for at both ends."""


class WireError(Exception):
    """What came is not the answer that was asked for."""


@attrs.frozen
class Answer:
    """
    One HTTP answer.

    @ivar status: of HTTP.
    @ivar headers: by name in lower case.
    @ivar body: without its framing.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes

    def message(self) -> bytes:
        """
        @return: the last JSON-RPC message of the body, JSON or event stream.
        """
        if not self.headers.get("content-type", "").startswith("text/event-stream"):
            return self.body
        start = self.body.rfind(b"data: ")
        end = self.body.find(b"\n", start)
        return self.body[start + 6 : end if end >= 0 else None].rstrip(b"\r")


class Reader:
    """
    Bytes to one answer after another.
    """

    def __init__(self) -> None:
        """Nothing has come."""
        self._begin()
        self._rest = b""

    def _begin(self) -> None:
        self._status = 0
        self._headers: dict[str, str] = {}
        self._pieces: list[bytes] = []
        self._missing: int | None = None
        self._is_chunked = False

    def receive(self, data: bytes) -> Answer | None:
        """
        @param data: the next bytes.
        @return: the answer that they complete; a next one must not have begun.
        @raise WireError: it is no HTTP.
        """
        data = self._rest + data if self._rest else data
        self._rest = b""
        if not self._status:
            head, blank, data = data.partition(b"\r\n\r\n")
            if not blank:
                self._rest = head
                return None
            self._read_head(head)
        if not self._is_chunked:
            return self._take(data)
        return self._take_chunks(data)

    def _read_head(self, head: bytes) -> None:
        first, *lines = head.decode("latin-1").split("\r\n")
        self._status = int(first.split(" ", 2)[1])
        for line in lines:
            name, _, value = line.partition(":")
            self._headers[name.lower()] = value.strip()
        self._is_chunked = "chunked" in self._headers.get("transfer-encoding", "")
        if not self._is_chunked:
            self._missing = int(self._headers.get("content-length", "0"))

    def _take(self, data: bytes) -> Answer | None:
        if self._missing is None or len(data) > self._missing:
            raise WireError("more than was announced")
        self._pieces.append(data)
        self._missing -= len(data)
        return None if self._missing else self._end()

    def _take_chunks(self, data: bytes) -> Answer | None:
        position = 0
        while True:
            if self._missing is None:
                end = data.find(b"\r\n", position)
                if end < 0:
                    self._rest = data[position:]
                    return None
                size = int(data[position:end].partition(b";")[0], 16)
                position = end + 2
                self._missing = size + 2  # with its line end
                if size == 0:
                    # No trailers come from any of the targets.
                    self._missing = 2
                    self._is_last = True
                else:
                    self._is_last = False
            piece = data[position : position + self._missing]
            position += len(piece)
            keep = max(0, min(len(piece), self._missing - 2))
            if keep:
                self._pieces.append(piece[:keep])
            self._missing -= len(piece)
            if self._missing:
                return None
            self._missing = None
            if self._is_last:
                return self._end()

    def _end(self) -> Answer:
        answer = Answer(self._status, self._headers, b"".join(self._pieces))
        self._begin()
        return answer


class Repeated:
    """
    Bytes that come again and again with nothing changed but a number in them, which
    always has as many digits and may be there more than once.
    """

    def __init__(self, data: bytes, number: bytes) -> None:
        """
        @param data: as they are with one number.
        @param number: that number.
        """
        self._parts = data.split(number)

    def with_number(self, number: bytes) -> bytes:
        """
        @param number: another one.
        @return: the bytes with it.
        """
        return number.join(self._parts)

    def is_with_number(self, data: bytes, number: bytes) -> bool:
        """
        @param data: any.
        @param number: another one.
        @return: whether they are the bytes with it, and it is in them.
        """
        return len(self._parts) > 1 and data == number.join(self._parts)


class Connection:
    """
    One connection to a target, for one request at a time.

    @ivar port: of the target, on loopback.
    """

    def __init__(self, port: int, host: str = "127.0.0.1") -> None:
        """
        @param port: of the target.
        @param host: its address.
        """
        self.port = port
        self._host = f"{host}:{port}"
        self.socket = socket.create_connection((host, port), 30)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._reader = Reader()

    def prepare(
        self, method: str, path: str, headers: Mapping[str, str], body: bytes
    ) -> bytes:
        """
        @return: the bytes of a request.
        """
        head = f"{method} {path} HTTP/1.1\r\nHost: {self._host}\r\n"
        head += "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body

    def send(self, request: bytes) -> None:
        """
        @param request: one whole request, shorter than a socket's buffer.
        """
        self.socket.sendall(request)

    def read(self) -> bytes:
        """
        Read once; blocks unless something is there.

        @return: what came; for L{take}, unless it is known to be a whole answer.
        @raise WireError: the connection was closed.
        """
        data = self.socket.recv(READ_BYTES)
        if not data:
            raise WireError("the connection was closed")
        return data

    def take(self, data: bytes) -> Answer | None:
        """
        @param data: as it came from L{read}.
        @return: the answer, if it is complete with that.
        @raise WireError: it is no HTTP.
        """
        return self._reader.receive(data)

    def receive(self) -> Answer | None:
        """
        Read once; blocks unless something is there.

        @return: the answer, if it is complete.
        @raise WireError: the connection was closed, or what came is no HTTP.
        """
        return self.take(self.read())

    def ask(
        self, method: str, path: str, headers: Mapping[str, str], body: bytes = b""
    ) -> Answer:
        """
        @return: the answer to one request, waited for.
        """
        self.send(self.prepare(method, path, headers, body))
        while (answer := self.receive()) is None:
            pass
        return answer

    def close(self) -> None:
        """Close it."""
        self.socket.close()


def check_call(answer: Answer, id: int, text: str | None) -> None:
    """
    @param answer: to a C{tools/call}.
    @param id: of the request.
    @param text: the only one in it; None when any will do.
    @raise WireError: it is not its answer.
    """
    said = _text_of(answer, id)
    if text is not None and said != text:
        raise WireError(f"not the answer to {id}: {answer.message()[:300]!r}")


def check_large_call(answer: Answer, id: int, text_length: int) -> None:
    """
    @param answer: to a C{tools/call} of C{payload}.
    @param id: of the request.
    @param text_length: how many characters there are in it.
    @raise WireError: it is not its answer.
    """
    message = answer.message()
    if answer.status != 200 or len(message) <= PARSED_BYTES:
        if len(_text_of(answer, id)) != text_length:
            raise WireError(f"not the answer to {id}: {message[:300]!r}")
        return
    ends = message[:200] + b" " + message[-200:]
    has_id = any(b'"id":%b%d' % (space, id) in ends for space in (b"", b" "))
    start = message.find(b'"xxxx') + 1
    end = start + text_length
    is_whole = message.count(b"x", start, end) == text_length
    if not has_id or not is_whole or message[end : end + 1] != b'"':
        raise WireError(f"not the answer to {id}: {ends!r}")


def _text_of(answer: Answer, id: int) -> str:
    message = answer.message()
    if answer.status != 200:
        raise WireError(f"status {answer.status}: {message[:200]!r}")
    parsed: Any = json.loads(message)
    try:
        said = parsed["result"]["content"][0]["text"]
    except (KeyError, TypeError, LookupError):
        raise WireError(f"no result: {message[:300]!r}") from None
    if parsed["id"] != id or not isinstance(said, str):
        raise WireError(f"not the answer to {id}: {message[:300]!r}")
    return said
