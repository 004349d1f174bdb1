"""
Keys about the outside: the listener, Forgejo, the tokens given to clients.

These records are part of the table of keys: every default, unit and help text stands
here and nowhere else.
"""

from typing import Final

from attrs import field, frozen

from fjmcp_broker.oauth.forgejo_scopes import DEFAULT_SCOPES
from fjmcp_broker.oauth.redirect_uris import DEFAULT_APPLICATION_SCHEMES
from fjmcp_broker.secret import Secret

from .addresses import (
    BASE_URL,
    LISTEN_ADDRESS,
    LOOPBACK_PROXIES,
    NETWORKS,
    ORIGINS,
    PROXY_URL,
    PUBLIC_URL,
    SCHEMES,
    TRUSTED_PROXIES,
    ListenAddress,
    Network,
    TrustedProxies,
    parse_listen_address,
)
from .keys import about
from .kinds import BOOLEAN, DURATION, PATH, SIZE, TEXT, choice
from .scopes import SCOPES
from .secrets import SECRET
from .static_clients import STATIC_CLIENTS, StaticClient

_HOUR: Final = 3600
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
            "Networks of reverse proxies whose X-Forwarded-For is believed: the client "
            "is the rightmost address there that is in none of them. The word unix "
            "stands for peers on a Unix socket.",
        ),
    )
    max_request_bytes: int = field(
        default=16 * _MIB,
        metadata=about(SIZE, "The largest body of a request to /mcp."),
    )
    max_body_memory_bytes: int = field(
        default=64 * _MIB,
        metadata=about(
            SIZE,
            "The memory for the bodies of all requests to /mcp that are on their way; "
            "at least twice max_request_bytes. One user gets half of it, and a quarter "
            "is for bodies up to 64KiB only. Beyond it requests get status 503 with "
            "Retry-After.",
        ),
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
class MetricsConfig:
    """C{[metrics]}: who may read C{/metrics}; nobody unless it is said here."""

    listen_addr: ListenAddress | None = field(
        default=None,
        metadata=about(
            LISTEN_ADDRESS,
            "Where to listen for metrics alone, without TLS, open to whoever can "
            "connect. The variable PORT_METRICS sets 0.0.0.0 with that port and wins "
            "over everything.",
        ),
    )
    allow: tuple[Network, ...] = field(
        default=(),
        metadata=about(
            NETWORKS,
            "Networks of clients that may read /metrics beside everything else. A "
            "client behind a trusted proxy is known by X-Forwarded-For; one that is "
            "not known is not allowed.",
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
        repr=False,
        metadata=about(
            PROXY_URL,
            "HTTP proxy for calls to Forgejo, http://[user:password@]host[:port].",
            sensitive=True,
        ),
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
class ClientsConfig:
    """C{[clients]}: which MCP clients may register."""

    application_schemes: tuple[str, ...] = field(
        default=DEFAULT_APPLICATION_SCHEMES,
        metadata=about(
            SCHEMES,
            "URL schemes of installed applications that may be redirect URIs "
            "although they are not in reverse-DNS form.",
        ),
    )
    metadata_documents: bool = field(
        default=True,
        metadata=about(
            BOOLEAN,
            "Clients may use the https URL of their metadata document as their id, "
            "which is fetched from the public Internet. Switch it off where this "
            "machine cannot reach the Internet: clients then register themselves.",
        ),
    )
    metadata_documents_ca_file: str | None = field(
        default=None,
        metadata=about(
            PATH,
            "PEM file with the only authorities to trust for these documents, where "
            "a gateway puts its own certificates in between. The system's otherwise.",
        ),
    )
    static: tuple[StaticClient, ...] = field(
        default=(),
        metadata=about(
            STATIC_CLIENTS,
            "Clients that are registered here, one table [[clients.static]] each: "
            "client_id, client_name, redirect_uris and token_endpoint_auth_method, "
            "which is none, or client_secret_basic or client_secret_post for a client "
            "with a secret. The secret comes from the file named by "
            "client_secret_file, from the systemd credential "
            "clients.static.<client_id>, or stands there as client_secret. Without "
            "its table a client and what it was allowed are gone at the next start.",
            sensitive=True,
        ),
    )
