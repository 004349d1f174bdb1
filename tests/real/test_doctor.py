"""C{fjmcp-broker doctor}: each check in an installation where it has to complain."""

from __future__ import annotations

import gzip
import json
import os
import shutil
import sqlite3
import ssl
import sys
import threading
import time
import zlib
from collections.abc import Mapping
from contextlib import closing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import StringIO
from pathlib import Path
from typing import Any

import attrs
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import SynchronousTestCase

from fjmcp_broker import cli
from fjmcp_broker.config import Config
from fjmcp_broker.config.load import load
from fjmcp_broker.doctor import broker, machine
from fjmcp_broker.doctor.broker import BrokerChecks, local_url
from fjmcp_broker.doctor.examine import examine
from fjmcp_broker.doctor.fetch import Answer
from fjmcp_broker.doctor.findings import Finding, Status, as_json, as_text
from fjmcp_broker.doctor.forgejo import ForgejoChecks, is_safe
from fjmcp_broker.doctor.machine import MachineChecks
from fjmcp_broker.store import upstream_tokens, users
from fjmcp_broker.store.instance import Instance
from fjmcp_broker.store.preflight import prepare
from fjmcp_broker.store.sealing import Sealer
from fjmcp_broker.version import VERSION
from tests.real.broker_case import STAND_IN, BrokerCase
from tests.real.certificates import write_certificate
from tests.real.daemon import free_port
from tests.unit.store import rows

SECRET = "gto_the-secret-of-the-application"
HEALTH = {
    "status": "ok",
    "store": "ok",
    "version": VERSION,
    "instance": "one",
    "client": "forwarded",
}


@attrs.frozen
class Reply:
    """What the server says at one path."""

    status: int = 200
    body: bytes = b""
    headers: Mapping[str, str] = attrs.Factory(dict)
    later: bytes = b""

    @classmethod
    def json(cls, document: object, status: int = 200) -> Reply:
        """A document."""
        return cls(status, json.dumps(document).encode())


