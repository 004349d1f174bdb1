"""What a reload takes over, and what leaves everything as it was."""

from __future__ import annotations

import os
from pathlib import Path
from typing import cast

import attrs
from twisted.internet.task import Clock
from twisted.logger import (
    ILogObserver,
    LogEvent,
    LogLevel,
    formatEvent,
    globalLogPublisher,
)
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.resource import Resource

from fjmcp_broker.config import Config
from fjmcp_broker.config.load import load
from fjmcp_broker.errors import BrokerError
from fjmcp_broker.reload import Certificate, Operator, Reloader
from fjmcp_broker.systemd import Notifier
from fjmcp_broker.web.site import BrokerSite
from tests.real.certificates import write_certificate


@attrs.define
class RecordingNotifier:
    """What systemd would hear."""

    said: list[str] = attrs.Factory(list)

    def reloading(self) -> None:
        """Noted."""
        self.said.append("reloading")

    def reloaded(self, status: str) -> None:
        """Noted."""
        self.said.append(status)


class ReloaderTests(SynchronousTestCase):
    """L{Reloader} takes all or nothing."""

    def setUp(self) -> None:
        self.directory = os.path.abspath(self.mktemp())
        os.mkdir(self.directory)
        self.paths = write_certificate(self.directory)
        self.variables: dict[str, str] = {}
        self.levels: list[str] = []
        self.has_own_log = True
        self.site = BrokerSite(Resource(), Clock(), {})
        self.notifier = RecordingNotifier()

    def read(self) -> Config:
        return load(
            None,
            {
                "FJMCP_BROKER_PUBLIC_URL": "https://mcp.example.org",
                "FORGEJO_URL": "https://forgejo.example.org",
                "FORGEJO_OAUTH_CLIENT_ID": "id",
                "FORGEJO_OAUTH_CLIENT_SECRET": "secret",
                **self.variables,
            },
        ).config

    def set_level(self, level: str) -> bool:
        self.levels.append(level)
        return self.has_own_log

    def reloader(self, operator: Operator | None = None) -> Reloader:
        config = self.read()
        self.certificate = Certificate.configured(config)
        return Reloader(
            config,
            operator or Operator(self.read, self.set_level),
            self.certificate,
            cast(Notifier, self.notifier),
            self.site,
        )

    def lines(self, reloader: Reloader) -> list[str]:
        """
        @return: what one reload logs: levels and messages.
        """
        events: list[LogEvent] = []
        observer = cast(ILogObserver, events.append)
        globalLogPublisher.addObserver(observer)
        try:
            reloader()
        finally:
            globalLogPublisher.removeObserver(observer)
        return [f"{event['log_level'].name}: {formatEvent(event)}" for event in events]

    def secure(self) -> None:
        certificate, key = self.paths
        self.variables |= {
            "FJMCP_BROKER_SERVER_TLS": "required",
            "FJMCP_BROKER_SERVER_TLS_CERT": certificate,
            "FJMCP_BROKER_SERVER_TLS_KEY": key,
        }

    def test_nothing_changed(self) -> None:
        """It is said, and the same certificate stays in use."""
        self.secure()
        reloader = self.reloader()
        before = self.context()
        self.assertEqual(self.lines(reloader), ["info: reloaded: nothing changed"])
        self.assertEqual(self.notifier.said, ["reloading", "reloaded: nothing changed"])
        self.assertIs(self.context(), before)
        self.assertEqual(self.levels, [])

    def test_a_certificate_at_another_place(self) -> None:
        """The paths are read again, too."""
        self.secure()
        reloader = self.reloader()
        before = self.context()
        other = f"{self.directory}/other"
        os.mkdir(other)
        self.paths = write_certificate(other)
        self.secure()
        [line] = self.lines(reloader)
        self.assertRegex(
            line,
            r"\Ainfo: reloaded: new certificate, valid until [-0-9]{10} [:\d]{5} UTC\Z",
        )
        self.assertIsNot(self.context(), before)

    def test_a_key_of_another_certificate(self) -> None:
        """Half of an exchange changes nothing, not even the level."""
        self.secure()
        reloader = self.reloader()
        before = self.context()
        key = Path(self.paths[1]).read_bytes()
        write_certificate(self.directory)
        Path(self.paths[1]).write_bytes(key)
        self.variables["FJMCP_BROKER_LOG_LEVEL"] = "debug"
        [line] = self.lines(reloader)
        self.assertIn("error: reload: nothing changed, the configuration has", line)
        self.assertIn("server.tls_cert", line)
        self.assertIs(self.context(), before)
        self.assertEqual(self.levels, [])
        self.assertFalse(self.site.log_every_request)
        self.assertEqual(
            self.notifier.said[1], "reload failed, nothing changed; see the log"
        )

    def test_every_problem_is_logged(self) -> None:
        """On one line."""
        reloader = self.reloader()
        self.variables |= {
            "FJMCP_BROKER_LOG_LEVEL": "loud",
            "FJMCP_BROKER_SESSIONS_MAX": "many",
        }
        [line] = self.lines(reloader)
        self.assertIn("log.level", line)
        self.assertIn("sessions.max", line)
        self.assertIn("; ", line)
        self.assertNotIn("\n", line)

    def test_what_goes_wrong_otherwise(self) -> None:
        """A failure of any kind is logged, and systemd does not wait for ever."""
        for problem in (BrokerError("no"), RuntimeError("unexpected")):

            def read(problem: Exception = problem) -> Config:
                raise problem

            reloader = self.reloader(Operator(read, self.set_level))
            [line] = self.lines(reloader)
            self.assertIn("reload: nothing changed", line)
            self.assertIn("reload failed", self.notifier.said[-1])
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)

    def test_the_level(self) -> None:
        """The log and the access log follow; one that is not ours is named."""
        reloader = self.reloader()
        for level in ("debug", "error"):
            self.variables["FJMCP_BROKER_LOG_LEVEL"] = level
            self.assertEqual(
                self.lines(reloader), [f"info: reloaded: log.level is {level}"]
            )
            self.assertEqual(self.levels[-1], level)
            self.assertEqual(self.site.log_every_request, level == "debug")
        self.has_own_log = False
        self.variables["FJMCP_BROKER_LOG_LEVEL"] = "info"
        warning, _ = self.lines(reloader)
        self.assertIn("warn: log.level has no effect", warning)

    def test_the_line_is_said_at_the_wordier_level(self) -> None:
        """Before the log becomes quieter, or after it has become wordier."""
        order: list[str] = []

        def set_level(level: str) -> bool:
            order.append(level)
            return True

        reloader = self.reloader(Operator(self.read, set_level))

        def observe(event: LogEvent) -> None:
            if event["log_level"] is LogLevel.info:
                order.append("said")

        observer = cast(ILogObserver, observe)
        globalLogPublisher.addObserver(observer)
        self.addCleanup(globalLogPublisher.removeObserver, observer)
        for level in ("error", "info"):
            self.variables["FJMCP_BROKER_LOG_LEVEL"] = level
            reloader()
        self.assertEqual(order, ["said", "error", "info", "said"])

    def test_what_needs_a_restart(self) -> None:
        """Keys are named without values, each time until the restart."""
        reloader = self.reloader()
        self.variables |= {
            "FORGEJO_OAUTH_CLIENT_SECRET": "another",
            "FJMCP_BROKER_SESSIONS_MAX": "7",
        }
        self.secure()
        for _ in range(2):
            [line] = self.lines(reloader)
            self.assertIn("a restart is needed for server.tls, server.tls_cert,", line)
            self.assertIn("forgejo.oauth_client_secret, sessions.max", line)
            self.assertNotIn("another", line)
        self.assertIsNone(self.certificate)

    def context(self) -> object:
        """
        @return: what the next handshake would use.
        """
        assert self.certificate is not None
        connection = self.certificate.serverConnectionForTLS(None)  # type: ignore[arg-type]  # not looked at
        return connection.get_context()
