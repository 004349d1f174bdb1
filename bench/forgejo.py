"""
A stand-in Forgejo for the broker under measurement, as a process of its own: C{python
-m bench.forgejo PORT BROKER_URL} prints the broker's settings as JSON and serves.
"""

import json
import sys
from typing import Any

from twisted.internet import reactor as _reactor
from twisted.internet.endpoints import TCP4ServerEndpoint
from twisted.web.server import Site

from fjmcp_broker.demo.forgejo.stand_in import StandInForgejo
from fjmcp_broker.oauth.forgejo_scopes import DEFAULT_SCOPES

reactor: Any = _reactor  # a module to mypy


def main() -> None:
    """Serve until it is ended."""
    port, broker_url = int(sys.argv[1]), sys.argv[2]
    stand_in = StandInForgejo(reactor, f"http://127.0.0.1:{port}")
    application = stand_in.add_application(f"{broker_url}/oauth/callback")
    settings = {
        "FORGEJO_URL": stand_in.base_url,
        "FORGEJO_OAUTH_CLIENT_ID": application.client_id,
        "FORGEJO_OAUTH_CLIENT_SECRET": application.client_secret,
        "access_token": stand_in.controls.issue_tokens(
            "bob", DEFAULT_SCOPES
        ).access_token,
        "password": stand_in.controls.user("alice").password,
    }
    TCP4ServerEndpoint(reactor, port, interface="127.0.0.1").listen(
        Site(stand_in.resource)
    ).addCallback(lambda _: sys.stdout.write(json.dumps(settings) + "\n"))
    reactor.callWhenRunning(reactor.callLater, 0.1, sys.stdout.flush)
    reactor.run()


if __name__ == "__main__":
    main()
