"""
Keys about the inside: children, the store, sessions, the log.

These records are part of the table of keys: every default, unit and help text stands
here and nowhere else.
"""

import re
from collections.abc import Mapping
from typing import Final

from attrs import Factory, field, frozen

from fjmcp_broker.secret import Secret

from .keys import Variable, about
from .kinds import (
    BOOLEAN,
    COMMAND,
    COUNT,
    DURATION,
    PATH,
    SIZE,
    VARIABLE_NAME,
    VARIABLES,
    choice,
    listing,
    plain_text,
)
from .secrets import KEYS

_MINUTE: Final = 60
_DAY: Final = 86400
_MIB: Final = 2**20
_TOOL: Final = re.compile(r"[A-Za-z0-9_.-]{1,128}")


def _tool(text: str) -> str:
    text = plain_text(text)
    if _TOOL.fullmatch(text) is None:
        raise ValueError("must hold names of tools")
    return text


@frozen(kw_only=True)
class ChildConfig:
    """C{[child]}: the MCP server that is started for each session."""

    command: tuple[str, ...] = field(
        default=("forgejo-mcp", "--transport", "stdio"),
        metadata=about(
            COMMAND,
            "Program and arguments. The variable FORGEJO_MCP_BINARY replaces the "
            "program and keeps the arguments.",
        ),
    )
    token_env: str = field(
        default="FORGEJO_ACCESS_TOKEN",
        metadata=about(
            VARIABLE_NAME,
            "The variable in which the child gets the user's Forgejo token.",
        ),
    )
    url_env: str = field(
        default="FORGEJO_URL",
        metadata=about(
            VARIABLE_NAME, "The variable in which the child gets Forgejo's URL."
        ),
    )
    env: Mapping[str, str] = field(
        default=Factory(dict),
        repr=False,
        metadata=about(
            VARIABLES,
            "Further variables for the child, whose environment is otherwise empty "
            "but for PATH, LANG, TZ and what it needs. "
            "FORGEJO_MCP_ALLOW_FILE_PATH_UPLOAD is refused.",
            sensitive=True,
        ),
    )
    interactive: bool = field(
        default=False,
        metadata=about(
            BOOLEAN,
            "The child asks its client questions (elicitation, sampling, roots) or "
            "logs about single calls. Clients without a session then get a child of "
            "their own for each call that may need it, since a child of an older "
            "protocol revision does not say which call it means. Each of them counts "
            "in sessions.max and sessions.max_per_user, for up to ten minutes while a "
            "question waits for its answer, and beyond those all clients of the user, "
            "or of everybody, get 503: leave this off for a child that never asks, "
            "such as forgejo-mcp.",
        ),
    )
    annotations: bool = field(
        default=True,
        metadata=about(
            BOOLEAN,
            "Add titles and read-only hints to forgejo-mcp's tools, which sets "
            "none, so that clients do not ask before every plain read.",
        ),
    )
    allowed_tools: tuple[str, ...] = field(
        default=(),
        metadata=about(
            listing("list of names", _tool),
            "Tools that may be called although this software refuses them to "
            "everybody: download_release_attachment, download_issue_attachment and "
            "download_comment_attachment, with which forgejo-mcp can send the user's "
            "Forgejo token to a host of somebody else's choice.",
        ),
    )
    start_timeout_seconds: int = field(
        default=30,
        metadata=about(
            DURATION, "How long a child may take to answer its first request."
        ),
    )
    stop_grace_seconds: int = field(
        default=5,
        metadata=about(
            DURATION,
            "How long a child may take to end after its input was closed, and again "
            "after the TERM signal.",
        ),
    )
    maximum_line_bytes: int = field(
        default=128 * _MIB,
        metadata=about(SIZE, "The largest message of a child."),
    )


@frozen(kw_only=True)
class DatabaseConfig:
    """C{[database]}: the SQLite store."""

    path: str = field(
        default="./fjmcp-broker.db",
        metadata=about(
            PATH,
            "The SQLite file; missing directories above it are made.",
            "FJMCP_BROKER_STORE_PATH",
        ),
    )
    encryption_keys: tuple[Secret, ...] = field(
        default=(),
        metadata=about(
            KEYS,
            "Keys of 32 bytes in base64 or hexadecimal that seal what the store "
            "holds of Forgejo's tokens. The first one seals, all of them open. With "
            "none, a key is made beside a new store, in a file only its owner can "
            "read.",
            "FJMCP_BROKER_ENCRYPTION_KEYS",
            secret=True,
        ),
    )


@frozen(kw_only=True)
class SessionsConfig:
    """C{[sessions]}: limits of sessions and children."""

    max: int = field(
        default=100,
        metadata=about(
            COUNT,
            "How many children may run at once.",
            "FJMCP_BROKER_MAX_SESSIONS",
        ),
    )
    max_per_user: int = field(
        default=20,
        metadata=about(COUNT, "How many of them for one user."),
    )
    max_dormant_per_grant: int = field(
        default=50,
        metadata=about(
            COUNT,
            "How many sessions without a child are kept for one sign-in of one "
            "client; the oldest is closed.",
        ),
    )
    idle_timeout_seconds: int = field(
        default=15 * _MINUTE,
        metadata=about(
            DURATION,
            "A child without a request for that long is stopped.",
            "FJMCP_BROKER_SESSION_IDLE_TIMEOUT",
        ),
    )
    max_idle_seconds: int = field(
        default=30 * _DAY,
        metadata=about(DURATION, "A session unused for that long is closed."),
    )


@frozen(kw_only=True)
class AuditConfig:
    """C{[audit]}: what is kept of who did what."""

    retention_seconds: int = field(
        default=90 * _DAY,
        metadata=about(
            DURATION,
            "How long is kept who called which tool when and how it ended, who signed "
            "in, and what administrators did. Arguments and results never are.",
        ),
    )


def _debug(text: str) -> str | None:
    on = BOOLEAN.from_text
    return "debug" if on is not None and on(text) else None


@frozen(kw_only=True)
class LogConfig:
    """C{[log]}: what is written and how."""

    level: str = field(
        default="info",
        metadata=about(
            choice("debug", "info", "warn", "error", "critical"),
            "The least severe level that is written. The variable "
            "FJMCP_BROKER_DEBUG=1 stands for debug.",
            Variable("FJMCP_BROKER_DEBUG", _debug),
        ),
    )
    format: str = field(
        default="auto",
        metadata=about(
            choice("auto", "json", "text"),
            "auto: text on a terminal, else one JSON object a line.",
        ),
    )
    addresses: str = field(
        default="network",
        metadata=about(
            choice("network", "full", "none"),
            "How much of a client's address is written: network: the /24 or, for IPv6, "
            "the /48 that it is in; full; or none.",
        ),
    )
