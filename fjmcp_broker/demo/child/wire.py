"""
What the stand-in child writes: messages on stdout, noise on stderr.
"""

import json
import os
import threading
import time
from typing import Any

from fjmcp_broker.demo.child.options import Options

STDOUT = 1
STDERR = 2
PIECE = 65536
RED, YELLOW, BLUE, PLAIN = "\x1b[31m", "\x1b[33m", "\x1b[34m", "\x1b[0m"
STACK = (
    "fjmcp_broker/demo/child.call\n"
    "\t/src/fjmcp_broker/demo/child/program.py:1\n"
    "runtime.main\n"
    "\t/src/runtime/proc.py:290"
)


class Wire:
    """
    Writes whole messages, whichever thread they come from.
    """

    def __init__(self, options: Options) -> None:
        """
        @param options: says whether bytes are counted and cut into pieces.
        """
        self._lock = threading.Lock()
        self._piece = options.number("WRITE_PIECE_BYTES", PIECE)
        self._count_file = -1
        if options.text("WRITTEN_FILE"):
            self._count_file = os.open(
                options.text("WRITTEN_FILE"), os.O_WRONLY | os.O_CREAT, 0o600
            )
        self.written_bytes = 0

    def send(self, message: dict[str, Any]) -> None:
        """
        Write one message; waits while the pipe is full.
        """
        text = json.dumps(message, ensure_ascii=False, separators=(",", ":"))
        self.send_line(text.encode("utf-8", "replace"))

    def send_line(self, line: bytes) -> None:
        """
        Write one line, which may be no message at all.
        """
        with self._lock:
            rest = memoryview(line + b"\n")
            while rest:
                count = os.write(STDOUT, rest[: self._piece])
                rest = rest[count:]
                self.written_bytes += count
                if self._count_file >= 0:
                    os.pwrite(self._count_file, b"%020d" % self.written_bytes, 0)

    def result(self, request_id: Any, result: dict[str, Any]) -> None:
        """
        Answer a request.
        """
        self.send({"jsonrpc": "2.0", "id": _number(request_id), "result": result})

    def error(self, request_id: Any, code: int, message: str) -> None:
        """
        Refuse a request.
        """
        self.send(
            {
                "jsonrpc": "2.0",
                "id": _number(request_id),
                "error": {"code": code, "message": message},
            }
        )

    def notify(self, method: str, params: dict[str, Any] | None = None) -> None:
        """
        Send a notification.
        """
        message: dict[str, Any] = {"jsonrpc": "2.0", "method": method}
        if params is not None:
            message["params"] = params
        self.send(message)


def _number(request_id: Any) -> Any:
    """
    Ids pass through a 64 bit float, as in forgejo-mcp: large ones change.
    """
    if isinstance(request_id, int) and not isinstance(request_id, bool):
        try:
            return int(float(request_id))
        except OverflowError:
            return 0
    return request_id


def log(level: str, text: str) -> None:
    """
    Write one coloured record to stderr, with a stack trace for errors.

    @param level: C{INFO}, C{WARN}, C{ERROR} or C{FATAL}.
    """
    colour = {"INFO": BLUE, "WARN": YELLOW}.get(level, RED)
    moment = time.strftime("%Y-%m-%d %H:%M:%S")
    lines = f"{moment}\t{colour}{level}{PLAIN}\tdemo/child.py:1\t{text}\n"
    if level in ("ERROR", "FATAL"):
        lines += f"{STACK}\n"
    write_stderr(lines.encode("utf-8", "replace"))


def write_stderr(data: bytes) -> None:
    """
    Write to stderr; waits while the pipe is full.
    """
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(STDERR, rest[:PIECE]) :]
