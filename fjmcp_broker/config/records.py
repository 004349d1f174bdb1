"""
The configuration as frozen records, and with them the table of its keys: every
default, unit and help text stands here and nowhere else.
"""

from collections.abc import Mapping
from typing import Final

from attrs import Factory, field, frozen

from fjmcp_broker.oauth.forgejo_scopes import DEFAULT_SCOPES
from fjmcp_broker.secret import Secret

from .addresses import (
    BASE_URL,
    LISTEN_ADDRESS,
    LOOPBACK_PROXIES,
    ORIGINS,
    PROXY_URL,
    PUBLIC_URL,
    TRUSTED_PROXIES,
    ListenAddress,
    TrustedProxies,
    parse_listen_address,
)
from .keys import Key, Variable, about, keys_of
from .kinds import (
    BOOLEAN,
    COMMAND,
    COUNT,
    DURATION,
    PATH,
    SIZE,
    TEXT,
    VARIABLE_NAME,
    VARIABLES,
    choice,
)
from .scopes import SCOPES
from .secrets import KEYS, SECRET

_MINUTE: Final = 60
_HOUR: Final = 60 * _MINUTE
_DAY: Final = 24 * _HOUR
_MIB: Final = 2**20


@frozen(kw_only=True)
class ServerConfig:
    """C{[server]}: what faces the clients."""

    public_url: str = field(
        metadata=about(
            PUBLIC_URL,
            "The origin that clients and browsers use. Every URL of this software "
            "is made from it. https, or http on loopback; no path, no slash at the "
            "end.",
            "FJMCP_BROKER_PUBLIC_URL",
        ),
    )
    listen_addr: ListenAddress = field(
        default=parse_listen_address("127.0.0.1:8080"),
        metadata=about(
            LISTEN_ADDRESS,
            "Where to listen: host:port, [address]:port, or any Twisted endpoint "
            "string such as unix:/run/fjmcp-broker.sock. The variables PORT and "
            "PORT_HTTP set 0.0.0.0 with that port and win over everything.",
            "FJMCP_BROKER_LISTEN",
        ),
    )
    tls: str = field(
        default="off",
        metadata=about(
            choice("off", "required"),
            "off: plain HTTP, for a reverse proxy in front. required: TLS 1.3 only, "
            "with tls_cert and tls_key.",
        ),
    )
    tls_cert: str | None = field(
        default=None,
        metadata=about(PATH, "PEM file with the certificate chain."),
    )
    tls_key: str | None = field(
        default=None,
        metadata=about(PATH, "PEM file with the certificate's private key."),
    )
    trusted_proxies: TrustedProxies = field(
        default=LOOPBACK_PROXIES,
        metadata=about(
            TRUSTED_PROXIES,
            "Networks of reverse proxies whose X-Forwarded-For is believed; the "
            "word unix stands for peers on a Unix socket.",
        ),
    )
    max_request_bytes: int = field(
        default=16 * _MIB,
        metadata=about(SIZE, "The largest body of a request to /mcp."),
    )
    allowed_origins: tuple[str, ...] = field(
        default=(),
        metadata=about(
            ORIGINS,
            "Further origins of web pages that may call /mcp from a browser, beside "
            "the one of public_url.",
        ),
    )
    shutdown_timeout_seconds: int = field(
        default=10,
        metadata=about(
            DURATION,
            "How long a stop waits for requests in flight and for children before "
            "it closes them by force.",
        ),
    )


@frozen(kw_only=True)
class ForgejoConfig:
    """C{[forgejo]}: the Forgejo instance and this software's application there."""

    url: str = field(
        metadata=about(
            BASE_URL,
            "The base URL of Forgejo as browsers use it; may have a path.",
            "FORGEJO_URL",
        ),
    )
    internal_url: str | None = field(
        default=None,
        metadata=about(
            BASE_URL,
            "The base URL for API and token calls, when it differs from url.",
        ),
    )
    ca_file: str | None = field(
        default=None,
        metadata=about(
            PATH,
            "PEM file with the certificates of a private authority that signed "
            "Forgejo's certificate; also given to the child as SSL_CERT_FILE.",
        ),
    )
    proxy: str | None = field(
        default=None,
        metadata=about(PROXY_URL, "HTTP proxy for calls to Forgejo."),
    )
    oauth_client_id: str = field(
        metadata=about(
            TEXT,
            "Client ID of the OAuth2 application registered in Forgejo with the "
            "redirect URI {public_url}/oauth/callback.",
            "FORGEJO_OAUTH_CLIENT_ID",
        ),
    )
    oauth_client_secret: Secret = field(
        metadata=about(
            SECRET,
            "Its client secret.",
            "FORGEJO_OAUTH_CLIENT_SECRET",
            secret=True,
        ),
    )
    oauth_scopes: str = field(
        default=DEFAULT_SCOPES,
        metadata=about(
            SCOPES,
            "Forgejo scopes to ask for, separated by spaces. Checked at start: a "
            "list without one valid scope would give full access.",
            "FORGEJO_OAUTH_SCOPES",
        ),
    )
    allow_wide_scopes: bool = field(
        default=False,
        metadata=about(
            BOOLEAN,
            "Accept all, read:admin and write:admin in oauth_scopes.",
        ),
    )


@frozen(kw_only=True)
class TokensConfig:
    """C{[tokens]}: the tokens given to clients."""

    access_lifetime_seconds: int = field(
        default=_HOUR,
        metadata=about(DURATION, "How long an access token works."),
    )
    refresh_lifetime_seconds: int = field(
        default=90 * _DAY,
        metadata=about(
            DURATION,
            "How long a refresh token works; starts again with each refresh.",
        ),
    )


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
            "The child asks its client questions (elicitation, sampling, roots). "
            "forgejo-mcp never does.",
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


@frozen(kw_only=True)
class Config:
    """The whole configuration, checked."""

    server: ServerConfig
    forgejo: ForgejoConfig
    tokens: TokensConfig = TokensConfig()
    child: ChildConfig = ChildConfig()
    database: DatabaseConfig = DatabaseConfig()
    sessions: SessionsConfig = SessionsConfig()
    log: LogConfig = LogConfig()


SECTIONS: Final = {
    "server": ServerConfig,
    "forgejo": ForgejoConfig,
    "tokens": TokensConfig,
    "child": ChildConfig,
    "database": DatabaseConfig,
    "sessions": SessionsConfig,
    "log": LogConfig,
}
"""The tables of the file, in the order in which they are documented."""

KEYS_BY_NAME: Final[Mapping[str, Key]] = {
    key.file_key: key
    for section, record in SECTIONS.items()
    for key in keys_of(section, record)
}
"""Every key by its name in the file."""
