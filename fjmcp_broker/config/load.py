"""From all sources to one checked L{Config}."""

import re
import ssl
from collections.abc import Mapping, Sequence
from typing import Final
from urllib.parse import urlsplit

import msgspec

from fjmcp_broker.oauth.forgejo_scopes import validate_scopes

from .addresses import ListenAddress, is_loopback_url, parse_listen_address
from .keys import Key
from .problems import Problems, shown
from .records import KEYS_BY_NAME, SECTIONS, Config
from .sources import (
    CREDENTIALS_DIRECTORY,
    METRICS_PORT_VARIABLE,
    PORT_VARIABLES,
    PROGRAM_VARIABLE,
    Given,
    from_environment,
    from_file,
    from_options,
    read_file,
    read_secret,
    unknown_variables,
)
from .static_clients import find_secrets

#: Of Forgejo's scopes, those with which userinfo tells all organizations of a user
#: even where ENABLE_ADDITIONAL_GRANT_SCOPES is set.
_SEES_MEMBERSHIPS: Final = frozenset({"all", "read:admin", "read:organization"})


class LoadedConfig(msgspec.Struct, frozen=True):
    """A configuration and what else is worth saying about it."""

    config: Config
    """The configuration."""

    sources: Mapping[str, str]
    """Where the value of each key came from, for keys not at their default."""

    warnings: tuple[str, ...] = ()
    """Sentences for the log, at level warn."""

    notes: tuple[str, ...] = ()
    """Sentences for the log, at level info."""


def load(
    path: str | None,
    environment: Mapping[str, str],
    options: Mapping[str, str | None] | None = None,
    *,
    obey_port: bool = True,
) -> LoadedConfig:
    """
    Read the configuration.

    C{PORT} beats a command-line option, which beats the environment, which beats
    the file, which beats the default.

    @param path: the TOML file, or C{None}.
    @param environment: the environment variables.
    @param options: the texts of the command-line options by name.
    @param obey_port: whether C{PORT}, C{PORT_HTTP} and C{PORT_METRICS} set addresses.
    @return: the configuration.
    @raise ConfigError: with everything that is wrong.
    """
    problems, notes = Problems(), list[str]()
    tables = read_file(path, problems, notes) if path is not None else {}
    given: dict[str, Given] = {}
    failed = set()
    for name, key in KEYS_BY_NAME.items():
        before = problems.count
        # Every source is read, also those that lose, so that all mistakes show.
        found = [
            from_options(key, options or {}, problems),
            from_environment(key, environment, problems),
            from_file(key, tables, path or "", problems),
        ]
        best = next((value for value in found if value is not None), None)
        if best is not None:
            given[name] = best
        if problems.count > before:
            failed.add(name)
        elif best is None and key.required:
            problems.of_key(key, "is required")
    if obey_port:
        _obey_ports(environment, given, problems)
    _replace_program(environment, given)
    _check_together(given, problems, failed, environment)
    problems.check()
    config = _build(given)
    warnings = _warnings(config, environment)
    sources = {name: value.where for name, value in given.items()}
    return LoadedConfig(config, sources, tuple(warnings), tuple(notes))


def _build(given: Mapping[str, Given]) -> Config:
    sections = {}
    for section, record in SECTIONS.items():
        keys = [key for key in KEYS_BY_NAME.values() if key.section == section]
        values = {
            key.attribute: given[key.file_key].value
            for key in keys
            if key.file_key in given
        }
        sections[section] = record(**values)
    return Config(**sections)


def _obey_ports(
    environment: Mapping[str, str], given: dict[str, Given], problems: Problems
) -> None:
    for key, variables in (
        (KEYS_BY_NAME["server.listen_addr"], PORT_VARIABLES),
        (KEYS_BY_NAME["metrics.listen_addr"], (METRICS_PORT_VARIABLE,)),
    ):
        _obey_port(key, variables, environment, given, problems)


