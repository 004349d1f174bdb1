"""
The operator's end: the daemon by its socket, or without one the store itself.
"""

import os
import socket
import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

from fjmcp_broker.control.offline import OfflineStore
from fjmcp_broker.control.protocol import (
    ControlError,
    Request,
    reachable,
    read_answer,
    socket_path,
    write_request,
)
from fjmcp_broker.secret import Secret
from fjmcp_broker.store.lock import StoreLock

ANSWER_SECONDS: Final = 120.0
"""A rotation of a large store takes a while."""

#: A daemon that starts has its lock a moment before its socket.
WAIT_SECONDS: Final = 5.0
_RETRY_SECONDS: Final = 0.1
_MAXIMUM_ANSWER_BYTES: Final = 16 * 2**20

Ask = Callable[[Request], Any]
"""Has a request carried out; gives the result."""


@contextmanager
def administration(
    database_path: str, configured_keys: Sequence[Secret]
) -> Iterator[Ask]:
    """
    Reach the daemon of a store. Where none runs, the store is used directly, and no
    daemon starts meanwhile.

    @param database_path: of the store.
    @param configured_keys: C{database.encryption_keys}, for the latter.
    @return: what carries out requests. It raises L{ControlError} and
        L{StoreError<fjmcp_broker.store.errors.StoreError>}.
    @raise ControlError: there is neither.
    @raise StoreError: the store cannot be used.
    """
    if not os.path.exists(database_path):
        raise ControlError(f"there is no store at {database_path}")
    deadline = time.monotonic() + WAIT_SECONDS
    while True:
        connected = _connect(database_path)
        if connected is not None:
            with connected:
                yield _Conversation(connected).ask
            return
        lock = StoreLock(database_path)
        if lock.try_acquire():
            _give_to_daemon(lock.path, database_path)
            try:
                with OfflineStore(database_path, lock, configured_keys) as store:
                    yield store.perform
            except sqlite3.Error as error:
                raise ControlError(
                    f"the store {database_path} cannot be used: {error}"
                ) from error
            return
        if time.monotonic() >= deadline:
            raise ControlError(
                f"a daemon or another command uses the store {database_path}, and"
                f" nobody listens at {socket_path(database_path)}; the log of the"
                " daemon may say why"
            )
        time.sleep(_RETRY_SECONDS)


def _connect(database_path: str) -> socket.socket | None:
    path = socket_path(database_path)
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    connection.settimeout(ANSWER_SECONDS)
    try:
        with reachable(path) as name:
            connection.connect(name)
    except (FileNotFoundError, ConnectionRefusedError):
        connection.close()
        return None
    except OSError as error:
        connection.close()
        raise ControlError(
            f"{path}: {error.strerror or error}; run this as the user of the daemon or"
            " as root"
        ) from error
    return connection


class _Conversation:
    """Requests and answers on one connection."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._lines = connection.makefile("rb")

    def ask(self, request: Request) -> Any:
        """
        @param request: to be carried out.
        @return: the result.
        @raise ControlError: it could not be.
        """
        try:
            self._connection.sendall(write_request(request))
            line = self._lines.readline(_MAXIMUM_ANSWER_BYTES)
        except OSError as error:
            raise ControlError(f"the daemon does not answer: {error}") from error
        if not line.endswith(b"\n"):
            raise ControlError("the daemon has closed the connection")
        return read_answer(line)


def _give_to_daemon(path: str, database_path: str) -> None:
    """
    A file that root has made beside the store would keep the daemon from starting.
    What SQLite makes, it gives to the owner of the store by itself.
    """
    if os.geteuid() == 0:
        owner = os.stat(database_path)
        os.chown(path, owner.st_uid, owner.st_gid)
