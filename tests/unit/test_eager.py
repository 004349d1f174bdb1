"""Writing at once, to real pipes."""

import os

from twisted.internet.abstract import FileDescriptor
from twisted.internet.error import ConnectionLost
from twisted.internet.fdesc import setNonBlocking, writeToFD
from twisted.internet.testing import StringTransport
from twisted.trial.unittest import SynchronousTestCase

from fjmcp_broker.eager import write_now


class NoReactor:
    """Nobody is told of anything."""

    def addWriter(self, writer: object) -> None:  # noqa: N802 - Twisted's
        """Somebody would like to write."""


class Pipe(FileDescriptor):
    """The writing end of one."""

    connected = 1

    def __init__(self) -> None:
        """Open and empty."""
        super().__init__(NoReactor())  # type: ignore[arg-type]
        self.reading, self.writing = os.pipe()
        setNonBlocking(self.reading)
        setNonBlocking(self.writing)

    def writeSomeData(self, data: bytes) -> int | BaseException:  # noqa: N802
        """What Twisted's own pipes do."""
        written: int | BaseException = writeToFD(self.writing, data)
        return written


class WriteNowTests(SynchronousTestCase):
    """What is left for the event loop."""

    def setUp(self) -> None:
        """A pipe."""
        self.pipe = Pipe()
        self.addCleanup(os.close, self.pipe.writing)

    def test_all_of_it(self) -> None:
        """Nothing is left when it fits."""
        self.addCleanup(os.close, self.pipe.reading)
        self.assertEqual(write_now(self.pipe, b"abc"), b"")
        self.assertEqual(os.read(self.pipe.reading, 10), b"abc")

    def test_more_than_fits(self) -> None:
        """The rest is left, and the next time everything."""
        self.addCleanup(os.close, self.pipe.reading)
        data = os.urandom(1024 * 1024)
        rest = write_now(self.pipe, data)
        self.assertGreater(len(rest), 0)
        self.assertTrue(data.endswith(rest))
        self.assertEqual(write_now(self.pipe, b"abc"), b"abc")

    def test_behind_what_waits(self) -> None:
        """Nothing overtakes."""
        self.addCleanup(os.close, self.pipe.reading)
        self.pipe.write(b"first")
        self.assertEqual(write_now(self.pipe, b"second"), b"second")

    def test_nobody_reads(self) -> None:
        """The event loop has to find out."""
        os.close(self.pipe.reading)
        self.assertIsInstance(self.pipe.writeSomeData(b"x"), ConnectionLost)
        self.assertEqual(write_now(self.pipe, b"abc"), b"abc")

    def test_closed_and_closing(self) -> None:
        """Nothing is written."""
        self.addCleanup(os.close, self.pipe.reading)
        self.pipe.disconnecting = 1
        self.assertEqual(write_now(self.pipe, b"abc"), b"abc")
        self.pipe.disconnecting = self.pipe.connected = 0
        self.assertEqual(write_now(self.pipe, b"abc"), b"abc")

    def test_others(self) -> None:
        """Transports of other kinds are left alone."""
        transport = StringTransport()
        self.assertEqual(write_now(transport, b"abc"), b"abc")
        self.assertEqual(write_now(None, b"abc"), b"abc")
        self.assertEqual(transport.value(), b"")
