"""How the process ends, seen from the one that started it."""

from __future__ import annotations

import contextlib
import os
import signal
import sys

from twisted.trial.unittest import TestCase

from tests.real.daemon import Program, children_of, pause, processes

SCRIPT = """
import sys
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from fjmcp_broker.errors import BrokerError
from fjmcp_broker.ordered import OrderedService, Part
from fjmcp_broker.process import OrderlyExit

class Refused(BrokerError):
    pass

leaving = OrderlyExit(reactor)

async def start():
    if "reload" in sys.argv:
        leaving.arrange(lambda: print("reloaded", flush=True))
    else:
        leaving.arrange()

async def refuse():
    if "later" in sys.argv:
        gate = Deferred()
        reactor.callLater(0, gate.callback, None)
        await gate
    if "refuse" in sys.argv:
        raise Refused("no")

async def stop():
    print("stopped", flush=True)
    if "slowly" in sys.argv:
        gate = Deferred()
        reactor.callLater(0.5, gate.callback, None)
        await gate
    print("all stopped", flush=True)

service = OrderedService(
    [Part("first", start, stop), Part("second", refuse)],
    clock=reactor, on_failure=leaving.fail,
)
reactor.addSystemEventTrigger("before", "shutdown", service.stopService)
service.startService()
reactor.callWhenRunning(reactor.callLater, 0, print, "running", flush=True)
reactor.run()
"""


class OrderlyExitTests(TestCase):
    """The exit status says whether all was well."""

    timeout = 60

    def start(self, *words: str) -> Program:
        return Program.start([sys.executable, "-c", SCRIPT, *words])

    async def test_a_failed_start(self) -> None:
        """At once or later: what was started is stopped, and the status is 1."""
        for words in (["refuse"], ["refuse", "later"]):
            program = self.start(*words)
            await program.wait()
            self.assertEqual(program.exit_code, 1, program.text)
            self.assertIn("all stopped", program.text)

    async def test_a_signal(self) -> None:
        """SIGTERM and SIGINT are an orderly end; a second one changes nothing."""
        for number in (signal.SIGTERM, signal.SIGINT):
            program = self.start("slowly")
            while b"running" not in program.output:
                await pause(0.02)
            program.signal_with(number)
            while b"stopped" not in program.output:
                await pause(0.02)
            program.signal_with(number)
            await program.wait()
            self.assertEqual(program.exit_code, 0, program.text)
            self.assertIn("all stopped", program.text)
            self.assertNotIn("Traceback", program.text)

    async def test_a_hangup(self) -> None:
        """It is a reload where one was asked for, but not while all stops."""
        program = self.start("reload", "slowly")
        while b"running" not in program.output:
            await pause(0.02)
        program.signal_with(signal.SIGHUP)
        while b"reloaded" not in program.output:
            await pause(0.02)
        program.signal_with(signal.SIGTERM)
        while b"stopped" not in program.output:
            await pause(0.02)
        program.signal_with(signal.SIGHUP)
        await program.wait()
        self.assertEqual(program.exit_code, 0, program.text)
        self.assertEqual(program.output.count(b"reloaded"), 1)

    async def test_a_hangup_without_reload(self) -> None:
        """It ends the process, as it does without us."""
        program = self.start()
        while b"running" not in program.output:
            await pause(0.02)
        program.signal_with(signal.SIGHUP)
        await program.wait()
        self.assertEqual(program.signal, signal.SIGHUP)


FORKING = """
import os, signal, subprocess, sys
mark = sys.argv[1]
if os.fork() == 0:
    signal.pause()
program = "import signal; signal.pause()"
child = subprocess.Popen([sys.executable, "-c", program, mark])
print("child", child.pid, flush=True)
signal.pause()
"""


class ChildrenTests(TestCase):
    """What the tests take for the children of a daemon."""

    timeout = 60

    async def test_one_without_a_program_of_its_own(self) -> None:
        """It is the daemon once more and none of its children yet."""
        mark = f"mark-{os.getpid()}"
        program = Program.start([sys.executable, "-c", FORKING, mark])
        self.addCleanup(program.wait)
        while b"\n" not in program.output or len(processes(mark)) < 3:
            await pause(0.02)
        for pid in processes(mark):
            self.addCleanup(self.end, pid)
        child = int(program.text.split()[1])
        self.assertEqual(children_of(program, mark), [child])

    def end(self, pid: int) -> None:
        """Kill it, if it is still there."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
