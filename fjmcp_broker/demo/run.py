"""
C{fjmcp-broker demo}: a broker, a stand-in Forgejo and a child, on this machine, in
one process, with nothing kept.

Users and passwords are known to everybody who reads this, so nothing here listens
beyond loopback.
"""

from __future__ import annotations

import argparse
import os
import secrets
import shutil
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import attrs
import msgspec
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ServerEndpoint, TCP6ServerEndpoint
from twisted.internet.interfaces import IListeningPort
from twisted.logger import globalLogBeginner
from twisted.web.server import Site

from fjmcp_broker import logs
from fjmcp_broker.config.load import load
from fjmcp_broker.config.problems import ConfigError
from fjmcp_broker.demo.forgejo.stand_in import StandInForgejo
from fjmcp_broker.errors import BrokerError
from fjmcp_broker.version import VERSION

STAND_IN_CHILD: Final = (
    sys.executable,
    "-m",
    "fjmcp_broker.demo.child",
    "--transport",
    "stdio",
)
INSPECTOR: Final = (
    "npx @modelcontextprotocol/inspector --web --transport http --server-url"
)


class Program(msgspec.Struct, frozen=True):
    """The child that the demo runs."""

    command: tuple[str, ...]
    is_real: bool


def find_child(environment: Mapping[str, str]) -> Program:
    """
    @param environment: C{FORGEJO_MCP_BINARY} and C{PATH} are read.
    @return: the real forgejo-mcp where there is one, else the stand-in.
    """
    name = environment.get("FORGEJO_MCP_BINARY") or "forgejo-mcp"
    found = shutil.which(name, path=environment.get("PATH"))
    if found is None:
        return Program(STAND_IN_CHILD, is_real=False)
    return Program((found, "--transport", "stdio"), is_real=True)


def banner(
    url: str, forgejo_url: str, people: Sequence[tuple[str, str]], child: Program
) -> str:
    """
    @param people: login and password of each demo user.
    @return: what to do next.
    """
    mcp = f"{url}/mcp"
    users = " or ".join(f"{login} / {password}" for login, password in people)
    kind = "real" if child.is_real else "the packaged stand-in; no forgejo-mcp on PATH"
    return f"""
fjmcp-broker {VERSION} demo: everything is on this machine, and nothing is kept.

  MCP URL         {mcp}
  Forgejo         {forgejo_url}  (a stand-in)
  sign in as      {users}
  child           {child.command[0]}  ({kind})

Connect a client; each of them opens the sign-in page in your browser:

  Claude Code     claude mcp add --transport http fjmcp-demo {mcp}
                  (then /mcp inside Claude Code)
  MCP Inspector   {INSPECTOR} {mcp}
  Python          {sys.executable} -m fjmcp_broker.demo.client {mcp}

Ctrl-C stops all of it.
"""


def main(arguments: argparse.Namespace) -> int:
    """
    Run the demo until it is interrupted.

    @param arguments: C{host} (loopback), C{port} and C{forgejo_port}.
    @return: the exit status.
    """
    from twisted.internet import reactor

    globalLogBeginner.beginLoggingTo(
        [logs.make_observer("warn", "text", sys.stderr)], redirectStandardIO=False
    )
    directory = tempfile.mkdtemp(prefix="fjmcp-demo-")
    try:
        return _Demo(arguments, reactor, Path(directory)).run()
    finally:
        shutil.rmtree(directory, ignore_errors=True)


class _Demo:
    def __init__(
        self, arguments: argparse.Namespace, reactor: Any, directory: Path
    ) -> None:
        # The reactor is Any: it is asked for time, listening, and to run.
        self._reactor = reactor
        self._directory = directory
        self._status = 0
        host = {"localhost": "127.0.0.1", "[::1]": "::1"}.get(
            arguments.host, arguments.host
        )
        self._host, self._forgejo_port = host, arguments.forgejo_port
        shown = f"[{host}]" if ":" in host else host
        self._url = f"http://{shown}:{arguments.port}"
        self._forgejo = StandInForgejo(
            reactor, f"http://{shown}:{arguments.forgejo_port}"
        )
        application = self._forgejo.add_application(f"{self._url}/oauth/callback")
        self._child = find_child(os.environ)
        self._settings = {
            "FJMCP_BROKER_PUBLIC_URL": self._url,
            "FJMCP_BROKER_LISTEN": f"{shown}:{arguments.port}",
            "FORGEJO_URL": self._forgejo.base_url,
            "FORGEJO_OAUTH_CLIENT_ID": application.client_id,
            "FORGEJO_OAUTH_CLIENT_SECRET": application.client_secret,
            "FJMCP_BROKER_STORE_PATH": str(directory / "broker.db"),
            "FJMCP_BROKER_ENCRYPTION_KEYS": secrets.token_hex(32),
            "FJMCP_BROKER_LOG_LEVEL": "warn",
        }

    def run(self) -> int:
        from fjmcp_broker.services import build, preflight

        try:
            config = load(None, self._settings).config
            config = attrs.evolve(
                config,
                child=attrs.evolve(config.child, command=self._child.command),
            )
            preflight(config)
        except (ConfigError, BrokerError) as problem:
            sys.stderr.write(f"fjmcp-broker demo: {problem}\n")
            return 1
        service = build(config, self._reactor, on_ready=self._announce)
        self._reactor.addSystemEventTrigger("before", "shutdown", service.stopService)
        self._reactor.callWhenRunning(self._start, service.startService)
        self._reactor.run()
        return self._status or service.exit_status

    def _start(self, start_broker: Callable[[], None]) -> None:
        endpoint = (TCP6ServerEndpoint if ":" in self._host else TCP4ServerEndpoint)(
            self._reactor, self._forgejo_port, interface=self._host
        )
        listening: Deferred[IListeningPort] = endpoint.listen(
            Site(self._forgejo.resource)
        )

        def failed(failure: Any) -> None:
            sys.stderr.write(f"fjmcp-broker demo: {failure.value}\n")
            self._status = 1
            self._reactor.stop()

        listening.addCallbacks(lambda port: start_broker(), failed)

    def _announce(self) -> None:
        controls = self._forgejo.controls
        people = [(login, controls.user(login).password) for login in ("alice", "bob")]
        sys.stdout.write(banner(self._url, self._forgejo.base_url, people, self._child))
        sys.stdout.flush()
