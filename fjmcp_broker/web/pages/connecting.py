"""
How to connect each client that is known to work, by what its own documentation says.

What is not certain to last, such as the names of menus, is kept as short as possible;
the address is all that any of them really needs.
"""

import json
import re
from base64 import b64encode
from collections.abc import Sequence
from enum import Enum, auto
from typing import Final
from urllib.parse import quote, urlsplit

import msgspec

from fjmcp_broker.oauth.redirect_uris import LOOPBACK_HOSTS
from fjmcp_broker.web.pages.html import Content, Html, element

#: What clients call the connection.
SERVER_NAME: Final = "forgejo"


class Kind(Enum):
    """Where a client stands on the page."""

    APPLICATION = auto()
    EDITOR = auto()
    TERMINAL = auto()
    OTHER = auto()


class HowTo(msgspec.Struct, frozen=True):
    """
    What to do in one client.

    @ivar kind: where it stands on the page.
    @ivar name: of the client.
    @ivar steps: of the way there, in order.
    """

    kind: Kind
    name: str
    steps: Sequence[Html]


def known_clients(mcp_url: str) -> tuple[HowTo, ...]:
    """
    @param mcp_url: the address of the MCP endpoint; ours, without characters that a
        shell or JSON would need quoted.
    @return: every client that the page knows, each kind in the order of the page.
    """
    return (
        *_applications(mcp_url),
        *_editors(mcp_url),
        *_terminals(mcp_url),
        *_others(mcp_url),
    )


def _applications(url: str) -> tuple[HowTo, ...]:
    # All open connections from their own computers, never from the user's.
    hosted: list[Html] = []
    if (urlsplit(url).hostname or "") in {name.strip("[]") for name in LOOPBACK_HOSTS}:
        hosted.append(
            _said(
                "It reaches servers from the Internet, so it cannot reach this one, "
                "which answers on this computer only."
            )
        )
    return (
        HowTo(
            Kind.APPLICATION,
            "Claude on the web, desktop and phone",
            (
                *hosted,
                element(
                    "ol",
                    element(
                        "li",
                        "Open ",
                        _link("https://claude.ai/customize/connectors"),
                        " and choose Add custom connector. In a team, an owner adds it "
                        "once for all.",
                    ),
                    element("li", "Paste the address:", element("pre", url)),
                    element("li", "Choose Connect and sign in."),
                ),
            ),
        ),
        HowTo(
            Kind.APPLICATION,
            "ChatGPT",
            (
                *hosted,
                element(
                    "ol",
                    element(
                        "li",
                        "On the web, open the settings, Apps, Advanced settings, and "
                        "switch on Developer mode.",
                    ),
                    element(
                        "li",
                        "Choose Create app, with OAuth and this address:",
                        element("pre", url),
                    ),
                    element("li", "Choose Create and sign in."),
                ),
            ),
        ),
        HowTo(
            Kind.APPLICATION,
            "Le Chat",
            (
                *hosted,
                element(
                    "ol",
                    element(
                        "li",
                        "On the page Connectors, choose Add Connector, Custom MCP "
                        "Connector. In an organization, an administrator does that.",
                    ),
                    element("li", "Paste the address:", element("pre", url)),
                    element("li", "Choose OAuth, if it asks, and sign in."),
                ),
            ),
        ),
    )


def _editors(url: str) -> tuple[HowTo, ...]:
    server = {"url": url}
    typed = {"type": "http", **server}
    named = json.dumps({"name": SERVER_NAME, **typed})
    config = quote(b64encode(_compact(server)), safe="")
    return (
        HowTo(
            Kind.EDITOR,
            "VS Code",
            (
                _button("Add to VS Code", f"vscode:mcp/install?{quote(named)}"),
                _said("Or in a terminal:"),
                _command(f"code --add-mcp '{named}'"),
                _said("Then start the server with the command MCP: List Servers."),
            ),
        ),
        HowTo(
            Kind.EDITOR,
            "Cursor",
            (
                _button(
                    "Add to Cursor",
                    "cursor://anysphere.cursor-deeplink/mcp/install"
                    f"?name={SERVER_NAME}&config={config}",
                ),
                _said("Or in ", _code("~/.cursor/mcp.json"), ":"),
                _json({"mcpServers": {SERVER_NAME: server}}),
                _said("Then choose Connect in the settings, under MCP, and sign in."),
            ),
        ),
        HowTo(
            Kind.EDITOR,
            "Zed",
            (
                _said("In the settings file:"),
                _json({"context_servers": {SERVER_NAME: server}}),
                _said("Zed then asks you to sign in."),
            ),
        ),
        HowTo(
            Kind.EDITOR,
            "Windsurf, Devin Desktop",
            (
                _said("In ", _code("~/.config/devin/mcp_config.json"), ":"),
                _json({"mcpServers": {SERVER_NAME: server}}),
                _said(
                    "Windsurf, as it was called before June 2026, reads ",
                    _code("~/.codeium/windsurf/mcp_config.json"),
                    " and wants ",
                    _code("serverUrl"),
                    " in the place of ",
                    _code("url"),
                    ".",
                ),
            ),
        ),
    )


