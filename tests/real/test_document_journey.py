"""The official Python SDK signs in with the URL of a metadata document."""

from __future__ import annotations

import json
from typing import Any, Final

from twisted.internet import reactor as installed_reactor
from twisted.internet.interfaces import IListeningPort
from twisted.web.iweb import IRequest
from twisted.web.resource import Resource
from twisted.web.server import Site

from tests.real import small_internet
from tests.real.certificates import authority_for
from tests.real.daemon import Daemon, free_port
from tests.real.sdk_journey import REDIRECT_URI
from tests.real.test_journey import MODERN, Journey

# Its type is that of a module.
reactor: Any = installed_reactor

HOST: Final = "app.example.com"
URL: Final = f"https://{HOST}/oauth/client.json"


class Document(Resource):
    """The metadata document of the SDK's client, and nothing else."""

    isLeaf = True

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[bytes] = []

    def render_GET(self, request: IRequest) -> bytes:
        """The document."""
        self.asked.append(request.uri)
        request.setHeader(b"Content-Type", b"application/json")
        request.setHeader(b"Cache-Control", b"max-age=300")
        return json.dumps(
            {
                "client_id": URL,
                "client_name": "A client with a document",
                "redirect_uris": [REDIRECT_URI],
                "grant_types": ["authorization_code", "refresh_token"],
                "response_types": ["code"],
                "token_endpoint_auth_method": "none",
            }
        ).encode()


class DocumentJourneyTests(Journey):
    """Nothing is registered."""

    async def test_sign_in_call_refresh_revoke(self) -> None:
        """
        The SDK sees that documents are supported and uses its URL as client id. The
        document is fetched once: tokens are issued, refreshed and revoked without it.
        """
        authority, tls = authority_for(self.mktemp(), HOST)
        document = Document()
        listening: IListeningPort = reactor.listenSSL(
            0, Site(document), tls, interface="127.0.0.1"
        )
        self.addCleanup(listening.stopListening)
        address: Any = listening.getHost()
        port = free_port()
        settings, forgejo = await self.settings(port)
        settings["FJMCP_BROKER_CLIENTS_METADATA_DOCUMENTS_CA_FILE"] = authority
        daemon = Daemon.launch(
            settings, port=port, runner=small_internet.runner(HOST, address.port)
        )
        self.addCleanup(daemon.stop)
        await daemon.until_ready()
        for mode in ("legacy", "auto", MODERN):
            seen = await self.travel(
                daemon,
                forgejo,
                f"--mode={mode}",
                "--calls",
                '[["get_my_user_info",{}]]',
                "--client-metadata-url",
                URL,
            )
            self.assertEqual(seen["client_id"], URL)
            self.assertEqual((seen["sign_ins"], seen["rotated"]), (1, True))
            self.assertEqual(seen["status after the revocation"], 401)
        self.assertEqual(document.asked, [b"/oauth/client.json"])
        self.assertNotIn("POST /oauth/register", daemon.text)
        self.assertIn(f"client metadata document of {HOST} fetched", daemon.text)
