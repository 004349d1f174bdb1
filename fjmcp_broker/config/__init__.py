"""
Configuration: a TOML file, environment variables, systemd credentials and
command-line options to one frozen L{Config}.
"""

from .addresses import ListenAddress, TrustedProxies
from .records import (
    ChildConfig,
    Config,
    DatabaseConfig,
    ForgejoConfig,
    LogConfig,
    ServerConfig,
    SessionsConfig,
    TokensConfig,
)
from .secrets import decode_key

__all__ = [
    "ChildConfig",
    "Config",
    "DatabaseConfig",
    "ForgejoConfig",
    "ListenAddress",
    "LogConfig",
    "ServerConfig",
    "SessionsConfig",
    "TokensConfig",
    "TrustedProxies",
    "decode_key",
]
