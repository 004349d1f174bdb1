"""What is read of a child's output at once."""

import os
from typing import Any

from twisted.internet.main import CONNECTION_DONE, CONNECTION_LOST
from twisted.trial.unittest import SynchronousTestCase

from fjmcp_broker.sessions.processes.transport import STDOUT, _Output

KIB = 1024


class NoReactor:
    """Nobody is told of anything."""

    def addReader(self, reader: object) -> None:  # noqa: N802 - Twisted's
        """Somebody would like to read."""


class OutputTests(SynchronousTestCase):
    """A real pipe."""

    def setUp(self) -> None:
        """Open and empty."""
        reading, self.writing = os.pipe()
        self.addCleanup(os.close, reading)
        process: Any = self
        reactor: Any = NoReactor()
        self.read: list[tuple[int, int]] = []
        self.output = _Output(reactor, process, STDOUT, reading)

    def childDataReceived(self, number: int, data: bytes) -> None:
        """What its process hears."""
        self.read.append((number, len(data)))

    def test_much(self) -> None:
        """More answers at once than a turn takes questions, but not all that a busy
        child has to say."""
        self.addCleanup(os.close, self.writing)
        os.write(self.writing, b"x" * 40 * KIB)
        self.assertIsNone(self.output.doRead())
        self.assertIsNone(self.output.doRead())
        self.assertEqual(self.read, [(STDOUT, 32 * KIB), (STDOUT, 8 * KIB)])
        self.assertIsNone(self.output.doRead())
        self.assertEqual(len(self.read), 2)

    def test_closed(self) -> None:
        """What was written before is read first."""
        os.write(self.writing, b"last")
        os.close(self.writing)
        self.assertIsNone(self.output.doRead())
        self.assertEqual(self.read, [(STDOUT, 4)])
        self.assertIs(self.output.doRead(), CONNECTION_DONE)

    def test_broken(self) -> None:
        """A descriptor that cannot be read is lost."""
        self.output.fd = self.writing
        self.addCleanup(os.close, self.writing)
        self.assertIs(self.output.doRead(), CONNECTION_LOST)
