"""Where the daemon listens."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import msgspec
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import serverFromString
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IListeningPort, IStreamServerEndpoint
from twisted.logger import Logger

from fjmcp_broker.config import ListenAddress
from fjmcp_broker.errors import BrokerError

BACKLOG: Final = 1024
"""Connections that the system keeps until they are accepted. Of more than those that
come in the same moment the first word is lost, and said again after a second."""

_HAVE_BACKLOG: Final = ("tcp", "tcp6", "ssl", "unix")


class Listener(msgspec.Struct, frozen=True):
    """
    One address.

    @ivar key: of the configuration, that says it.
    @ivar address: where.
    @ivar factory: makes the protocols of its connections; C{Any} because Twisted's
        TLS factory is no C{IProtocolFactory} to mypy.
    """

    key: str
    address: ListenAddress
    factory: Any


class Listeners:
    """
    Everything that accepts connections, begun and ended together.
    """

    log = Logger()

    def __init__(self, reactor: Any, listeners: Sequence[Listener]) -> None:
        """
        @param reactor: Twisted's.
        @param listeners: in the order in which they begin.
        """
        self._reactor = reactor
        self._listeners = tuple(listeners)
        self._ports: list[IListeningPort] = []

    async def start(self) -> None:
        """
        @raise BrokerError: one of the addresses cannot be used; what has begun before
            it goes on until L{Listeners.stop}.
        """
        for each in self._listeners:
            endpoint = _endpoint(self._reactor, each.address.endpoint)
            try:
                self._ports.append(await endpoint.listen(each.factory))
            except (CannotListenError, OSError, OverflowError) as error:
                # Free when preflight looked, or not for it to look at.
                raise BrokerError(f"{each.key}: {error}") from None
            self.log.info(
                "listening on {address} ({key})",
                address=each.address.text,
                key=each.key,
            )

    async def stop(self) -> None:
        """Accept no more connections; open ones stay."""
        ports, self._ports = self._ports, []
        for port in reversed(ports):
            stopped: Deferred[None] | None = port.stopListening()
            if stopped is not None:
                await stopped


def _endpoint(reactor: Any, text: str) -> IStreamServerEndpoint:
    endpoint: IStreamServerEndpoint
    if text.partition(":")[0] in _HAVE_BACKLOG and ":backlog=" not in text:
        try:
            endpoint = serverFromString(reactor, f"{text}:backlog={BACKLOG}")
        except TypeError:
            pass  # it says how many without the name
        else:
            return endpoint
    endpoint = serverFromString(reactor, text)
    return endpoint
