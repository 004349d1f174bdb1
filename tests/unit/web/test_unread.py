"""A client that asks and asks and reads no answer does not have them kept for it."""

import json

from fjmcp_broker.web.site import IDLE_SECONDS
from tests.unit.web.mcp_world import McpWorld, Wire, request

UNKNOWN = b"GET /nothing HTTP/1.1\r\nHost: mcp.example\r\n\r\n"


class FullWire(Wire):
    """
    Its buffer is full as soon as something is in it.

    @ivar is_full: whether that is so.
    """

    is_full = True

    def write(self, data: bytes) -> None:
        """As Twisted's transports tell it."""
        super().write(data)
        if self.is_full:
            self.protocol.pauseProducing()


class UnreadTests(McpWorld):
    """Requests that do not wait for the answers before."""

    def setUp(self) -> None:
        """A session, and a connection whose client reads nothing."""
        super().setUp()
        self.session = self.open()
        self.manual.add("slow")
        self.wire = FullWire()
        self.wire.protocol = self.site.buildProtocol(self.wire.getPeer())
        self.wire.protocol.makeConnection(self.wire)
        self.wires.append(self.wire)

    def ask(self, *methods: str, first: int = 1) -> bytes:
        """All of them at once."""
        return b"".join(
            self.raw(json.dumps(request(first + place, method)).encode(), self.session)
            for place, method in enumerate(methods)
        )

    @property
    def relayed(self) -> int:
        """How much the child has been asked."""
        messages = self.received(self.spawner.processes[-1])
        return sum(message.get("method") in ("ping", "slow") for message in messages)

    @property
    def answers(self) -> int:
        """How many there are on the connection."""
        return bytes(self.wire.value()).count(b"HTTP/1.1 ")

    def test_calls(self) -> None:
        """The child is asked when the answer before has left, and in order."""
        self.wire.protocol.dataReceived(self.ask("slow", "ping", "ping"))
        self.assertEqual(self.relayed, 1)
        child = self.spawner.processes[-1]
        self.reply(child, self.received(child)[-1]["id"], {})
        self.assertEqual((self.answers, self.relayed), (1, 1))
        self.assertEqual(self.wire.producerState, "paused")
        self.wire.protocol.resumeProducing()
        self.assertEqual((self.answers, self.relayed), (2, 2))
        self.assertEqual(self.wire.producerState, "paused")
        # What was read before the connection was paused.
        self.wire.protocol.dataReceived(self.ask("ping", first=4))
        self.assertEqual((self.answers, self.relayed), (2, 2))
        self.wire.is_full = False
        self.wire.protocol.resumeProducing()
        self.assertEqual((self.answers, self.relayed), (4, 4))
        self.assertEqual(self.wire.producerState, "producing")

    def test_answered_at_once(self) -> None:
        """No token is needed for these."""
        self.wire.protocol.dataReceived(UNKNOWN * 100)
        self.assertEqual(self.answers, 1)
        self.wire.protocol.resumeProducing()
        self.assertEqual(self.answers, 2)
        self.wire.is_full = False
        self.wire.protocol.resumeProducing()
        self.assertEqual(self.answers, 100)
        self.assertFalse(self.wire.disconnecting)

    def test_one_that_was_known(self) -> None:
        """A head that comes again waits, too."""
        for number in (1, 2, 3):
            self.wire.protocol.dataReceived(self.ask("ping", first=number))
        self.assertEqual((self.answers, self.relayed), (1, 1))
        for number in (1, 2, 3):
            self.assertEqual((self.answers, self.relayed), (number, number))
            self.wire.protocol.resumeProducing()
        self.assertEqual(self.answers, 3)

    def test_half_of_one(self) -> None:
        """The rest comes later, and its time begins when it could be read."""
        data = self.ask("ping", "ping")
        self.wire.protocol.dataReceived(data[:-20])
        self.assertEqual(self.answers, 1)
        self.clock.advance(IDLE_SECONDS - 1)
        self.assertFalse(self.wire.disconnecting)
        self.wire.protocol.resumeProducing()
        self.wire.protocol.dataReceived(data[-20:])
        self.assertEqual((self.answers, self.relayed), (2, 2))

    def test_never_read(self) -> None:
        """The connection is closed as any that is quiet."""
        self.wire.protocol.dataReceived(self.ask("ping", "ping"))
        self.clock.advance(IDLE_SECONDS)
        self.assertTrue(self.wire.disconnecting)
        self.assertEqual(self.relayed, 1)

    def test_last_answer(self) -> None:
        """The connection closes behind it."""
        self.site.is_settling = True
        self.wire.protocol.dataReceived(self.ask("ping", "ping"))
        self.assertEqual((self.answers, self.relayed), (1, 1))
        self.assertTrue(self.wire.disconnecting)
