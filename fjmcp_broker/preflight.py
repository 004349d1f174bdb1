"""
What is checked before the daemon runs, so that a wrong configuration is one line and
exit status 1 instead of a traceback in a log.

Everything opened here is closed again: C{twistd} forks afterwards.
"""

from __future__ import annotations

import os
import shutil
import socket
import time
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any, Final

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from cryptography.x509 import load_pem_x509_certificates
from OpenSSL import SSL
from twisted.internet.endpoints import serverFromString
from twisted.internet.ssl import CertificateOptions, TLSVersion

from fjmcp_broker.config import Config
from fjmcp_broker.config.addresses import ListenAddress
from fjmcp_broker.errors import BrokerError
from fjmcp_broker.oauth.access import AccessRules
from fjmcp_broker.sessions.processes.spawn import ChildSettings
from fjmcp_broker.store.instance import Instance
from fjmcp_broker.store.preflight import prepare
from fjmcp_broker.store.static_clients import synchronise
from fjmcp_broker.upstream.forgejo import ForgejoSettings

LOCK_WAIT_SECONDS: Final = 30.0


def preflight(config: Config, *, lock_wait_seconds: float = LOCK_WAIT_SECONDS) -> None:
    """
    Check everything that the daemon will need, migrate the store, and bring the
    configured clients into it.

    Blocks, for up to C{lock_wait_seconds} while another daemon has the store.

    @param config: checked as far as its text goes.
    @raise BrokerError: with one clear line.
    """
    child_program(config)
    child_settings(config)
    tls_options(config)
    _check_listen_address("server.listen_addr", config.server.listen_addr)
    if config.metrics.listen_addr is not None:
        _check_listen_address("metrics.listen_addr", config.metrics.listen_addr)
    now = int(time.time())
    prepare(
        config.database.path,
        config.database.encryption_keys,
        Instance(config.forgejo.url, config.forgejo.oauth_client_id),
        now,
        lock_wait_seconds=lock_wait_seconds,
        populate=partial(
            synchronise,
            configured=config.clients.static,
            application_schemes=config.clients.application_schemes,
            now=now,
        ),
    )


def child_program(config: Config) -> str:
    """
    @param config: whose C{child.command} counts.
    @return: the path of the program.
    @raise BrokerError: there is no such program, or it may not be executed.
    """
    program = config.child.command[0]
    found = shutil.which(program)
    if found is None:
        where = "" if "/" in program else " on PATH"
        raise BrokerError(
            f"child.command: there is no program {program!r}{where}"
            " (file key child.command, variable FORGEJO_MCP_BINARY)"
        )
    return os.path.abspath(found)


def child_settings(config: Config) -> ChildSettings:
    """
    @param config: checked.
    @return: what all children have in common.
    @raise BrokerError: they cannot be started so.
    """
    child, forgejo = config.child, config.forgejo
    return ChildSettings(
        command=child.command,
        forgejo_url=forgejo.internal_url or forgejo.url,
        token_env=child.token_env,
        url_env=child.url_env,
        env=child.env,
        ca_file=forgejo.ca_file,
        proxy=forgejo.proxy,
        start_timeout_seconds=child.start_timeout_seconds,
        stop_grace_seconds=child.stop_grace_seconds,
        maximum_line_bytes=child.maximum_line_bytes,
    )


def tls_options(config: Config) -> CertificateOptions | None:
    """
    @param config: whose C{server.tls} counts.
    @return: TLS 1.3 with the configured certificate, or C{None}: plain HTTP.
    @raise BrokerError: certificate or key cannot be used.
    """
    server = config.server
    if server.tls != "required":
        return None
    key = _read("server.tls_key", server.tls_key)
    chain = _read("server.tls_cert", server.tls_cert)
    try:
        # pyOpenSSL's own classes, which Twisted's annotations want, are deprecated.
        private_key: Any = load_pem_private_key(key, password=None)
        certificates: Any = load_pem_x509_certificates(chain)
        first, *others = certificates
        options = CertificateOptions(
            privateKey=private_key,
            certificate=first,
            extraCertChain=others,
            # No endpoint string can say this.
            raiseMinimumTo=TLSVersion.TLSv1_3,
        )
        options.getContext()
    except (SSL.Error, ValueError, TypeError, UnsupportedAlgorithm):
        raise BrokerError(
            "server.tls_cert and server.tls_key: not a certificate chain in PEM form"
            " with its unencrypted key"
        ) from None
    return options


def _read(key: str, path: str | None) -> bytes:
    try:
        return Path(path or "").read_bytes()
    except OSError as error:
        raise BrokerError(f"{key}: cannot read {path}: {error.strerror}") from None


def _check_endpoint(key: str, address: ListenAddress) -> None:
    where = f"{key}: {address.text}: "
    if "domain=UNIX" in address.text and address.text.startswith("systemd:"):
        # Twisted removes the file of the socket when it stops to listen.
        raise BrokerError(f"{where}an inherited socket must be INET or INET6")
    reactor: Any = None  # endpoints look at it when they begin to listen
    try:
        serverFromString(reactor, address.endpoint)
    except (IndexError, KeyError):
        raise BrokerError(
            f"{where}no such socket was inherited (is LISTEN_FDS set?)"
        ) from None
    except (OSError, SSL.Error, ValueError, TypeError, AttributeError) as error:
        raise BrokerError(f"{where}not a usable endpoint: {error}") from None


def _check_listen_address(key: str, address: ListenAddress) -> None:
    """
    Bind and close. An endpoint string other than C{host:port} is only parsed: closing
    an inherited socket would take it away, and a socket file may be in use.
    """
    if address.host is None or address.port is None:
        _check_endpoint(key, address)
        return
    try:
        found = socket.getaddrinfo(
            address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
        family, kind, protocol, _, name = found[0]
        with closing(socket.socket(family, kind, protocol)) as probe:
            # As the listener will: connections of a daemon before may still linger.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(name)
            probe.listen(1)
    except OSError as error:
        reason = error.strerror or str(error)
        raise BrokerError(f"{key}: cannot listen on {address.text}: {reason}") from None


def access_rules(config: Config) -> AccessRules:
    """
    @param config: checked.
    @return: who may sign in.
    """
    access = config.access
    return AccessRules.of(access.allowed_users, access.allowed_organizations)


def forgejo_settings(config: Config) -> ForgejoSettings:
    """
    @param config: checked.
    @return: what it says about Forgejo.
    """
    forgejo = config.forgejo
    return ForgejoSettings(
        url=forgejo.url,
        internal_url=forgejo.internal_url,
        client_id=forgejo.oauth_client_id,
        client_secret=forgejo.oauth_client_secret,
        scopes=tuple(forgejo.oauth_scopes.split()),
        public_url=config.server.public_url,
    )
