"""
Bytes to newline-delimited messages and back (MCP 2025-11-25, transports, stdio).

The framer never looks inside a message. It is linear in the number of bytes however
they were cut. What is there of a line grows in one buffer, which the system moves
without copying when it is large, and takes back when the line is done; a list of small
pieces would leave a hole of the line's size in the heap.
"""

from typing import Final

from fjmcp_broker.errors import BrokerError

DEFAULT_MAXIMUM_LINE_BYTES: Final = 128 * 1024 * 1024

_LF: Final = 0x0A
_CR: Final = 0x0D


class FramingError(BrokerError):
    """
    A line grew past the limit: the peer's fault. The stream cannot be read further,
    since the place of the next message is unknown.
    """


class LineFramer:
    """
    Cuts a byte stream into lines. The same bytes give the same lines however they
    were split. C{\\n} ends a line; one C{\\r} before it belongs to the ending; lines
    that are empty or blank are left out.
    """

    def __init__(self, maximum_bytes: int = DEFAULT_MAXIMUM_LINE_BYTES) -> None:
        """
        @param maximum_bytes: how long a line may be, without its ending.
        """
        self._maximum_bytes = maximum_bytes
        self._rest = bytearray()
        self._broken = False

    @property
    def buffered_bytes(self) -> int:
        """
        @return: how many bytes of an unfinished line are held.
        """
        return len(self._rest)

    def receive(self, data: bytes) -> list[bytes]:
        """
        @param data: the next bytes of the stream, cut anywhere; the peer controls them.
        @return: the lines that these bytes complete, without their endings.
        @raise FramingError: when a line, finished or not, is longer than the limit. The
            lines of C{data} before it are lost, and every later call raises too.
        """
        if self._broken:
            raise FramingError("the stream is past a line that was too long")
        if not self._rest and data.find(b"\n") == len(data) - 1 > 0:
            # One whole line, as programs write their answers.
            line = data[:-2] if data.endswith(b"\r\n") else data[:-1]
            self._check(len(line))
            return [line] if line and not line.isspace() else []
        lines: list[bytes] = []
        start = 0
        while (end := data.find(b"\n", start)) >= 0:
            piece = data[start:end]
            start = end + 1
            if self._rest:
                # The limit first: nothing is copied that is refused anyway. The ending
                # may still hold one carriage return.
                self._check(len(self._rest) + len(piece) - 1)
                self._rest += piece
                piece = bytes(self._rest)
                self._rest = bytearray()
            if piece.endswith(b"\r"):
                piece = piece[:-1]
            self._check(len(piece))
            if piece and not piece.isspace():
                lines.append(piece)
        if start < len(data):
            self._rest += data[start:]
            self._check(len(self._rest) - 1)
        return lines

    def _check(self, size: int) -> None:
        if size > self._maximum_bytes:
            self._broken = True
            self._rest = bytearray()
            raise FramingError(f"a line is longer than {self._maximum_bytes} bytes")


def frame(message: bytes) -> bytes:
    """
    One message as a line. Outside of strings JSON may hold line ends, which are
    insignificant, and inside of strings it cannot; so each becomes a space. Many
    programs take a carriage return for the end of a line, too.

    @param message: one JSON message, already checked to be JSON.
    @return: the message on a single line, with its ending.
    """
    # A number is looked for at once; bytes are taken for one first, in vain.
    if _LF in message:
        message = message.replace(b"\n", b" ")
    if _CR in message:
        message = message.replace(b"\r", b" ")
    return message + b"\n"
