"""C{fjmcp-broker healthcheck} against a server on this machine."""

import os
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from io import StringIO

from twisted.trial.unittest import SynchronousTestCase

from fjmcp_broker import cli


class _Health(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200 if self.path == "/healthz" else 503)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Quiet."""


class HealthcheckTests(SynchronousTestCase):
    """The exit status that container engines look at."""

    timeout = 30

    def test_status_of_a_daemon(self) -> None:
        """0 for 200, 1 for anything else and for nobody there."""
        errors = StringIO()
        self.patch(sys, "stderr", errors)
        server = HTTPServer(("127.0.0.1", 0), _Health)
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        self.addCleanup(thread.join)
        self.addCleanup(server.server_close)
        self.addCleanup(server.shutdown)
        port = server.server_port
        self.patch(
            os, "environ", {"PORT": str(port), "http_proxy": "http://127.0.0.1:1"}
        )
        self.assertEqual(cli.main(["healthcheck"]), 0)
        self.assertEqual(errors.getvalue(), "")
        self.assertEqual(cli.main(["healthcheck", f"http://127.0.0.1:{port}/other"]), 1)
        self.assertIn("503", errors.getvalue())
        self.assertEqual(cli.main(["healthcheck", "http://127.0.0.1:1/healthz"]), 1)
        self.assertNotIn("Traceback", errors.getvalue())
