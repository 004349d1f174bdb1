"""The ports of the tests themselves."""

from __future__ import annotations

import socket
import subprocess
import sys

from twisted.trial.unittest import SynchronousTestCase

from tests.real.ports import BLOCK, blocks, free_port


class PortTests(SynchronousTestCase):
    """Nobody else gets them."""

    def test_other_processes_have_others(self) -> None:
        """Two runs of tests at once are not in each other's way."""
        program = "from tests.real.ports import free_port; print(free_port())"
        other = int(
            subprocess.run(  # noqa: S603 - a fixed command
                [sys.executable, "-c", program],
                env={"PYTHONPATH": ":".join(sys.path)},
                capture_output=True,
                check=True,
            ).stdout
        )
        own = free_port()
        self.assertNotEqual(own // BLOCK, other // BLOCK)

    def test_a_port_in_use_is_passed_over(self) -> None:
        """Whoever listens there."""
        with socket.socket() as listener:
            listener.bind(("127.0.0.1", taken := free_port()))
            self.assertNotIn(taken, {free_port() for _ in range(BLOCK)})

    def test_those_of_the_kernel_come_last(self) -> None:
        """It chooses for connections, too, and would take one of a stopped server."""
        self.assertEqual(blocks(32768)[0].start, 12000)
        self.assertEqual(blocks(12150)[0].start, 12000)
        self.assertEqual(len(blocks(32768)), len(blocks(1024)))
        self.assertTrue(all(b.stop <= 20000 for b in blocks(20000)[:80]))