def _obey_port(
    key: Key,
    variables: Sequence[str],
    environment: Mapping[str, str],
    given: dict[str, Given],
    problems: Problems,
) -> None:
    found = [(n, environment[n].strip()) for n in variables if environment.get(n)]
    for name, text in found:
        if not re.fullmatch("[0-9]{1,5}", text) or not 0 < int(text) < 65536:
            what = f"must be a port from 1 to 65535{shown(key, text)}"
            problems.of_key(key, what, name)
            return
    if len({text for _name, text in found}) > 1:
        problems.of_key(key, f"has {' and '.join(variables)} with different values")
    elif found:
        name, text = found[0]
        given[key.file_key] = Given(name, parse_listen_address(f"0.0.0.0:{text}"))


def _replace_program(environment: Mapping[str, str], given: dict[str, Given]) -> None:
    key = KEYS_BY_NAME["child.command"]
    program = environment.get(PROGRAM_VARIABLE, "").strip()
    before = given.get(key.file_key)
    if not program or (before is not None and before.where == f"--{key.option}"):
        return
    command = _value(key, given)
    if isinstance(command, tuple):
        given[key.file_key] = Given(PROGRAM_VARIABLE, (program, *command[1:]))


def _value(key: Key, given: Mapping[str, Given]) -> object:
    found = given.get(key.file_key)
    return key.default if found is None else found.value


class _Checks:
    """Rules that need more than one value, or a look at the disk."""

    def __init__(
        self, given: dict[str, Given], problems: Problems, failed: set[str]
    ) -> None:
        self._given = given
        self._problems = problems
        self._failed = failed

    def value(self, name: str) -> object:
        """The value of a key."""
        return _value(KEYS_BY_NAME[name], self._given)

    def usable(self, *names: str) -> bool:
        """Whether nothing was wrong with these keys so far."""
        return not self._failed.intersection(names)

    def wrong(self, name: str, what: object) -> None:
        """Report a key."""
        found = self._given.get(name)
        self._problems.of_key(KEYS_BY_NAME[name], what, found.where if found else None)

    def tls(self) -> None:
        """C{required} needs a certificate and key that fit."""
        cert, key = self.value("server.tls_cert"), self.value("server.tls_key")
        if self.value("server.tls") != "required":
            return
        for name, value in (("server.tls_cert", cert), ("server.tls_key", key)):
            if value is None and self.usable(name):
                self.wrong(name, 'is required with server.tls = "required"')
        if isinstance(cert, str) and isinstance(key, str):
            try:
                context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
                # Never asks at the terminal for the passphrase of a key.
                context.load_cert_chain(cert, key, password=str)
            except (OSError, ValueError) as error:
                self.wrong("server.tls_cert", f"cannot be used: {_reason(error)}")
        listen = self.value("server.listen_addr")
        if isinstance(listen, ListenAddress) and listen.endpoint.startswith("ssl:"):
            what = "must not be an ssl: endpoint together with server.tls"
            self.wrong("server.listen_addr", what)

    def authority(self) -> None:
        """The certificates of private authorities can be read."""
        for name in ("forgejo.ca_file", "clients.metadata_documents_ca_file"):
            path = self.value(name)
            if isinstance(path, str):
                try:
                    ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(path)
                except OSError as error:
                    self.wrong(name, f"cannot be used: {_reason(error)}")

    def scopes(self) -> None:
        """An empty or mistyped list would give tokens full access."""
        text = self.value("forgejo.oauth_scopes")
        wide = self.value("forgejo.allow_wide_scopes") is True
        if isinstance(text, str) and self.usable("forgejo.oauth_scopes"):
            try:
                scopes = " ".join(validate_scopes(text, allow_wide=wide))
            except ValueError as error:
                self.wrong("forgejo.oauth_scopes", f"is unsafe: {error}")
                return
            if scopes != text:  # openid was missing, and is always asked for
                before = self._given["forgejo.oauth_scopes"]
                self._given["forgejo.oauth_scopes"] = Given(before.where, scopes)

    def child(self) -> None:
        """The child's variables do not collide."""
        token, url = self.value("child.token_env"), self.value("child.url_env")
        extra = self.value("child.env")
        if token == url and self.usable("child.token_env", "child.url_env"):
            self.wrong("child.url_env", "must differ from child.token_env")
        if isinstance(extra, dict):
            for name in sorted({token, url} & extra.keys(), key=str):
                self.wrong("child.env", f"must not set {name}: the broker sets it")

    def static_clients(self, credentials_directory: str | None) -> None:
        """Each can be registered and has the secret that it needs."""
        name = "clients.static"
        before = self._given.get(name)
        schemes = self.value("clients.application_schemes")
        if before is None or not isinstance(before.value, tuple):
            return
        key, usable = KEYS_BY_NAME[name], []
        for client in before.value:
            try:
                client.metadata(schemes if isinstance(schemes, tuple) else ())
            except ValueError as error:
                self.wrong(name, f"has {client.client_id!r}, which {error}")
            else:
                usable.append(client)
        clients = find_secrets(
            usable,
            credentials_directory,
            lambda path, where: read_secret(key, path, where, self._problems),
            lambda what: self.wrong(name, what),
        )
        self._given[name] = Given(before.where, clients)

    def lifetimes(self) -> None:
        """A refresh token outlives its access token."""
        access = self.value("tokens.access_lifetime")
        refresh = self.value("tokens.refresh_lifetime")
        if isinstance(access, int) and isinstance(refresh, int) and access > refresh:
            what = "must not be longer than tokens.refresh_lifetime"
            self.wrong("tokens.access_lifetime", what)

    def bodies(self) -> None:
        """The longest request fits into one user's half of the memory."""
        longest = self.value("server.max_request_bytes")
        memory = self.value("server.max_body_memory_bytes")
        names = ("server.max_request_bytes", "server.max_body_memory_bytes")
        if isinstance(longest, int) and isinstance(memory, int) and self.usable(*names):
            if memory < 2 * longest:
                what = "must be at least twice server.max_request_bytes"
                self.wrong("server.max_body_memory_bytes", what)


