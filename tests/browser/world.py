"""
A broker as the Internet sees it: https, names of its own for Forgejo and for clients.
"""

from __future__ import annotations

import json
import secrets
import ssl
from collections.abc import Callable
from typing import Any, Final
from urllib.parse import urlencode

from playwright.sync_api import Page
from twisted.internet import reactor as installed_reactor
from twisted.internet.interfaces import IListeningPort
from twisted.internet.threads import deferToThread
from twisted.web.iweb import IRequest
from twisted.web.resource import Resource
from twisted.web.server import Site

from tests.browser.chromium import Chromium, executable, opened
from tests.real import small_internet
from tests.real.broker_case import BrokerCase
from tests.real.browser import Browser
from tests.real.certificates import authority_for, write_certificate
from tests.real.daemon import CLOCK, Daemon, free_port, pause
from tests.real.forgejo import RunningForgejo

# Its type is that of a module.
reactor: Any = installed_reactor

BROKER: Final = "mcp.example.org"
FORGEJO: Final = "git.example.org"
CLIENT: Final = "assistant.example.com"
LOOKALIKE: Final = "xn--ssistant-06g.example.com"

URL: Final = f"https://{BROKER}"
DOCUMENT: Final = f"https://{CLIENT}/oauth/client.json"
WEBSITE: Final = f"https://{CLIENT}/callback"
CHALLENGE: Final = "E9Melhoa2OwvFrEMTJGuCHaoeK1t8URWbuGJSstw-cM"
BACK: Final = "Back at the application"


class Application(Resource):
    """A client's website: its metadata document, and a page for the way back."""

    isLeaf = True

    def render_GET(self, request: IRequest) -> bytes:
        """The document, or the page."""
        if request.path == b"/oauth/client.json":
            request.setHeader(b"Content-Type", b"application/json")
            return json.dumps(
                {
                    "client_id": DOCUMENT,
                    "client_name": "Example Assistant",
                    "redirect_uris": [WEBSITE],
                    "grant_types": ["authorization_code", "refresh_token"],
                    "response_types": ["code"],
                    "token_endpoint_auth_method": "none",
                }
            ).encode()
        request.setHeader(b"Content-Type", b"text/html; charset=utf-8")
        return f"<!DOCTYPE html><title>{BACK}</title><h1>{BACK}</h1>".encode()


class BrowserCase(BrokerCase):
    """A world with names, and a browser in it."""

    daemon: Daemon
    forgejo: RunningForgejo
    hosts: dict[str, int]

    async def begin(self, **more: str) -> None:
        """
        Start everything but the browser.

        @param more: environment variables of the broker.
        """
        executable()  # or skip before anything else
        port = free_port()
        settings, self.forgejo = await self.settings(port)
        inside = self.forgejo.stand_in.base_url
        self.forgejo.stand_in.base_url = f"https://{FORGEJO}"
        application = self.forgejo.stand_in.add_application(f"{URL}/oauth/callback")
        self.application = application.client_id
        site = Site(self.forgejo.stand_in.resource)
        client = Site(Application())
        ca, tls = authority_for(f"{self.directory}/ca", BROKER, FORGEJO, CLIENT)
        certificate, key = write_certificate(self.directory)
        client_port = self._listen(client, tls)
        self.loopback = f"http://127.0.0.1:{self._listen(client)}/callback"
        self.hosts = {
            BROKER: port,
            FORGEJO: self._listen(site, tls),
            CLIENT: client_port,
            LOOKALIKE: client_port,
        }
        self.daemon = Daemon.launch(
            {
                **settings,
                "FJMCP_BROKER_PUBLIC_URL": URL,
                "FJMCP_BROKER_SERVER_TLS": "required",
                "FJMCP_BROKER_SERVER_TLS_CERT": certificate,
                "FJMCP_BROKER_SERVER_TLS_KEY": key,
                "FJMCP_BROKER_CLIENTS_METADATA_DOCUMENTS_CA_FILE": ca,
                "FORGEJO_URL": f"https://{FORGEJO}",
                "FJMCP_BROKER_FORGEJO_INTERNAL_URL": inside,
                "FORGEJO_OAUTH_CLIENT_ID": application.client_id,
                "FORGEJO_OAUTH_CLIENT_SECRET": application.client_secret,
                **more,
            },
            port=port,
            runner=small_internet.runner(CLIENT, client_port),
        )
        self.addCleanup(self.daemon.stop)
        self.program = Browser()
        self.program.trust(_trusting())
        self.direct = f"https://127.0.0.1:{port}"
        await self._until_ready()

    def _listen(self, site: Site, tls: Any = None) -> int:
        listening: IListeningPort = (
            reactor.listenTCP(0, site, interface="127.0.0.1")
            if tls is None
            else reactor.listenSSL(0, site, tls, interface="127.0.0.1")
        )
        self.addCleanup(listening.stopListening)
        address: Any = listening.getHost()
        return int(address.port)

    async def _until_ready(self) -> None:
        deadline = CLOCK.seconds() + 30
        while CLOCK.seconds() < deadline and self.daemon.exit_code is None:
            try:
                url = f"{self.direct}/readyz"
                answer = await deferToThread(self.program.request, "GET", url)
            except OSError:
                await pause(0.05)
                continue
            if answer.status == 200:
                return
        raise AssertionError(f"not ready:\n{self.daemon.text}")

    async def browse(self, do: Callable[[Chromium], None]) -> None:
        """
        @param do: something with a browser, in a thread.
        """

        def use() -> None:
            with opened(self.hosts) as chromium:
                do(chromium)

        await deferToThread(use)

    def register(self, name: str, redirect_uri: str) -> str:
        """
        @return: the id of a client that has registered itself.
        """
        answer = self.program.request(
            "POST",
            f"{self.direct}/oauth/register",
            json.dumps(
                {
                    "client_name": name,
                    "redirect_uris": [redirect_uri],
                    "token_endpoint_auth_method": "none",
                }
            ).encode(),
            {"Content-Type": "application/json", "Host": BROKER},
        )
        assert answer.status == 201, answer
        return str(json.loads(answer.text)["client_id"])

    def authorize(self, client_id: str, redirect_uri: str, **more: str) -> str:
        """
        @return: the address that a client opens.
        """
        query = {
            "response_type": "code",
            "client_id": client_id,
            "redirect_uri": redirect_uri,
            "state": secrets.token_urlsafe(8),
            "code_challenge": CHALLENGE,
            "code_challenge_method": "S256",
            "resource": f"{URL}/mcp",
            **more,
        }
        return f"{URL}/oauth/authorize?{urlencode(query)}"

    def sign_in(self, page: Page, login: str = "alice") -> None:
        """
        What a person does at Forgejo, which remembers a permission once given.
        """
        try:
            self.forgejo.stand_in.controls.grant(login, self.application)
        except KeyError:
            remembered = False
        else:
            remembered = True
        page.wait_for_url(f"https://{FORGEJO}/**")
        page.get_by_label("Username").fill(login)
        page.get_by_label("Password").fill(self.forgejo.password(login))
        page.get_by_role("button", name="Sign in").click()
        if not remembered:
            page.get_by_role("button", name="Authorize").click()


def _trusting() -> Any:
    """
    @return: a client's side of TLS that takes every certificate; the browser of the
        tests does too, and what they are about comes after it.
    """
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context
