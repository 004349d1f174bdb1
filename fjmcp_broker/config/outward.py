"""
Keys about the outside: the listener, Forgejo, the tokens given to clients.

These records are part of the table of keys: every default, unit and help text stands
here and nowhere else.
"""

from typing import Annotated, Final

import msgspec

from fjmcp_broker.oauth.forgejo_scopes import DEFAULT_SCOPES
from fjmcp_broker.oauth.redirect_uris import DEFAULT_APPLICATION_SCHEMES
from fjmcp_broker.secret import Confidential, Secret

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


class ServerConfig(msgspec.Struct, frozen=True, kw_only=True):
    """C{[server]}: what faces the clients."""

    public_url: Annotated[
        str,
        about(
            PUBLIC_URL,
            "The origin that clients and browsers use. Every URL of this software "
            "is made from it. https, or http on loopback; no path, no slash at the "
            "end.",
            "FJMCP_BROKER_PUBLIC_URL",
        ),
    ]
    listen_addr: Annotated[
        ListenAddress,
        about(
            LISTEN_ADDRESS,
            "Where to listen: host:port, [address]:port, or any Twisted endpoint "
            "string such as unix:/run/fjmcp-broker.sock. The variables PORT and "
            "PORT_HTTP set 0.0.0.0 with that port and win over everything.",
            "FJMCP_BROKER_LISTEN",
        ),
    ] = parse_listen_address("127.0.0.1:8080")
    tls: Annotated[
        str,
        about(
            choice("off", "required"),
            "off: plain HTTP, for a reverse proxy in front. required: TLS 1.3 only, "
            "with tls_cert and tls_key.",
        ),
    ] = "off"
    tls_cert: Annotated[
        str | None, about(PATH, "PEM file with the certificate chain.")
    ] = None
    tls_key: Annotated[
        str | None, about(PATH, "PEM file with the certificate's private key.")
    ] = None
    trusted_proxies: Annotated[
        TrustedProxies,
        about(
            TRUSTED_PROXIES,
            "Networks of reverse proxies whose X-Forwarded-For is believed: the client "
            "is the rightmost address there that is in none of them. The word unix "
            "stands for peers on a Unix socket.",
        ),
    ] = LOOPBACK_PROXIES
    max_request_bytes: Annotated[
        int, about(SIZE, "The largest body of a request to /mcp.")
    ] = 16 * _MIB
    max_body_memory_bytes: Annotated[
        int,
        about(
            SIZE,
            "The memory for the bodies of all requests to /mcp that are on their way; "
            "at least twice max_request_bytes. One user gets half of it, and a quarter "
            "is for bodies up to 64KiB only. Beyond it requests get status 503 with "
            "Retry-After.",
        ),
    ] = 64 * _MIB
    allowed_origins: Annotated[
        tuple[str, ...],
        about(
            ORIGINS,
            "Further origins of web pages that may call /mcp from a browser, beside "
            "the one of public_url.",
        ),
    ] = ()
    shutdown_timeout_seconds: Annotated[
        int,
        about(
            DURATION,
            "How long a stop waits for requests in flight and for children before "
            "it closes them by force.",
        ),
    ] = 10


class MetricsConfig(msgspec.Struct, frozen=True, kw_only=True):
    """C{[metrics]}: who may read C{/metrics}; nobody unless it is said here."""

    listen_addr: Annotated[
        ListenAddress | None,
        about(
            LISTEN_ADDRESS,
            "Where to listen for metrics alone, without TLS, open to whoever can "
            "connect. The variable PORT_METRICS sets 0.0.0.0 with that port and wins "
            "over everything.",
        ),
    ] = None
    allow: Annotated[
        tuple[Network, ...],
        about(
            NETWORKS,
            "Networks of clients that may read /metrics beside everything else. A "
            "client behind a trusted proxy is known by X-Forwarded-For; one that is "
            "not known is not allowed.",
        ),
    ] = ()


class ForgejoConfig(Confidential, msgspec.Struct, frozen=True, kw_only=True):
    """C{[forgejo]}: the Forgejo instance and this software's application there."""

    url: Annotated[
        str,
        about(
            BASE_URL,
            "The base URL of Forgejo as browsers use it; may have a path.",
            "FORGEJO_URL",
        ),
    ]
    internal_url: Annotated[
        str | None,
        about(
            BASE_URL,
            "The base URL for API and token calls, when it differs from url.",
        ),
    ] = None
    ca_file: Annotated[
        str | None,
        about(
            PATH,
            "PEM file with the certificates of a private authority that signed "
            "Forgejo's certificate; also given to the child as SSL_CERT_FILE.",
        ),
    ] = None
    proxy: Annotated[
        str | None,
        about(
            PROXY_URL,
            "HTTP proxy for calls to Forgejo, http://[user:password@]host[:port].",
            sensitive=True,
        ),
    ] = None
    oauth_client_id: Annotated[
        str,
        about(
            TEXT,
            "Client ID of the OAuth2 application registered in Forgejo with the "
            "redirect URI {public_url}/oauth/callback.",
            "FORGEJO_OAUTH_CLIENT_ID",
        ),
    ]
    oauth_client_secret: Annotated[
        Secret,
        about(
            SECRET,
            "Its client secret.",
            "FORGEJO_OAUTH_CLIENT_SECRET",
            secret=True,
        ),
    ]
    oauth_scopes: Annotated[
        str,
        about(
            SCOPES,
            "Forgejo scopes to ask for, separated by spaces. Checked at start: a "
            "list without one valid scope would give full access.",
            "FORGEJO_OAUTH_SCOPES",
        ),
    ] = DEFAULT_SCOPES
    allow_wide_scopes: Annotated[
        bool,
        about(
            BOOLEAN,
            "Accept all, read:admin and write:admin in oauth_scopes.",
        ),
    ] = False


class TokensConfig(msgspec.Struct, frozen=True, kw_only=True):
    """C{[tokens]}: the tokens given to clients."""

    access_lifetime_seconds: Annotated[
        int, about(DURATION, "How long an access token works.")
    ] = _HOUR
    refresh_lifetime_seconds: Annotated[
        int,
        about(
            DURATION,
            "How long a refresh token works; starts again with each refresh.",
        ),
    ] = 90 * _DAY


class ClientsConfig(msgspec.Struct, frozen=True, kw_only=True):
    """C{[clients]}: which MCP clients may register."""

    application_schemes: Annotated[
        tuple[str, ...],
        about(
            SCHEMES,
            "URL schemes of installed applications that may be redirect URIs "
            "although they are not in reverse-DNS form.",
        ),
    ] = DEFAULT_APPLICATION_SCHEMES
    metadata_documents: Annotated[
        bool,
        about(
            BOOLEAN,
            "Clients may use the https URL of their metadata document as their id, "
            "which is fetched from the public Internet. Switch it off where this "
            "machine cannot reach the Internet: clients then register themselves.",
        ),
    ] = True
    metadata_documents_ca_file: Annotated[
        str | None,
        about(
            PATH,
            "PEM file with the only authorities to trust for these documents, where "
            "a gateway puts its own certificates in between. The system's otherwise.",
        ),
    ] = None
    static: Annotated[
        tuple[StaticClient, ...],
        about(
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
    ] = ()
