"""
Configuration: a TOML file, environment variables, systemd credentials and
command-line options to one frozen L{Config}.
"""

from .access import AccessConfig
from .addresses import ListenAddress, TrustedProxies
from .bounds import LimitsConfig
from .inward import (
    AuditConfig,
    ChildConfig,
    DatabaseConfig,
    LogConfig,
    SessionsConfig,
)
from .outward import (
    ClientsConfig,
    ForgejoConfig,
    MetricsConfig,
    ServerConfig,
    TokensConfig,
)
from .records import Config
from .static_clients import StaticClient

__all__ = [
    "AccessConfig",
    "AuditConfig",
    "ChildConfig",
    "ClientsConfig",
    "Config",
    "DatabaseConfig",
    "ForgejoConfig",
    "LimitsConfig",
    "ListenAddress",
    "LogConfig",
    "MetricsConfig",
    "ServerConfig",
    "SessionsConfig",
    "StaticClient",
    "TokensConfig",
    "TrustedProxies",
]
