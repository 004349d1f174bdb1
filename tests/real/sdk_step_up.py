"""
A client on the official Python MCP SDK that has read-only access and finds that it
needs more: it prints one JSON object with what it saw.

Usage: C{python -m tests.real.sdk_step_up URL --password P --mode M [--tokens JSON]}.
Without tokens it signs in first, and the person allows it to read only; with tokens
(and their client) it has that already. When the SDK asks for more the person allows
everything.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from typing import Any
from urllib.parse import parse_qs, urlsplit

from mcp import Client
from mcp.client.auth import OAuthClientProvider
from mcp.client.streamable_http import streamable_http_client
from mcp.shared._httpx_utils import create_mcp_http_client
from mcp.shared.auth import (
    OAuthClientInformationFull,
    OAuthClientMetadata,
    OAuthToken,
)

from tests.real.sdk_journey import REDIRECT_URI, Person, Storage, call

ISSUE = {"owner": "alice", "repo": "hello", "title": "stepped up", "body": "b"}


class Hesitant(Person):
    """Allows reading at first, and everything when asked again."""

    def __init__(self, password: str, decisions: list[str]) -> None:
        super().__init__("alice", password, decisions[0])
        self._decisions = decisions
        self.asked: list[list[str]] = []

    async def visit(self, url: str) -> None:
        self._decision = self._decisions[self.sign_ins]
        self.asked.append(parse_qs(urlsplit(url).query).get("scope", []))
        await super().visit(url)


async def journey(options: argparse.Namespace) -> dict[str, Any]:
    """
    @return: what the client saw.
    """
    storage = Storage()
    decisions = ["read-only", "full"]
    if options.tokens:
        storage.tokens = OAuthToken.model_validate(options.tokens["tokens"])
        storage.client = OAuthClientInformationFull.model_validate(
            options.tokens["client"]
        )
        decisions = ["full"]
    person = Hesitant(options.password, decisions)
    metadata = {
        "client_name": "SDK step-up",
        "redirect_uris": [REDIRECT_URI],
        "grant_types": ["authorization_code", "refresh_token"],
        "response_types": ["code"],
        "token_endpoint_auth_method": "none",
    }
    provider = OAuthClientProvider(
        f"{options.broker}/mcp",
        OAuthClientMetadata.model_validate(metadata),
        storage,
        person.visit,
        person.answer,
    )
    seen: dict[str, Any] = {"statuses": [], "streams": [], "told": []}
    told, again = asyncio.Event(), asyncio.Event()

    async def note(response: Any) -> None:
        if response.request.url.path != "/mcp":
            return
        if response.request.method == "POST":
            seen["statuses"].append(response.status_code)
        elif response.request.method == "GET":
            seen["streams"].append(response.status_code)
            if len(seen["streams"]) > 1:
                again.set()

    async def hear(message: Any) -> None:
        seen["told"].append(getattr(message, "method", type(message).__name__))
        told.set()

    async with create_mcp_http_client(auth=provider) as http:
        http.event_hooks = {"response": [note]}
        transport = streamable_http_client(f"{options.broker}/mcp", http_client=http)
        client = Client(
            transport,
            mode=options.mode,
            read_timeout_seconds=30,
            message_handler=hear,
        )
        async with client as mcp:
            seen["before"] = [tool.name for tool in (await mcp.list_tools()).tools]
            seen["read"] = await call(mcp, "get_my_user_info", {})
            seen["written"] = await call(mcp, "create_issue", ISSUE)
            seen["read again"] = await call(mcp, "get_my_user_info", {})
            # It keeps the list for as long as the server said, else.
            tools = (await mcp.list_tools(cache_mode="refresh")).tools
            seen["after"] = [tool.name for tool in tools]
            if options.mode == "legacy":
                # What it listened to was the old token's, and it comes back with the
                # new one.
                await asyncio.wait_for(again.wait(), 30)
                if not options.tokens:
                    await asyncio.wait_for(told.wait(), 30)
    seen["sign_ins"], seen["asked"] = person.sign_ins, person.asked
    seen["scope"] = storage.tokens and storage.tokens.scope
    return seen


def main() -> None:
    """
    Run the journey that the command line describes.
    """
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("broker")
    parser.add_argument("--password", required=True)
    parser.add_argument("--mode", default="auto")
    parser.add_argument("--tokens", type=json.loads)
    json.dump(asyncio.run(journey(parser.parse_args())), sys.stdout)


if __name__ == "__main__":
    main()
