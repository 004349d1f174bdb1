"""
A small MCP client: C{python -m fjmcp_broker.demo.client URL} signs in through the
browser, lists the tools and calls one.

It needs the official Python SDK (C{mcp}), which the broker itself does not.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import webbrowser
from typing import Final
from urllib.parse import parse_qs, urlsplit

RETURN_SECONDS: Final = 600.0
CALLS: Final = ("get_my_user_info", "list_my_repos")

_ANSWER: Final = b"Signed in. You can close this page and go back to the terminal.\n"
_RESPONSE: Final = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nConnection: close\r\n"
    b"Content-Length: %d\r\n\r\n%s" % (len(_ANSWER), _ANSWER)
)


class Redirect:
    """Waits on a loopback port for the browser to come back."""

    def __init__(self) -> None:
        self._target: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._server: asyncio.Server | None = None

    async def listen(self) -> str:
        """
        @return: the redirect URI, on a port that was free.
        """
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        port = self._server.sockets[0].getsockname()[1]
        return f"http://127.0.0.1:{port}/callback"

    async def open(self, url: str) -> None:
        """
        @param url: the authorization request, shown and opened in the browser.
        """
        sys.stdout.write(f"Sign in at\n\n  {url}\n\n")
        sys.stdout.flush()
        webbrowser.open(url)

    async def _serve(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        line = await reader.readline()
        target = line.decode("latin-1").split(" ")[1:2]
        if target and target[0].startswith("/callback?") and not self._target.done():
            self._target.set_result(target[0])
        writer.write(_RESPONSE)
        await writer.drain()
        writer.close()

    async def parameters(self) -> dict[str, str]:
        """
        @return: what the authorization server sent back.
        """
        target = await asyncio.wait_for(self._target, RETURN_SECONDS)
        if self._server is not None:
            self._server.close()
        return {k: v[0] for k, v in parse_qs(urlsplit(target).query).items()}


async def run(url: str) -> None:
    """
    @param url: of the MCP endpoint.
    """
    from mcp import Client
    from mcp.client.auth import OAuthClientProvider, TokenStorage
    from mcp.client.streamable_http import streamable_http_client
    from mcp.shared._httpx_utils import create_mcp_http_client
    from mcp.shared.auth import (
        AuthorizationCodeResult,
        OAuthClientInformationFull,
        OAuthClientMetadata,
        OAuthToken,
    )

    class Storage(TokenStorage):
        tokens: OAuthToken | None = None
        client: OAuthClientInformationFull | None = None

        async def get_tokens(self) -> OAuthToken | None:
            return self.tokens

        async def set_tokens(self, tokens: OAuthToken) -> None:
            self.tokens = tokens

        async def get_client_info(self) -> OAuthClientInformationFull | None:
            return self.client

        async def set_client_info(
            self, client_info: OAuthClientInformationFull
        ) -> None:
            self.client = client_info

    redirect = Redirect()

    async def answer() -> AuthorizationCodeResult:
        return AuthorizationCodeResult.model_validate(await redirect.parameters())

    metadata = OAuthClientMetadata.model_validate(
        {
            "client_name": "fjmcp-broker demo client",
            "redirect_uris": [await redirect.listen()],
            "token_endpoint_auth_method": "none",
        }
    )
    provider = OAuthClientProvider(url, metadata, Storage(), redirect.open, answer)
    async with create_mcp_http_client(auth=provider) as http:
        transport = streamable_http_client(url, http_client=http)
        async with Client(transport) as client:
            tools = (await client.list_tools()).tools
            server = client.server_info.name if client.server_info else "the server"
            sys.stdout.write(
                f"{server}, protocol {client.protocol_version}: {len(tools)} tools\n"
            )
            for name in CALLS:
                if name in {tool.name for tool in tools}:
                    result = await client.call_tool(name, {})
                    text = getattr(result.content[0], "text", "")
                    sys.stdout.write(f"\n{name}\n  {text[:400]}\n")


def main() -> None:
    """
    Run the client that the command line describes.
    """
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("url", help="of the MCP endpoint, such as http://host/mcp")
    arguments = parser.parse_args()
    try:
        asyncio.run(run(arguments.url))
    except ModuleNotFoundError as missing:
        parser.exit(1, f"{missing}; it comes with: pip install 'mcp>=2.3'\n")


if __name__ == "__main__":
    main()
