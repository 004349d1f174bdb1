"""What is found wrong before the daemon runs, each as one line."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import Any

import attrs
from twisted.trial.unittest import SynchronousTestCase

from fjmcp_broker.config import Config
from fjmcp_broker.config.load import load
from fjmcp_broker.errors import BrokerError
from fjmcp_broker.preflight import child_program, child_settings, preflight, tls_options
from tests.real.certificates import write_certificate


class PreflightTests(SynchronousTestCase):
    """Each check by itself, and that nothing stays open."""

    def setUp(self) -> None:
        self.directory = os.path.abspath(self.mktemp())
        os.mkdir(self.directory)

    def config(self, **more: str) -> Config:
        return load(
            None,
            {
                "FJMCP_BROKER_PUBLIC_URL": "https://mcp.example.org",
                "FJMCP_BROKER_LISTEN": "127.0.0.1:0",
                "FJMCP_BROKER_STORE_PATH": f"{self.directory}/broker.db",
                "FORGEJO_URL": "https://forgejo.example.org",
                "FORGEJO_OAUTH_CLIENT_ID": "id",
                "FORGEJO_OAUTH_CLIENT_SECRET": "secret",
                "FORGEJO_MCP_BINARY": "/bin/true",
                **more,
            },
        ).config

    def refused(self, config: Config) -> str:
        return str(self.assertRaises(BrokerError, preflight, config))

    def test_a_usable_configuration(self) -> None:
        """It passes, leaves a store with its key, and no descriptor."""
        before = os.listdir("/proc/self/fd")
        preflight(self.config())
        self.assertEqual(len(os.listdir("/proc/self/fd")), len(before))
        self.assertTrue(os.path.exists(f"{self.directory}/broker.db"))
        self.assertTrue(os.path.exists(f"{self.directory}/broker.db.key"))
        preflight(self.config())

    def test_the_child_program(self) -> None:
        """A name is looked for on PATH, a path is taken as it is."""
        self.assertEqual(child_program(self.config()), "/bin/true")
        for name in ("no-such-program", "/no/such/program", self.directory):
            config = self.config(FORGEJO_MCP_BINARY=name)
            message = self.refused(config)
            self.assertIn("child.command: there is no program", message)
            self.assertIn(repr(name), message)
            self.assertEqual("on PATH" in message, "/" not in name)

    def test_what_children_share(self) -> None:
        """They call Forgejo where the broker does, with the same authority."""
        settings = child_settings(
            self.config(FJMCP_BROKER_FORGEJO_INTERNAL_URL="http://forgejo:3000")
        )
        self.assertEqual(settings.forgejo_url, "http://forgejo:3000")
        self.assertEqual(
            child_settings(self.config()).forgejo_url, "https://forgejo.example.org"
        )

    def test_the_listen_address(self) -> None:
        """A taken port and a foreign address are named."""
        with socket.socket() as other:
            other.bind(("127.0.0.1", 0))
            other.listen()
            port = other.getsockname()[1]
            message = self.refused(self.config(FJMCP_BROKER_LISTEN=f"127.0.0.1:{port}"))
        self.assertEqual(
            message,
            f"server.listen_addr: cannot listen on 127.0.0.1:{port}:"
            " Address already in use",
        )
        message = self.refused(self.config(FJMCP_BROKER_LISTEN="192.0.2.1:0"))
        self.assertIn("cannot listen on 192.0.2.1:0: ", message)
        message = self.refused(
            self.config(FJMCP_BROKER_METRICS_LISTEN_ADDR="192.0.2.1:0")
        )
        self.assertIn("metrics.listen_addr: cannot listen on 192.0.2.1:0: ", message)

    def test_an_endpoint_string_is_left_alone(self) -> None:
        """An inherited or named socket is not touched before the daemon runs."""
        path = f"{self.directory}/broker.sock"
        preflight(self.config(FJMCP_BROKER_LISTEN=f"unix:{path}"))
        self.assertFalse(os.path.exists(path))

    def test_an_endpoint_string_that_cannot_work(self) -> None:
        """It is refused before the daemon runs."""
        for text, reason in (
            ("nothing:here", "not a usable endpoint: Unknown endpoint type"),
            ("tcp:a:b:c:d:e", "not a usable endpoint: "),
            ("ssl:8443:privateKey=/nowhere", "not a usable endpoint: "),
            ("systemd:domain=INET:index=0", "no such socket was inherited"),
            ("systemd:domain=INET:name=web", "no such socket was inherited"),
            ("systemd:domain=UNIX:index=0", "an inherited socket must be"),
        ):
            message = self.refused(self.config(FJMCP_BROKER_LISTEN=text))
            self.assertIn(f"server.listen_addr: {text}: {reason}", message)

    def test_certificate_and_key(self) -> None:
        """They are read, belong together, and set TLS 1.3 as the minimum."""
        certificate, key = write_certificate(self.directory)
        plain = self.config()
        self.assertIsNone(tls_options(plain))
        secure = self.config(
            FJMCP_BROKER_SERVER_TLS="required",
            FJMCP_BROKER_SERVER_TLS_CERT=certificate,
            FJMCP_BROKER_SERVER_TLS_KEY=key,
        )
        self.assertIsNotNone(tls_options(secure))
        other = f"{self.directory}/other"
        os.mkdir(other)
        _, other_key = write_certificate(other)
        Path(self.directory, "junk").write_bytes(b"junk")
        cases: dict[str, dict[str, Any]] = {
            "server.tls_key: cannot read /nowhere: ": {"tls_key": "/nowhere"},
            "server.tls_cert: cannot read /nowhere: ": {"tls_cert": "/nowhere"},
            "server.tls_cert and server.tls_key: ": {"tls_key": other_key},
            "server.tls_cert and server.tls_key: not": {"tls_key": certificate},
            "server.tls_cert and server.tls_key: not a": {
                "tls_cert": f"{self.directory}/junk"
            },
        }
        for expected, change in cases.items():
            config = attrs.evolve(secure, server=attrs.evolve(secure.server, **change))
            self.assertIn(expected, self.refused(config))
