"""The control socket on a clock: who may speak, for how long, and how much."""

import json
import os
import socket
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from fjmcp_broker.control import server
from fjmcp_broker.control.protocol import (
    MAXIMUM_REQUEST_BYTES,
    ControlError,
    Request,
    reachable,
    read_answer,
    read_request,
    write_request,
)
from fjmcp_broker.control.server import (
    IDLE_SECONDS,
    MAXIMUM_CONNECTIONS,
    ControlFactory,
    ControlProtocol,
)


class Wire(StringTransport):
    """A connection with a real socket behind it, for the credentials."""

    def __init__(self) -> None:
        """Both ends are ours."""
        super().__init__()
        self.socket, self.other = socket.socketpair(socket.AF_UNIX)
        self.aborted = False

    def abortConnection(self) -> None:  # noqa: N802 - Twisted's
        """It is over."""
        self.aborted = True


class ServerCase(SynchronousTestCase):
    """A factory whose commands take as long as a test likes."""

    def setUp(self) -> None:
        """Nothing is connected."""
        self.clock = Clock()
        self.asked: list[tuple[Request, str, Deferred[object]]] = []
        self.factory = ControlFactory(self.perform, self.clock)

    async def perform(self, request: Request, actor: str) -> object:
        """Wait for the test."""
        waiting: Deferred[object] = Deferred()
        self.asked.append((request, actor, waiting))
        return await waiting

    def connect(self) -> tuple[ControlProtocol, Wire]:
        """A new connection."""
        protocol, wire = self.factory.buildProtocol(None), Wire()
        self.addCleanup(wire.socket.close)
        self.addCleanup(wire.other.close)
        protocol.makeConnection(wire)
        self.addCleanup(protocol.connectionLost, Failure(ControlError("over")))
        return protocol, wire

    def test_request_and_answer(self) -> None:
        """Who asked is known; the next request can come after the answer."""
        protocol, wire = self.connect()
        for number in range(2):
            protocol.dataReceived(write_request(Request("users", {"a": 1})))
            request, actor, waiting = self.asked[-1]
            self.assertEqual(request, Request("users", {"a": 1}))
            self.assertEqual(actor, f"uid {os.geteuid()}")
            waiting.callback([number])
            self.assertEqual(read_answer(wire.value()), [number])
            wire.clear()

    def test_work_may_take_its_time(self) -> None:
        """Only silence is ended."""
        protocol, wire = self.connect()
        protocol.dataReceived(write_request(Request("users")))
        self.clock.advance(10 * IDLE_SECONDS)
        self.assertFalse(wire.disconnecting)
        self.asked[0][2].callback({})
        self.clock.advance(IDLE_SECONDS + 1)
        self.assertTrue(wire.disconnecting)

    def test_silence(self) -> None:
        """Whoever says nothing gives the connection back."""
        _, wire = self.connect()
        self.clock.advance(IDLE_SECONDS + 1)
        self.assertTrue(wire.disconnecting)

    def test_second_request_before_the_answer(self) -> None:
        """Nothing is queued."""
        protocol, wire = self.connect()
        protocol.dataReceived(2 * write_request(Request("users")))
        self.assertTrue(wire.aborted)
        self.assertEqual(len(self.asked), 1)
        self.asked[0][2].callback({})

    def test_long_line(self) -> None:
        """With and without an end."""
        for line in (b"x" * (MAXIMUM_REQUEST_BYTES + 9), b"x" * 99_999 + b"\n"):
            protocol, wire = self.connect()
            protocol.dataReceived(line)
            self.assertTrue(wire.aborted)
        self.assertEqual(self.asked, [])

    def test_client_that_has_left(self) -> None:
        """What it asked for is done all the same."""
        protocol, wire = self.connect()
        protocol.dataReceived(write_request(Request("revoke")))
        protocol.connectionLost(Failure(ControlError("gone")))
        self.asked[0][2].callback({})
        self.assertEqual(wire.value(), b"")
        self.assertEqual(self.factory.connections, set())

    def test_faults(self) -> None:
        """Foreseen ones are said, others are in the log."""
        protocol, wire = self.connect()
        protocol.dataReceived(write_request(Request("users")))
        self.asked[0][2].errback(ControlError("not now"))
        self.assertEqual(json.loads(wire.value()), {"error": "not now"})
        wire.clear()
        protocol.dataReceived(write_request(Request("users")))
        self.asked[1][2].errback(ZeroDivisionError("secret"))
        self.assertIn("unexpected", json.loads(wire.value())["error"])
        self.assertNotIn(b"secret", wire.value())
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_other_users(self) -> None:
        """Whatever the mode of the socket says."""
        for uid, refused in ((os.geteuid() + 1, True), (0, False)):
            self.patch(server, "peer_uid", lambda _, uid=uid: uid)
            _, wire = self.connect()
            self.assertEqual(wire.aborted, refused, uid)

    def test_connections_are_bounded(self) -> None:
        """One more is refused, until another one has left."""
        held = [self.connect() for _ in range(MAXIMUM_CONNECTIONS)]
        self.assertTrue(self.connect()[1].aborted)
        held[0][0].connectionLost(Failure(ControlError("gone")))
        self.assertFalse(self.connect()[1].aborted)


class ProtocolTests(SynchronousTestCase):
    """The lines."""

    def test_requests(self) -> None:
        """A command and arguments, nothing else."""
        for line in (
            b"",
            b"[]",
            b"{}",
            b'{"command":2}',
            b'{"command":"a","arguments":1}',
        ):
            self.assertRaises(ControlError, read_request, line)
        self.assertEqual(read_request(b'{"command":"a"}'), Request("a"))

    def test_arguments(self) -> None:
        """Each of its kind, or left out."""
        request = Request(
            "a", {"t": "x", "n": 7, "l": "y" * 5000, "b": True, "m": -1, "z": None}
        )
        self.assertEqual(request.text("t"), "x")
        self.assertEqual(request.number("n"), 7)
        self.assertTrue(request.is_set("b"))
        for name in ("none", "z"):
            self.assertIsNone(request.text(name))
            self.assertIsNone(request.number(name))
            self.assertFalse(request.is_set(name))
        for name in ("n", "l", "b"):
            self.assertRaises(ControlError, request.text, name)
        for name in ("t", "b", "m"):
            self.assertRaises(ControlError, request.number, name)

    def test_answers(self) -> None:
        """Of a daemon, or of something else."""
        self.assertEqual(read_answer(b'{"result":null}'), None)
        for line in (b"", b"[]", b"{}", b'{"error":"no"}', b"HTTP/1.1 400"):
            self.assertRaises(ControlError, read_answer, line)

    def test_long_paths(self) -> None:
        """The name of a socket is short, that of a directory need not be."""
        folder = os.path.abspath(self.mktemp())
        for _ in range(3):
            folder = os.path.join(folder, "a" * 90)
        os.makedirs(folder)
        path = os.path.join(folder, "s")
        with socket.socket(socket.AF_UNIX) as listening:
            with reachable(path) as name:
                listening.bind(name)
            listening.listen()
            self.assertTrue(os.path.lexists(path))
            with socket.socket(socket.AF_UNIX) as client, reachable(path) as name:
                client.connect(name)
        before: Any = len(os.listdir("/proc/self/fd"))
        with reachable(path):
            pass
        self.assertEqual(len(os.listdir("/proc/self/fd")), before)