class Scripted:
    """A web server that says what it is told to."""

    def __init__(self, context: ssl.SSLContext | None = None) -> None:
        self.replies: dict[str, Reply] = {}
        self.seen: list[tuple[str, Any]] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.seen.append((self.path, self.headers))
                length = int(self.headers.get("Content-Length") or 0)
                self.rfile.read(length)
                reply = outer.replies.get(self.path, Reply(404))
                self.send_response(reply.status)
                for name, value in reply.headers.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(reply.body)
                self.wfile.flush()
                if reply.later:
                    # More than twice what tells a stream from one that was held back.
                    time.sleep(1.2)
                    self.wfile.write(reply.later)

            def do_POST(self) -> None:
                self.do_GET()

            def log_message(self, format: str, *args: object) -> None:
                """Quiet."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        if context is not None:
            self.server.socket = context.wrap_socket(
                self.server.socket, server_side=True
            )
        self.thread = threading.Thread(
            target=self.server.serve_forever, kwargs={"poll_interval": 0.02}
        )
        self.thread.start()

    @property
    def port(self) -> int:
        """Where it listens."""
        return self.server.server_port

    @property
    def url(self) -> str:
        """Its URL."""
        return f"http://127.0.0.1:{self.port}"

    def stop(self) -> None:
        """End."""
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


class DoctorCase(SynchronousTestCase):
    """Helpers."""

    timeout = 60

    def setUp(self) -> None:
        """A directory, and two servers."""
        self.directory = Path(self.mktemp()).absolute()
        self.directory.mkdir()
        self.local, self.front = self.scripted(), self.scripted()
        self.forgejo = self.scripted()

    def scripted(self, context: ssl.SSLContext | None = None) -> Scripted:
        """A server."""
        server = Scripted(context)
        self.addCleanup(server.stop)
        return server

    def environment(self, **more: str) -> dict[str, str]:
        """Variables that are enough."""
        return {
            "FJMCP_BROKER_PUBLIC_URL": self.front.url,
            "FJMCP_BROKER_LISTEN": f"127.0.0.1:{self.local.port}",
            "FORGEJO_URL": self.forgejo.url,
            "FORGEJO_OAUTH_CLIENT_ID": "client",
            "FORGEJO_OAUTH_CLIENT_SECRET": SECRET,
            "FJMCP_BROKER_STORE_PATH": str(self.directory / "broker.db"),
            "FJMCP_BROKER_CHILD_COMMAND": STAND_IN,
            **more,
        }

    def config(self, **more: str) -> Config:
        """The same, read."""
        return load(None, self.environment(**more)).config

    def assert_found(self, found: Finding, status: Status, *words: str) -> None:
        """A finding is of this kind, and says so."""
        self.assertEqual(found.status, status, found)
        for word in words:
            self.assertIn(word, f"{found.summary} {found.fix}")
        if status in (Status.FAILED, Status.WARNING):
            self.assertTrue(found.fix)
        self.assertNotIn(SECRET, as_text(found))


class BrokerCheckTests(DoctorCase):
    """The daemon from both sides."""

    def setUp(self) -> None:
        """Everything is well."""
        super().setUp()
        self.well()

    def well(self) -> None:
        """What a daemon and its proxy say."""
        url = self.front.url
        issuer = Reply.json({"issuer": url})
        resource = Reply.json({"resource": f"{url}/mcp"})
        metadata = f"{url}/.well-known/oauth-protected-resource/mcp"
        for server in (self.local, self.front):
            server.replies = {
                "/healthz": Reply.json(HEALTH),
                "/healthz/stream": Reply(200, b": 1\n\n", later=b": 2\n\n"),
                "/.well-known/oauth-authorization-server": issuer,
                "/.well-known/oauth-protected-resource": resource,
                "/.well-known/oauth-protected-resource/mcp": resource,
                "/mcp": Reply(
                    401,
                    headers={
                        "WWW-Authenticate": f'Bearer resource_metadata="{metadata}", '
                        'error="invalid_token"'
                    },
                ),
            }

    def checks(self, *, seconds: float = 5, **more: str) -> BrokerChecks:
        """The checks."""
        return BrokerChecks(self.config(**more).server, seconds)

    def run_all(self, **more: str) -> dict[str, Finding]:
        """All of them."""
        return {
            found.check: found
            for found in BrokerChecks(self.config(**more).server, 5).run()
        }

    def test_well(self) -> None:
        """Nothing to complain about."""
        found = self.run_all()
        statuses = {name: str(each.status) for name, each in found.items()}
        self.assertEqual(statuses.pop("certificate"), "skipped")
        self.assertEqual(set(statuses.values()), {"ok"}, found)

    def test_no_daemon(self) -> None:
        """Nothing listens, something else does, or its store is broken."""
        checks = self.checks(FJMCP_BROKER_LISTEN=f"127.0.0.1:{free_port()}")
        self.assert_found(checks.daemon(), Status.FAILED, "nothing listens", "Start it")
        for reply in (Reply(200, b"<html>"), Reply(404), Reply.json([])):
            self.local.replies["/healthz"] = reply
            self.assert_found(self.checks().daemon(), Status.FAILED, "no fjmcp-broker")
        self.local.replies["/healthz"] = Reply.json({**HEALTH, "status": "failed"}, 503)
        self.assert_found(self.checks().daemon(), Status.FAILED, "store")

    def test_another_version(self) -> None:
        """Installed, but not restarted."""
        self.local.replies["/healthz"] = Reply.json({**HEALTH, "version": "0.0.1"})
        self.assert_found(self.checks().daemon(), Status.WARNING, "0.0.1", "Restart")

    def test_address_that_cannot_be_asked(self) -> None:
        """Inherited sockets have no name."""
        found = self.checks(FJMCP_BROKER_LISTEN="systemd:domain=INET:index=0").daemon()
        self.assert_found(found, Status.SKIPPED)
        found = self.checks(FJMCP_BROKER_LISTEN="unix:/nowhere/nothing.sock").daemon()
        self.assert_found(found, Status.FAILED, "nothing.sock", "nothing listens")

    def test_public_url_is_not_reached(self) -> None:
        """No name, no listener, no answer in time; the rest is skipped then."""
        url = f"http://127.0.0.1:{free_port()}"
        found = self.run_all(FJMCP_BROKER_PUBLIC_URL=url)
        self.assert_found(found["public_url"], Status.FAILED, "nothing listens")
        for name in ("client_address", "discovery", "challenge", "streaming"):
            self.assert_found(found[name], Status.SKIPPED)
        checks = self.checks(FJMCP_BROKER_PUBLIC_URL="https://nowhere.invalid")
        self.assert_found(checks.public(), Status.FAILED, "no address", "DNS")
        self.front.replies["/healthz"] = Reply(200, later=b"x" * 10)
        checks = self.checks(seconds=0.2)
        self.assert_found(checks.public(), Status.FAILED, "0.2 s", "firewall")

    def test_something_else_at_the_public_url(self) -> None:
        """The proxy's own page, or another broker."""
        for reply in (Reply(502, b"<html>bad gateway"), Reply(301), Reply.json({})):
            self.front.replies["/healthz"] = reply
            self.assert_found(
                self.checks().public(), Status.FAILED, str(reply.status), "proxy"
            )
        self.front.replies["/healthz"] = Reply.json({**HEALTH, "instance": "two"})
        found = self.run_all()["public_url"]
        self.assert_found(found, Status.FAILED, "another fjmcp-broker")

    def test_client_address(self) -> None:
        """A proxy that says nothing, or that is not believed, makes one of all."""
        https = "https://mcp.example.org"
        for source, url, status, word in (
            ("forwarded", https, Status.OK, "says"),
            ("only_proxies", https, Status.OK, "says"),
            ("not_said", https, Status.WARNING, "X-Forwarded-For"),
            ("not_said", self.front.url, Status.OK, "nothing between"),
            ("not_believed", https, Status.WARNING, "trusted_proxies"),
            ("peer", https, Status.WARNING, "count as one"),
            ("peer", self.front.url, Status.OK, "directly"),
            (None, https, Status.SKIPPED, "older"),
        ):
            checks = self.checks(FJMCP_BROKER_PUBLIC_URL=url)
            checks._source = source
            self.assert_found(checks.client_address(), status, word)

    def test_certificate(self) -> None:
        """Nobody's, soon over, or good."""
        paths = write_certificate(str(self.directory))
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*paths)
        secure = self.scripted(context)
        secure.replies["/healthz"] = Reply.json(HEALTH)
        url = f"https://localhost:{secure.port}"
        checks = self.checks(FJMCP_BROKER_PUBLIC_URL=url)
        self.assert_found(checks.certificate(), Status.FAILED, "not valid")
        self.assert_found(checks.public(), Status.FAILED, "certificate", "chain")
        # OpenSSL reads the process's own environment.
        os.environ["SSL_CERT_FILE"] = paths[0]
        self.addCleanup(os.environ.pop, "SSL_CERT_FILE")
        self.assert_found(checks.certificate(), Status.WARNING, "ends in 0 days")
        self.patch(broker, "SOON_SECONDS", 3600)
        self.assert_found(checks.certificate(), Status.OK, "TLSv1.3")
        checks = self.checks(FJMCP_BROKER_PUBLIC_URL="https://nowhere.invalid")
        self.assert_found(checks.certificate(), Status.SKIPPED)

    def test_discovery(self) -> None:
        """A document that is missing, no document, or another service's."""
        for path, reply, word in (
            ("/.well-known/oauth-authorization-server", Reply(404), "404"),
            ("/.well-known/oauth-protected-resource/mcp", Reply(200, b"x"), "no doc"),
            (
                "/.well-known/oauth-protected-resource",
                Reply.json({"resource": "https://other.example/mcp"}),
                "other.example",
            ),
            (
                "/.well-known/oauth-authorization-server",
                Reply.json({"issuer": f"{self.front.url}/"}),
                "issuer",
            ),
        ):
            self.well()
            self.front.replies[path] = reply
            self.assert_found(self.checks().discovery(), Status.FAILED, word, path)

    def test_challenge(self) -> None:
        """A login of the proxy's own, a header taken away, a body instead."""
        for reply in (
            Reply(401, headers={"WWW-Authenticate": 'Basic realm="proxy"'}),
            Reply(401),
            Reply(200, b"<html>"),
            Reply(403),
        ):
            self.front.replies["/mcp"] = reply
            self.assert_found(self.checks().challenge(), Status.FAILED, "/mcp")
        url = f"{self.front.url}/.well-known/oauth-protected-resource/mcp"
        header = {"WWW-Authenticate": f'Bearer resource_metadata="{url}"'}
        self.front.replies["/mcp"] = Reply(401, headers=header)
        found = self.checks().challenge()
        self.assert_found(found, Status.FAILED, "does not arrive", "Authorization")
        self.front.replies["/mcp"] = Reply(429)
        self.assert_found(self.checks().challenge(), Status.SKIPPED)

    def test_streaming(self) -> None:
        """A proxy that waits for the end."""
        self.front.replies["/healthz/stream"] = Reply(200, b": 1\n\n: 2\n\n")
        found = self.checks().streaming()
        self.assert_found(found, Status.FAILED, "all at once", "flush_interval")
        packed = gzip.compress(b": 1\n\n: 2\n\n")
        header = {"Content-Encoding": "gzip"}
        for reply in (
            Reply(200, packed[:10], header, packed[10:]),
            Reply(200, b"no gzip", header, b"at all"),
            Reply(200, b": one event only", later=b"\n"),
        ):
            self.front.replies["/healthz/stream"] = reply
            self.assert_found(self.checks().streaming(), Status.FAILED)
        pack = zlib.compressobj(wbits=16 + zlib.MAX_WBITS)
        first = pack.compress(b": 1\n\n") + pack.flush(zlib.Z_SYNC_FLUSH)
        rest = pack.compress(b": 2\n\n") + pack.flush()
        self.front.replies["/healthz/stream"] = Reply(200, first, header, rest)
        self.assert_found(self.checks().streaming(), Status.OK)
        self.front.replies["/healthz/stream"] = Reply(429)
        self.assert_found(self.checks().streaming(), Status.SKIPPED, "429")
        for status in (403, 404, 502):
            self.front.replies["/healthz/stream"] = Reply(status)
            self.assert_found(self.checks().streaming(), Status.FAILED, str(status))

    def test_where_the_daemon_is_asked(self) -> None:
        """On this machine, whatever it listens on."""
        for listen, where in (
            ("0.0.0.0:5", ("http://127.0.0.1:5", None)),
            ("[::]:5", ("http://[::1]:5", None)),
            ("192.0.2.1:5", ("http://192.0.2.1:5", None)),
            ("unix:/run/x.sock:mode=660", ("http://localhost", "/run/x.sock")),
            ("systemd:domain=INET:index=0", None),
        ):
            config = self.config(FJMCP_BROKER_LISTEN=listen)
            self.assertEqual(local_url(config.server), where)


