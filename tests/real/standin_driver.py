"""
Drives a child over stdio against a stand-in Forgejo on a loopback port.
"""

import json
import os
import sys
from pathlib import Path
from typing import Any, cast

import attrs
from cryptography.hazmat.primitives.serialization import Encoding
from twisted.internet import reactor as _reactor
from twisted.internet.defer import Deferred
from twisted.internet.error import ProcessDone
from twisted.internet.protocol import ProcessProtocol
from twisted.internet.ssl import CertificateOptions
from twisted.internet.task import deferLater
from twisted.python.failure import Failure
from twisted.trial.unittest import TestCase
from twisted.web.server import Site

from fjmcp_broker.demo.forgejo.faults import Fault
from fjmcp_broker.demo.forgejo.stand_in import StandInForgejo
from tests.real import real_forgejo_mcp
from tests.real.certificates import own_certificate

reactor: Any = _reactor  # a module to mypy

STAND_IN = (sys.executable, "-m", "fjmcp_broker.demo.child")
SECONDS = 20
SCOPE = (
    "openid read:user write:repository write:issue read:organization write:notification"
)


def real_program(version: str) -> tuple[str, ...]:
    """
    @return: the program of a real forgejo-mcp.
    @raise SkipTest: with the reason, when it is not there.
    """
    return (str(real_forgejo_mcp.require(version)),)


async def held(fault: Fault, count: int = 1) -> None:
    """
    Wait until a fault holds so many requests.
    """
    for _ in range(1000):
        if fault.waiting >= count:
            return
        await deferLater(reactor, 0.01)
    raise AssertionError("no request arrived")


@attrs.frozen
class Ended:
    """
    How a child ended.
    """

    exit_code: int | None
    signal: int | None
    rest: bytes
    stderr: str


class ChildProcess(ProcessProtocol):
    """
    One running child.
    """

    def __init__(self) -> None:
        self._buffer = b""
        self._lines: list[bytes] = []
        self._stderr = b""
        self._waiting: list[Deferred[bytes]] = []
        self._ended: Deferred[Ended] = Deferred()
        self.is_running = True

    # What the reactor calls

    def outReceived(self, data: bytes) -> None:
        """Cut stdout into lines."""
        *lines, self._buffer = (self._buffer + data).split(b"\n")
        self._lines += lines
        while self._lines and self._waiting:
            self._waiting.pop(0).callback(self._lines.pop(0))

    def errReceived(self, data: bytes) -> None:
        """Keep stderr."""
        self._stderr += data

    def processEnded(self, reason: Failure) -> None:
        """Tell who waits."""
        self.is_running = False
        value: Any = reason.value
        rest = b"\n".join([*self._lines, self._buffer])
        ended = Ended(
            0 if isinstance(value, ProcessDone) else value.exitCode,
            None if isinstance(value, ProcessDone) else value.signal,
            rest,
            self._stderr.decode("utf-8", "replace"),
        )
        waiting, self._waiting = self._waiting, []
        for each in waiting:
            each.errback(Failure(AssertionError(f"the child ended: {ended}")))
        self._ended.callback(ended)

    # What tests call

    def write(self, data: bytes) -> None:
        """Write to stdin."""
        self._transport().write(data)

    def send(self, message: dict[str, Any]) -> None:
        """Send one message."""
        self.write(json.dumps({"jsonrpc": "2.0"} | message).encode() + b"\n")

    async def line(self) -> bytes:
        """
        @return: the next line of stdout.
        """
        if self._lines:
            return self._lines.pop(0)
        waiting: Deferred[bytes] = Deferred()
        self._waiting.append(waiting)
        return await waiting.addTimeout(SECONDS, reactor)

    async def message(self) -> Any:
        """
        @return: the next message.
        """
        return json.loads(await self.line())

    async def ask(self, request: dict[str, Any]) -> Any:
        """
        Send a request and take the next message, without C{jsonrpc}.
        """
        self.send(request)
        answer = await self.message()
        del answer["jsonrpc"]
        return answer

    async def call(self, name: str, **arguments: Any) -> Any:
        """
        Call a tool.

        @return: the C{Result}, or the message of the error.
        """
        params = {"name": name, "arguments": arguments}
        answer = await self.ask({"id": name, "method": "tools/call", "params": params})
        if "error" in answer:
            return answer["error"]["message"]
        return json.loads(answer["result"]["content"][0]["text"])["Result"]

    @property
    def has_said_nothing(self) -> bool:
        """
        @return: whether no line waits to be taken.
        """
        return not self._lines

    @property
    def pid(self) -> int:
        """
        @return: its process id.
        """
        return int(self._transport().pid)

    def end_input(self) -> None:
        """Close stdin."""
        self._transport().closeStdin()

    def signal(self, name: str) -> None:
        """Send a signal by name, C{TERM} for instance."""
        if self.is_running:
            self._transport().signalProcess(name)

    async def ended(self) -> Ended:
        """
        @return: how it ended.
        """
        return await self._ended.addTimeout(SECONDS, reactor)

    def _transport(self) -> Any:
        return self.transport


