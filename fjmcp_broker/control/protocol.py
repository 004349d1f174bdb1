"""
What is spoken on the control socket: a JSON object a line, a request and then its
answer. The socket belongs to the daemon's own user, and nobody else is listened to.
"""

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import msgspec

from fjmcp_broker.errors import BrokerError

MAXIMUM_REQUEST_BYTES: Final = 16 * 1024
#: Lists come in pages of so many rows.
PAGE_ROWS: Final = 500

#: Of C{sun_path} (unix(7)), with room to spare.
_LONGEST_PATH_BYTES: Final = 100


class ControlError(BrokerError):
    """
    A command cannot be carried out. The message is one sentence for the operator.
    """


class Request(msgspec.Struct, frozen=True):
    """
    A request.

    @ivar command: what to do.
    @ivar arguments: of it.
    """

    command: str
    arguments: Mapping[str, Any] = msgspec.field(default_factory=dict)

    def text(self, name: str) -> str | None:
        """
        @param name: of an argument.
        @return: its text, C{None}: not given.
        @raise ControlError: it is something else.
        """
        value = self.arguments.get(name)
        if value is None or (isinstance(value, str) and len(value) < 4096):
            return value
        raise ControlError(f"{name} must be a text")

    def number(self, name: str) -> int | None:
        """
        @param name: of an argument.
        @return: its value, C{None}: not given.
        @raise ControlError: it is something else.
        """
        value = self.arguments.get(name)
        if value is None:
            return None
        if type(value) is int and 0 <= value < 2**53:
            return value
        raise ControlError(f"{name} must be a whole number")

    def is_set(self, name: str) -> bool:
        """
        @param name: of an argument.
        @return: whether it is there and true.
        """
        return self.arguments.get(name) is True


def read_request(line: bytes) -> Request:
    """
    @param line: without its end.
    @return: the request.
    @raise ControlError: it is none.
    """
    try:
        document = json.loads(line)
    except (ValueError, RecursionError):
        raise ControlError("not a JSON object") from None
    if not isinstance(document, dict):
        raise ControlError("not a JSON object")
    command, arguments = document.get("command"), document.get("arguments", {})
    if not isinstance(command, str) or not isinstance(arguments, dict):
        raise ControlError("a request has a command and arguments")
    return Request(command, arguments)


def write_request(request: Request) -> bytes:
    """
    @param request: to be sent.
    @return: its line.
    """
    document = {"command": request.command, "arguments": dict(request.arguments)}
    return json.dumps(document).encode("ascii") + b"\n"


def write_result(result: object) -> bytes:
    """
    @param result: JSON values.
    @return: the line of an answer.
    """
    return json.dumps({"result": result}).encode("ascii") + b"\n"


def write_error(sentence: str) -> bytes:
    """
    @param sentence: why not.
    @return: the line of an answer.
    """
    return json.dumps({"error": sentence}).encode("ascii") + b"\n"


def read_answer(line: bytes) -> Any:
    """
    @param line: of an answer.
    @return: the result.
    @raise ControlError: it says why not, or is no answer.
    """
    try:
        document = json.loads(line)
    except ValueError:
        document = None
    if not isinstance(document, dict) or not {"result", "error"} & document.keys():
        raise ControlError("the daemon gave no answer that can be read")
    if "error" in document:
        raise ControlError(str(document["error"]))
    return document["result"]


def socket_path(database_path: str) -> str:
    """
    @param database_path: of the store; a symbolic link is followed, as for its lock.
    @return: where the control socket of its daemon is.
    """
    return f"{os.path.realpath(database_path)}.sock"


@contextmanager
def reachable(path: str) -> Iterator[str]:
    """
    The name of a socket in the file system has to be short. A longer one is reached by
    way of its directory.

    @param path: of a socket, of any length.
    @return: the same, short enough, as long as the block lasts.
    @raise OSError: there is no such directory.
    """
    if len(os.fsencode(path)) <= _LONGEST_PATH_BYTES:
        yield path
        return
    folder = os.open(Path(path).parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{folder}/{Path(path).name}"
    finally:
        os.close(folder)