class ForgejoCheckTests(DoctorCase):
    """Forgejo as the daemon will use it."""

    def setUp(self) -> None:
        """A Forgejo that is well."""
        super().setUp()
        self.forgejo.replies = {
            "/api/v1/version": Reply.json({"version": "15.0.3+gitea-1.22.0"}),
            "/.well-known/openid-configuration": Reply.json(
                {
                    "authorization_endpoint": (
                        f"{self.forgejo.url}/login/oauth/authorize"
                    )
                }
            ),
            "/login/oauth/introspect": Reply.json({"active": False}),
        }

    def run_all(self, **more: str) -> dict[str, Finding]:
        """All of them."""
        checks = ForgejoChecks(self.config(**more), 5)
        return {found.check: found for found in checks.run()}

    def test_well(self) -> None:
        """The id and secret travel in the header; the link is there to be tried."""
        found = self.run_all()
        link = found.pop("redirect_uri")
        self.assertEqual({each.status for each in found.values()}, {Status.OK}, found)
        self.assert_found(link, Status.INFO, "oauth%2Fcallback", "client_id=client")
        self.assertIn("Basic ", self.forgejo.seen[-1][1]["Authorization"])

    def test_not_reached(self) -> None:
        """The link is shown all the same."""
        found = self.run_all(FORGEJO_URL=f"http://127.0.0.1:{free_port()}")
        self.assert_found(found["forgejo"], Status.FAILED, "nothing listens")
        self.assert_found(found["client"], Status.SKIPPED)
        self.assert_found(found["redirect_uri"], Status.INFO)

    def test_versions(self) -> None:
        """What is safe, and what is not."""
        for text, safe in (
            ("15.0.2", True),
            ("15.0.1", False),
            ("15.1.0", True),
            ("16.0.0", True),
            ("14.0.9", False),
            ("12.0.4", False),
            ("11.0.14", True),
            ("11.0.13", False),
            ("11.1.0", True),
            ("10.0.9", False),
            ("9.0.0", False),
            ("7.0.16", False),
        ):
            parts = tuple(int(part) for part in text.split("."))
            self.assertEqual(is_safe(parts), safe, text)  # type: ignore[arg-type]
            reply = Reply.json({"version": f"{text}+gitea-1.22.0"})
            self.forgejo.replies["/api/v1/version"] = reply
            found = self.run_all()["forgejo"]
            self.assert_found(found, Status.OK if safe else Status.FAILED, text)

    def test_no_forgejo(self) -> None:
        """Another program, a wrong path, a Gitea, one that tells nothing."""
        for reply, status, word in (
            (Reply(404), Status.FAILED, "404"),
            (Reply(200, b"<html>"), Status.FAILED, "no Forgejo"),
            (Reply.json(["x"]), Status.FAILED, "no Forgejo"),
            (Reply.json({"version": "1.22.0"}), Status.WARNING, "Gitea"),
            (Reply(403), Status.WARNING, "11.0.14"),
        ):
            self.forgejo.replies["/api/v1/version"] = reply
            self.assert_found(self.run_all()["forgejo"], status, word)

    def test_clocks(self) -> None:
        """Tokens expire by them."""
        past = "Sat, 01 Jan 2022 00:00:00 GMT"
        checks = ForgejoChecks(self.config(), 5)
        answer = Answer(200, {"date": past})
        self.assert_found(checks.clock(answer), Status.WARNING, "behind")
        self.assert_found(checks.clock(Answer(200, {})), Status.SKIPPED)
        self.assert_found(checks.clock(Answer(200, {"date": "x"})), Status.SKIPPED)

    def test_provider(self) -> None:
        """Switched off, or under another URL."""
        path = "/.well-known/openid-configuration"
        self.forgejo.replies[path] = Reply(404)
        found = self.run_all()["forgejo_oauth"]
        self.assert_found(found, Status.FAILED, "404", "[oauth2]")
        self.forgejo.replies[path] = Reply.json(
            {"authorization_endpoint": "http://localhost:3000/login/oauth/authorize"}
        )
        found = self.run_all()["forgejo_oauth"]
        self.assert_found(found, Status.WARNING, "localhost:3000", "ROOT_URL")

    def test_client(self) -> None:
        """A wrong id or secret, and something in between."""
        path = "/login/oauth/introspect"
        self.forgejo.replies[path] = Reply(401, b"no")
        found = self.run_all()["client"]
        self.assert_found(found, Status.FAILED, "oauth_client_secret", "Copy both")
        for reply in (Reply(500), Reply(200, b"<html>")):
            self.forgejo.replies[path] = reply
            self.assert_found(
                self.run_all()["client"], Status.FAILED, str(reply.status)
            )

    def test_wide_scopes(self) -> None:
        """Accepted, but worth a word."""
        found = self.run_all(
            FORGEJO_OAUTH_SCOPES="openid all",
            FJMCP_BROKER_FORGEJO_ALLOW_WIDE_SCOPES="true",
        )
        self.assert_found(found["scopes"], Status.WARNING, "all")


