"""The configuration as one frozen record, and the table of its keys."""

from collections.abc import Mapping
from typing import Final

from attrs import field, frozen

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


@frozen(kw_only=True)
class Config:
    """The whole configuration, checked."""

    server: ServerConfig
    forgejo: ForgejoConfig
    tokens: TokensConfig = field(factory=TokensConfig)
    clients: ClientsConfig = field(factory=ClientsConfig)
    access: AccessConfig = field(factory=AccessConfig)
    child: ChildConfig = field(factory=ChildConfig)
    database: DatabaseConfig = field(factory=DatabaseConfig)
    sessions: SessionsConfig = field(factory=SessionsConfig)
    limits: LimitsConfig = field(factory=LimitsConfig)
    metrics: MetricsConfig = field(factory=MetricsConfig)
    audit: AuditConfig = field(factory=AuditConfig)
    log: LogConfig = field(factory=LogConfig)


SECTIONS: Final = {
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
