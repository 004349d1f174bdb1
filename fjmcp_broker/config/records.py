"""The configuration as one frozen record, and the table of its keys."""

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from .access import AccessConfig
from .bounds import LimitsConfig
from .inward import (
    AuditConfig,
    ChildConfig,
    DatabaseConfig,
    LogConfig,
    SessionsConfig,
)
from .keys import Key, keys_of
from .outward import (
    ClientsConfig,
    ForgejoConfig,
    MetricsConfig,
    ServerConfig,
    TokensConfig,
)


class Config(msgspec.Struct, frozen=True, kw_only=True):
    """The whole configuration, checked."""

    server: ServerConfig
    forgejo: ForgejoConfig
    tokens: TokensConfig = msgspec.field(default_factory=TokensConfig)
    clients: ClientsConfig = msgspec.field(default_factory=ClientsConfig)
    access: AccessConfig = msgspec.field(default_factory=AccessConfig)
    child: ChildConfig = msgspec.field(default_factory=ChildConfig)
    database: DatabaseConfig = msgspec.field(default_factory=DatabaseConfig)
    sessions: SessionsConfig = msgspec.field(default_factory=SessionsConfig)
    limits: LimitsConfig = msgspec.field(default_factory=LimitsConfig)
    metrics: MetricsConfig = msgspec.field(default_factory=MetricsConfig)
    audit: AuditConfig = msgspec.field(default_factory=AuditConfig)
    log: LogConfig = msgspec.field(default_factory=LogConfig)


# Any: what their fields are is in the records alone.
SECTIONS: Final[Mapping[str, type[Any]]] = {
    "server": ServerConfig,
    "forgejo": ForgejoConfig,
    "tokens": TokensConfig,
    "clients": ClientsConfig,
    "access": AccessConfig,
    "child": ChildConfig,
    "database": DatabaseConfig,
    "sessions": SessionsConfig,
    "limits": LimitsConfig,
    "metrics": MetricsConfig,
    "audit": AuditConfig,
    "log": LogConfig,
}
"""The tables of the file, in the order in which they are documented."""

KEYS_BY_NAME: Final[Mapping[str, Key]] = {
    key.file_key: key
    for section, record in SECTIONS.items()
    for key in keys_of(section, record)
}
"""Every key by its name in the file."""
