"""
C{twistd} whose Internet has one host: it has a public address, and what is sent there
comes to a loopback port. The rules of what may be contacted are the real ones.

Usage: C{python small_internet.py HOST PORT -n fjmcp}; everything behind the port is as
for C{twistd}.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.internet.endpoints import TCP4ClientEndpoint
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.scripts.twistd import run

from fjmcp_broker import endpoints
from fjmcp_broker.upstream.document_http import GuardedFetcher

ADDRESS = "1.1.1.1"


def connect(host: str, port: int) -> None:
    """
    Put the host into the Internet of this process.
    """

    def resolve(name: str) -> Deferred[Sequence[str]]:
        return succeed([ADDRESS] if name == host else [])

    def way(self: Any, address: str) -> IStreamClientEndpoint:
        assert address == ADDRESS, address
        endpoint: IStreamClientEndpoint = TCP4ClientEndpoint(
            self._reactor, "127.0.0.1", port
        )
        return endpoint

    patched: Any = endpoints
    patched.SystemResolver = lambda look_up: resolve
    fetcher: Any = GuardedFetcher
    fetcher._port_443 = way


def runner(host: str, port: int) -> tuple[str, ...]:
    """
    @return: for C{Daemon.launch}.
    """
    command = (sys.executable, __file__, host, str(port))
    return (*command, "-n", "--pidfile=", "fjmcp")


if __name__ == "__main__":
    connect(sys.argv.pop(1), int(sys.argv.pop(1)))
    run()
