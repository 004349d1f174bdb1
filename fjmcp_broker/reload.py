"""
What SIGHUP does: read the configuration again and take over what can change while
sessions go on.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any, Final

import msgspec
from OpenSSL.SSL import Connection
from twisted.internet.interfaces import IOpenSSLServerConnectionCreator
from twisted.internet.ssl import CertificateOptions
from twisted.logger import Logger, LogLevel
from twisted.protocols.tls import TLSMemoryBIOFactory, TLSMemoryBIOProtocol
from zope.interface import implementer

from fjmcp_broker.config import Config
from fjmcp_broker.config.problems import ConfigError
from fjmcp_broker.config.records import KEYS_BY_NAME
from fjmcp_broker.errors import BrokerError
from fjmcp_broker.preflight import tls_options
from fjmcp_broker.systemd import Notifier
from fjmcp_broker.web.site import BrokerSite

log: Final = Logger()

_TLS_FILES: Final = ("server.tls_cert", "server.tls_key")


class Operator(msgspec.Struct, frozen=True):
    """
    What the process that runs the daemon lends to a reload.

    @ivar read: reads the configuration again, from all of its sources.
    @ivar set_level: takes over C{log.level}; false where another log is in use.
    """

    read: Callable[[], Config]
    set_level: Callable[[str], bool]


@implementer(IOpenSSLServerConnectionCreator)
class Certificate:
    """
    The certificate for new connections; open ones keep theirs.
    """

    def __init__(self, options: CertificateOptions) -> None:
        """
        @param options: with certificate and key.
        """
        self._options = options

    @classmethod
    def configured(cls, config: Config) -> Certificate | None:
        """
        @param config: whose C{server.tls} counts.
        @return: the certificate, or C{None}: plain HTTP.
        @raise BrokerError: it cannot be used.
        """
        options = tls_options(config)
        return None if options is None else cls(options)

    def wrap(self, site: BrokerSite) -> Any:
        """
        @param site: what is spoken inside.
        @return: the factory of the same over TLS.
        """
        return TLSMemoryBIOFactory(self, isClient=False, wrappedFactory=site)

    def serverConnectionForTLS(self, protocol: TLSMemoryBIOProtocol) -> Connection:  # noqa: N802 - Twisted's
        """
        @param protocol: of the new connection.
        @return: its TLS state, before the handshake.
        """
        return Connection(self._options.getContext(), None)

    def replace(self, other: Certificate) -> bool:
        """
        Take another one for new connections. The same one again changes nothing, so
        that clients can resume their TLS sessions.

        @param other: with its key.
        @return: whether it is another one.
        """
        if other._chain == self._chain:
            return False
        self._options = other._options
        return True

    @property
    def valid_until(self) -> datetime:
        """
        @return: the end of its time.
        """
        first: Any = self._options.certificate
        end: datetime = first.not_valid_after_utc
        return end

    @property
    def _chain(self) -> Sequence[object]:
        return [self._options.certificate, *(self._options.extraCertChain or ())]


class Reloader:
    """Takes over a changed configuration, as far as that is possible."""

    def __init__(
        self,
        config: Config,
        operator: Operator,
        certificate: Certificate | None,
        notifier: Notifier,
        site: BrokerSite,
    ) -> None:
        """
        @param config: what the daemon was started with.
        @param operator: the sources, and the log.
        @param certificate: of the listener, or C{None}: plain HTTP.
        @param notifier: is told about each reload.
        @param site: at level debug it logs every request.
        """
        self._started_with = config
        self._level: str = config.log.level
        self._operator = operator
        self._certificate = certificate
        self._notifier = notifier
        self._site = site

    def __call__(self) -> None:
        """
        Read the configuration. If anything is wrong with it, nothing changes. One
        line in the log says what happened, and systemd is told too.
        """
        self._notifier.reloading()
        status = "reload failed, nothing changed; see the log"
        try:
            status = self._reload()
        except ConfigError as error:
            log.error(
                "reload: nothing changed, the configuration has problems: {problems}",
                problems="; ".join(error.problems),
            )
        except BrokerError as error:
            log.error("reload: nothing changed: {problem}", problem=str(error))
        except Exception:
            log.failure("reload: nothing changed")
        finally:
            self._notifier.reloaded(status)

    def _reload(self) -> str:
        config = self._operator.read()
        # All that can fail comes first.
        other = Certificate.configured(config) if self._certificate else None
        parts = []
        if self._certificate and other and self._certificate.replace(other):
            until = other.valid_until
            parts.append(f"new certificate, valid until {until:%Y-%m-%d %H:%M} UTC")
        before, level = self._level, config.log.level
        if level != before:
            parts.append(f"log.level is {level}")
        if waiting := self._need_restart(config):
            parts.append(f"a restart is needed for {', '.join(waiting)}")
        status = f"reloaded: {'; '.join(parts) or 'nothing changed'}"
        # Said at whichever level writes more.
        is_quieter = LogLevel.levelWithName(level) > LogLevel.levelWithName(before)
        if is_quieter:
            log.info("{status}", status=status)
        self._take_level(level)
        if not is_quieter:
            log.info("{status}", status=status)
        return status

    def _take_level(self, level: str) -> None:
        if level == self._level:
            return
        self._level = level
        self._site.log_every_request = level == "debug"
        if not self._operator.set_level(level):
            log.warn("log.level has no effect: the log in use is not the daemon's own")

    def _need_restart(self, config: Config) -> Sequence[str]:
        live = {"log.level", *(_TLS_FILES if self._certificate is not None else ())}
        return [
            name
            for name, key in KEYS_BY_NAME.items()
            if name not in live
            and getattr(getattr(config, key.section), key.attribute)
            != getattr(getattr(self._started_with, key.section), key.attribute)
        ]