class DrivenTestCase(TestCase):
    """
    A stand-in Forgejo on a port, and children that speak to it.

    @cvar real_version: of the real forgejo-mcp that the class is about; None for
        the stand-in.
    """

    timeout = 60
    real_version: str | None = None

    def setUp(self) -> None:
        self.program: tuple[str, ...] = STAND_IN
        if self.real_version is not None:
            self.program = real_program(self.real_version)
        self.forgejo = StandInForgejo(reactor)
        self.controls = self.forgejo.controls
        self.forgejo.add_application("http://127.0.0.1/oauth/callback")
        site = Site(self.forgejo.resource)
        port = reactor.listenTCP(0, site, interface="127.0.0.1")
        self.addCleanup(port.stopListening)
        self.addCleanup(self.controls.end_faults)
        self.forgejo.base_url = f"http://127.0.0.1:{port.getHost().port}"
        self.token = self.controls.issue_tokens("alice", SCOPE).access_token
        self.controls.forget_requests()

    def spawn(self, *arguments: str, **variables: str | None) -> ChildProcess:
        """
        Start a child.

        @param arguments: of the command line; C{--transport stdio} by default.
        @param variables: over the usual environment; None removes one.
        """
        settings: dict[str, str | None] = {
            "FORGEJO_URL": self.forgejo.base_url,
            "FORGEJO_ACCESS_TOKEN": self.token,
            "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
        }
        # Where coverage is measured, the child's is measured too.
        settings |= {
            name: value
            for name, value in os.environ.items()
            if name.startswith("COVERAGE_")
        }
        settings.update(variables)
        command = [*self.program, *(arguments or ("--transport", "stdio"))]
        child = ChildProcess()
        reactor.spawnProcess(
            child,
            command[0],
            command,
            env={name: each for name, each in settings.items() if each is not None},
        )
        self.addCleanup(self._reap, child)
        return child

    def listen_with_tls(self) -> str:
        """
        Move the stand-in Forgejo to an https port with a certificate of its own.

        @return: the path of a file with the certificate.
        """
        key, certificate = own_certificate()
        # Twisted hands both to pyOpenSSL, which wants cryptography's objects.
        options = CertificateOptions(
            privateKey=cast(Any, key), certificate=cast(Any, certificate)
        )
        site = Site(self.forgejo.resource)
        port = reactor.listenSSL(0, site, options, interface="127.0.0.1")
        self.addCleanup(port.stopListening)
        self.forgejo.base_url = f"https://127.0.0.1:{port.getHost().port}"
        path = Path(self.mktemp()).resolve()
        path.write_bytes(certificate.public_bytes(Encoding.PEM))
        return str(path)

    async def serving(self, **variables: str | None) -> ChildProcess:
        """
        @return: a child that has answered a ping.
        """
        child = self.spawn(**variables)
        self.assertEqual(
            await child.ask({"id": "ready", "method": "ping"}),
            {"id": "ready", "result": {}},
        )
        return child

    async def with_a_call_running(self) -> tuple[ChildProcess, Fault]:
        """
        @return: a child, and the fault that holds its call.
        """
        child = await self.serving()
        hold = self.controls.hold_request("/api/v1/user")
        child.send(
            {
                "id": "held",
                "method": "tools/call",
                "params": {"name": "get_my_user_info", "arguments": {}},
            }
        )
        await held(hold)
        return child, hold

    def _reap(self, child: ChildProcess) -> Deferred[None] | None:
        if not child.is_running:
            return None

        async def wait() -> None:
            child.end_input()
            killer = reactor.callLater(0.5, child.signal, "KILL")
            await child.ended()
            if killer.active():
                killer.cancel()

        return Deferred.fromCoroutine(wait())
