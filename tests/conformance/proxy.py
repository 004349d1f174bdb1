"""
A proxy on a loopback port that adds a bearer token to each request, for clients that
cannot send one. Nothing else changes but C{Host} and C{Origin} where they name the
proxy itself; the answers pass byte by byte, and the broker's connection ends with the
client's.
"""

from __future__ import annotations

from typing import Any, Final

from twisted.internet import reactor as _reactor
from twisted.internet.defer import maybeDeferred
from twisted.internet.interfaces import IListeningPort
from twisted.internet.protocol import connectionDone
from twisted.protocols.portforward import ProxyFactory, ProxyServer
from twisted.python.failure import Failure

reactor: Any = _reactor  # a module to mypy

MAXIMUM_HEAD_BYTES: Final = 65536


class Requests:
    """Splits what a client sends into heads and bodies."""

    def __init__(self, token: str, own: bytes, target: bytes) -> None:
        self._authorization = b"Authorization: Bearer " + token.encode() + b"\r\n"
        self._own = own
        self._target = target
        self._head = b""
        self._body_bytes = 0

    def receive(self, data: bytes) -> bytes:
        """
        @return: what goes on to the server now.
        @raise ValueError: a request that this cannot pass on.
        """
        out = b""
        while data:
            if self._body_bytes:
                out += data[: self._body_bytes]
                taken = min(len(data), self._body_bytes)
                self._body_bytes -= taken
                data = data[taken:]
                continue
            head, end, rest = (self._head + data).partition(b"\r\n\r\n")
            if not end:
                if len(head) > MAXIMUM_HEAD_BYTES:
                    raise ValueError("the head of a request is too long")
                self._head = head
                return out
            self._head, data = b"", rest
            out += self._changed(head) + b"\r\n\r\n"
        return out

    def _changed(self, head: bytes) -> bytes:
        first, *lines = head.split(b"\r\n")
        for index, line in enumerate(lines):
            name, _, value = line.partition(b":")
            match name.strip().lower():
                case b"content-length":
                    self._body_bytes = int(value)
                case b"transfer-encoding":
                    raise ValueError("chunked requests are not passed on")
                case b"host" if value.strip() == self._own:
                    lines[index] = b"Host: " + self._target
                case b"origin" if value.strip() == b"http://" + self._own:
                    lines[index] = b"Origin: http://" + self._target
                case _:
                    continue
        return b"\r\n".join([first + b"\r\n" + self._authorization.rstrip(), *lines])


class _Connection(ProxyServer):
    """One client and its connection to the server."""

    requests: Requests

    def connectionMade(self) -> None:
        factory: Any = self.factory
        own: Any = self.transport.getHost()  # IAddress says nothing of ports
        self.requests = Requests(
            factory.token,
            f"{own.host}:{own.port}".encode(),
            f"{factory.host}:{factory.port}".encode(),
        )
        factory.open += 1
        super().connectionMade()

    def dataReceived(self, data: bytes) -> None:
        try:
            data = self.requests.receive(data)
        except ValueError:
            self.transport.loseConnection()
            return
        if data:
            super().dataReceived(data)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        factory: Any = self.factory
        factory.open -= 1
        if self.peer is not None:
            # One that is paused would keep the connection to the server open.
            server: Any = self.peer.transport
            server.unregisterProducer()
        super().connectionLost(reason)


class BearerProxy(ProxyFactory):
    """
    The proxy.

    @ivar open: how many clients are connected.
    @ivar url: where it listens, once it does.
    """

    protocol = _Connection
    noisy = False

    def __init__(self, port: int, token: str) -> None:
        """
        @param port: of the server, on 127.0.0.1.
        @param token: what it gets as bearer token.
        """
        super().__init__("127.0.0.1", port)
        self.token = token
        self.open = 0
        self._port: IListeningPort | None = None

    def start(self) -> None:
        """
        Listen on a port of the system's choice.
        """
        self._port = reactor.listenTCP(0, self, interface="127.0.0.1")

    @property
    def url(self) -> str:
        """
        @return: the MCP endpoint as clients of this proxy see it.
        """
        assert self._port is not None
        address: Any = self._port.getHost()  # IAddress says nothing of ports
        return f"http://127.0.0.1:{address.port}/mcp"

    async def stop(self) -> None:
        """
        Listen no more.
        """
        if self._port is not None:
            await maybeDeferred(self._port.stopListening)
