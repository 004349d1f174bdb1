"""
A stand-in Forgejo as a program.

Usage: C{python -m tests.deploy.stand_in PORT URL DIRECTORY [ADDRESS [LOGIN...]]}. URL
is that of the broker.
It speaks TLS with a certificate of its own, C{certificate.pem} in that directory, or
plain HTTP at an address that is given; C{known} there gets the broker's application and
the users' passwords as JSON when it listens. Tokens are issued to the users that are
given, without a sign-in, for a store that is made with them.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from msgspec.structs import asdict
from twisted.internet import reactor as _reactor
from twisted.internet.ssl import DefaultOpenSSLContextFactory
from twisted.web.server import Site

from fjmcp_broker.demo.forgejo.stand_in import StandInForgejo
from tests.real.certificates import write_certificate

reactor: Any = _reactor  # a module to mypy


def main(
    port: int, broker_url: str, directory: Path, address: str = "", *logins: str
) -> None:
    """
    Serve until a signal comes.

    @param port: on loopback.
    @param broker_url: the public URL of the broker.
    @param directory: where to write what others have to know.
    @param address: instead of loopback, without TLS.
    @param logins: who gets tokens at once.
    """
    url = f"http://{address}:{port}" if address else f"https://127.0.0.1:{port}"
    forgejo = StandInForgejo(reactor, url)
    application = forgejo.add_application(f"{broker_url}/oauth/callback")
    site = Site(forgejo.resource)
    if address:
        reactor.listenTCP(port, site, interface=address)
    else:
        certificate, key = write_certificate(str(directory))
        options = DefaultOpenSSLContextFactory(key, certificate)
        reactor.listenSSL(port, site, options, interface="127.0.0.1")
    issue = forgejo.controls.issue_tokens
    known = {
        "url": forgejo.base_url,
        "client_id": application.client_id,
        "client_secret": application.client_secret,
        "alice": forgejo.controls.user("alice").password,
        "issued": {login: asdict(issue(login)) for login in logins},
    }
    unfinished = directory / "known.new"
    unfinished.write_text(json.dumps(known))
    unfinished.rename(directory / "known")
    reactor.run()


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2], Path(sys.argv[3]), *sys.argv[4:])