class MachineCheckTests(DoctorCase):
    """The child's program, the store, the disk."""

    def checks(self, **more: str) -> MachineChecks:
        """The checks."""
        return MachineChecks(self.config(**more), 5)

    def program(self, text: str) -> str:
        """An executable script."""
        path = self.directory / "program"
        path.write_text(f"#!/bin/sh\n{text}\n")
        path.chmod(0o755)
        return str(path)

    def make_store(self, **more: str) -> str:
        """A store with a key."""
        config = self.config(**more)
        instance = Instance(config.forgejo.url, config.forgejo.oauth_client_id)
        prepare(config.database.path, (), instance, int(time.time()))
        return config.database.path

    def test_child(self) -> None:
        """It runs and says its version."""
        found = self.checks(FORGEJO_MCP_BINARY=self.program("echo forgejo-mcp 2.34.1"))
        self.assert_found(found.child(), Status.OK, "2.34.1")

    def test_bad_children(self) -> None:
        """Missing, of another machine, angry, or deaf; no environment of ours."""
        for text, seconds, status, word in (
            ("echo what; exit 3", 20, Status.WARNING, "ended with 3"),
            ("sleep 60", 0.5, Status.FAILED, "does not end"),
            (
                'echo "$FORGEJO_OAUTH_CLIENT_SECRET."; exit 1',
                20,
                Status.WARNING,
                "said .",
            ),
        ):
            checks = MachineChecks(
                self.config(FORGEJO_MCP_BINARY=self.program(text)), seconds
            )
            self.assert_found(checks.child(), status, word)
        found = self.checks(FORGEJO_MCP_BINARY="/nowhere/forgejo-mcp").child()
        self.assert_found(found, Status.FAILED, "/nowhere/forgejo-mcp", "Install")
        path = self.directory / "program"
        path.write_bytes(b"\x7fELF\x01 of another machine")
        found = self.checks(FORGEJO_MCP_BINARY=str(path)).child()
        self.assert_found(found, Status.FAILED, "cannot be run")

    def test_helpers(self) -> None:
        """Without them children are protected less."""
        self.assert_found(self.checks().helpers(), Status.OK)
        self.patch(os, "environ", {"PATH": str(self.directory)})
        self.assert_found(self.checks().helpers(), Status.WARNING, "setpriv")

    def test_tls(self) -> None:
        """A pair that does not fit."""
        self.assert_found(self.checks().tls(), Status.SKIPPED)
        certificate, key = write_certificate(str(self.directory))
        config = self.config(
            FJMCP_BROKER_SERVER_TLS="required",
            FJMCP_BROKER_SERVER_TLS_CERT=certificate,
            FJMCP_BROKER_SERVER_TLS_KEY=key,
        )
        self.assert_found(MachineChecks(config, 5).tls(), Status.OK)
        Path(key).write_text("nothing")
        self.assert_found(MachineChecks(config, 5).tls(), Status.FAILED, "tls_key")

    def test_store(self) -> None:
        """Whole, and left as it is."""
        found = self.checks().store()
        self.assert_found(found, Status.WARNING, "no store", "database.path")
        self.assertEqual(list(self.directory.iterdir()), [])
        path = self.make_store()
        self.assert_found(self.checks().store(), Status.OK)
        self.assert_found(self.checks().users(), Status.OK, "0 users")
        Path(path).chmod(0o644)
        self.assert_found(self.checks().store(), Status.WARNING, "chmod 600")

    def test_store_of_another_instance(self) -> None:
        """Its user numbers mean other people."""
        self.make_store()
        found = self.checks(FORGEJO_OAUTH_CLIENT_ID="other").store()
        self.assert_found(found, Status.FAILED, "belongs to")

    def test_damaged_store(self) -> None:
        """Damaged, or something else."""
        path = self.make_store()
        Path(path).write_bytes(b"no database" * 1000)
        self.assert_found(self.checks().store(), Status.FAILED, "not a database")
        self.assert_found(self.checks().users(), Status.SKIPPED)

    def test_lost_key(self) -> None:
        """Values that nothing opens."""
        path = self.make_store()
        with closing(sqlite3.connect(path)) as connection, connection:
            users.upsert_user(connection, 7, "alice", "Alice", 1)
            sealer = Sealer([b"k" * 32])
            upstream_tokens.save(connection, sealer, rows.upstream(user_id=7))
        self.assert_found(self.checks().store(), Status.FAILED, "key that is not there")
        os.unlink(f"{path}.key")
        self.assert_found(self.checks().store(), Status.FAILED, "there is no key")

    def test_users_with_other_scopes(self) -> None:
        """Frozen at their first consent."""
        path = self.make_store()
        with closing(sqlite3.connect(path)) as connection, connection:
            connection.execute(
                "INSERT INTO users (user_id, login, display_name, first_seen_at,"
                " last_seen_at) VALUES (7, 'alice', 'Alice', 1, 1)"
            )
            connection.execute(
                "INSERT INTO upstream_tokens (user_id, sealed_access_token,"
                " sealed_refresh_token, expires_at, scope, state, refresh_digest,"
                " updated_at) VALUES (7, x'00', x'00', 1, 'openid read:user',"
                " 'needs_sign_in', x'00', 1)"
            )
        found = self.checks().users()
        self.assert_found(found, Status.WARNING, "1 of 1", "remove the application")

    def test_disk(self) -> None:
        """Room, also for a store that is not there yet."""
        checks = self.checks(FJMCP_BROKER_STORE_PATH=f"{self.directory}/a/b/broker.db")
        self.assertIn(checks.disk().status, (Status.OK, Status.WARNING))
        self.patch(machine, "LEAST_FREE_BYTES", shutil.disk_usage("/").total * 1000)
        self.assert_found(checks.disk(), Status.WARNING, "Make room")