def _check_together(
    given: dict[str, Given],
    problems: Problems,
    failed: set[str],
    environment: Mapping[str, str],
) -> None:
    checks = _Checks(given, problems, failed)
    checks.tls()
    checks.authority()
    checks.scopes()
    checks.child()
    checks.lifetimes()
    checks.static_clients(environment.get(CREDENTIALS_DIRECTORY))
    checks.bodies()


def _reason(error: Exception) -> str:
    # An SSLError's text is about the format; an OSError's strerror has no path.
    if isinstance(error, ssl.SSLError):
        return f"no usable PEM ({error.reason or 'passphrase or format'})"
    return (error.strerror if isinstance(error, OSError) else None) or "no usable PEM"


def _warnings(config: Config, environment: Mapping[str, str]) -> list[str]:
    warnings = []
    if unknown := unknown_variables(environment):
        warnings.append(f"unknown variables ignored: {', '.join(unknown)}")
    url = config.forgejo.internal_url or config.forgejo.url
    if urlsplit(url).scheme == "http" and not is_loopback_url(url):
        warnings.append("tokens travel to Forgejo in the clear: its URL is http://")
    listed = config.access.allowed_organizations
    if listed and not _SEES_MEMBERSHIPS.intersection(
        config.forgejo.oauth_scopes.split()
    ):
        warnings.append(
            "access.allowed_organizations: without read:organization in "
            "forgejo.oauth_scopes Forgejo may tell public memberships only"
        )
    if config.server.tls == "off" and (config.server.tls_cert or config.server.tls_key):
        warnings.append('server.tls_cert and tls_key are not used: server.tls is "off"')
    return warnings