def _terminals(url: str) -> tuple[HowTo, ...]:
    name = SERVER_NAME
    return (
        HowTo(
            Kind.TERMINAL,
            "Claude Code",
            (
                _command(f"claude mcp add --transport http {name} {url}"),
                _said("Then, in Claude Code, type ", _code("/mcp"), " and sign in."),
                _said(
                    "That is for the present project. With ",
                    _code("--scope user"),
                    " before the name it is for all of them.",
                ),
            ),
        ),
        HowTo(
            Kind.TERMINAL,
            "Codex",
            (
                _command(f"codex mcp add {name} --url {url}"),
                _command(f"codex mcp login {name}"),
            ),
        ),
        HowTo(
            Kind.TERMINAL,
            "Gemini CLI",
            (
                _command(f"gemini mcp add --scope user --transport http {name} {url}"),
                _said("Then, in Gemini CLI:"),
                _command(f"/mcp auth {name}"),
            ),
        ),
        HowTo(
            Kind.TERMINAL,
            "GitHub Copilot CLI",
            (
                _said("In ", _code("~/.copilot/mcp-config.json"), ":"),
                _json(
                    {"mcpServers": {name: {"type": "http", "url": url, "tools": ["*"]}}}
                ),
            ),
        ),
        HowTo(
            Kind.TERMINAL,
            "OpenCode",
            (
                _command(f"opencode mcp add {name} --global --url {url}"),
                _said("Then, in OpenCode, type ", _code("/mcps"), " and sign in."),
                _said("In version 1, the commands are:"),
                _command("opencode mcp add"),
                _command(f"opencode mcp auth {name}"),
            ),
        ),
        HowTo(
            Kind.TERMINAL,
            "Goose",
            (
                _command("goose configure"),
                _said(
                    "Choose Add Extension, Remote Extension (Streamable HTTP), and "
                    "this address:"
                ),
                element("pre", url),
            ),
        ),
    )


def _others(url: str) -> tuple[HowTo, ...]:
    return (
        HowTo(
            Kind.OTHER,
            "MCP Inspector",
            (
                _command(
                    "npx @modelcontextprotocol/inspector --transport http "
                    f"--server-url {url}"
                ),
                _said("Open the address that it prints, connect and sign in."),
            ),
        ),
        HowTo(
            Kind.OTHER,
            "Any client that speaks to servers over HTTP",
            (
                _said(
                    "Choose Streamable HTTP (some call it HTTP or remote), with OAuth "
                    "if there is a choice, and the address above."
                ),
            ),
        ),
        HowTo(
            Kind.OTHER,
            "A client that only starts programs",
            (
                _said("A program of its own joins the two, and needs Node:"),
                _json(
                    {
                        "mcpServers": {
                            SERVER_NAME: {
                                "command": "npx",
                                "args": ["-y", "mcp-remote", url],
                            }
                        }
                    }
                ),
            ),
        ),
    )


def _command(text: str) -> Html:
    """
    An option is not broken behind its hyphens: nobody could tell how many there are.
    """
    words = [
        element("span", word, class_="option") if word.startswith("-") else word
        for word in re.split("( )", text)
    ]
    return element("pre", *words)


def _compact(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode("ascii")


def _json(value: object) -> Html:
    return element("pre", json.dumps(value, indent=2))


def _said(*content: Content) -> Html:
    return element("p", *content)


def _code(text: str) -> Html:
    return element("code", text)


def _link(url: str) -> Html:
    return element("a", url, href=url)


def _button(label: str, url: str) -> Html:
    return element("p", element("a", label, href=url, class_="button small"))
