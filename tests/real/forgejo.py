"""A stand-in Forgejo on a loopback port, for daemons under test."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

import attrs
from twisted.internet import reactor
from twisted.internet.endpoints import TCP4ServerEndpoint
from twisted.internet.interfaces import IListeningPort, IReactorTime
from twisted.web.server import Site

from fjmcp_broker.demo.forgejo.stand_in import StandInForgejo


class HasCleanups(Protocol):
    """A test case, or what undoes things at its end as one does."""

    def addCleanup(self, undo: Callable[[], object], /) -> object:
        """Remember what to undo."""


@attrs.frozen
class RunningForgejo:
    """
    A stand-in that listens, and its application for the broker.

    @ivar settings: what a broker's environment has to say about it.
    """

    stand_in: StandInForgejo
    settings: Mapping[str, str]

    def password(self, login: str) -> str:
        """
        @return: the password of a demo user.
        """
        return self.stand_in.controls.user(login).password


async def start_forgejo(
    test: HasCleanups, broker_url: str, *, path: str = ""
) -> RunningForgejo:
    """
    Start one, to be stopped at the end of the test.

    @param broker_url: the public URL of the broker that will use it.
    @param path: of the base URL, such as C{/git}.
    """
    stand_in = StandInForgejo(IReactorTime(reactor))
    endpoint = TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1")
    site = Site(stand_in.resource)
    port: IListeningPort = await endpoint.listen(site)
    test.addCleanup(port.stopListening)
    address: Any = port.getHost()  # IAddress says nothing of ports
    stand_in.base_url = f"http://127.0.0.1:{address.port}{path}"
    application = stand_in.add_application(f"{broker_url}/oauth/callback")
    return RunningForgejo(
        stand_in,
        {
            "FORGEJO_URL": stand_in.base_url,
            "FORGEJO_OAUTH_CLIENT_ID": application.client_id,
            "FORGEJO_OAUTH_CLIENT_SECRET": application.client_secret,
        },
    )
