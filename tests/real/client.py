"""A client of the broker for tests, with nothing between it and the bytes."""

from __future__ import annotations

import hashlib
import json
import secrets
from base64 import urlsafe_b64encode
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

import attrs

from tests.real.browser import Browser, Page, sign_in

REDIRECT_URI = "https://client.example.org/back"
FORM = {"Content-Type": "application/x-www-form-urlencoded"}
LATEST_LEGACY = "2025-11-25"


def _challenge(verifier: str) -> str:
    digest = hashlib.sha256(verifier.encode()).digest()
    return urlsafe_b64encode(digest).rstrip(b"=").decode()


@attrs.define
class McpClient:
    """
    A registered client with the tokens of one user, and at most one session. Every
    method blocks: use C{deferToThread}.
    """

    url: str
    browser: Browser = attrs.Factory(Browser)
    client_id: str = ""
    access_token: str = ""
    refresh_token: str = ""
    session_id: str | None = None
    number: int = 0
    redirect_uri: str = REDIRECT_URI

    def register(self) -> None:
        """
        Register as a public client.
        """
        answer = self.browser.request(
            "POST",
            f"{self.url}/oauth/register",
            json.dumps(
                {"client_name": "Test", "redirect_uris": [self.redirect_uri]}
                | {"token_endpoint_auth_method": "none"}
            ).encode(),
            {"Content-Type": "application/json"},
        )
        assert answer.status == 201, answer
        self.client_id = json.loads(answer.text)["client_id"]

    def sign_in(
        self,
        login: str,
        password: str,
        *,
        decision: str = "full",
        scope: str | None = None,
    ) -> None:
        """
        Get tokens for a user, who decides on the consent page.
        """
        if not self.client_id:
            self.register()
        verifier = secrets.token_urlsafe(32)
        query = {
            "response_type": "code",
            "client_id": self.client_id,
            "redirect_uri": self.redirect_uri,
            "state": secrets.token_urlsafe(8),
            "code_challenge": _challenge(verifier),
            "code_challenge_method": "S256",
            "resource": f"{self.url}/mcp",
        }
        if scope is not None:
            query["scope"] = scope
        returned = sign_in(
            self.browser,
            f"{self.url}/oauth/authorize?{urlencode(query)}",
            self.redirect_uri,
            login,
            password,
            decision=decision,
        )
        parameters = parse_qs(urlsplit(returned).query)
        assert parameters["state"] == [query["state"]], returned
        assert parameters["iss"] == [self.url], returned
        self.token(
            grant_type="authorization_code",
            code=parameters["code"][0],
            code_verifier=verifier,
            redirect_uri=self.redirect_uri,
        )

    def token(self, **parameters: str) -> dict[str, Any]:
        """
        A token request that has to succeed.
        """
        form = urlencode({"client_id": self.client_id, **parameters}).encode()
        answer = self.browser.request("POST", f"{self.url}/oauth/token", form, FORM)
        assert answer.status == 200, (answer.status, answer.text)
        tokens: dict[str, Any] = json.loads(answer.text)
        self.access_token = tokens["access_token"]
        self.refresh_token = tokens["refresh_token"]
        return tokens

    def refresh(self) -> dict[str, Any]:
        """
        Rotate the tokens.
        """
        return self.token(grant_type="refresh_token", refresh_token=self.refresh_token)

    def send(self, message: object, method: str = "POST") -> Page:
        """
        Send a message, or bytes that need not be one, to the MCP endpoint.
        """
        body = message if isinstance(message, bytes) else json.dumps(message).encode()
        return self.browser.request(method, f"{self.url}/mcp", body, self.headers())

    def headers(self) -> dict[str, str]:
        """
        @return: of a request to the MCP endpoint.
        """
        headers = {
            "Authorization": f"Bearer {self.access_token}",
            "Accept": "application/json, text/event-stream",
            "Content-Type": "application/json",
        }
        if self.session_id is not None:
            headers["Mcp-Session-Id"] = self.session_id
            headers["MCP-Protocol-Version"] = LATEST_LEGACY
        return headers

    def initialize(self) -> Page:
        """
        Open a session.
        """
        self.session_id = None
        answer = self.request(
            "initialize",
            protocolVersion=LATEST_LEGACY,
            capabilities={},
            clientInfo={"name": "test", "version": "1"},
        )
        self.session_id = answer.headers.get("Mcp-Session-Id")
        if self.session_id is not None:
            note = {"jsonrpc": "2.0", "method": "notifications/initialized"}
            assert self.send(note).status == 202
        return answer

    def request(self, method: str, **params: Any) -> Page:
        """
        @return: the HTTP answer to a request.
        """
        self.number += 1
        return self.send(
            {
                "jsonrpc": "2.0",
                "id": self.number,
                "method": method,
                "params": params,
            }
        )

    def call(self, tool: str, **arguments: Any) -> Any:
        """
        @return: the message that answers a tool call.
        """
        return message_of(self.request("tools/call", name=tool, arguments=arguments))


def message_of(answer: Page) -> Any:
    """
    @return: the last message of an answer, JSON or event stream.
    """
    kind = answer.headers.get_content_type()
    if kind == "application/json":
        return json.loads(answer.text)
    data = [
        line.removeprefix("data: ")
        for line in answer.text.splitlines()
        if line.startswith("data: ")
    ]
    return json.loads(data[-1])
