"""
The daemon's end of the control socket.
"""

import os
import socket
import stat
import struct
from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

from twisted.internet.defer import maybeDeferred
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import (
    IAddress,
    IDelayedCall,
    IListeningPort,
    IReactorTime,
)
from twisted.internet.protocol import ServerFactory
from twisted.logger import Logger
from twisted.protocols.basic import LineOnlyReceiver
from twisted.protocols.policies import TimeoutMixin
from twisted.python.failure import Failure

from fjmcp_broker.control.protocol import (
    MAXIMUM_REQUEST_BYTES,
    ControlError,
    Request,
    reachable,
    read_request,
    socket_path,
    write_error,
    write_result,
)
from fjmcp_broker.errors import BrokerError
from fjmcp_broker.logs import background

MAXIMUM_CONNECTIONS: Final = 8
IDLE_SECONDS: Final = 30.0
"""Until a request is there, and until its answer is read."""

Perform = Callable[[Request, str], Awaitable[object]]
"""Carries out a request of somebody, C{uid 0} for example; gives JSON values."""

_CREDENTIALS: Final = struct.Struct("3i")


class ControlProtocol(LineOnlyReceiver, TimeoutMixin):
    """
    One connection: one request at a time.
    """

    delimiter = b"\n"
    MAX_LENGTH = MAXIMUM_REQUEST_BYTES
    factory: "ControlFactory"
    transport: Any

    def __init__(self) -> None:
        """Not connected."""
        self._actor = ""
        self._is_busy = False
        self._is_open = False

    def connectionMade(self) -> None:
        """
        Look who it is: the permissions of the socket say the same, where file systems
        keep them.
        """
        uid = peer_uid(self.transport.socket)
        if uid not in (0, os.geteuid()) or self.factory.is_full:
            self.factory.log.warn("control: connection of uid {uid} refused", uid=uid)
            self.transport.abortConnection()
            return
        self._actor = f"uid {uid}"
        self._is_open = True
        self.factory.connections.add(self)
        self.setTimeout(IDLE_SECONDS)

    def callLater(  # noqa: N802 - TimeoutMixin's
        self, period: float, func: Callable[[], None]
    ) -> IDelayedCall:
        """
        @param period: seconds.
        @param func: called then.
        @return: the call.
        """
        return self.factory.clock.callLater(period, func)

    def connectionLost(self, reason: Failure | None = None) -> None:
        """
        @param reason: why it has ended.
        """
        self._is_open = False
        self.setTimeout(None)
        self.factory.connections.discard(self)

    def lineReceived(self, line: bytes) -> None:
        """
        @param line: a request.
        """
        if self._is_busy:
            # Whoever speaks before the answer does not speak this.
            self.transport.abortConnection()
            return
        self._is_busy = True
        # Work of ours has deadlines of its own.
        self.setTimeout(None)
        background(self._answer(line), "a control command")

    def lineLengthExceeded(self, line: bytes) -> None:  # noqa: N802 - Twisted's
        """
        @param line: more than anybody has to say.
        """
        self.transport.abortConnection()

    async def _answer(self, line: bytes) -> None:
        try:
            request = read_request(line)
            answer = write_result(await self.factory.perform(request, self._actor))
        except BrokerError as error:
            answer = write_error(str(error))
        except Exception:
            self.factory.log.failure("control: a command failed")
            answer = write_error("an unexpected error; the log of the daemon has it")
        self._is_busy = False
        if self._is_open:
            self.transport.write(answer)
            self.setTimeout(IDLE_SECONDS)


class ControlFactory(ServerFactory):
    """
    Makes the connections.

    @ivar connections: those that are open.
    """

    noisy = False
    log = Logger()

    def __init__(self, perform: Perform, clock: IReactorTime) -> None:
        """
        @param perform: carries out requests.
        @param clock: for timeouts.
        """
        self.perform = perform
        self.clock = clock
        self.connections: set[ControlProtocol] = set()

    @property
    def is_full(self) -> bool:
        """
        @return: whether there are as many connections as there may be.
        """
        return len(self.connections) >= MAXIMUM_CONNECTIONS

    def buildProtocol(  # type: ignore[override]  # stricter than Twisted's
        self, addr: IAddress | None
    ) -> ControlProtocol:
        """
        @param addr: of nobody.
        @return: a connection.
        """
        protocol = ControlProtocol()
        protocol.factory = self
        return protocol


class ControlSocket:
    """
    The socket beside the store. Whoever holds the store's lock may replace it.
    """

    _log = Logger()

    def __init__(self, database_path: str, perform: Perform, reactor: Any) -> None:
        """
        @param database_path: of the store.
        @param perform: carries out requests.
        @param reactor: Twisted's; it is C{Any} because it provides a dozen interfaces.
        """
        # Now: a daemon may change its directory.
        self._path = os.path.abspath(socket_path(database_path))
        self._reactor = reactor
        self._factory = ControlFactory(perform, reactor)
        self._port: IListeningPort | None = None
        self._names = ExitStack()

    @property
    def path(self) -> str:
        """
        @return: where it is.
        """
        return self._path

    async def start(self) -> None:
        """
        Listen. Where that cannot be done, the daemon serves its users all the same.
        """
        try:
            self._remove_stale()
            name = self._names.enter_context(reachable(self._path))
            # Its mode is set before anybody can connect.
            self._port = self._reactor.listenUNIX(
                name, self._factory, backlog=MAXIMUM_CONNECTIONS, mode=0o600
            )
        except (OSError, CannotListenError, ControlError) as error:
            self._log.error(
                "no control socket at {path}, fjmcp-broker revoke and the like will"
                " not work: {error}",
                path=self._path,
                error=str(error),
            )

    async def stop(self) -> None:
        """
        Listen no more, and end what is open.
        """
        port, self._port = self._port, None
        if port is not None:
            if not os.path.lexists(self._path):
                # Twisted removes it, and stumbles where somebody else was faster.
                Path(self._path).touch()
            await maybeDeferred(port.stopListening)
        for connection in list(self._factory.connections):
            connection.transport.abortConnection()
        self._names.close()

    def _remove_stale(self) -> None:
        """
        Remove the socket of a daemon that was killed: we hold its lock.
        """
        try:
            mode = os.lstat(self._path).st_mode
        except FileNotFoundError:
            return
        if not stat.S_ISSOCK(mode):
            raise ControlError("there is another file")
        os.unlink(self._path)


def peer_uid(connection: socket.socket) -> int:
    """
    @param connection: of a Unix socket.
    @return: the user at its other end (unix(7), SO_PEERCRED).
    """
    raw = connection.getsockopt(
        socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size
    )
    _, uid, _ = _CREDENTIALS.unpack(raw)
    return int(uid)
