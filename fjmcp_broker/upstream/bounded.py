"""
A connection that takes so many bytes and no more, and that can be cut at any time.
"""

from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import (
    IProtocol,
    IProtocolFactory,
    IStreamClientEndpoint,
)
from twisted.protocols.policies import ProtocolWrapper, WrappingFactory
from zope.interface import implementer


class _Metered(ProtocolWrapper):
    """
    Counts what comes, below TLS.
    """

    def dataReceived(self, data: bytes) -> None:
        factory: Any = self.factory
        factory.left_bytes -= len(data)
        if factory.left_bytes < 0:
            self.cut()
        else:
            super().dataReceived(data)

    def cut(self) -> None:
        transport: Any = self.transport
        if transport is not None:
            transport.abortConnection()


class _Factory(WrappingFactory):
    protocol = _Metered
    noisy = False

    def __init__(self, wrapped: IProtocolFactory, maximum_bytes: int) -> None:
        super().__init__(wrapped)
        self.left_bytes = maximum_bytes


@implementer(IStreamClientEndpoint)
class BoundedEndpoint:
    """
    Wraps an endpoint that is used once.
    """

    def __init__(self, inner: IStreamClientEndpoint, maximum_bytes: int) -> None:
        """
        @param inner: makes the connection.
        @param maximum_bytes: after which it is cut.
        """
        self._inner = inner
        self._maximum_bytes = maximum_bytes
        self._connection: _Metered | None = None

    @property
    def was_connected(self) -> bool:
        """
        Whether the connection was made; it may have been lost since.
        """
        return self._connection is not None

    def connect(self, factory: IProtocolFactory) -> Deferred[IProtocol]:
        """
        As C{IStreamClientEndpoint.connect}.

        @param factory: of the protocol that is to be connected.
        @return: fires with that protocol.
        """
        connecting: Deferred[Any] = self._inner.connect(
            _Factory(factory, self._maximum_bytes)
        )
        return connecting.addCallback(self._connected)

    def abort(self) -> None:
        """
        Cut the connection, if there is one.
        """
        if self._connection is not None:
            self._connection.cut()

    def _connected(self, connection: _Metered) -> IProtocol:
        self._connection = connection
        protocol: IProtocol = connection.wrappedProtocol
        return protocol
