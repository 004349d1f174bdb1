"""Where the daemon listens, as it asks the reactor."""

from twisted.internet.defer import Deferred
from twisted.internet.protocol import Factory
from twisted.internet.testing import MemoryReactorClock
from twisted.trial.unittest import SynchronousTestCase

from fjmcp_broker.config.addresses import parse_listen_address
from fjmcp_broker.listeners import BACKLOG, Listener, Listeners


class BacklogTests(SynchronousTestCase):
    """Many clients may connect in the same moment."""

    def setUp(self) -> None:
        """Nobody listens."""
        self.reactor = MemoryReactorClock()

    def listen(self, text: str) -> None:
        """Begin to."""
        address = parse_listen_address(text)
        listeners = Listeners(self.reactor, [Listener("key", address, Factory())])
        self.successResultOf(Deferred.fromCoroutine(listeners.start()))

    def test_host_and_port(self) -> None:
        """More than Twisted would keep."""
        for text in ("127.0.0.1:8080", "tcp:8080:interface=127.0.0.1", "tcp:8080"):
            self.listen(text)
            port, _, backlog, _ = self.reactor.tcpServers.pop()
            self.assertEqual((port, backlog), (8080, BACKLOG), text)
        self.listen("[::1]:8080")
        _, _, backlog, interface = self.reactor.tcpServers.pop()
        self.assertEqual((backlog, interface), (BACKLOG, "::1"))

    def test_unix(self) -> None:
        """A proxy on the same machine is told at once that there are too many."""
        self.listen("unix:/run/broker.sock:mode=660")
        (server,) = self.reactor.unixServers
        self.assertEqual((server[0], server[2]), ("/run/broker.sock", BACKLOG))

    def test_operator_says(self) -> None:
        """With or without the name."""
        for text in ("tcp:8080:backlog=7", "tcp:8080:127.0.0.1:7"):
            self.listen(text)
            _, _, backlog, _ = self.reactor.tcpServers.pop()
            self.assertEqual(backlog, 7, text)