class CommandTests(DoctorCase):
    """Output and exit status."""

    def run_command(self, *arguments: str, **more: str) -> tuple[int, str]:
        """Exit status and output."""
        output = StringIO()
        self.patch(sys, "stdout", output)
        kept = {name: os.environ[name] for name in ("PATH",)}
        self.patch(os, "environ", {**kept, **self.environment(**more)})
        return cli.main(["doctor", "--timeout", "2", *arguments]), output.getvalue()

    def test_configuration(self) -> None:
        """All problems of it, and nothing else is looked at."""
        status, text = self.run_command(FJMCP_BROKER_PUBLIC_URL="", FORGEJO_URL="x")
        self.assertEqual(status, 1)
        self.assertIn("server.public_url", text)
        self.assertIn("forgejo.url", text)
        self.assertNotIn("daemon:", text)

    def test_sick_installation(self) -> None:
        """Status 1, what failed and what to do; the same as JSON; no secret."""
        status, text = self.run_command()
        self.assertEqual(status, 1)
        self.assertIn("FAILED   forgejo:", text)
        self.assertIn("-> ", text)
        self.assertIn("failed,", text)
        self.assertNotIn(SECRET, text)
        status, text = self.run_command("--json")
        document = json.loads(text)
        self.assertEqual((status, document["ok"]), (1, False))
        self.assertEqual(document["version"], VERSION)
        names = [each["check"] for each in document["checks"]]
        self.assertEqual(len(names), len(set(names)))
        self.assertNotIn(SECRET, text)

    def test_configuration_warnings(self) -> None:
        """They count as warnings."""
        found = list(examine(None, self.environment(FJMCP_BROKER_UNKNOWN="1"), 1))
        self.assert_found(found[0], Status.WARNING, "FJMCP_BROKER_UNKNOWN")

    def test_lines(self) -> None:
        """Links stay in one piece."""
        link = "https://git.example.org/" + "x" * 200
        text = as_text(Finding("name", Status.INFO, "words " * 30, f"Open {link} now"))
        self.assertIn(link, text)
        self.assertTrue(text.endswith("\n"))
        self.assertIn('"fix": null', as_json([Finding("a", Status.OK, "b")], "1"))


class WholeTests(BrokerCase):
    """A real daemon and the stand-in Forgejo."""

    async def test_well(self) -> None:
        """Nothing fails, and nothing has changed."""
        daemon, forgejo = await self.launch()
        await self.session(daemon, forgejo)
        environment = {
            **forgejo.settings,
            "FJMCP_BROKER_PUBLIC_URL": daemon.url,
            "FJMCP_BROKER_LISTEN": f"127.0.0.1:{daemon.port}",
            "FJMCP_BROKER_STORE_PATH": f"{self.directory}/broker.db",
            "FJMCP_BROKER_CHILD_COMMAND": STAND_IN,
        }

        def look() -> list[Finding]:
            return list(examine(None, environment, 10))

        found = {each.check: each for each in await deferToThread(look)}
        statuses = {name: str(each.status) for name, each in found.items()}
        skipped = {name for name, status in statuses.items() if status == "skipped"}
        self.assertEqual(skipped, {"tls", "certificate"}, found)
        self.assertNotIn("failed", statuses.values(), found)
        self.assertEqual(statuses["streaming"], "ok", found)
        self.assertIn("the same daemon", found["public_url"].summary)
        self.assertIn("1 users", found["users"].summary)
