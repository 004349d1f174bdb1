"""C{fjmcp-broker healthcheck} against a server on this machine."""

import os
import ssl
import sys
import threading
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from io import StringIO
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
)
from cryptography.x509.oid import NameOID
from twisted.trial.unittest import SynchronousTestCase

from fjmcp_broker import cli


class _Health(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200 if self.path == "/healthz" else 503)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Quiet."""


def certificate(directory: Path) -> ssl.SSLContext:
    """
    @param directory: gets the file.
    @return: a context with a certificate of a public name that nobody signed.
    """
    private = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "mcp.example.org")])
    start = datetime.now(UTC) - timedelta(days=1)
    signed = (
        x509.CertificateBuilder(name, name, private.public_key(), 1)
        .not_valid_before(start)
        .not_valid_after(start + timedelta(days=2))
        .sign(private, hashes.SHA256())
    )
    key = private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    both = directory / "both.pem"
    both.write_bytes(key + signed.public_bytes(Encoding.PEM))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(both)
    return context


class HealthcheckTests(SynchronousTestCase):
    """The exit status that container engines look at."""

    timeout = 30

    def setUp(self) -> None:
        """Catch what is printed."""
        self.errors = StringIO()
        self.patch(sys, "stderr", self.errors)

    def serve(self, context: ssl.SSLContext | None = None) -> int:
        """
        @param context: for https.
        @return: the port of a server that is well at C{/healthz} only.
        """
        server = HTTPServer(("127.0.0.1", 0), _Health)
        if context is not None:
            server.socket = context.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        self.addCleanup(thread.join)
        self.addCleanup(server.server_close)
        self.addCleanup(server.shutdown)
        return server.server_port

    def test_status_of_a_daemon(self) -> None:
        """0 for 200, 1 for anything else and for nobody there."""
        port = self.serve()
        proxy = "http://127.0.0.1:1"
        self.patch(os, "environ", {"PORT": str(port), "http_proxy": proxy})
        self.assertEqual(cli.main(["healthcheck"]), 0)
        self.assertEqual(self.errors.getvalue(), "")
        self.assertEqual(cli.main(["healthcheck", f"http://127.0.0.1:{port}/other"]), 1)
        self.assertIn("503", self.errors.getvalue())
        self.assertEqual(cli.main(["healthcheck", "http://127.0.0.1:1/healthz"]), 1)
        self.assertNotIn("Traceback", self.errors.getvalue())

    def test_certificate_of_the_public_name_will_do_on_loopback(self) -> None:
        """The container asks itself, by address."""
        directory = Path(self.mktemp())
        directory.mkdir()
        port = self.serve(certificate(directory))
        variables = {"PORT": str(port), "FJMCP_BROKER_SERVER_TLS": "required"}
        self.patch(os, "environ", variables)
        self.assertEqual(cli.main(["healthcheck"]), 0, self.errors.getvalue())
