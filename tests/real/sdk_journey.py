"""
The journey of a client built on the official Python MCP SDK, as a program.

It discovers, registers, signs in (as a person would, in a browser of its own),
initialises or does without, lists tools, calls them, refreshes and revokes, and prints
one JSON object with what it saw. The SDK needs asyncio, which is why this runs beside
trial and not in it.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import ssl
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

from mcp import Client
from mcp.client.auth import OAuthClientProvider
from mcp.client.streamable_http import streamable_http_client
from mcp.shared._httpx_utils import create_mcp_http_client
from mcp.shared.auth import (
    AuthorizationCodeResult,
    OAuthClientInformationFull,
    OAuthClientMetadata,
    OAuthToken,
)

from tests.real.browser import Browser, sign_in

FIRST_MODERN = "2026-07-28"
LOG_LEVEL = "io.modelcontextprotocol/logLevel"
REDIRECT_URI = "http://127.0.0.1:53682/callback"


class Storage:
    """The client's token storage, in memory."""

    def __init__(self) -> None:
        self.tokens: OAuthToken | None = None
        self.client: OAuthClientInformationFull | None = None
        self.refreshed = -1
        self.secrets: list[str] = []

    async def get_tokens(self) -> OAuthToken | None:
        return self.tokens

    async def set_tokens(self, tokens: OAuthToken) -> None:
        self.tokens = tokens
        self.refreshed += 1
        self.secrets += [tokens.access_token, tokens.refresh_token or "-"]

    async def get_client_info(self) -> OAuthClientInformationFull | None:
        return self.client

    async def set_client_info(self, client_info: OAuthClientInformationFull) -> None:
        self.client = client_info


def browser_with_tls() -> Browser:
    """
    @return: a browser that trusts whom the SDK trusts, C{SSL_CERT_FILE} included.
    """
    browser = Browser()
    browser.trust(ssl.create_default_context())
    return browser


class Person:
    """Whoever sits at the browser: visits the address, returns with the answer."""

    def __init__(self, login: str, password: str, decision: str) -> None:
        self._arguments = (login, password)
        self._decision = decision
        self._browser = browser_with_tls()
        self._returned = ""
        self.sign_ins = 0
        self.secrets: list[str] = []

    async def visit(self, url: str) -> None:
        self.sign_ins += 1
        self._returned = await asyncio.to_thread(
            sign_in,
            self._browser,
            url,
            REDIRECT_URI,
            *self._arguments,
            decision=self._decision,
        )

    async def answer(self) -> AuthorizationCodeResult:
        query = parse_qs(urlsplit(self._returned).query)
        self.secrets += [query["code"][0], query["state"][0]]
        return AuthorizationCodeResult(
            code=query["code"][0], state=query["state"][0], iss=query["iss"][0]
        )


async def call(client: Client, name: str, arguments: dict[str, Any]) -> str:
    """
    @return: the text of the tool's first content block.
    """
    result = await client.call_tool(name, arguments)
    block = result.content[0]
    return str(getattr(block, "text", block))


class Ears:
    """What came without being asked for."""

    def __init__(self) -> None:
        self.gets: list[int] = []
        self.sessions: set[str] = set()
        self.heard: list[str] = []
        self.progress: list[float] = []
        self.news = asyncio.Event()

    async def response(self, response: Any) -> None:
        session_id = response.request.headers.get("Mcp-Session-Id")
        if session_id is not None:
            self.sessions.add(session_id)
        if response.request.method == "GET" and response.request.url.path == "/mcp":
            self.gets.append(response.status_code)
            self.news.set()

    async def message(self, message: Any) -> None:
        self.heard.append(type(message).__name__)
        self.news.set()

    async def log(self, params: Any) -> None:
        self.heard.append(f"{params.level}: {params.data}")
        self.news.set()

    async def advance(
        self, progress: float, total: float | None, message: str | None
    ) -> None:
        self.progress.append(progress)

    async def until(self, true: Callable[[], bool]) -> None:
        """Wait for news until something is so."""
        async with asyncio.timeout(20):
            while not true():
                self.news.clear()
                await self.news.wait()


async def listen(client: Client, ears: Ears) -> dict[str, Any]:
    """
    Hear progress on a call, and what belongs to none: on the GET stream of a session,
    or on a subscription where there are no sessions.

    @return: what was heard.
    """
    if client.protocol_version >= FIRST_MODERN:
        await subscribe(client, ears)
    else:
        await ears.until(lambda: bool(ears.gets))
        await notify(client)
        await ears.until(lambda: "warning: listen" in ears.heard)
        await ears.until(lambda: "ToolListChangedNotification" in ears.heard)
    await client.call_tool("progress", {"steps": 3}, progress_callback=ears.advance)
    return {"gets": ears.gets, "progress": ears.progress, "heard": ears.heard}


async def subscribe(client: Client, ears: Ears) -> None:
    """Hear of changes on a stream of their own, and of a call on the call's."""
    async with client.listen(tools_list_changed=True) as changes:
        await notify(client)
        async with asyncio.timeout(20):
            ears.heard.append(type(await anext(changes)).__name__)
    await ears.until(lambda: "warning: listen" in ears.heard)


async def notify(client: Client) -> None:
    """Let the child say two things that belong to no call."""
    changed = {"method": "notifications/tools/list_changed"}
    await client.call_tool("notify", changed)
    params = {"level": "warning", "data": "listen"}
    log = {"method": "notifications/message", "params": params}
    meta: Any = {LOG_LEVEL: "info"}
    await client.call_tool("notify", log, meta=meta)


async def take_back(client: Client, name: str, arguments: dict[str, Any]) -> None:
    """Cancel a call when somebody says that it has begun."""
    running = asyncio.create_task(call(client, name, arguments))
    await interval("cancel")
    running.cancel()
    with suppress(asyncio.CancelledError):
        raise AssertionError(f"it was answered: {await running}")


async def interval(step: str) -> None:
    """
    Say that a step may be done to the broker, and wait for a line that says it was.
    """
    sys.stderr.write(f"STEP {step}\n")
    sys.stderr.flush()
    await asyncio.to_thread(sys.stdin.readline)


async def journey(options: argparse.Namespace) -> dict[str, Any]:
    """
    @return: what the client saw, step by step.
    """
    seen: dict[str, Any] = {}
    storage = Storage()
    person = Person(options.login, options.password, options.decision)
    mcp_url = f"{options.broker}/mcp"
    provider = OAuthClientProvider(
        mcp_url,
        OAuthClientMetadata.model_validate(
            {
                "client_name": "SDK journey",
                "redirect_uris": [REDIRECT_URI],
                "grant_types": ["authorization_code", "refresh_token"],
                "response_types": ["code"],
                "token_endpoint_auth_method": "none",
            }
        ),
        storage,
        person.visit,
        person.answer,
        client_metadata_url=options.client_metadata_url,
    )
    ears = Ears()
    async with create_mcp_http_client(auth=provider) as http:
        http.event_hooks = {"response": [ears.response]}
        transport = streamable_http_client(mcp_url, http_client=http)
        async with Client(
            transport,
            mode=options.mode,
            read_timeout_seconds=30,
            message_handler=ears.message,
            logging_callback=ears.log,
        ) as mcp:
            seen["protocol_version"] = mcp.protocol_version
            seen["server"] = mcp.server_info and mcp.server_info.name
            tools = (await mcp.list_tools()).tools
            seen["tools"] = [tool.name for tool in tools]
            seen["annotated"] = sum(
                1 for tool in tools if tool.annotations and tool.annotations.title
            )
            for name, arguments in options.calls:
                seen[name] = await call(mcp, name, arguments)
            if options.listen:
                seen.update(await listen(mcp, ears))
            for step in options.steps:
                await interval(step)
                for name, arguments in options.calls:
                    seen[f"{name} after {step}"] = await call(mcp, name, arguments)
            seen["sessions"] = len(ears.sessions)
            if options.cancel:
                await take_back(mcp, *options.cancel)
                for name, arguments in options.calls:
                    seen[f"{name} after cancel"] = await call(mcp, name, arguments)
            before = storage.tokens
            provider.context.token_expiry_time = 1.0
            for name, arguments in options.calls:
                seen[f"{name} after the refresh"] = await call(mcp, name, arguments)
            seen["rotated"] = before != storage.tokens
            seen["refreshes"] = storage.refreshed
            seen["sign_ins"] = person.sign_ins
    if options.show_secrets:
        seen["secrets"] = storage.secrets + person.secrets
    assert storage.tokens is not None and storage.client is not None
    seen["client_id"] = storage.client.client_id
    access_token = storage.tokens.access_token
    revocation = urlencode(
        {
            "token": storage.tokens.refresh_token or "",
            "client_id": storage.client.client_id,
        }
    )
    seen.update(
        await asyncio.to_thread(
            after_revocation, options.broker, revocation, access_token
        )
    )
    return seen


def after_revocation(broker: str, form: str, access_token: str) -> dict[str, Any]:
    """
    Revoke the refresh token, then try the access token once more.
    """
    browser = browser_with_tls()
    revoked = browser.request(
        "POST",
        f"{broker}/oauth/revoke",
        form.encode(),
        {"Content-Type": "application/x-www-form-urlencoded"},
    )
    refused = browser.request(
        "POST",
        f"{broker}/mcp",
        b'{"jsonrpc":"2.0","id":1,"method":"ping"}',
        {
            "Authorization": f"Bearer {access_token}",
            "Content-Type": "application/json",
            "Accept": "application/json, text/event-stream",
        },
    )
    return {
        "revoked": revoked.status,
        "status after the revocation": refused.status,
        "challenge after the revocation": refused.headers.get("WWW-Authenticate"),
    }


def main() -> None:
    """
    Run the journey that the command line describes.
    """
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("broker")
    parser.add_argument("--login", default="alice")
    parser.add_argument("--password", required=True)
    parser.add_argument("--decision", default="full")
    parser.add_argument("--client-metadata-url")
    parser.add_argument("--mode", default="auto")
    parser.add_argument("--listen", action="store_true")
    parser.add_argument("--steps", nargs="*", default=[])
    parser.add_argument("--cancel", type=json.loads)
    parser.add_argument("--show-secrets", action="store_true")
    parser.add_argument("--calls", type=json.loads, default=[])
    options = parser.parse_args()
    json.dump(asyncio.run(journey(options)), sys.stdout)


if __name__ == "__main__":
    main()
